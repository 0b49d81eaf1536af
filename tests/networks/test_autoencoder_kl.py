"""The network of the KL autoencoder: sizes, options, and what is refused. tests/parity holds its numbers to a peer."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.networks.autoencoder_kl import AutoencoderKL

SMALL = AutoencoderKL(
    out_channels=1, channels=8, channel_multipliers=(1, 2, 2), blocks=1, latent_channels=3, norm_groups=4
)


@functools.cache
def params(network=SMALL):
    fresh = jax.jit(lambda key: network.init(key, jnp.zeros((1, 8, 8, 1)))["params"])(jax.random.key(0))
    leaves, tree = jax.tree.flatten(fresh)
    random = np.random.default_rng(0)  # what starts at zero is to have a say
    return jax.tree.unflatten(tree, [x + 0.1 * random.normal(size=x.shape).astype(np.float32) for x in leaves])


def images(count, height=8, width=8):
    return jnp.asarray(np.random.default_rng(1).uniform(-1, 1, (count, height, width, 1)), jnp.float32)


@functools.partial(jax.jit, static_argnames=("network", "method"))
def call(params, x, network, method):
    return network.apply({"params": params}, x, method=method)


@pytest.mark.nightly
def test_latents_have_the_coarsest_size_and_images_come_back():
    assert SMALL.factor == 4
    moments = call(params(), images(2, 16, 8), SMALL, "encode")
    assert moments.shape == (2, 4, 2, 6) and moments.dtype == jnp.float32
    again = call(params(), moments[..., :3], SMALL, "decode")
    assert again.shape == (2, 16, 8, 1) and again.dtype == jnp.float32 and np.std(again) > 0


def test_an_image_does_not_depend_on_its_neighbours():
    together = call(params(), images(3), SMALL, "encode")
    np.testing.assert_allclose(call(params(), images(3)[1:2], SMALL, "encode")[0], together[1], atol=1e-5)


@pytest.mark.slow
def test_arithmetic_in_bfloat16_gives_float32_nearby():
    rough = SMALL.clone(dtype="bfloat16")
    latents = jnp.asarray(np.random.default_rng(2).normal(size=(2, 2, 2, 3)), jnp.float32)
    for method, x in (("encode", images(2)), ("decode", latents)):
        exact, found = call(params(), x, SMALL, method), call(params(), x, rough, method)
        assert found.dtype == jnp.float32
        assert 0 < np.abs(found - exact).max() < 0.1 * np.abs(exact).max()


def test_options_leave_layers_out():
    every = {"encoder", "decoder", "quant", "post_quant"}
    assert set(params()) == every
    bare = SMALL.clone(quant_conv=False, post_quant_conv=False, middle_attention=False)
    fewer = jax.eval_shape(lambda key: bare.init(key, images(1))["params"], jax.random.key(0))
    assert set(fewer) == every - {"quant", "post_quant"}
    assert set(params()["decoder"]) - set(fewer["decoder"]) == {"middle_attention"}


@pytest.mark.parametrize(
    ("method", "shape", "said"),
    [("encode", (1, 10, 8, 1), "multiples of 4"), ("decode", (1, 2, 2, 4), r"latents \[B, h, w, 3\]")],
)
def test_sizes_that_do_not_fit_are_refused(method, shape, said):
    with pytest.raises(UserError, match=said):
        SMALL.apply({"params": params()}, jnp.zeros(shape), method=method)


def test_an_autoencoder_needs_a_level():
    with pytest.raises(UserError, match="at least one level"):
        SMALL.clone(channel_multipliers=()).init(jax.random.key(0), images(1))
