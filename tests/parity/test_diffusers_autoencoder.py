"""AutoencoderKL against diffusers' with random weights: moments, images, weights both ways."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch and diffusers: install the extra 'parity'")
import diffusers  # noqa: E402

from jaxgen.interop import diffusers_autoencoder as interop  # noqa: E402

pytestmark = pytest.mark.parity

BASE = {
    "block_out_channels": (16, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 8,
}
CONFIGS = {
    "Stable Diffusion": {
        "block_out_channels": (8, 16, 32, 32),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
    },
    "channels": {"in_channels": 1, "out_channels": 2, "latent_channels": 3},
    "bare": {"mid_block_add_attention": False, "use_quant_conv": False, "use_post_quant_conv": False},
}


def peer(overrides: dict) -> tuple[dict, diffusers.AutoencoderKL]:
    """An AutoencoderKL whose every weight is random."""
    torch.manual_seed(0)
    model = diffusers.AutoencoderKL(**{**BASE, **overrides}).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value) * (0.2 if value.ndim == 1 else 0.02))
    return json.loads(model.to_json_string()), model


def arrays(model) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_moments_and_images_equal_and_weights_travel_both_ways(name):
    config, model = peer(CONFIGS[name])
    state = arrays(model)
    autoencoder, params = interop.autoencoder_from_diffusers(state, config)
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, (2, 16, 32, config["in_channels"])).astype(np.float32)
    with torch.no_grad():
        moments = model.encode(torch.from_numpy(x.transpose(0, 3, 1, 2))).latent_dist.parameters
        z = torch.from_numpy(rng.standard_normal((2, config["latent_channels"], 4, 2)).astype(np.float32))
        images = model.decode(z).sample.numpy().transpose(0, 2, 3, 1)
    with jax.default_matmul_precision("highest"):
        variables = {"params": params}
        found = autoencoder.apply(variables, x, method="encode")
        drawn = autoencoder.apply(variables, z.numpy().transpose(0, 2, 3, 1), method="decode")
    np.testing.assert_allclose(found, moments.numpy().transpose(0, 2, 3, 1), atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(drawn, images, atol=1e-4, rtol=1e-4)

    back = {entry.name: entry.array() for entry in interop.autoencoder_to_diffusers(params, autoencoder)}
    assert back.keys() == state.keys()
    for key, value in state.items():
        np.testing.assert_array_equal(back[key], value)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_written_config_is_of_the_same_network(name):
    config, model = peer(CONFIGS[name])
    autoencoder, _ = interop.autoencoder_from_diffusers(arrays(model), config)
    written = interop.autoencoder_config(autoencoder, config["in_channels"])
    again = diffusers.AutoencoderKL(**{key: value for key, value in written.items() if key[0] != "_"})
    told = {key: value.shape for key, value in model.state_dict().items()}
    assert told == {key: value.shape for key, value in again.state_dict().items()}


def test_old_attention_names():
    config, model = peer({})
    state = arrays(model)
    _, params = interop.autoencoder_from_diffusers(state, config)
    renamed = state
    for new, old in {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}.items():
        renamed = {key.replace(f".{new}.", f".{old}."): value for key, value in renamed.items()}
    assert renamed.keys() != state.keys()
    _, again = interop.autoencoder_from_diffusers(renamed, config)
    jax.tree.map(np.testing.assert_array_equal, params, again)
