"""The discrete autoencoder against diffusers' `VQModel` with random weights: the same codes, the same images."""

from __future__ import annotations

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch and diffusers: install the extra 'parity'")
import diffusers  # noqa: E402

from jaxgen.interop.diffusers_autoencoder import layers  # noqa: E402
from jaxgen.interop.diffusers_layers import read_layers  # noqa: E402
from jaxgen.networks.autoencoder_kl import AutoencoderKL  # noqa: E402
from jaxgen.networks.discrete.autoencoder_vq import AutoencoderVQ  # noqa: E402
from jaxgen.variational.codebook import nearest  # noqa: E402

pytestmark = pytest.mark.parity


@pytest.mark.slow
def test_codes_and_images_equal_those_of_diffusers():
    torch.manual_seed(0)
    model = diffusers.VQModel(
        block_out_channels=(16, 32), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=8, num_vq_embeddings=24,
    ).eval()  # fmt: skip
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value) * (0.2 if value.ndim == 1 else 0.05))
    x = np.random.default_rng(1).uniform(-1, 1, (3, 16, 32, 3)).astype(np.float32)
    with torch.no_grad():
        z = model.encode(torch.from_numpy(x.transpose(0, 3, 1, 2))).latents
        rows = z.permute(0, 2, 3, 1).reshape(-1, 4)
        model.quantize.embedding.weight.copy_(rows[::16][:24] + 0.1 * torch.randn(24, 4))
        _, _, (_, _, chosen) = model.quantize(z)
        images = model.decode(z).sample.numpy().transpose(0, 2, 3, 1)
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    codes = state.pop("quantize.embedding.weight")
    options = {"channels": 16, "channel_multipliers": (1, 2), "blocks": 1, "latent_channels": 4, "norm_groups": 8}
    network = AutoencoderVQ(codes=24, **options)
    wanted = jax.eval_shape(network.init, jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))["params"]
    params = read_layers(layers(AutoencoderKL(**options)), state, wanted, "float32", lambda array: array)

    with jax.default_matmul_precision("highest"):
        found = network.apply({"params": params}, x, method="encode")
        own = nearest(codes, found)
        drawn = network.apply({"params": params}, codes[own], method="decode")
    np.testing.assert_allclose(found, z.numpy().transpose(0, 2, 3, 1), atol=1e-4, rtol=1e-4)
    np.testing.assert_array_equal(np.asarray(own).reshape(-1), chosen.numpy().reshape(-1))
    assert len(np.unique(own)) > 10
    np.testing.assert_allclose(drawn, images, atol=1e-4, rtol=1e-4)
