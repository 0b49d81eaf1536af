"""Low-rank updates of a U-Net's convolutions: they compute what the merged kernels do, at any stride."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.diffusion import schedules
from jaxgen.diffusion.samplers.ddim import DDIM
from jaxgen.errors import UserError
from jaxgen.methods.diffusion.ddpm import DDPM
from jaxgen.methods.grafts.low_rank import LowRank
from jaxgen.networks.unet import UNet
from jaxgen.networks.unet_encoder import UNetEncoder

SHAPE = (8, 8, 1)
X, TIME = jax.random.normal(jax.random.key(8), (2, *SHAPE)), jnp.array([5.0, 900.0])
WHERE = r"^(conv_in|down_0_resample|up_1_resample|up_1_block_0/(conv_in|shortcut|time))$"


def drawn(tree, seed):
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    fresh = [0.3 * jax.random.normal(key, x.shape) for key, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, fresh)


@pytest.fixture(scope="module")
def base():
    network = UNet(1, 8, (1, 2), 1, (), middle_attention=False, middle_blocks=1, norm_groups=4)
    method = DDPM(network, schedules.Cosine(100), DDIM(steps=2), SHAPE)
    params, _ = method.init(jax.random.key(0), {"image": X}, 0, {}, {}, {})
    return method, drawn(params, 1)


@pytest.mark.nightly
def test_hooks_of_convolutions_compute_what_merged_kernels_do(base):
    """Of stride 1 and 2, of a doubled image, of one pixel, and beside a linear layer."""
    trained, params = base
    graft = LowRank(where=WHERE, rank=3, alpha=6.0)
    fresh = graft.start("lora", jax.random.key(0), trained, params, {})
    assert {path: part["a"].shape for path, part in fresh.items()} == {
        "conv_in": (3, 3, 1, 3), "down_0_resample": (3, 3, 8, 3), "up_1_resample": (3, 3, 16, 3),
        "up_1_block_0|conv_in": (3, 3, 32, 3), "up_1_block_0|shortcut": (1, 1, 32, 3), "up_1_block_0|time": (32, 3),
    }  # fmt: skip
    assert all(not np.abs(part["b"]).max() for part in fresh.values())
    part = drawn(fresh, 2)
    plain, hooked, merged = (
        jax.jit(network.apply)({"params": tree["denoiser"]}, X, TIME)
        for network, tree in (
            (trained.network, params),
            (graft.onto(trained).network, graft.grafted(params, part)),
            (trained.network, graft.merged(params, part)),
        )
    )
    assert np.abs(hooked - plain).max() > 0.1
    np.testing.assert_allclose(hooked, merged, atol=2e-4 * float(np.abs(merged).max()))
    assert graft.loaded("lora", part, trained, params, {}) is part


def test_convolutions_of_other_networks_and_other_shapes_are_refused(base):
    trained, params = base
    graft = LowRank(where="conv_in$", rank=2)
    wrong = {"conv_in": {"a": np.zeros((1, 1, 1, 2)), "b": np.zeros((2, 8))}}
    with pytest.raises(UserError, match="the layer is 3x3x1x8: it belongs to another model"):
        graft.loaded("lora", wrong, trained, params, {})
    other = dataclasses.replace(trained, network=UNetEncoder(num_classes=2))
    with pytest.raises(UserError, match="and a U-Net's convolutions, can be updated"):
        graft.start("lora", jax.random.key(0), other, params, {})
