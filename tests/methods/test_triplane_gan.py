"""The triplane GAN: objects of their own keys and words, seen alike by any camera, and what is refused."""

from __future__ import annotations

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxgen.arrays import MissingEntry
from jaxgen.build import build
from jaxgen.config import section
from jaxgen.data.sources.solids.solids import TOKENIZER
from jaxgen.errors import UserError
from jaxgen.geometry import cameras, surface
from jaxgen.methods.base import Model
from jaxgen.methods.gans import triplane_gan

CAPTIONS = ("a red cube on a blue sphere", "a blue cube on a red sphere", "a red cube on a blue sphere")


def make(generator=None, discriminator=None, **options):
    words = {"vocabulary": TOKENIZER.size, "words": 8}
    parts = {
        "generator": {
            "name": "triplane_generator", "z_dim": 4, "widths": (8,), "features": 4, "hidden": 4, "samples": 4,
            "attention_heads": 2, **words,
        } | (generator or {}),
        "discriminator": {"name": "camera_discriminator", "widths": (4, 8), **words} | dict(discriminator or {}),
    }  # fmt: skip
    given = {name: section(**part) for name, part in parts.items()}
    if isinstance(discriminator, ConfigDict):  # another one
        given["discriminator"] = discriminator
    found = section(name="triplane_gan", **given, **options)
    return build(found, "method", "config.method", image_shape=(8, 8, 3), num_classes=0)


def batch():
    return {
        "image": np.random.default_rng(0).uniform(-1, 1, (3, 8, 8, 3)).astype(np.float32), "camera": cameras.orbit(3),
        "tokens": TOKENIZER(CAPTIONS),
    }  # fmt: skip


def shapes_of(method, data=None):
    """The shapes of a method's parameters and memory; nothing is compiled."""
    begin = functools.partial(method.init, batch=data or batch(), stage=0, given={}, params={}, memory={})
    return jax.eval_shape(begin, jax.random.key(0))


@functools.cache
def begun():
    """The method, and parameters at random: attention begins without effect, and no beginning has to be compiled."""
    method, rng = make(), np.random.default_rng(1)
    params, memory = shapes_of(method)
    assert not jax.tree.leaves(memory)
    return method, jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), params), memory


def test_an_object_is_its_keys_and_words_and_every_camera_sees_the_same():
    method, params, memory = begun()
    keys = jax.random.split(jax.random.key(3), 2)[np.array([0, 0, 1])]  # the first two share their noise

    @jax.jit
    def drawn(params, keys, batch):
        model = Model(params, memory, 0)
        planes = method.planes(model, keys, batch)
        return planes, method.views(model, planes, batch["camera"])

    told = {name: batch()[name] for name in ("camera", "tokens")}
    planes, seen = jax.tree.map(np.asarray, drawn(params, keys, told))
    assert {name: values.shape for name, values in seen.items()} == {
        "image": (3, 8, 8, 3), "depth": (3, 8, 8, 1), "opacity": (3, 8, 8, 1),
    }  # fmt: skip
    assert np.abs(seen["image"]).max() <= 1 and 0 <= seen["opacity"].min() and seen["opacity"].max() <= 1 + 1e-5
    near, far = cameras.DISTANCE - 1, cameras.DISTANCE + 1
    assert near < seen["depth"].min() and seen["depth"].max() < far
    assert np.abs(planes[0] - planes[1]).max() > 1e-3  # the same words in another order
    assert np.abs(planes[0] - planes[2]).max() > 1e-3  # other noise

    moved = np.array([0, 2, 1])  # objects; the cameras move otherwise, and the one of the last stays with it
    other = {"camera": told["camera"][[2, 0, 1]], "tokens": told["tokens"][moved]}
    planes_again, seen_again = jax.tree.map(np.asarray, drawn(params, keys[moved], other))
    np.testing.assert_allclose(planes_again, planes[moved], atol=1e-5)  # rows keep apart, and planes know no camera
    np.testing.assert_allclose(seen_again["image"][2], seen["image"][1], atol=1e-5)
    assert np.abs(seen_again["image"][0] - seen["image"][0]).max() > 1e-3


def flat(**options):
    parts = {
        "generator": section(
            **{"name": "camera_generator", "z_dim": 4, "widths": (8, 8), "vocabulary": TOKENIZER.size, "words": 8,
               "attention_heads": 2} | options
        ),
        "discriminator": section(
            name="camera_discriminator", widths=(4, 8), vocabulary=TOKENIZER.size, words=8
        ),
    }  # fmt: skip
    return build(section(name="camera_gan", **parts), "method", "config.method", image_shape=(8, 8, 3), num_classes=0)


def test_a_generator_of_surfaces_has_parameters_to_begin_with():
    method = make({"surface": True, "samples": 4})
    begin = jax.jit(functools.partial(method.init, stage=0, given={}, params={}, memory={}))  # shapes alone do not run
    params, _ = begin(jax.random.key(0), batch())
    plain, _ = shapes_of(begun()[0])
    assert jax.tree.structure(params["generator"]) == jax.tree.structure(plain["generator"])
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


@pytest.mark.nightly
def test_a_generator_of_surfaces_begins_with_a_sphere_and_has_gradients_in_all_of_it(monkeypatch):
    monkeypatch.setattr(triplane_gan, "SIDE", 8)
    method = make({"surface": True, "samples": 24})
    params, memory = shapes_of(method)
    chance = np.random.default_rng(1)
    params = jax.tree.map(lambda x: chance.normal(0, 0.3, x.shape).astype(np.float32), params)
    keys, told = jax.random.split(jax.random.key(3), 3), {name: batch()[name] for name in ("camera", "tokens")}

    @jax.jit
    def seen(params):
        model = Model(params, memory, 0)
        volumes = method.volumes(model, keys, told)
        return method.sample(model, keys, told), volumes["surface"]

    still = jax.tree.map(lambda x: x, params)
    still["generator"]["decoder"] = jax.tree.map(np.zeros_like, params["generator"]["decoder"])
    drawn, surfaces = seen(still)
    np.testing.assert_allclose(drawn["depth"][:, 4, 4, 0], cameras.DISTANCE - 0.5, atol=0.05)
    assert (drawn["opacity"][:, 0, 0] < 0.05).all() and (drawn["opacity"][:, 4, 4] > 0.95).all()
    expected = np.linalg.norm(surface.grid(8), axis=-1)
    np.testing.assert_allclose(surfaces[0], np.maximum(expected - 0.5, expected - 1), atol=2e-3)

    state = SimpleNamespace(memory=memory, step=jnp.int32(0), images=jnp.uint32(0))
    loss = {turn.name: turn.loss for turn in method.turns(0)}["generator"]
    found = jax.jit(lambda *given: jax.grad(loss, has_aux=True)(*given, state)[0])(params, batch(), jax.random.key(2))
    leaves = {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_flatten_with_path(found)[0]}
    assert all(np.isfinite(leaf).all() for leaf in leaves.values())
    assert not {name for name, leaf in leaves.items() if not np.abs(leaf).max() > 0}


def test_the_control_without_space_draws_from_noise_words_and_camera():
    method, rng = flat(), np.random.default_rng(1)
    assert method.conditions == ("camera", "tokens") and method.entries.keys() == {"camera", "tokens"}
    assert method.limits["tokens"] == TOKENIZER.size
    params, memory = shapes_of(method)
    params = jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), params)
    keys = jax.random.split(jax.random.key(3), 2)[np.array([0, 0, 1])]
    draw = jax.jit(lambda params, keys, batch: method.sample(Model(params, memory, 0), keys, batch))
    told = {name: batch()[name] for name in ("camera", "tokens")}
    plain = np.asarray(draw(params, keys, told))
    assert plain.shape == (3, 8, 8, 3)
    for name in told:
        rows = np.array([1, 0, 2])
        other = np.asarray(draw(params, keys, {**told, name: told[name][rows]}))
        np.testing.assert_allclose(other[2], plain[2], atol=1e-5)  # rows keep apart
        assert np.abs(other[0] - plain[0]).max() > 1e-3, name
    assert np.abs(np.asarray(draw(params, keys[::-1], told))[0] - plain[0]).max() > 1e-3
    with pytest.raises(UserError, match="3 levels, which make images of 16x16 pixels, and these have 8x8"):
        shapes_of(flat(widths=(8, 8, 8)))


@pytest.mark.slow
def test_a_frozen_encoder_tells_both_networks_the_words_and_does_not_learn():
    text = section(
        name="text_tower", vocabulary=TOKENIZER.size, length=8, width=8, depth=1, heads=2, mlp_features=8, end=1,
        projection=4,
    )  # fmt: skip
    method = make({"frozen_text": True}, {"frozen_text": True}, text=text)
    assert method.required_groups == ("text",) and method.conditions == ("camera", "tokens")
    given = method.untrained(jax.random.key(0), batch())[0]
    begin = functools.partial(method.init, batch=batch(), stage=0, params={}, memory={})
    params, memory = jax.eval_shape(lambda key, given: begin(key, given=given), jax.random.key(0), given)
    assert params.keys() == {"generator", "discriminator"}, "what is not returned stays as it is"
    assert "text" not in params["generator"] and "text" not in params["discriminator"]
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: rng.normal(0, 0.5, x.shape).astype(np.float32), params) | given
    keys, data = jax.random.split(jax.random.key(3), 3), batch()

    @jax.jit
    def of(params):
        model = Model(params, memory, 0)
        planes = method.planes(model, keys, data)
        logits = method.discriminate(params, memory, data["image"], data, train=False)[0]["logits"]
        return planes, logits

    plain, other = of(params), of({**params, "text": jax.tree.map(lambda x: -x, given["text"])})
    assert all(float(jnp.abs(a - b).max()) > 1e-3 for a, b in zip(plain, other, strict=True))
    slope = jax.jit(jax.grad(lambda params: jnp.square(of(params)[1]).sum()))(params)
    assert not any(np.abs(leaf).max() for leaf in jax.tree.leaves(slope["text"]))
    for wrong in ({"text": text}, {"generator": {"frozen_text": True}, "discriminator": {"frozen_text": True}}):
        with pytest.raises(UserError, match="a frozen text encoder needs both"):
            make(**wrong)


@pytest.mark.slow
def test_the_game_has_gradients_in_all_of_both_networks():
    method, params, memory = begun()
    state = SimpleNamespace(memory=memory, step=jnp.int32(0), images=jnp.uint32(0))
    loss = {turn.name: turn.loss for turn in method.turns(0)}["generator"]
    found = jax.jit(lambda *given: jax.grad(loss, has_aux=True)(*given, state)[0])(params, batch(), jax.random.key(2))
    leaves = {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_flatten_with_path(found)[0]}
    assert all(np.isfinite(leaf).all() for leaf in leaves.values())
    assert not {name for name, leaf in leaves.items() if not np.abs(leaf).max() > 0}


@pytest.mark.slow
def test_the_discriminator_sees_where_something_is_if_it_is_told_masks():
    method = make(masks=True)
    data = batch() | {"mask": np.arange(192).reshape(3, 8, 8) % 3}
    seen = np.asarray(method.with_masks(data)["image"])
    np.testing.assert_array_equal(seen[..., :3], data["image"])
    np.testing.assert_array_equal(seen[..., 3], np.where(data["mask"] == 0, -1, 1))
    params, memory = shapes_of(method, data)
    first = params["discriminator"]["conv_0"]["kernel"].shape
    assert first[2] == 4 and begun()[1]["discriminator"]["conv_0"]["kernel"].shape[2] == 3
    params = jax.tree.map(lambda x: np.random.default_rng(1).normal(0, 0.5, x.shape).astype(np.float32), params)
    keys = jax.random.split(jax.random.key(3), 3)

    @jax.jit
    def made(params, data):
        z, _ = method.sample_z(keys)
        fake, _ = method.generate(params, memory, z, data, train=True)
        again = method.generator.apply({"params": params["generator"]}, z, data["camera"], data["tokens"], train=True)
        return fake, again, method.sample(Model(params, memory, 0), keys, data)

    fake, again, drawn = jax.tree.map(np.asarray, made(params, data))
    np.testing.assert_allclose(fake[..., :3], again, atol=1e-5)  # the image is that of the generator
    assert fake.shape[-1] == 4 and fake[..., 3].min() >= -1 and fake[..., 3].max() <= 1 + 1e-5
    assert drawn["image"].shape == (3, 8, 8, 3)
    with pytest.raises(MissingEntry, match="mask"):
        shapes_of(method)


@pytest.mark.parametrize("off", ["cross_plane", "cross_word"])
def test_a_control_lacks_one_attention_and_nothing_else(off):
    method, params, _ = begun()
    control = make({off: False})
    known, _ = shapes_of(control)
    here, there = (params["generator"]["of_z"]["attention_0"], known["generator"]["of_z"]["attention_0"])
    assert here.keys() - there.keys() == {off} and there.keys() <= here.keys()
    assert jax.tree.structure(params["discriminator"]) == jax.tree.structure(known["discriminator"])


def test_the_discriminator_is_told_camera_and_words():
    method, params, memory = begun()
    judge = jax.jit(lambda p, b: method.discriminate(p, memory, b["image"], b, train=False)[0]["logits"])
    data = batch()
    plain = judge(params, data)
    for name in ("camera", "tokens"):
        told = judge(params, {**data, name: data[name][::-1].copy() if name == "camera" else data[name][[1, 0, 2]]})
        assert float(jnp.abs(told - plain).max()) > 1e-3, name


def test_volumes_are_the_field_within_the_unit_ball(monkeypatch):
    method, params, _ = begun()
    planes = np.random.default_rng(0).normal(size=(2, 3, 4, 4, 4)).astype(np.float32)
    monkeypatch.setattr(triplane_gan, "SIDE", 4)
    monkeypatch.setattr(triplane_gan.TriplaneGAN, "planes", lambda *_: planes)
    volumes = jax.jit(lambda params: method.volumes(Model(params, {}, 0), None, {}))(params)
    points = surface.grid(4)
    inside = np.linalg.norm(points, axis=-1) < 1
    there = np.broadcast_to(points[inside], (2, inside.sum(), 3))
    field = jax.jit(lambda params: method.generator.apply({"params": params}, planes, there, method="field"))
    density, colour = field(params["generator"])
    half = 1 - np.exp(-(density + volumes["surface"][:, inside]) * 2 / method.generator.samples)
    np.testing.assert_allclose(half, 0.5, atol=1e-4)  # of the light stops within a piece, where the surface is
    np.testing.assert_allclose(volumes["colour"][:, inside], np.clip(colour, -1, 1), atol=1e-5)
    assert (volumes["surface"][:, ~inside] > 0).all()


@pytest.mark.slow
def test_panels_show_the_first_objects_from_around_and_scores_compare_two_views():
    method, params, memory = begun()
    keys, told = jax.random.split(jax.random.key(0), 3), {name: batch()[name] for name in method.conditions}
    shown = jax.eval_shape(lambda p: method.panels(Model(p, memory, 0), keys, told), params)
    assert {name: value.shape for name, value in shown.items()} == {
        "interpolation": (8, 8, 8, 3), "orbit": (24, 3, 8, 8, 3), "depth": (3, 8, 8, 1),
    }  # fmt: skip
    data = batch() | {"depth": np.full((3, 8, 8, 1), 3, np.float32)}
    found = jax.eval_shape(lambda p: method.scores(Model(p, memory, 0), keys, data), params)
    of_views = {"reprojection_error", "reprojected"}
    assert found.keys() == of_views | {"depth_correlation", "depth_correlation_other"}
    assert {value.shape for value in found.values()} == {(3,)}
    assert jax.eval_shape(lambda p: method.scores(Model(p, memory, 0), keys, batch()), params).keys() == of_views


def test_the_error_between_views_is_the_mean_over_pixels():
    method, _, _ = begun()
    scores = {"reprojection_error": np.array([0.2, 0.8, 0.0]), "reprojected": np.array([0.3, 0.1, 0.0])}
    assert method.summary(scores) == {"reprojection_error": pytest.approx(0.35), "reprojected": pytest.approx(0.4 / 3)}
    assert method.summary({name: np.zeros(3) for name in scores}) == {"reprojected": 0}
    assert (method.better("depth_correlation"), method.better("reprojection_error")) == ("higher", "lower")


def test_without_a_vocabulary_no_caption_is_read():
    method = make({"vocabulary": 0}, {"vocabulary": 0})
    assert method.conditions == ("camera",) and "tokens" not in method.limits
    assert method.entries.keys() == {"camera"} and begun()[0].entries["tokens"] == ((8,), np.int32)
    assert begun()[0].conditions == ("camera", "tokens") and begun()[0].limits["tokens"] == TOKENIZER.size
    data = {name: values for name, values in batch().items() if name != "tokens"}
    params, _ = shapes_of(method, data)
    assert "text" not in params["generator"] and "text" not in params["discriminator"]


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="not told the camera"):
        make(discriminator=section(name="dcgan_discriminator", channels=4, norm="none"))
    with pytest.raises(UserError, match="makes no planes"):
        dataclasses.replace(begun()[0], generator=flat().generator)
    with pytest.raises(UserError, match="knows 5 tokens, and the generator 19"):
        make(discriminator={"vocabulary": 5})
    data = {name: values for name, values in batch().items() if name != "camera"}
    with pytest.raises(MissingEntry, match="such as 'solids'"):
        shapes_of(begun()[0], data)
    further = {"surface": True, "more": 4}
    for wrong, sentence in (
        ({"samples": 1}, "samples is at least 2"), ({"widths": ()}, "widths"), (further, "set more=0"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=sentence):
            shapes_of(make(wrong))
    with pytest.raises(UserError, match="halved 4 times"):
        shapes_of(make(discriminator={"widths": (4,) * 5}))
