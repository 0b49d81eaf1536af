"""The progressive networks: a fade begins with the smaller network and ends with the new one, layer by layer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.networks.gans.progressive import ProgressiveDiscriminator, ProgressiveGenerator
from jaxgen.networks.layers.convolution import downsample, upsample

WIDTHS = (8, 6, 4)
LABEL = jnp.asarray([0, 2, 1, 2])
NETWORKS = {
    "generator": ProgressiveGenerator((8, 12, 3), z_dim=5, widths=WIDTHS, num_classes=3, conditioning="concat"),
    "discriminator": ProgressiveDiscriminator(widths=WIDTHS, num_classes=3, conditioning="projection"),
}
SIDES = ((2, 3), (4, 6), (8, 12))


def inputs(name, level):
    shape = (4, 5) if name == "generator" else (4, *SIDES[level], 3)
    return jax.random.normal(jax.random.key(1), shape)


def first(outputs):
    return outputs["logits"] if isinstance(outputs, dict) else outputs


def random_params(network, x):
    """Parameters of a network, all of them random, biases too; nothing is compiled for it."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), x, LABEL)["params"]
    chance = np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.asarray(chance.standard_normal(s.shape), s.dtype), shapes)


def part(params, network, x):
    """The parameters, of those of a larger network, that this one has."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), x, LABEL)["params"]
    assert shapes.keys() <= params.keys()
    assert jax.tree.map(jnp.shape, {n: params[n] for n in shapes}) == jax.tree.map(lambda s: s.shape, shapes)
    return {n: params[n] for n in shapes}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_new_level_begins_as_the_one_below_and_ends_alone(name):
    """At alpha 0 the larger network is the smaller one of halved, or doubled, images; at 1 it has no mixture."""
    level = 2
    network, below, alone = (
        NETWORKS[name].clone(level=level - less, fading=fading) for less, fading in ((0, True), (1, False), (0, False))
    )
    x = inputs(name, level)
    smaller = x if name == "generator" else downsample(x)
    params = random_params(network, x)

    @jax.jit
    def all_of_them(params, alphas):
        def call(network, x, **options):
            return first(network.apply({"params": part(params, network, x)}, x, LABEL, **options))

        old = call(below, smaller)
        mixed = [call(network, x, alpha=alpha) for alpha in alphas]
        return upsample(old) if name == "generator" else old, call(alone, x), mixed

    old, new, (at_0, at_1, between) = all_of_them(params, (0.0, 1.0, 0.25))
    assert float(jnp.abs(old - new).max()) > 1e-1
    np.testing.assert_allclose(at_0, old, atol=1e-6)
    np.testing.assert_allclose(at_1, new, atol=1e-6)
    assert network.reads == ("label", "alpha") and alone.reads == ("label",)
    if name == "generator":
        np.testing.assert_allclose(between, 0.75 * old + 0.25 * new, atol=1e-5)
        return
    assert not np.allclose(between, 0.75 * old + 0.25 * new, atol=1e-3)  # it is not the logits that are mixed


def test_a_collapsed_group_is_seen_and_images_have_their_own_logits_without_groups():
    others = inputs("discriminator", 1)
    alike = jnp.repeat(others[:1], 4, axis=0)
    for group, same in ((4, False), (1, True)):
        alone = NETWORKS["discriminator"].clone(level=1, group=group)
        call = jax.jit(lambda p, x, n=alone: n.apply({"params": p}, x, LABEL)["logits"][0])
        params = random_params(alone, others)
        assert np.allclose(call(params, others), call(params, alike), atol=1e-5) == same


def test_z_has_no_length():
    network = NETWORKS["generator"].clone(level=0)
    z = inputs("generator", 0)
    params = random_params(network, z)
    call = jax.jit(lambda z: network.apply({"params": params}, z, LABEL))
    np.testing.assert_allclose(call(z), call(7 * z), atol=1e-4)


def test_levels_and_sides_that_do_not_fit_are_told():
    z, x = jnp.zeros((1, 5)), jnp.zeros((1, 6, 6, 3))
    for network, given, words in (
        (ProgressiveGenerator((6, 6, 3), z_dim=5, widths=WIDTHS), z, "halve the sides 2 times, which 6x6"),
        (ProgressiveGenerator((8, 8, 3), z_dim=5, widths=WIDTHS, level=3), z, "3 widths has no level 3"),
        (ProgressiveDiscriminator(widths=WIDTHS, level=0, fading=True), x, "none below"),
        (ProgressiveDiscriminator(widths=WIDTHS), x, "halve the sides 2 times, which 6x6"),
        (ProgressiveDiscriminator(widths=(4,), conditioning="projection", num_classes=3), x, "label of each example"),
    ):
        with pytest.raises(UserError, match=words):
            jax.eval_shape(network.init, jax.random.key(0), given)
