"""CLIP as a method: its loss, temperature, captions, prompts and retrieval, on one device and on several."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tiny_methods import tiny_config

from jaxgen.arrays import to_uint8
from jaxgen.config import section
from jaxgen.data.sources import caption_shapes
from jaxgen.diffusion.schedules import Cosine
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.methods.contrastive.clip import CLIP
from jaxgen.methods.contrastive.prompts import Prompts, class_embeddings
from jaxgen.methods.contrastive.retrieval import info_nce, logit_scale, recalls
from jaxgen.networks.contrastive.captioner import Captioner
from jaxgen.networks.contrastive.resnet_tower import ResNetTower
from jaxgen.networks.pretrained import clip as networks
from jaxgen.networks.pretrained.clip import ImageTower, TextTower, unit
from jaxgen.runs.setup import make_method

WORDS, LENGTH, SPACE = 12, 6, 8
IMAGE = ImageTower(size=8, patch=4, width=16, depth=1, heads=2, mlp_features=24, projection=SPACE)
TEXT = TextTower(vocabulary=WORDS, length=LENGTH, width=16, depth=1, heads=2, mlp_features=24, end=1, projection=SPACE)
CAPTIONER = Captioner(vocabulary=WORDS, width=16, depth=1, heads=2, mlp_features=24)
METHOD = CLIP(IMAGE, TEXT, (8, 8, 3), CAPTIONER, schedule=None)
COUNT = 16


def batch_of(count=COUNT, seed=0):
    chance = np.random.default_rng(seed)
    tokens = chance.integers(2, WORDS, (count, LENGTH)).astype(np.int32)
    for row, end in zip(tokens, chance.integers(1, LENGTH, count), strict=True):
        row[end], row[end + 1 :] = 1, 0
    images = chance.uniform(-1, 1, (count, 8, 8, 3)).astype(np.float32)
    return {"image": images, "tokens": tokens, "label": np.arange(count, dtype=np.int32) % 2}


@pytest.fixture(scope="module")
def params():
    """Large random weights, so that nothing hides behind an initialisation."""
    chance = np.random.default_rng(2)

    def drawn(path, leaf):
        name = jax.tree_util.keystr(path, simple=True)
        normal = chance.normal(size=leaf.shape).astype(np.float32)
        return 1 + 0.1 * normal if name.endswith("scale") else (0.5 if leaf.ndim > 1 else 0.1) * normal

    return jax.tree_util.tree_map_with_path(drawn, shapes_of(METHOD))


def shapes_of(method):
    return jax.eval_shape(lambda b: method.init(jax.random.key(0), b, 0, {}, {}, {})[0], batch_of())


@pytest.fixture(scope="module")
def loss():
    """`loss(params, batch)` -> ((value, metrics), gradients), compiled once for each placement."""

    def value(params, batch):
        found, (metrics, _) = METHOD.loss(params, batch, jax.random.key(1), None)
        return found, metrics

    return jax.jit(jax.value_and_grad(value, has_aux=True))


def units(count, seed):
    return unit(jnp.asarray(np.random.default_rng(seed).normal(size=(count, 5)), jnp.float32))


def test_the_contrastive_loss_of_two_pairs_is_that_of_pen_and_paper():
    """Cosines 1 and 0 at scale s: every row is softplus(-s)."""
    eye = jnp.eye(2)
    for scale in (0.0, 1.0, 7.0):
        value, nearest = info_nce(eye, eye, jnp.asarray(scale))
        assert value == pytest.approx(np.log1p(np.exp(-scale)), abs=1e-6) and (nearest == 1 or scale == 0)
    assert info_nce(eye, eye[::-1], jnp.asarray(2.0))[0] == pytest.approx(np.log1p(np.exp(2.0)), rel=1e-5)


def test_the_contrastive_loss_is_symmetric_and_knows_no_order():
    image, text, scale = units(6, 0), units(6, 1), jnp.asarray(5.0)
    value = info_nce(image, text, scale)[0]
    assert info_nce(text, image, scale)[0] == pytest.approx(float(value), rel=1e-5)
    order = np.random.default_rng(3).permutation(6)
    assert info_nce(image[order], text[order], scale)[0] == pytest.approx(float(value), rel=1e-5)
    assert info_nce(image, text[np.roll(order, 1)], scale)[0] != pytest.approx(float(value), rel=1e-3)


def test_the_temperature_is_clamped_and_comes_back():
    at_limit = float(np.log(100))
    assert logit_scale(jnp.asarray(9.0)) == 100 and logit_scale(jnp.asarray(1.0)) == pytest.approx(np.e, rel=1e-6)
    towards = jax.grad(lambda s, sign: sign * logit_scale(s))
    assert towards(at_limit + 0.1, -1.0) == 0  # descent would raise it
    assert towards(at_limit + 0.1, 1.0) == pytest.approx(100, rel=1e-5)
    assert towards(1.0, -1.0) == pytest.approx(-np.e, rel=1e-5)


@pytest.mark.slow
def test_one_two_and_eight_devices_give_one_loss(params, loss, devices):
    batch = batch_of()
    found = []
    for count in (1, 2, devices):
        mesh = Mesh(np.asarray(jax.devices()[:count]), "data")
        placed = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
        whole = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
        (value, metrics), gradient = loss(whole, placed)
        kernel = np.asarray(gradient["image"]["projection"]["kernel"])
        found.append((float(value), float(metrics["contrastive"]), kernel))
    assert devices == 8
    for other in found[1:]:
        np.testing.assert_allclose(other[:2], found[0][:2], rtol=1e-5)
        np.testing.assert_allclose(other[2], found[0][2], atol=1e-5 * np.abs(found[0][2]).max())
    parts = [slice(0, COUNT // 2), slice(COUNT // 2, COUNT)]  # each with its own negatives alone
    halves = [loss(params, {name: values[part] for name, values in batch.items()})[0][1] for part in parts]
    assert np.mean([float(half["contrastive"]) for half in halves]) < found[0][1] - 0.1


def test_each_objective_is_switched_off_alone(params):
    batch, key = batch_of(), jax.random.key(0)
    methods = METHOD, dataclasses.replace(METHOD, captioner=None), dataclasses.replace(METHOD, contrastive=0.0)
    both, alone, words = jax.jit(lambda p: [method.loss(p, batch, key, None) for method in methods])(params)
    assert float(both[0]) == pytest.approx(float(alone[0] + words[0]), rel=1e-5)
    assert set(alone[1][0]) == {"contrastive", "accuracy", "logit_scale"}
    assert set(words[1][0]) == {"captioning", "token_accuracy"}
    for method, groups in (
        (METHOD, ("image", "text", "logit_scale", "captioner")),
        (dataclasses.replace(METHOD, captioner=None), ("image", "text", "logit_scale")),
        (dataclasses.replace(METHOD, captioning=0.0), ("image", "text", "logit_scale")),
        (dataclasses.replace(METHOD, contrastive=0.0), ("image", "text", "captioner")),
        (dataclasses.replace(METHOD, locked=("text",)), ("image", "logit_scale", "captioner")),
    ):
        assert method.turns(0)[0].groups == groups
        assert set(shapes_of(method)) == set(groups)


@pytest.fixture(scope="module")
def written(params):
    """Captions of the batch's images, and the logits of the same captions."""

    def write(params, images, keys):
        seen, _ = IMAGE.apply({"params": params["image"]}, images)
        tokens = METHOD.written(params, seen, keys)
        read, _ = TEXT.apply({"params": params["text"]}, tokens)
        return tokens, CAPTIONER.apply({"params": params["captioner"]}, read, seen)

    tokens, logits = jax.jit(write)(params, batch_of()["image"], jax.random.split(jax.random.key(0), COUNT))
    return np.asarray(tokens), np.asarray(logits)


def test_written_tokens_are_the_likeliest_behind_those_before_them(written):
    tokens, logits = written
    ends = (tokens == 1).argmax(axis=1)
    assert (tokens == 1).sum(axis=1).tolist() == [1] * COUNT  # each ends once, at the latest in the last place
    for row, best, end in zip(tokens, logits.argmax(axis=-1), ends, strict=True):
        np.testing.assert_array_equal(row[:end], best[:end])
        assert end == LENGTH - 1 or best[end] == 1
        assert (row[end + 1 :] == 0).all()
    assert len({tuple(row) for row in tokens}) > 3  # it looks at the images


def test_a_token_is_predicted_from_those_before_it_and_from_the_image(params):
    apply = jax.jit(lambda tokens, seen: CAPTIONER.apply(
        {"params": params["captioner"]}, TEXT.apply({"params": params["text"]}, tokens)[0], seen
    ))  # fmt: skip
    tokens = batch_of(4)["tokens"]
    seen = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 16)), jnp.float32)
    other = tokens.copy()
    other[:, 3] = (tokens[:, 3] + 1) % WORDS
    gap = np.abs(apply(tokens, seen) - apply(other, seen)).max(axis=(0, 2))
    assert (gap[:4] < 1e-6).all() and (gap[4:] > 1e-4).all()
    assert np.abs(apply(tokens, seen) - apply(tokens, jnp.roll(seen, 1, axis=0))).max(axis=(0, 2)).min() > 1e-4


@pytest.mark.slow
def test_a_warm_caption_depends_on_its_key_and_not_on_its_neighbours(params):
    warm = dataclasses.replace(METHOD, caption_temperature=5.0)
    model, batch, keys = Model(params, {}), batch_of(), jax.random.split(jax.random.key(3), COUNT)
    sample = jax.jit(lambda keys, images: warm.sample(model, keys, {"image": images})["tokens"])
    whole = np.asarray(sample(keys, batch["image"]))
    order = np.arange(COUNT)[::-1]
    np.testing.assert_array_equal(sample(keys[order], batch["image"][order]), whole[order])
    assert (np.asarray(sample(keys[order], batch["image"])) != whole).any()


def test_towers_with_a_projection_are_those_of_the_whole_network(params):
    whole = networks.CLIP(IMAGE.clone(projection=0), TEXT.clone(projection=0), SPACE)
    parts = {
        **{tower: {k: v for k, v in params[tower].items() if k != "projection"} for tower in ("image", "text")},
        **{f"{tower}_projection": params[tower]["projection"] for tower in ("image", "text")},
        "logit_scale": params["logit_scale"]["logit_scale"],
    }
    batch = batch_of()
    image, text, _ = whole.apply({"params": parts}, batch["image"], batch["tokens"])
    np.testing.assert_allclose(METHOD.embed_image(params, batch["image"]), image, atol=1e-5)
    np.testing.assert_allclose(METHOD.embed_text(params, batch["tokens"]), text, atol=1e-5)


NOISED = dataclasses.replace(
    METHOD, image=IMAGE.clone(timed=True), captioner=None, schedule=Cosine(steps=1000),
    zero_shot={"class": Prompts(("one", "two"), tokens=(((3, 1, 0, 0, 0, 0),), ((4, 1, 0, 0, 0, 0),)))},
)  # fmt: skip


def test_a_tower_of_noisy_images_begins_as_the_clean_one_and_reads_the_time(params):
    image, times = batch_of()["image"], (jnp.full(COUNT, 10.0), jnp.full(COUNT, 900.0))
    fresh = networks.TimeFeatures(16, 16).init(jax.random.key(0), times[0])["params"]
    apply = jax.jit(lambda params, t: NOISED.image.apply({"params": params}, image, t)[1])
    early, late = (apply({**params["image"], "time": fresh}, t) for t in times)
    np.testing.assert_array_equal(early, late)
    np.testing.assert_allclose(early, IMAGE.apply({"params": params["image"]}, image)[1], atol=1e-5)
    chance = np.random.default_rng(0)
    moved = jax.tree.map(lambda x: x + chance.normal(size=x.shape).astype(np.float32), fresh)
    early, late = (apply({**params["image"], "time": moved}, t) for t in times)
    assert np.abs(early - late).max() > 1e-2


@pytest.mark.slow
def test_scores_of_a_tower_of_noisy_images_are_also_by_time(params):
    chance, keys = np.random.default_rng(0), jax.random.split(jax.random.key(0), COUNT)
    fresh = jax.tree.map(lambda x: 0.1 * chance.normal(size=x.shape).astype(np.float32), shapes_of(NOISED))

    @jax.jit
    def run(params):
        losses = [NOISED.loss(params, batch_of(), jax.random.key(k), None)[0] for k in (0, 0, 1)]
        return NOISED.scores(Model(params, {}), keys, batch_of()), losses

    scores, losses = jax.tree.map(np.asarray, run(fresh))
    found = NOISED.summary(scores)
    names = {f"recall_{way}@{k}" for way in ("text_to_image", "image_to_text") for k in (1, 5, 10)}
    times = {f"accuracy_by_time@{t}" for t in (0.05, 0.25, 0.5, 0.75, 0.95)}
    assert set(found) == names | times | {"accuracy", "accuracy_class"}
    assert all(0 <= value <= 1 for value in found.values()) and found["accuracy"] == found["accuracy_class"]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("timed", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_convolutional_tower_gives_each_image_its_own_embedding(timed):
    tower = ResNetTower(size=8, widths=(8, 16), heads=2, norm_groups=4, projection=SPACE, timed=timed)
    image = batch_of(4)["image"]
    more = (jnp.arange(4.0),) if timed else ()
    params = jax.jit(tower.init)(jax.random.key(0), image, *more)["params"]
    run = jax.jit(lambda image, *more: tower.apply({"params": params}, image, *more))
    hidden, pooled = run(image, *more)
    assert hidden.shape == (4, 1 + 16, 16) and pooled.shape == (4, SPACE)
    order = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(run(image[order], *(t[order] for t in more))[1], pooled[order], atol=1e-5)
    with pytest.raises(UserError, match="needs their time" if timed else "takes no time"):
        tower.apply({"params": params}, image, *(() if timed else (jnp.zeros(4),)))


def test_recall_counts_partners_or_those_that_are_the_same():
    queries = np.eye(3, dtype=np.float32)
    found = np.array([[0.5, 0.1, 0], [0.9, 0.2, 0], [0, 0.1, 1]], np.float32)
    own = np.arange(3)[:, None]
    # the first query finds 1 before 0, the second finds 1 first, the third 2
    np.testing.assert_allclose(recalls(queries, found, own, (1, 2, 50)), [2 / 3, 1, 1])
    np.testing.assert_allclose(recalls(queries, found, np.array([[7], [7], [8]]), (1, 2)), [1, 1])
    np.testing.assert_allclose(recalls(queries, np.zeros((3, 3)), own, (1, 3)), [0, 1])  # ties count against it


def test_a_class_is_the_mean_of_its_sentences():
    vectors = jnp.asarray([[1.0, 0], [0, 1], [-1, 0], [0.6, 0.8]])
    found = class_embeddings(jnp.asarray([[[0], [1]], [[2], [3]]]), lambda tokens: vectors[tokens[:, 0]])
    np.testing.assert_allclose(found, [[2**-0.5, 2**-0.5], unit(jnp.asarray([-0.4, 0.8]))], atol=1e-6)
    many = jnp.broadcast_to(jnp.asarray([[0], [1]]), (300, 2, 1))  # more than are encoded together
    np.testing.assert_allclose(
        class_embeddings(many, lambda tokens: vectors[tokens[:, 0]]), np.full((300, 2), 2**-0.5), atol=1e-6
    )


def config_of(**method):
    """A small CLIP on captioned shapes."""
    config = tiny_config("Plain")
    words = caption_shapes.PHRASE_TOKENIZER.size
    sizes = {"width": 16, "depth": 1, "heads": 2, "mlp_features": 24}
    config.method = section(
        name="clip", image=section(name="image_tower", size=8, patch=4, projection=8, **sizes),
        text=section(name="text_tower", vocabulary=words, length=16, end=1, projection=8, **sizes),
        captioner=section(name="captioner", vocabulary=words, **sizes), **method,
    )  # fmt: skip
    config.data.update(source="caption_shapes:phrases", channels=3)
    return config


def test_prompts_become_tokens_of_the_data():
    prompts = section(classes=("red", "crimson"), templates=("a {} disc", "there is a {} box"), entry="attributes")
    method = make_method(config_of(zero_shot=section(colour=prompts)))
    found = method.zero_shot["colour"]
    tokens = caption_shapes.PHRASE_TOKENIZER(["a red disc", "there is a red box", "a crimson disc"])
    assert found.classes == ("red", "crimson") and np.shape(found.tokens) == (2, 2, 16)
    np.testing.assert_array_equal(np.asarray(found.tokens)[[0, 0, 1], [0, 1, 0]], tokens)


def test_a_tower_that_ends_texts_elsewhere_than_the_data_is_refused():
    config = config_of()
    config.method.text.end = None
    with pytest.raises(UserError, match=r"end is None \(the largest id\).*set config.method.text.end=1"):
        make_method(config)
    with pytest.raises(UserError, match="pad is 1, and the tokenizer of the data pads with 0"):
        make_method(config_of(pad=1))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"contrastive": 0.0, "captioning": 0.0}, "neither is on"),
        ({"locked": ("txt",)}, r"locked=\('txt',\)"),
        ({"recall": (0,)}, "each 1 or more"),
        ({"schedule": "cosine"}, "timed is False and the schedule is set"),
        ({"zero_shot": section(colour=section(classes=("red",)))}, "two classes or more"),
        ({"zero_shot": section(colour=section(classes=("red", "blue"), templates=("a",)))}, "templates with {}"),
        ({"zero_shot": section(colour=section(classes=("red", "mauve")))}, "'mauve'"),
        ({"zero_shot": section(colour=section(clases=("red", "blue")))}, "zero_shot.colour"),
    ],
)
def test_what_cannot_be_is_said(change, says):
    with pytest.raises(UserError, match=says):
        make_method(config_of(**change))


def test_towers_of_two_spaces_and_two_vocabularies_are_refused():
    config = config_of()
    config.method.text.projection = 4
    with pytest.raises(UserError, match="same number of features, not 8 and 4"):
        make_method(config)
    config = config_of()
    config.method.captioner.vocabulary = 9
    with pytest.raises(UserError, match="read and write the same tokens"):
        make_method(config)


def test_the_panel_shows_an_image_beside_those_nearest_to_its_caption(params):
    batch = batch_of()
    (panel,) = METHOD.panels(Model(params, {}), jax.random.split(jax.random.key(0), COUNT), batch).values()
    rows = np.asarray(panel).reshape(8, 6, 8, 8, 3)
    np.testing.assert_array_equal(to_uint8(rows[:, 0]), to_uint8(jnp.asarray(batch["image"][:8])))
    similar = np.asarray(METHOD.embed_text(params, batch["tokens"]) @ METHOD.embed_image(params, batch["image"]).T)
    np.testing.assert_array_equal(rows[:, 1], batch["image"][similar[:8].argmax(axis=1)])
