"""UNet with text against diffusers' UNet2DConditionModel with random weights: equal numbers, weights both ways."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch and diffusers: install the extra 'parity'")
import diffusers  # noqa: E402

from jaxgen.interop import diffusers_condition_unet as interop  # noqa: E402
from jaxgen.interop.diffusers_files import open_weights, save_weights  # noqa: E402

pytestmark = pytest.mark.parity

BASE = {
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "norm_num_groups": 8,
    "cross_attention_dim": 12,
    "attention_head_dim": 4,
}
CONFIGS = {
    "Stable Diffusion 1": {
        "block_out_channels": (16, 32, 32),
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "layers_per_block": 2,
    },
    "Stable Diffusion 2": {
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": (2, 4),
        "use_linear_projection": True,
        "upcast_attention": True,
    },
    "depths": {"transformer_layers_per_block": (2, 3), "in_channels": 9, "downsample_padding": 0},
    "blocks": {"layers_per_block": (1, 2)},
    "cross-attention only": {"only_cross_attention": True, "flip_sin_to_cos": False, "freq_shift": 1},
    "cross-attention only above": {"only_cross_attention": (True, False)},
    "table": {"num_class_embeds": 5, "norm_eps": 1e-3},
    "timestep": {"class_embed_type": "timestep", "resnet_time_scale_shift": "scale_shift"},
    "identity": {"class_embed_type": "identity", "mid_block_type": "UNetMidBlock2D"},
    "projection": {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 6},
    "simple_projection": {"class_embed_type": "simple_projection", "projection_class_embeddings_input_dim": 6},
    "kernels": {"mid_block_type": None, "conv_in_kernel": 1, "conv_out_kernel": 5, "out_channels": 3},
}


def peer(overrides: dict) -> tuple[dict, diffusers.UNet2DConditionModel]:
    """A UNet2DConditionModel whose every weight, also those that start at zero or one, is random."""
    torch.manual_seed(0)
    model = diffusers.UNet2DConditionModel(**{**BASE, **overrides}).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value) * (0.2 if value.ndim == 1 else 0.05))
    return json.loads(model.to_json_string()), model


def arrays(model) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in model.state_dict().items()}


def labels(config: dict) -> np.ndarray | None:
    rng = np.random.default_rng(2)
    dim = config["projection_class_embeddings_input_dim"]
    if config["num_class_embeds"]:
        return np.asarray([0, config["num_class_embeds"] - 1], np.int32)
    return {
        None: None,
        "timestep": np.asarray([3.0, 250.0], np.float32),
        "identity": rng.standard_normal((2, 64)).astype(np.float32),
    }.get(config["class_embed_type"], rng.standard_normal((2, dim or 1)).astype(np.float32))


@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_equal_and_weights_travel_both_ways(name):
    config, model = peer(CONFIGS[name])
    state = arrays(model)
    unet, params = interop.condition_unet_from_diffusers(state, config)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 8, 16, config["in_channels"])).astype(np.float32)
    context = rng.standard_normal((2, 7, 12)).astype(np.float32)
    time, label = np.asarray([1.0, 981.0], np.float32), labels(config)
    with torch.no_grad():
        theirs = model(
            torch.from_numpy(x.transpose(0, 3, 1, 2)),
            torch.from_numpy(time),
            torch.from_numpy(context),
            class_labels=None if label is None else torch.from_numpy(label),
        ).sample.numpy()
    with jax.default_matmul_precision("highest"):
        ours = jax.jit(unet.apply)({"params": params}, x, time, label, context)
    assert np.std(theirs) > 0.1
    np.testing.assert_allclose(ours, theirs.transpose(0, 2, 3, 1), atol=1e-4, rtol=1e-4)

    back = interop.condition_unet_to_diffusers(params, unet, config["use_linear_projection"])
    back = {entry.name: entry.array() for entry in back}
    assert back.keys() == state.keys()
    for key, value in state.items():
        np.testing.assert_array_equal(back[key], value)


def test_an_inpainting_network_is_told_the_mask_and_the_known_latents_as_a_condition():
    """Their nine channels are four of noisy latents, one of the mask and four of what is known, in this order."""
    config, model = peer({"in_channels": 9})
    unet, params = interop.condition_unet_from_diffusers(arrays(model), config)
    rng = np.random.default_rng(1)
    x, known = rng.standard_normal((2, 2, 8, 8, 4)).astype(np.float32)
    mask = rng.integers(0, 2, (2, 8, 8, 1)).astype(np.float32)
    context, time = rng.standard_normal((2, 7, 12)).astype(np.float32), np.asarray([1.0, 981.0], np.float32)
    seen = np.concatenate([x, mask, known * (1 - mask)], axis=-1)
    with torch.no_grad():
        theirs = model(torch.from_numpy(seen.transpose(0, 3, 1, 2)), torch.from_numpy(time), torch.from_numpy(context))
    with jax.default_matmul_precision("highest"):
        ours = jax.jit(unet.apply)({"params": params}, x, time, None, context, condition=seen[..., 4:])
    np.testing.assert_allclose(ours, theirs.sample.numpy().transpose(0, 2, 3, 1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_written_config_is_of_the_same_network(name, tmp_path):
    config, _ = peer(CONFIGS[name])
    unet, params = interop.condition_unet_from_diffusers(arrays(peer(CONFIGS[name])[1]), config)
    written = interop.condition_unet_config(unet, config["in_channels"], 8)
    assert interop.condition_unet_options(written) == interop.condition_unet_options(config)
    model = diffusers.UNet2DConditionModel(**{key: value for key, value in written.items() if key[0] != "_"})
    save_weights(tmp_path / "model.safetensors", interop.condition_unet_to_diffusers(params, unet))
    state = open_weights(tmp_path, "model")
    told = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert told == {key: value.shape for key, value in state.items()}


def test_masked_tokens_are_not_seen():
    config, model = peer({})
    unet, params = interop.condition_unet_from_diffusers(arrays(model), config)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 8, 8, 4)).astype(np.float32)
    context = rng.standard_normal((2, 7, 12)).astype(np.float32)
    mask = np.arange(7) < np.asarray([[3], [6]])
    with torch.no_grad():
        theirs = model(
            torch.from_numpy(x.transpose(0, 3, 1, 2)),
            10,
            torch.from_numpy(context),
            encoder_attention_mask=torch.from_numpy(mask.astype(np.int64)),
        ).sample.numpy()
    ours = jax.jit(unet.apply)({"params": params}, x, np.full(2, 10.0), None, context, mask)
    np.testing.assert_allclose(ours, theirs.transpose(0, 2, 3, 1), atol=1e-4, rtol=1e-4)
