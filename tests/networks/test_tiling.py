"""Decoding in parts gives what decoding at once gives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.networks.autoencoder_kl import AutoencoderKL
from jaxgen.networks.layers.convolution import conv, upsample
from jaxgen.networks.layers.tiling import decode_tiled, in_chunks, starts

KERNELS = np.random.default_rng(0).normal(size=(2, 3, 3, 2, 2)).astype(np.float32)


def latents(*shape):
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


def local(z):
    """Two 3x3 convolutions and two doublings: sees two latents around each at most."""
    z = jnp.tanh(conv(z, jnp.asarray(KERNELS[0]), 1, ((1, 1), (1, 1))))
    return upsample(conv(upsample(z), jnp.asarray(KERNELS[1]), 1, ((1, 1), (1, 1))))


@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_chunks_are_put_together_in_order(size):
    z = latents(7, 3, 3, 2)
    np.testing.assert_allclose(in_chunks(local, z, size), local(z), atol=1e-5)
    assert in_chunks(local, z, 0).shape == (7, 12, 12, 2)


@pytest.mark.parametrize("sides", [(31, 17), (16, 40), (17, 9), (8, 8)])
def test_tiles_of_a_local_decoder_are_the_whole(sides):
    z = latents(2, *sides, 2)
    found = jax.jit(lambda z: decode_tiled(local, z, 16, 8))(z)
    np.testing.assert_allclose(found, local(z), atol=1e-5)


def test_too_little_overlap_shows():
    z = latents(1, 32, 32, 2)
    assert np.abs(decode_tiled(local, z, 8, 1) - local(z)).max() > 1e-3
    np.testing.assert_array_equal(decode_tiled(local, z, 32, 1), local(z))  # one tile is the whole


@pytest.mark.slow
def test_tiles_of_a_decoder_with_statistics_of_the_whole_are_nearly_the_whole():
    """Group normalisation and attention see one tile each: images differ, by a few hundredths of their spread."""
    network = AutoencoderKL(
        out_channels=1, channels=8, channel_multipliers=(1, 1), blocks=1, latent_channels=2, norm_groups=2
    )
    params = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))["params"]

    def decode(z):
        return network.apply({"params": params}, z, method="decode")

    z = latents(1, 32, 32, 2)
    whole, found = jax.jit(decode)(z), jax.jit(lambda z: decode_tiled(decode, z, 24, 12))(z)
    error = jnp.sqrt(jnp.square(found - whole).mean()) / whole.std()
    assert 0 < error < 0.1


def test_tiles_cover_a_side_and_share_enough():
    for length in range(1, 60):
        at = starts(length, 8, 3)
        assert at[0] == 0 and at[-1] + 8 == max(length, 8)
        assert all(0 < b - a <= 5 for a, b in zip(at, at[1:], strict=False))


@pytest.mark.parametrize(("tile", "overlap"), [(8, 0), (8, 5), (1, 1)])
def test_tiles_that_do_not_do_are_refused(tile, overlap):
    with pytest.raises(UserError, match="do not do"):
        decode_tiled(local, latents(1, 20, 20, 2), tile, overlap)
