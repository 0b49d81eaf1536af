"""UNet against diffusers' UNet2DModel with random weights: equal numbers, and weights that travel both ways."""

from __future__ import annotations

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch and diffusers: install the extra 'parity'")
import diffusers  # noqa: E402

from jaxgen.errors import UserError  # noqa: E402
from jaxgen.interop.diffusers_unet import unet_from_diffusers, unet_to_diffusers  # noqa: E402
from jaxgen.networks.unet import UNet  # noqa: E402

pytestmark = pytest.mark.parity

BASE = {
    "sample_size": 16,
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 8,
    "attention_head_dim": None,
}
CONFIGS = {
    "one head": {},
    "heads, sin first, shifted": {"attention_head_dim": 8, "flip_sin_to_cos": False, "freq_shift": 1},
    "after padding": {"downsample_padding": 0, "norm_eps": 1e-3},
    "scale and shift": {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 8},
    "classes": {"num_class_embeds": 5, "in_channels": 4, "out_channels": 2, "add_attention": False},
    "residual resampling": {
        "block_out_channels": (16, 16, 32),
        "layers_per_block": 2,
        "sample_size": (16, 32),
        "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("ResnetUpsampleBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "resnet_time_scale_shift": "scale_shift",
        "attn_norm_num_groups": 8,
    },
    "scale and shift, residual resampling, heads and classes together, as ADM": {
        "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "resnet_time_scale_shift": "scale_shift",
        "attn_norm_num_groups": 8,
        "attention_head_dim": 8,
        "num_class_embeds": 11,
        "out_channels": 6,
    },
    "no attention, three levels": {
        "block_out_channels": (8, 16, 24),
        "down_block_types": ("DownBlock2D",) * 3,
        "up_block_types": ("UpBlock2D",) * 3,
        "add_attention": False,
        "dropout": 0.3,
    },
}


def peer(overrides: dict) -> tuple[dict, diffusers.UNet2DModel, dict[str, np.ndarray]]:
    """A UNet2DModel whose every weight, also those that start at zero or one, is random."""
    config = {**BASE, **overrides}
    torch.manual_seed(0)
    model = diffusers.UNet2DModel(**config).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value) * (0.2 if value.ndim == 1 else 0.02))
    return config, model, {name: value.numpy() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_equal(name):
    config, model, state = peer(CONFIGS[name])
    options, params = unet_from_diffusers(state, config)
    rng = np.random.default_rng(1)
    size = config["sample_size"]
    height, width = (size, size) if isinstance(size, int) else size
    x = rng.standard_normal((3, height, width, config["in_channels"])).astype(np.float32)
    time = np.asarray([0.0, 37.0, 999.0], np.float32)
    classes = config.get("num_class_embeds")
    label = None if classes is None else np.asarray([0, 2, classes - 1], np.int32)
    with torch.no_grad():
        theirs = model(
            torch.from_numpy(x.transpose(0, 3, 1, 2)),
            torch.from_numpy(time),
            class_labels=None if label is None else torch.from_numpy(label),
        ).sample.numpy()
    with jax.default_matmul_precision("highest"):
        ours = UNet(**options).apply({"params": params}, x, time, label)
    assert np.std(theirs) > 0.1
    np.testing.assert_allclose(ours, theirs.transpose(0, 2, 3, 1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_travel_both_ways(name):
    config, _, state = peer(CONFIGS[name])
    options, params = unet_from_diffusers(state, config)
    back = unet_to_diffusers(params, UNet(**options))
    assert back.keys() == state.keys()
    for key, value in state.items():
        np.testing.assert_array_equal(back[key], value)


@pytest.mark.parametrize("name", CONFIGS)
def test_params_have_the_structure_of_init(name):
    config, _, state = peer(CONFIGS[name])
    options, params = unet_from_diffusers(state, config)
    size = config["sample_size"]
    height, width = (size, size) if isinstance(size, int) else size
    x = np.zeros((1, height, width, config["in_channels"]), np.float32)
    label = np.zeros(1, np.int32) if config.get("num_class_embeds") else None
    unet = UNet(**options)
    fresh = jax.eval_shape(lambda: unet.init(jax.random.key(0), x, np.zeros(1, np.float32), label))["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda leaf: leaf.shape, fresh)


def test_old_attention_names():
    config, _, state = peer({})
    _, params = unet_from_diffusers(state, config)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = state
    for new_name, old_name in old.items():
        renamed = {key.replace(f".{new_name}.", f".{old_name}."): value for key, value in renamed.items()}
    assert renamed.keys() != state.keys()
    _, again = unet_from_diffusers(renamed, config)
    jax.tree.map(np.testing.assert_array_equal, params, again)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"center_input_sample": True}, "center_input_sample"),
        ({"time_embedding_type": "fourier"}, "time_embedding_type"),
        ({"resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups"),
        ({"down_block_types": ("SkipDownBlock2D", "AttnDownBlock2D")}, "SkipDownBlock2D"),
        ({"down_block_types": ("AttnDownBlock2D", "AttnDownBlock2D")}, "different levels"),
        ({"sample_size": None}, "sample_size"),
        ({"block_out_channels": (16, 24)}, "multiples"),
        ({"upsample_type": "resnet"}, "resamples"),
    ],
)
def test_unknown_configs_are_refused(change, word):
    config, _, state = peer({})
    with pytest.raises(UserError, match=word):
        unet_from_diffusers(state, {**config, **change})


def test_states_that_do_not_fit_are_refused():
    config, _, state = peer({})
    missing = dict(state)
    del missing["conv_out.bias"]
    with pytest.raises(UserError, match="lacks 'conv_out.bias'"):
        unet_from_diffusers(missing, config)
    with pytest.raises(UserError, match="'more.weight'"):
        unet_from_diffusers({**state, "more.weight": np.zeros(3)}, config)
    _, params = unet_from_diffusers(state, config)
    with pytest.raises(UserError, match="context_dim"):
        unet_to_diffusers(params, UNet(context_dim=4))
    with pytest.raises(UserError, match="vector_dim"):
        unet_to_diffusers(params, UNet(vector_dim=4))
