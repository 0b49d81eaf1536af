"""PatchGAN: how much a logit sees, and what its normalisations make depend on what."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.networks.gans.patchgan import PatchDiscriminator, instance_norm, receptive_field
from jaxgen.networks.layers.stateful import apply_stateful, init_stateful


def images(count, side):
    return jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (count, side, side, 1)), jnp.float32)


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_a_logit_sees_its_receptive_field_and_no_more(layers):
    network, side = PatchDiscriminator(width=2, layers=layers, norm="none"), 20 * 2**layers
    x = images(1, side)
    params, _ = jax.jit(functools.partial(init_stateful, network))(jax.random.key(0), x)
    middle = jax.eval_shape(network.apply, {"params": params}, x)["logits"].shape[1] // 2
    slope = jax.jit(jax.grad(lambda x: network.apply({"params": params}, x)["logits"][0, middle, middle]))(x)
    rows = np.flatnonzero(np.abs(slope[0, ..., 0]).sum(1))
    assert rows[-1] - rows[0] + 1 == receptive_field(layers)
    assert [receptive_field(n) for n in (0, 1, 3)] == [1, 16, 70]  # the paper's table 3


def test_a_paper_sized_image_has_30_by_30_logits():
    network = PatchDiscriminator()
    x = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), x)
    found = jax.eval_shape(network.apply, variables, x)
    assert found["logits"].shape == (1, 30, 30)
    assert [layer.shape[1:] for layer in found["layers"]] == [
        (128, 128, 64),
        (64, 64, 128),
        (32, 32, 256),
        (31, 31, 512),
    ]


def test_only_batch_statistics_mix_images_and_are_carried():
    x = images(3, 16)
    for norm in ("batch", "instance", "spectral", "none"):
        network = PatchDiscriminator(width=4, layers=1, norm=norm)
        params, memory = jax.jit(functools.partial(init_stateful, network))(jax.random.key(0), x)
        call = jax.jit(functools.partial(apply_stateful, network, train=True))
        together, carried = call(params, memory, x)
        alone, _ = call(params, memory, x[:2])
        gap = np.abs(together["logits"][:2] - alone["logits"]).max()
        assert (gap > 1e-4) == (norm == "batch"), norm
        assert ("bias" in params["conv_1"]) == (norm in ("spectral", "none")) and "bias" in params["conv_0"]
        assert (set(memory) == set(carried)) and bool(memory) == (norm in ("batch", "spectral"))


def test_instance_norm_is_of_each_channel_of_each_image():
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 5, 5, 3)), jnp.float32)
    found = instance_norm(3 * x + jnp.arange(3) + 7)
    np.testing.assert_allclose(found.mean((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(found.std((1, 2)), 1, atol=1e-4)
    np.testing.assert_allclose(found, instance_norm(x), atol=1e-4)


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="12x12 pixels at least"):
        PatchDiscriminator(layers=2).init(jax.random.key(0), images(1, 8))
    with pytest.raises(UserError, match="norm is"):
        PatchDiscriminator(norm="layer").init(jax.random.key(0), images(1, 64))
    PatchDiscriminator(layers=2, width=2).init(jax.random.key(0), images(1, 12))  # the least works
