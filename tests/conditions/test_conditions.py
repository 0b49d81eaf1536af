"""What each condition gives to a network, and how several are joined."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.arrays import MissingEntry
from jaxgen.conditions.base import Condition
from jaxgen.conditions.embedding import Embedding
from jaxgen.conditions.image import Image, blurred
from jaxgen.conditions.label import Label
from jaxgen.conditions.parts import Parts, joined
from jaxgen.conditions.text import Text
from jaxgen.errors import UserError
from jaxgen.networks.pretrained.clip import TextTower
from jaxgen.networks.pretrained.text_encoder import TextEncoder

ENCODER = TextEncoder(vocabulary=9, length=5, width=8, depth=1, heads=2)
TOWER = TextTower(vocabulary=9, length=5, width=8, depth=1, heads=2, mlp_features=16)
SHAPE = (8, 8, 3)
KEYS = jax.random.split(jax.random.key(3), 4)


def batch():
    random = np.random.default_rng(0)
    return {
        "tokens": jnp.asarray([[4, 5, 1, 0, 0], [6, 1, 0, 0, 0], [6, 7, 8, 4, 1], [2, 1, 0, 0, 0]], jnp.int32),
        "condition": jnp.asarray(random.uniform(-1, 1, (4, 4, 4, 3)), jnp.float32),
        "embedding": jnp.asarray(random.normal(size=(4, 6)), jnp.float32),
        "label": jnp.arange(4),
    }


def given(part, changed=None, keys=KEYS, train=False):
    params = part.init(jax.random.key(0), batch())
    return part(params, {**batch(), **(changed or {})}, keys, SHAPE, train)


@pytest.mark.parametrize(
    "part", [Text(ENCODER), Text(TOWER, pooled=True), Image(), Image(noise=0.5), Embedding(tokens=2, width=5), Label(4)]
)
def test_a_condition_gives_what_it_says_and_reads_no_more(part):
    alone = {name: batch()[name] for name in part.entries}
    params = jax.jit(part.init)(jax.random.key(0), alone)
    call = jax.jit(lambda params, batch, keys: part(params, batch, keys, SHAPE, True))
    found = call(params, alone, KEYS)
    assert found.keys() == {*part.gives}
    null = part.null(alone)
    assert null.keys() == alone.keys()
    assert all(null[name].shape == alone[name].shape and null[name].dtype == alone[name].dtype for name in null)
    assert bool(params) == part.learns and bool(part.group("mine")) == part.learns
    other = {name: jnp.concatenate([value[:1], value[:0:-1]]) for name, value in alone.items()}
    changed = call(params, other, jnp.concatenate([KEYS[:1], KEYS[:0:-1]]))
    for name, value in changed.items():
        np.testing.assert_array_equal(value[0], found[name][0])


@pytest.mark.slow
def test_a_text_is_told_by_its_tokens_or_as_a_whole():
    both = given(Text(TOWER, pooled=True))
    assert both["context"].shape == (4, 5, 8) and both["vector"].shape == (4, 8)
    np.testing.assert_array_equal(both["context_mask"], batch()["tokens"] != 0)
    whole = given(Text(TOWER, pooled=True, context=False))
    assert whole.keys() == {"vector"}
    np.testing.assert_array_equal(whole["vector"], both["vector"])
    assert "context_mask" not in given(Text(ENCODER, mask_padding=False))
    with pytest.raises(UserError, match="pooled is set, and TextEncoder gives the features of tokens alone"):
        given(Text(ENCODER, pooled=True))


def test_normalised_features_of_a_text_have_no_scale_of_their_own():
    found, plain = given(Text(TOWER, pooled=True, normalise=True)), given(Text(TOWER, pooled=True))
    for name in ("context", "vector"):
        np.testing.assert_allclose(found[name].mean(-1), 0, atol=1e-5)
        np.testing.assert_allclose(found[name].std(-1), 1, atol=1e-2)
        centred = plain[name] - plain[name].mean(-1, keepdims=True)
        lengths = jnp.linalg.norm(centred, axis=-1) * jnp.linalg.norm(found[name], axis=-1)
        np.testing.assert_allclose((centred * found[name]).sum(-1) / lengths, 1, atol=1e-5)


def test_the_null_of_a_text_is_the_empty_one_or_a_negative_prompt():
    part = Text(ENCODER, empty=(3, 1), entry="words")
    words = {"words": batch()["tokens"]}
    np.testing.assert_array_equal(part.null(words)["words"], [[3, 1, 0, 0, 0]] * 4)
    other = batch()["tokens"][::-1]
    np.testing.assert_array_equal(part.null({**words, "null_words": other})["words"], other)
    assert part.limits == {"words": 9, "null_words": 9} and part.shapes["words"][0] == (5,)


def test_a_picture_has_the_size_of_what_is_diffused():
    part = Image()
    found = given(part, {"condition": jnp.full((4, 4, 4, 3), 0.25)})["condition"]
    np.testing.assert_allclose(found, jnp.full((4, *SHAPE), 0.25), atol=1e-6)
    fitting = jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (4, *SHAPE)), jnp.float32)
    np.testing.assert_array_equal(given(part, {"condition": fitting})["condition"], fitting)
    with pytest.raises(
        UserError, match=r"reads the entry 'condition' as pictures .*, and it has the shape \(4, 8, 8\)"
    ):
        given(part, {"condition": fitting[..., 0]})


def test_noise_of_a_picture_keeps_its_power_and_its_level_is_told():
    keys = jax.random.split(jax.random.key(0), 400)
    picture = {"condition": jnp.asarray(np.random.default_rng(1).normal(size=(400, *SHAPE)), jnp.float32)}
    part = Image(noise=1.0, sampling_noise=0.6)
    drawn = part({}, picture, keys, SHAPE, True)
    kept = (drawn["condition"] * picture["condition"]).mean((1, 2, 3))  # sqrt(1 - s^2), of an s in [0, 1]
    np.testing.assert_allclose(kept.mean(), np.pi / 4, atol=0.03)
    np.testing.assert_allclose(drawn["condition"].std(), 1, atol=0.01)
    assert len(np.unique(np.round(drawn["vector"], 4), axis=0)) > 390
    used = part({}, picture, keys, SHAPE, False)
    np.testing.assert_allclose((used["condition"] * picture["condition"]).mean(), 0.8, atol=0.02)
    np.testing.assert_array_equal(used["vector"], jnp.broadcast_to(used["vector"][0], used["vector"].shape))
    clean = Image(noise=1.0)({}, picture, keys, SHAPE, False)
    np.testing.assert_array_equal(clean["condition"], picture["condition"])
    with pytest.raises(UserError, match="adds noise, which needs a key for each image"):
        part({}, picture, None, SHAPE, False)


def test_an_embedding_becomes_tokens_by_a_linear_map():
    part = Embedding(tokens=4, width=8)
    params = part.init(jax.random.key(0), batch())
    a, b = batch()["embedding"], batch()["embedding"][::-1]
    told = [part(params, {"embedding": x}, None, SHAPE)["context"] for x in (a, b, a + b, 0 * a)]
    assert told[0].shape == (4, 4, 8)
    np.testing.assert_allclose(told[0] + told[1], told[2] + told[3], atol=1e-5)
    assert Embedding(vector=False, tokens=1, width=2).gives == ("context",)


def test_an_embedding_of_another_width_than_a_part_says_is_refused():
    width = batch()["embedding"].shape[1]
    assert Embedding(size=width).shapes == {"embedding": ((width,), "float32")} and not Embedding().shapes
    Embedding(size=width)({}, batch(), None, SHAPE)
    with pytest.raises(UserError, match=f"has size=99, and the entry 'embedding' has vectors of {width} numbers"):
        Embedding(size=99)({}, batch(), None, SHAPE)


def test_what_several_give_is_joined():
    one = {"context": jnp.ones((2, 3, 4)), "context_mask": jnp.asarray([[1, 1, 0]] * 2), "vector": jnp.ones((2, 5))}
    two = {"context": jnp.zeros((2, 1, 4)), "vector": jnp.zeros((2, 1)), "condition": jnp.ones((2, 8, 8, 3))}
    three = {"condition": jnp.zeros((2, 8, 8, 1)), "camera": jnp.ones((2, 16))}
    found = joined({"one": one, "two": two, "three": three})
    assert {k: v.shape for k, v in found.items()} == {
        "context": (2, 4, 4), "context_mask": (2, 4), "vector": (2, 6), "condition": (2, 8, 8, 4), "camera": (2, 16),
    }  # fmt: skip
    np.testing.assert_array_equal(found["context_mask"], [[1, 1, 0, 1]] * 2)
    np.testing.assert_array_equal(found["context"][:, 3], 0)
    assert joined({"one": one})["context_mask"] is one["context_mask"]
    with pytest.raises(UserError, match="different widths, 4 of one, 2 of other: they must be equal"):
        joined({"one": one, "other": {"context": jnp.ones((2, 3, 2))}})


def test_own_conditions_are_dropped_together_and_others_alone():
    n = 4000
    many = {
        "label": jnp.zeros(n, jnp.int32), "tokens": jnp.full((n, 3), 7, jnp.int32), "condition": jnp.ones((n, 2, 2, 1)),
        "embedding": jnp.ones((n, 2)),
    }  # fmt: skip
    own = {"label": Label(3), "text": Text(ENCODER)}
    named = {"image": Image(dropout=0.5), "embedding": Embedding(dropout=0.25)}
    found = Parts(own, named, dropout=0.2).dropped(many, jax.random.key(0))
    gone = {
        "label": found["label"] == 3, "text": found["tokens"][:, 0] == 1, "image": found["condition"][:, 0, 0, 0] == 0,
        "embedding": found["embedding"][:, 0] == 0,
    }  # fmt: skip
    np.testing.assert_array_equal(gone["label"], gone["text"])
    for name, share in (("label", 0.2), ("image", 0.5), ("embedding", 0.25)):
        assert abs(float(gone[name].mean()) - share) < 0.03, name
    both = float((gone["image"] & gone["embedding"]).mean())
    assert abs(both - 0.125) < 0.02  # independent
    assert Parts(own, {}, 0.0).dropped(many, jax.random.key(0)) == many


def test_parts_that_read_one_entry_are_dropped_together():
    part = Image(dropout=0.5)
    once = Parts({}, {"one": part}).dropped(batch(), jax.random.key(0))
    twice = Parts({}, {"one": part, "two": dataclasses.replace(part, noise=0.1)})
    twice.check(())
    np.testing.assert_array_equal(twice.dropped(batch(), jax.random.key(0))["condition"], once["condition"])
    with pytest.raises(UserError, match=r"parts\.two reads the entry 'condition' as 'one' does.*give them the same"):
        Parts({}, {"one": part, "two": Image()}).check(())
    own = {"text": Text(ENCODER)}
    Parts(own, {"style": Text(ENCODER)}, 0.1).check(())
    with pytest.raises(UserError, match=r"parts\.style reads the entry 'tokens' as 'text' does.*leave its dropout"):
        Parts(own, {"style": Text(ENCODER, dropout=0.1)}, 0.1).check(())


def test_guidance_leads_away_from_what_the_network_knows_the_null_of():
    parts = Parts({"label": Label(3)}, {"image": Image(), "text": Text(ENCODER, knows_null=True)})
    assert list(parts.guiding) == ["text"]
    assert parts.null(batch()).keys() == {"tokens"}
    assert list(Parts({"label": Label(3)}, {"image": Image(dropout=0.1)}, own_guide=True).guiding) == ["label", "image"]


def test_the_order_of_the_config_changes_nothing():
    parts = {"b": Image("condition"), "a": Image("other")}
    told = {"condition": jnp.ones((1, 8, 8, 1)), "other": jnp.zeros((1, 8, 8, 1))}
    for named in (parts, dict(reversed(parts.items()))):
        found = Parts({}, named)({}, told, None, SHAPE)
        np.testing.assert_array_equal(found["condition"][0, 0, 0], [0, 1])


def test_parts_may_share_weights():
    frozen = Text(ENCODER, learns=False, shares="clip")
    parts = Parts({}, {"text": frozen, "style": dataclasses.replace(frozen, entry="style"), "own": Text(ENCODER)})
    assert list(parts.frozen) == ["clip"] and list(parts.learned) == ["own"]
    assert parts.entries == ("tokens", "style")


def test_a_part_that_is_told_nothing_or_tells_something_else_is_named():
    with pytest.raises(
        MissingEntry, match=r"config\.method\.parts\.text reads the entry 'tokens' of a batch that has im"
    ):
        Parts({}, {"text": Text(ENCODER)})({}, {"image": jnp.zeros(3)}, None, SHAPE)

    @dataclasses.dataclass(frozen=True)
    class Liar(Condition):
        entries = ("label",)
        gives = ("vector",)

        def __call__(self, params, batch, keys, shape, train=False):
            return {"label": batch["label"]}

    with pytest.raises(UserError, match="parts.liar gives label, and its `gives` says vector: correct Liar"):
        Parts({}, {"liar": Liar()})({}, batch(), None, SHAPE)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Image(dropout=1.0), "dropout of a part .* is a share below 1, not 1.0"),
        (lambda: Image(noise=0.2, sampling_noise=0.5), "noise <= 1, not 0.5 and 0.2: set sampling_noise"),
        (lambda: Image(blur=(0.6, 0.4)), r"the smaller first, .* not \(0.6, 0.4\) and 0.5"),
        (lambda: Embedding(tokens=3), "tokens of a width above 0"),
        (lambda: Embedding(vector=False), "gives a vector, or tokens"),
        (lambda: Text(ENCODER, empty=(9,)), r"The empty text \(9,\), filled up with 0, is no text of TextEncoder"),
        (lambda: Text(ENCODER, pad=-1), "is no text of TextEncoder"),
        (lambda: Text(ENCODER, empty=(1,) * 6), r"reads up to 5 ids in \[0, 9\): set empty and pad"),
        (lambda: Text(ENCODER, empty=(1, 1)).null({"tokens": jnp.zeros((2, 1), int)}), "longer than the texts of the"),
    ],
)
def test_options_that_do_not_go_together_are_refused(make, said):
    with pytest.raises(UserError, match=said):
        make()


def test_a_blur_is_a_gaussian_of_each_picture_s_own_width_and_keeps_means():
    sigma = jnp.asarray([0.0, 0.5, 1.5, 3.0])
    point = jnp.zeros((4, 31, 31, 1)).at[:, 15, 15].set(1.0)
    seen = np.asarray(jax.jit(blurred, static_argnums=2)(point, sigma, 14))[..., 0].astype(np.float64)
    np.testing.assert_allclose(seen.sum((1, 2)), 1, atol=1e-5)
    np.testing.assert_array_equal(seen[0], point[0, ..., 0])
    rows = np.arange(31) - 15
    for picture, width in zip(seen[2:], (1.5, 3.0), strict=True):
        assert abs(np.sqrt((picture.sum(1) * rows**2).sum()) - width) < 0.02
        np.testing.assert_allclose(picture, picture.T, atol=1e-7)
    flat = blurred(jnp.full((1, 5, 5, 2), 0.3), jnp.ones(1), 3)  # reflected, so that borders are not darkened
    np.testing.assert_allclose(flat, 0.3, rtol=1e-6)


def test_only_training_pictures_are_blurred_and_only_a_share_of_them():
    picture = jax.random.uniform(jax.random.key(0), (400, 4, 4, 1), minval=-1, maxval=1)
    keys = jax.random.split(jax.random.key(1), 400)
    part, plain = Image(blur=(0.4, 0.6), blur_share=0.25), Image()

    def told(part):
        return jax.jit(lambda picture, keys: part({}, {"condition": picture}, keys, SHAPE, True))(picture, keys)

    shown, clean = (told(one)["condition"] for one in (part, plain))
    share = (np.abs(shown - clean).max((1, 2, 3)) > 0).mean()
    assert 0.15 < share < 0.35
    np.testing.assert_array_equal(part({}, {"condition": picture}, None, SHAPE)["condition"], clean)
    noisy = [told(dataclasses.replace(one, noise=0.5))["vector"] for one in (part, plain)]
    np.testing.assert_array_equal(*noisy)  # the noise draws what it drew without
    with pytest.raises(UserError, match="blurs, which needs a key for each image"):
        part({}, {"condition": picture}, None, SHAPE, True)
