"""SPADE's networks: what a layout tells them, what their normalisations depend on, and how the control differs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.networks.gans.spade import (
    EncodedLayoutGenerator,
    SpadeGenerator,
    SpadeNorm,
    StyleEncoder,
    resized_layout,
)
from jaxgen.networks.layers.stateful import apply_stateful, init_stateful

CLASSES, SHAPE = 3, (8, 8, 2)
OPTIONS = dict(image_shape=SHAPE, z_dim=2, widths=(8, 4), middle=0, hidden=4, classes=CLASSES, statistics="instance")


def random(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def began(network, *inputs, scale=30.0, **options):
    """Parameters that are not almost zero, as the authors' first ones are, and the memory."""
    params, memory = jax.jit(lambda key: init_stateful(network, key, *inputs, **options))(jax.random.key(0))
    return jax.tree.map(lambda x: scale * x, params), memory


def applied(network, params, memory, *inputs, train=False, **options):
    return jax.jit(
        lambda params, inputs, options: apply_stateful(network, params, memory, *inputs, train=train, **options)
    )(params, inputs, options)


def masks():
    """A layout of two halves, and three of one class each."""
    halves = np.zeros((1, 8, 8), np.int32)
    halves[:, 4:] = 2
    return jnp.asarray(np.concatenate([halves, *(np.full((1, 8, 8), c, np.int32) for c in range(CLASSES))]))


@pytest.fixture(scope="module")
def spade():
    """A generator, its parameters and memory, and a compiled call `(params, z, mask) -> images`."""
    network = SpadeGenerator(**OPTIONS)
    params, memory = began(network, random(4, 2), mask=masks())
    call = jax.jit(lambda params, z, mask: apply_stateful(network, params, memory, z, train=False, mask=mask)[0])
    return network, params, memory, call


def test_a_layout_is_resized_by_its_nearest_pixels():
    layout = random(1, 8, 6, 2)
    np.testing.assert_array_equal(resized_layout(layout, 4, 3), layout[:, ::2, ::2])
    np.testing.assert_array_equal(resized_layout(layout, 8, 6), layout)
    np.testing.assert_array_equal(resized_layout(layout, 3, 4)[0, :, 0], layout[0, [0, 2, 5], 0])
    np.testing.assert_array_equal(resized_layout(layout, 16, 6)[:, 1], layout[:, 0])


@pytest.mark.parametrize("statistics", ["batch", "instance"])
def test_what_a_normalisation_takes_away_the_layout_gives_back(statistics):
    """Activations that are constant in each image become the same, whatever they were; the layout tells them apart."""
    layer, layout = SpadeNorm(statistics, 4), jax.nn.one_hot(masks()[1:], CLASSES)
    x = jnp.round(4 * (random(1, 1, 1, 5) if statistics == "batch" else random(3, 1, 1, 5))) / 4  # sums are exact
    x = jnp.broadcast_to(x, (3, 8, 8, 5))
    params, memory = began(layer, x, layout, train=True)
    found, _ = applied(layer, params, memory, x, layout, train=True)
    assert all(np.abs(found[i] - found[j]).max() > 0.1 for i in range(3) for j in range(i))
    again, _ = applied(layer, params, memory, x + 1, layout, train=True)
    np.testing.assert_allclose(found, again, atol=1e-4)
    told_nothing, _ = applied(layer, params, memory, x, jnp.zeros_like(layout), train=True)
    np.testing.assert_allclose(told_nothing[0], told_nothing[2], atol=1e-4)
    assert set(params) == {"shared", "modulation"}  # the normalisation itself has no parameters


@pytest.mark.nightly
def test_an_image_depends_on_its_own_layout_and_z(spade):
    _, params, _, call = spade
    z, mask = random(4, 2), masks()
    found = call(params, z, mask)
    assert found.shape == (4, *SHAPE) and np.abs(found).max() <= 1
    others = call(params, z.at[1:].set(0.5), mask[::-1].at[0].set(mask[0]))
    np.testing.assert_allclose(found[0], others[0], atol=1e-6)
    assert np.abs(call(params, z + 1, mask) - found).max(axis=(1, 2, 3)).min() > 1e-3
    assert np.abs(call(params, z, jnp.roll(mask, 1, axis=0)) - found).max(axis=(1, 2, 3)).min() > 1e-2


def test_only_batch_statistics_mix_images_and_are_carried():
    x, layout = random(4, 8, 8, 5), jax.nn.one_hot(masks(), CLASSES)
    for statistics in ("batch", "instance"):
        layer = SpadeNorm(statistics, 4)
        params, memory = began(layer, x, layout, train=True)
        together, carried = applied(layer, params, memory, x, layout, train=True)
        alone, _ = applied(layer, params, memory, x[:2], layout[:2], train=True)
        assert (np.abs(together[:2] - alone).max() > 1e-3) == (statistics == "batch")
        assert set(memory) == set(carried) == ({"batch_stats"} if statistics == "batch" else set())


@pytest.mark.slow
def test_the_control_forgets_a_layout_of_one_class_and_no_other():
    """Its border repeats pixels; with zeros there, the border would tell the class."""
    network, z = EncodedLayoutGenerator(**OPTIONS), jnp.broadcast_to(random(1, 2), (4, 2))
    params, memory = began(network, z, mask=masks())
    found, _ = applied(network, params, memory, z, mask=masks())
    np.testing.assert_allclose(found[1], found[2], atol=1e-3)
    np.testing.assert_allclose(found[1], found[3], atol=1e-3)
    assert np.abs(found[0] - found[1]).max() > 0.1


def test_spade_remembers_a_layout_of_one_class(spade):
    _, params, _, call = spade
    found = call(params, jnp.broadcast_to(random(1, 2), (4, 2)), masks())
    assert min(np.abs(found[i] - found[j]).max() for i in range(1, 4) for j in range(1, i)) > 0.1


@pytest.mark.nightly
def test_the_variant_without_a_style_has_one_image_for_each_layout():
    network = SpadeGenerator(**OPTIONS, start="layout")
    params, memory = began(network, random(4, 2), mask=masks())
    found, others = (applied(network, params, memory, random(4, 2, seed=i), mask=masks())[0] for i in range(2))
    np.testing.assert_array_equal(found, others)
    assert np.abs(found[1] - found[2]).max() > 0.1


def test_boundaries_of_objects_may_be_a_part_of_the_layout():
    network = SpadeGenerator(**OPTIONS, reads=("mask", "instance"))
    instance = jnp.zeros((4, 8, 8), jnp.int32).at[:, :, 4:].set(1)
    entries = {"mask": masks(), "instance": instance}
    assert network.layout(entries).shape == (4, 8, 8, CLASSES + 1)
    with pytest.raises(UserError, match="reads 'instance', which it was not given"):
        network.layout({"mask": masks()})


@pytest.mark.slow
def test_the_style_encoder_sees_brightness_without_its_normalisation_alone():
    """The normalisation of each image takes away a factor; at the border zeros stand beside the image."""
    x, gaps = random(2, 16, 16, 1), {}
    for norm in ("instance", "none"):
        encoder = StyleEncoder(4, (4, 4), norm)
        params, memory = began(encoder, x)
        found, _ = applied(encoder, params, memory, jnp.concatenate([x, x / 2]))
        assert found.shape == (4, 4) and np.abs(found[0] - found[1]).max() > 0.1
        gaps[norm] = np.abs(found[:2] - found[2:]).max()
    assert gaps["instance"] < 1e-2 < gaps["none"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": (4, 4, 4, 4, 4)}, "double the sides 4 times, which 8x8"),
        ({"statistics": "layer"}, "'batch' or 'instance', not 'layer'"),
        ({"widths": (4,), "middle": 1}, "two of them for a middle block"),
        ({"classes": 0}, "set the network's `classes`"),
        ({"start": "noise"}, "starts from 'z' or from the 'layout', not from 'noise'"),
        ({"image_shape": (16, 16, 3)}, "'mask' has 8x8 pixels, and the images 16x16"),
    ],
)
def test_what_makes_no_generator_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(SpadeGenerator(**{**OPTIONS, **options}).init, jax.random.key(0), random(4, 2), mask=masks())


def test_what_makes_no_encoder_is_refused():
    small, unknown = StyleEncoder(4, (4, 4)), StyleEncoder(4, (4,), "batch")
    for encoder, message in ((small, "8x8 pixels at least"), (unknown, "norm is")):
        with pytest.raises(UserError, match=message):
            jax.eval_shape(encoder.init, jax.random.key(0), random(1, 4, 4, 1))
