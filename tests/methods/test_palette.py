"""Palette: it learns and draws only what is unknown, never sees what a hole hides, and keeps the rest to the bit."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import running
from tiny_methods import ddpm_config

from jaxgen.arrays import to_uint8
from jaxgen.config import section
from jaxgen.data.transforms import to_float
from jaxgen.diffusion.samplers.ddim import DDIM
from jaxgen.diffusion.samplers.ddpm import DDPM as Ancestral
from jaxgen.diffusion.samplers.dpmpp import DPMpp2M
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.runs.setup import make_method, open_split
from jaxgen.sampling.generator import Generator

SHAPE = (8, 8, 1)
HOLE = np.zeros((8, 8), bool)
HOLE[2:6, 1:5] = True


class NoState:
    memory: dict = {}


def config(**method):
    made = ddpm_config(dropout=0.0)
    made.method.update(name="palette", **method)
    made.data.corruptions.condition = section(name="hole", form="centre", share=0.5)
    return made


def batch(mask=HOLE, count=3):
    images = to_float({"image": jnp.asarray(open_split(config(), "train").take(range(count))["image"])})["image"]
    masks = jnp.broadcast_to(jnp.asarray(mask, jnp.int32), images.shape[:3])
    return {"image": images, "condition": images, "mask": masks}


def random_params(method):
    params, _ = jax.jit(lambda key: method.init(key, batch(), 0, {}, {}, {}))(jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    random = np.random.default_rng(0)  # the last layer starts at zero; here everything is to have a say
    return jax.tree.unflatten(tree, [x + 0.1 * random.normal(size=x.shape).astype(np.float32) for x in leaves])


@pytest.fixture(scope="module")
def palette():
    method = make_method(config())
    return method, random_params(method)


@pytest.fixture(scope="module")
def loss(palette):
    method, params = palette
    found = jax.jit(lambda entries: method.loss(params, entries, jax.random.key(1), NoState)[0])
    return lambda **entries: float(found({**batch(), **entries}))


def keys(count):
    return jax.random.split(jax.random.key(5), count)


def test_what_a_hole_hides_is_never_seen(loss, palette):
    method, params = palette
    other = jnp.where(HOLE[..., None], 0.3, batch()["condition"])
    assert loss(condition=other) == loss()
    shown = (batch()["condition"], other)
    drawn = [method.sample(Model(params, {}), keys(3), {**batch(), "condition": picture}) for picture in shown]
    np.testing.assert_array_equal(*drawn)


def test_the_loss_counts_unknown_pixels_alone(loss):
    truth = batch()["image"]
    outside = jnp.where(HOLE[..., None], truth, -truth)  # another image where the picture is known
    assert loss(image=outside) == loss()
    inside = jnp.where(HOLE[..., None], -truth, truth)
    assert loss(image=inside) != loss()


def test_with_all_unknown_it_is_a_ddpm_that_is_told_a_picture(loss, palette):
    method, params = palette
    plain = config()
    plain.method.update(name="ddpm", parts=section(source=section(name="image")))
    ddpm = make_method(plain)
    whole = {**batch(), "mask": jnp.ones((3, 8, 8), jnp.int32)}
    theirs, _ = jax.jit(lambda params: ddpm.loss(params, whole, jax.random.key(1), NoState))(params)
    assert loss(mask=whole["mask"]) == pytest.approx(float(theirs), rel=1e-6)
    ours = method.sample(Model(params, {}), keys(3), whole)
    np.testing.assert_allclose(ours, ddpm.sample(Model(params, {}), keys(3), whole), atol=1e-4)


@pytest.mark.nightly
def test_a_mask_may_differ_between_the_images_of_a_batch(palette):
    method, params = palette
    rows = batch()
    rows["mask"] = jnp.stack([jnp.asarray(HOLE, jnp.int32), jnp.ones((8, 8), jnp.int32), jnp.zeros((8, 8), jnp.int32)])
    together = method.sample(Model(params, {}), keys(3), rows)
    alone = method.sample(Model(params, {}), keys(3)[1:2], {name: value[1:2] for name, value in rows.items()})
    np.testing.assert_allclose(together[1:2], alone, atol=1e-5)
    np.testing.assert_array_equal(together[2], rows["condition"][2])  # nothing was unknown
    found, _ = method.loss(params, {name: value[2:] for name, value in rows.items()}, jax.random.key(0), NoState)
    assert found == 0


@pytest.mark.parametrize("sampler", [DDIM(steps=3), Ancestral(steps=3, clip=True), DPMpp2M(steps=3)])
def test_known_pixels_are_those_of_the_picture_to_the_bit(palette, sampler):
    method, params = palette
    source = open_split(config(), "test").take(range(3))["image"]
    rows = {**batch(), "condition": to_float({"image": jnp.asarray(source)})["image"]}
    drawn = np.asarray(to_uint8(dataclasses.replace(method, sampler=sampler).sample(Model(params, {}), keys(3), rows)))
    np.testing.assert_array_equal(drawn[:, ~HOLE], source[:, ~HOLE])
    assert (drawn[:, HOLE] != source[:, HOLE]).any()


def test_draws_of_one_picture_differ_in_the_hole_only(palette):
    method, params = palette
    rows = {name: jnp.repeat(value[:1], 4, axis=0) for name, value in batch().items()}
    drawn = np.asarray(method.sample(Model(params, {}), keys(4), rows))
    assert np.ptp(drawn[:, ~HOLE], axis=0).max() == 0
    assert (np.ptp(drawn[:, HOLE], axis=0) > 0).mean() > 0.5


def test_the_known_part_of_guided_samples_is_exact():
    made = config(label_dropout=0.1)
    made.guidance = section(name="classifier_free", scale=3.0)
    method = make_method(made)
    drawn = method.sample(Model(random_params(method), {}), keys(3), batch())
    np.testing.assert_array_equal(drawn[:, ~HOLE], batch()["condition"][:, ~HOLE])


@pytest.mark.slow
def test_a_run_of_several_tasks_resumes_bit_for_bit_and_is_asked_for_one_of_them(tmp_path):
    made = config()
    hole, uncrop = section(name="hole", form="centre", share=0.5), section(name="uncrop", sides="all", known=0.5)
    made.data.corruptions.condition = section(name="one_of", tasks=section(hole=hole, uncrop=uncrop))
    whole = running.run(made, tmp_path / "whole", 64)
    running.run(made, tmp_path / "parts", 32)
    assert not running.differing(running.run(made, tmp_path / "parts", 64), whole)
    made.data.corruptions.condition.only = "uncrop"
    method = make_method(made)
    drawn = Generator(method, made).draw(Model(whole.params, {}), 0, 8, asked=True)
    masks = drawn.asked["mask"]
    assert (masks[:, 2:6, 2:6] == 0).all() and masks.sum() == 8 * (64 - 16)
    np.testing.assert_array_equal(drawn.images[masks == 0], drawn.asked["image"][masks == 0])


def test_panels_have_the_picture_two_draws_and_the_truth(palette):
    method, params = palette
    found = method.panels(Model(params, {}), keys(3), batch())["restored"]
    cells = np.asarray(found).reshape(3, 4, *SHAPE)
    np.testing.assert_array_equal(cells[:, 0], batch()["condition"])
    np.testing.assert_array_equal(cells[:, 3], batch()["image"])
    assert (cells[:, 1] != cells[:, 2]).any() and (cells[:, 1][:, ~HOLE] == cells[:, 2][:, ~HOLE]).all()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"method.learned_variance": True, "method.network.out_channels": 2}, "no bound over a part of an image"),
        ({"method.fill": "nois"}, "config.method.fill='nois' is unknown; did you mean 'noise'"),
        ({"data.corruptions.condition": section(name="low_resolution")}, "'mask'"),
        ({"data.corruptions.condition": section(name="edges")}, "'mask'"),
        (
            {"data.corruptions.condition": section(name="one_of", tasks=section(a="jpeg", b="edges"), only="c")},
            "no task only='c'",
        ),
    ],
)
def test_what_does_not_fit_is_one_sentence_before_anything_is_written(tmp_path, changes, told):
    made = config()
    for key, value in changes.items():
        *path, last = key.split(".")
        part = made
        for name in path:
            part = part[name]
        part[last] = value
    with pytest.raises(UserError, match=told), running.opened(made, tmp_path / "run"):
        pass
    assert not (tmp_path / "run" / "checkpoints").exists()
