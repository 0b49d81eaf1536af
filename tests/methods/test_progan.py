"""ProGAN: when it grows, what fades, what a new stage begins with, and what each stage draws."""

from __future__ import annotations

import dataclasses
import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_methods import tiny_config

from jaxgen.arrays import Entries
from jaxgen.config import section
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.methods.gans.progan import ProGAN
from jaxgen.networks.gans.progressive import ProgressiveDiscriminator, ProgressiveGenerator
from jaxgen.parallel.mesh import make_mesh
from jaxgen.runs.loaded_groups import LoadedGroups
from jaxgen.runs.setup import make_method
from jaxgen.runs.state_builder import StateBuilder

WIDTHS, SHAPE = (4, 3), (8, 8, 1)


def method(**options):
    networks = ProgressiveGenerator(SHAPE, z_dim=3, widths=WIDTHS), ProgressiveDiscriminator(widths=WIDTHS)
    return ProGAN(*networks, SHAPE, **{"images_per_stage": (32, 16), **options})


def batch(count=4):
    return Entries(image=jax.random.uniform(jax.random.key(0), (count, *SHAPE), minval=-1))


def random_params(made, stage):
    """Parameters of a stage, all random, and its memory; nothing is compiled for them."""
    shapes, memory = {}, {}
    for each in range(stage + 1):
        begin = functools.partial(made.init, jax.random.key(0), batch(), each, {})
        shapes, memory = jax.eval_shape(begin, shapes, memory)
    chance = np.random.default_rng(stage)
    params = jax.tree.map(lambda s: jnp.asarray(chance.standard_normal(s.shape), s.dtype), shapes)
    return params, {**memory, "alpha": jnp.float32(0.5)}


def test_stages_fade_and_are_then_stabilised_and_may_begin_with_any_resolution():
    networks = (
        ProgressiveGenerator((32, 32, 3), widths=(8, 8, 8, 8)), ProgressiveDiscriminator(widths=(8, 8, 8, 8))
    )  # fmt: skip
    made = ProGAN(*networks, (32, 32, 3), images_per_stage=(20, 10))
    assert made.stages == ((0, 0), (10, 1), (40, 2), (70, 3))
    places = (5, 0), (10, 1), (15, 1), (30, 1), (39, 1), (40, 2)
    alphas = [float(made.alpha(stage, images)) for images, stage in places]
    assert alphas == [1, 0, 0.25, 1, 1, 0]
    later = dataclasses.replace(made, coarsest=16)
    assert later.stages == ((0, 2), (10, 3)) and later.alpha(2, 0) == 1 and not later.at(2).generator.fading
    whole = dataclasses.replace(made, coarsest=32)
    assert whole.stages == ((0, 3),) and whole.alpha(3, 0) == 1 and not whole.at(3).discriminator.fading
    sudden = dataclasses.replace(made, images_per_stage=(0, 10))
    assert sudden.stages == ((0, 0), (10, 1), (20, 2), (30, 3)) and sudden.alpha(1, 10) == 1


def test_real_images_are_small_and_fade_as_the_networks_do():
    made, images = method(), np.asarray(batch()["image"])
    halves = images.reshape(4, 4, 2, 4, 2, 1).mean((2, 4))
    large = halves.repeat(2, 1).repeat(2, 2)
    seen = {alpha: made.seen(batch(), 1, jnp.float32(alpha))["image"] for alpha in (0.0, 0.25, 1.0)}
    np.testing.assert_allclose(made.seen(batch(), 0, jnp.float32(1))["image"], halves, atol=1e-6)
    np.testing.assert_allclose(seen[0.0], large, atol=1e-6)
    np.testing.assert_allclose(seen[0.25], 0.75 * large + 0.25 * images, atol=1e-6)
    np.testing.assert_array_equal(seen[1.0], images)


@pytest.mark.slow
def test_drift_holds_the_logits_of_real_images_and_alpha_goes_with_the_images():
    with_drift, without = method(drift=2.0), method(drift=0.0)
    params, memory = random_params(with_drift, 1)

    @jax.jit
    def losses(params, memory, images):
        state = SimpleNamespace(memory=memory, images=images, step=jnp.int32(0), ema={})
        on_real = without.at(1).discriminate(params, memory, without.seen(batch(), 1, 0.25)["image"],
                                             {"alpha": jnp.float32(0.25)})[0]["logits"]  # fmt: skip
        found = [made.turns(1)[0].loss(params, batch(), jax.random.key(1), state) for made in (with_drift, without)]
        return on_real, found

    on_real, ((one, (metrics, changed)), (other, _)) = losses(params, memory, jnp.uint32(16 + 8))
    assert metrics["alpha"] == changed["alpha"] == 0.25
    np.testing.assert_allclose(one - other, 2 * np.square(on_real).mean(), rtol=1e-3)
    assert [turn.name for turn in with_drift.turns(1)] == ["discriminator", "generator"]
    assert with_drift.turns(1)[0].repeats == 1 and with_drift.gradient_penalty == 10


def test_a_new_stage_keeps_what_was_learned_and_begins_its_optimisers_afresh():
    config = tiny_config("Plain")
    config.method = section(
        name="progan", generator=section(name="progressive_generator", z_dim=3, widths=WIDTHS),
        discriminator=section(name="progressive_discriminator", widths=WIDTHS), images_per_stage=(32, 16),
    )  # fmt: skip
    builder = StateBuilder(config, make_method(config), make_mesh(1, 4), LoadedGroups({}, {}, {}), batch())
    old = jax.tree.map(lambda s: jnp.ones(s.shape, s.dtype), builder.abstract(0))
    old = dataclasses.replace(old, ema=jax.tree.map(lambda x: 3 * x, old.ema))
    new = builder.cross(old, 1)
    assert not any(np.asarray(x).any() for x in jax.tree.leaves(new.opt_state))
    assert new.images == 1 and new.memory["alpha"] == 0
    added = {"generator": {"up_1", "conv_1", "image_1"}, "discriminator": {"image_1", "conv_1", "down_1"}}
    for group, layers in added.items():
        kept = {name: tree for name, tree in new.params[group].items() if name not in layers}
        assert kept.keys() == old.params[group].keys() and layers < new.params[group].keys()
        assert all((np.asarray(x) == 1).all() for x in jax.tree.leaves(kept))
        assert all(np.asarray(new.params[group][name]["kernel"]).std() > 0.1 for name in layers)
    averaged = new.ema["generator"]
    assert (np.asarray(averaged["conv_0"]["kernel"]) == 3).all()
    np.testing.assert_array_equal(averaged["up_1"]["kernel"], new.params["generator"]["up_1"]["kernel"])


def test_every_stage_draws_images_of_the_last_resolution():
    made, keys = method(), jax.random.split(jax.random.key(2), 3)

    @jax.jit
    def drawn(small, large):
        return made.sample(small, keys, Entries()), made.sample(large, keys, Entries())

    models = [Model(*random_params(made, stage), stage) for stage in (0, 1)]
    small, large = (np.asarray(images) for images in drawn(*models))
    blocks = [images.reshape(3, 4, 2, 4, 2, 1).std(axis=(2, 4)) for images in (small, large)]
    assert small.shape == large.shape == (3, *SHAPE) and np.abs(large).max() <= 1
    assert blocks[0].max() < 1e-6 < 1e-2 < blocks[1].max() and small[0].std() > 1e-2
    assert "4x4 pixels, so that each of these is 2x2 pixels of the 8x8" in made.told_at(0) and not made.told_at(1)


def test_what_does_not_fit_is_told():
    for options, words in (
        ({"coarsest": 5}, "coarsest=5 is no side of the networks' levels, which have 4, 8 pixels"),
        ({"images_per_stage": (8, 0)}, "the second is at least 1"),
        ({"drift": -1.0}, "must not be negative"),
        ({"discriminator": ProgressiveDiscriminator(widths=(4, 3, 2))}, "2 widths and config.method.discriminator 3"),
    ):
        with pytest.raises(UserError, match=words):
            dataclasses.replace(method(), **options)
    with pytest.raises(UserError, match="halve the sides 1 times, which 7x8"):
        dataclasses.replace(method(), image_shape=(7, 8, 1), generator=ProgressiveGenerator((7, 8, 1), widths=WIDTHS))
