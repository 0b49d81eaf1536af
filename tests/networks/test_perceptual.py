"""Distances by a network's layers: what LPIPS is, and what a classifier gives."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.metrics.networks.digits import Digits
from jaxgen.networks.pretrained.lpips import LPIPS
from jaxgen.networks.pretrained.perceptual import perceptual_distance


def images(seed, channels=1, side=8):
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, (3, side, side, channels)), jnp.float32)


@jax.jit
def by_classifier(x, y):
    return perceptual_distance(Digits().network, Digits().weights(), x, y)


def test_a_classifiers_distance_is_one():
    x, y = images(0), images(1)
    np.testing.assert_allclose(by_classifier(x, x), 0, atol=1e-12)
    np.testing.assert_allclose(by_classifier(x, y), by_classifier(y, x), rtol=1e-5)
    found = by_classifier(x, y)
    assert found.shape == (3,) and (found > 0).all() and (found < 4).all()
    nearer = by_classifier(x, 0.9 * x + 0.1 * y)
    assert (nearer < found).all()


def test_its_slope_is_finite_even_where_the_distance_is_zero():
    slope = jax.jit(jax.grad(lambda y: by_classifier(images(0), y).sum()))
    assert np.isfinite(slope(images(0))).all()
    assert np.abs(slope(images(1))).max() > 1e-3


@pytest.mark.slow
def test_lpips_is_taken_as_it_is_and_sees_grey_as_rgb():
    network, x, y = LPIPS("alex"), images(0, 1, 32), images(1, 1, 32)
    params = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), jnp.zeros((1, 32, 32, 3)))["params"]
    rgb = [jnp.repeat(image, 3, -1) for image in (x, y)]
    expected = jax.jit(network.apply)({"params": params}, *rgb)
    found = jax.jit(lambda params, x, y: perceptual_distance(network, params, x, y))(params, x, y)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(UserError, match="one shape"):
        perceptual_distance(Digits().network, Digits().weights(), images(0), images(0, side=9))

    class Flat(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(x)

    params = Flat().init(jax.random.key(0), images(0))["params"]
    with pytest.raises(UserError, match="Flat has no convolutions"):
        perceptual_distance(Flat(), params, images(0), images(1))
