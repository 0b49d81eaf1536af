"""DiT against diffusers' DiTTransformer2DModel with random weights: equal numbers, and weights both ways."""

from __future__ import annotations

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch and diffusers: install the extra 'parity'")
import diffusers  # noqa: E402
from diffusers.models.attention import BasicTransformerBlock  # noqa: E402

from jaxgen.errors import UserError  # noqa: E402
from jaxgen.interop.diffusers_dit import (  # noqa: E402
    dit_config,
    dit_from_diffusers,
    dit_options,
    dit_to_diffusers,
    stack_blocks,
)
from jaxgen.networks.dit import DiT  # noqa: E402

pytestmark = pytest.mark.parity

BASE = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 3,
    "num_layers": 2,
    "sample_size": 8,
    "num_embeds_ada_norm": 5,
}
CONFIGS = {
    "defaults": {},
    "learned variance, large patches": {"in_channels": 4, "out_channels": 8, "patch_size": 4, "num_layers": 3},
    "another eps": {"norm_eps": 1e-2, "num_attention_heads": 4, "sample_size": 12, "dropout": 0.3},
}


def shared_embedders(model: diffusers.DiTTransformer2DModel) -> None:
    """Block 0's embedders in every block, as in the published weights."""
    for block in model.transformer_blocks[1:]:
        block.norm1.emb.load_state_dict(model.transformer_blocks[0].norm1.emb.state_dict())


def peer(overrides: dict) -> tuple[dict, diffusers.DiTTransformer2DModel, dict[str, np.ndarray]]:
    """A DiTTransformer2DModel whose every weight, also those that start at zero, is random."""
    config = {**BASE, **overrides}
    torch.manual_seed(0)
    model = diffusers.DiTTransformer2DModel(**config).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value) * (0.2 if value.ndim == 1 else 0.05))
    shared_embedders(model)
    return config, model, {name: value.numpy() for name, value in model.state_dict().items()}


def inputs(config: dict) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    size = config["sample_size"]
    x = np.random.default_rng(1).standard_normal((3, size, size, config["in_channels"])).astype(np.float32)
    return x, np.asarray([0.0, 37.0, 999.0], np.float32), np.asarray([0, 2, config["num_embeds_ada_norm"]], np.int32)


def to_torch(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x.transpose(0, 3, 1, 2))


def from_torch(x: torch.Tensor) -> np.ndarray:
    return x.numpy().transpose(0, 2, 3, 1)


@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_equal(name):
    config, model, state = peer(CONFIGS[name])
    options, params = dit_from_diffusers(state, config)
    x, time, label = inputs(config)
    with torch.no_grad():
        theirs = from_torch(model(to_torch(x), torch.from_numpy(time), torch.from_numpy(label)).sample)
    with jax.default_matmul_precision("highest"):
        ours = DiT(**options).apply({"params": params}, x, time, label)
    assert np.std(theirs) > 0.1
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_to_text_equals(masked):
    """The peer's own block has cross-attention too, though its DiT never asks for it."""
    config, model, _ = peer({})
    config = {**config, "norm_eps": 1e-6}
    width, context_dim = 16, 6
    torch.manual_seed(1)
    model.transformer_blocks = torch.nn.ModuleList(
        BasicTransformerBlock(
            width,
            2,
            8,
            cross_attention_dim=context_dim,
            activation_fn="gelu-approximate",
            num_embeds_ada_norm=5,
            attention_bias=True,
            norm_type="ada_norm_zero",
            norm_elementwise_affine=False,
            norm_eps=1e-6,
        ).eval()
        for _ in range(2)
    )
    shared_embedders(model)
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    extra = {name: state.pop(name) for name in list(state) if ".attn2." in name}
    options, params = dit_from_diffusers(state, config)
    for i in range(2):
        params[f"block_{i}"]["context_attention"] = {
            ours: {
                "kernel": extra[f"transformer_blocks.{i}.attn2.{theirs}.weight"].T,
                "bias": extra[f"transformer_blocks.{i}.attn2.{theirs}.bias"],
            }
            for ours, theirs in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("out", "to_out.0"))
        }
    x, time, label = inputs(config)
    context = np.random.default_rng(2).standard_normal((3, 4, context_dim)).astype(np.float32)
    mask = np.asarray([[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]], np.int32) if masked else None
    given = {
        "encoder_hidden_states": torch.from_numpy(context),
        "encoder_attention_mask": None if mask is None else torch.from_numpy((1 - mask[:, None]) * -1e9).float(),
    }
    for block in model.transformer_blocks:
        block.register_forward_pre_hook(lambda _, args, kwargs: (args, {**kwargs, **given}), with_kwargs=True)
    with torch.no_grad():
        theirs = from_torch(model(to_torch(x), torch.from_numpy(time), torch.from_numpy(label)).sample)
    dit = DiT(**{**options, "context_dim": context_dim})
    with jax.default_matmul_precision("highest"):
        ours = dit.apply({"params": params}, x, time, label, context, mask)
        other = dit.apply({"params": params}, x, time, label, context[:, ::-1] * 2, mask)
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-4)
    assert np.abs(other - theirs).max() > 1e-2


@pytest.mark.parametrize("name", CONFIGS)
def test_weights_travel_both_ways(name):
    config, _, state = peer(CONFIGS[name])
    options, params = dit_from_diffusers(state, config)
    back = dit_to_diffusers(params, DiT(**options))
    assert back.keys() == state.keys()
    for key, value in state.items():
        np.testing.assert_array_equal(back[key], value)
    again_options, again = dit_from_diffusers(back, config)
    assert again_options == options
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_blocks_that_are_scanned_travel_too():
    config, _, state = peer({"num_layers": 3})
    options, params = dit_from_diffusers(state, config)
    back = dit_to_diffusers(stack_blocks(params), DiT(**options, scan_blocks=True))
    assert back.keys() == state.keys()
    for key, value in state.items():
        np.testing.assert_array_equal(back[key], value)


@pytest.mark.parametrize("name", CONFIGS)
def test_fresh_weights_are_the_peers_there_and_ours_back(name):
    config = {**BASE, **CONFIGS[name]}
    dit = DiT(**dit_options(config))
    x, time, label = inputs(config)
    params = jax.device_get(dit.init(jax.random.key(0), x, time, label)["params"])
    params["patch_out"]["bias"] = np.arange(params["patch_out"]["bias"].size, dtype=np.float32)
    state = dit_to_diffusers(params, dit)
    their_config = dit_config(dit, config["in_channels"], config["sample_size"])
    model = diffusers.DiTTransformer2DModel(**their_config).eval()
    model.load_state_dict({key: torch.from_numpy(value.copy()) for key, value in state.items()})
    with torch.no_grad():
        theirs = from_torch(model(to_torch(x), torch.from_numpy(time), torch.from_numpy(label)).sample)
    np.testing.assert_allclose(dit.apply({"params": params}, x, time, label), theirs, atol=1e-5)
    options, back = dit_from_diffusers(state, their_config)
    assert DiT(**options) == dit
    jax.tree.map(np.testing.assert_array_equal, back, params)


def test_silent_configs_mean_what_the_peer_means():
    small = {"num_layers": 1, "num_attention_heads": 1, "attention_head_dim": 8, "sample_size": 4}
    model = diffusers.DiTTransformer2DModel(**small)
    stated = {key: value for key, value in model.config.items() if not key.startswith("_")}
    assert dit_options(small) == dit_options(stated)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"attention_bias": False}, "attention_bias"),
        ({"activation_fn": "geglu"}, "activation_fn"),
        ({"norm_type": "ada_norm_single"}, "norm_type"),
        ({"norm_elementwise_affine": True}, "norm_elementwise_affine"),
        ({"num_embeds_ada_norm": None}, "num_embeds_ada_norm"),
    ],
)
def test_unknown_configs_are_refused(change, word):
    config, _, state = peer({})
    with pytest.raises(UserError, match=word):
        dit_from_diffusers(state, {**config, **change})


def test_states_that_do_not_fit_are_refused():
    config, _, state = peer({})
    missing = dict(state)
    del missing["proj_out_2.bias"]
    with pytest.raises(UserError, match=r"lacks 'proj_out_2.bias'"):
        dit_from_diffusers(missing, config)
    with pytest.raises(UserError, match=r"'more.weight'"):
        dit_from_diffusers({**state, "more.weight": np.zeros(3)}, config)
    for part in ("timestep_embedder.linear_1.bias", "class_embedder.embedding_table.weight"):
        key = f"transformer_blocks.1.norm1.emb.{part}"
        with pytest.raises(UserError, match="differs from that of block 0"):
            dit_from_diffusers({**state, key: state[key] + 1e-3}, config)


@pytest.mark.parametrize(
    "change", [{"context_dim": 4}, {"vector_dim": 4}, {"time_freq_shift": 0.0}, {"mlp_ratio": 2.0}, {"num_classes": 0}]
)
def test_what_the_peer_cannot_express_is_refused(change):
    config, _, state = peer({})
    options, params = dit_from_diffusers(state, config)
    with pytest.raises(UserError, match=next(iter(change))):
        dit_to_diffusers(params, DiT(**{**options, **change}))
    with pytest.raises(UserError, match="do not belong"):
        dit_to_diffusers({}, DiT(**options))
