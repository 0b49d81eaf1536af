"""What a network is told of a set of pictures."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.build import build
from jaxgen.conditions.set import Set
from jaxgen.config import section
from jaxgen.errors import UserError
from jaxgen.networks.classifier import Classifier
from jaxgen.networks.layers.stateless import apply_params, init_params
from jaxgen.networks.set_encoder import SetEncoder
from jaxgen.networks.unet import UNet

SIZES = dict(patch_size=4, width=8, depth=1, heads=2)
SETS = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 5, 8, 8, 1)), jnp.float32)
ORDER = np.array([3, 0, 4, 2, 1])


PART, AVERAGED = Set(SetEncoder(**SIZES)), Set(SetEncoder(averaged=True, **SIZES))
PARAMS = functools.cache(lambda: jax.jit(PART.init)(jax.random.key(0), {"set": SETS}))  # `averaged` has the same


@functools.partial(jax.jit, static_argnums=0)
def compiled(part, params, sets):
    return part(params, {"set": sets}, None, (8, 8, 1))


def told(part, sets=SETS):
    return compiled(part, PARAMS(), sets)


def seen(part, sets=SETS):
    """The shapes of what a part gives."""
    return jax.eval_shape(lambda sets: part(PARAMS(), {"set": sets}, None, (8, 8, 1)), sets)


def by_image(tokens):
    return tokens.reshape(2, 5, 4, 8)


def test_another_order_of_the_pictures_is_the_same_set():
    found, other = told(PART), told(PART, SETS[:, ORDER])
    np.testing.assert_allclose(other["vector"], found["vector"], atol=1e-6)
    np.testing.assert_allclose(by_image(other["context"]), by_image(found["context"])[:, ORDER], atol=1e-6)
    assert np.abs(other["context"] - found["context"]).max() > 0.1
    np.testing.assert_allclose(told(AVERAGED, SETS[:, ORDER])["context"], told(AVERAGED)["context"], atol=1e-6)


@pytest.mark.nightly
def test_a_network_that_is_told_a_set_does_not_see_its_order():
    network = UNet(1, 8, (1,), 1, (8,), norm_groups=4, time_mode="adaptive", vector_dim=8, context_dim=8)
    x, time = jax.random.normal(jax.random.key(1), (2, 8, 8, 1)), jnp.array([10.0, 700.0])
    init = jax.jit(lambda told: init_params(network, jax.random.key(2), x, time, **told))
    params = init(told(PART))
    params = jax.tree.map(lambda p: p + 0.3 * jax.random.normal(jax.random.key(p.size), p.shape), params)  # no zeros
    call = jax.jit(lambda told: apply_params(network, params, x, time, **told))
    own, turned, other = (call(told(PART, sets)) for sets in (SETS, SETS[:, ORDER], SETS[::-1]))
    assert np.abs(turned - own).max() < 1e-4 * np.abs(own).max() < np.abs(other - own).max()


def test_patches_of_all_pictures_look_at_each_other():
    changed = told(PART, SETS.at[:, 2, :4, :4].set(1.0))
    difference = np.abs(by_image(changed["context"]) - by_image(told(PART)["context"])).max(axis=-1)
    assert (difference > 1e-6).all() and difference[:, 2, 0].min() > 5 * np.median(difference)


def test_sets_of_other_sizes_are_read(count=9):
    sets = jnp.repeat(SETS[:, :1], count, axis=1)  # a picture several times says what it says twice
    found, twice = told(AVERAGED, sets), told(AVERAGED, sets[:, :2])
    np.testing.assert_allclose(found["vector"], twice["vector"], atol=1e-6)
    np.testing.assert_allclose(found["context"], twice["context"], atol=1e-6)
    shapes = jax.eval_shape(lambda sets: told(PART, sets), sets)
    assert shapes["context"].shape == (2, 4 * count, 8) and found["context"].shape == (2, 4, 8)


def test_the_null_is_a_set_of_grey_pictures_and_one_output_may_be_left_out():
    part = Set(SetEncoder(**SIZES), context=False, dropout=0.1)
    np.testing.assert_array_equal(part.null({"set": SETS})["set"], np.zeros(SETS.shape))
    assert seen(part).keys() == {"vector"} == {*part.gives} and part.guides and part.learns
    assert seen(Set(SetEncoder(**SIZES), vector=False)).keys() == {"context"}


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: seen(PART, SETS[:, :1]), "sets of at least 2 pictures, and this one has 1: give a folder"),
        (lambda: seen(PART, SETS[:, 0]), r"sets of pictures .* shape \(2, 8, 8, 1\).*'sets:<source>'"),
        (lambda: seen(PART, SETS[:, :, :6]), "patch_size=4 .* does not divide images of 6x8 pixels"),
        (lambda: Set(SetEncoder(), context=False, vector=False), "a context, or a vector, or both"),
        (lambda: Set(SetEncoder(), least=0), "1 or more, not 0"),
        (lambda: SetEncoder().apply({}, SETS[0]), "takes sets of images"),
    ],
)  # fmt: skip
def test_what_is_no_set_is_refused(make, said):
    with pytest.raises(UserError, match=said):
        make()


def test_single_pictures_are_sets_where_a_model_is_meant_for_them():
    assert seen(Set(SetEncoder(**SIZES), least=1), SETS[:, :1])["context"].shape == (2, 4, 8)


def test_a_network_of_another_kind_is_told_apart():
    network = section(name="set_encoder", width=8)
    part = build(section(name="set", network=network), "condition", "config.method.parts.set")
    assert isinstance(part.network, SetEncoder) and all(hasattr(part.network, n) for n in part.network_needs["network"])
    assert not hasattr(Classifier, part.network_needs["network"][0])
