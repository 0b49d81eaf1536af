"""Attention with a text's keys and values beside the pixels' own, against diffusers' layer of the same kind."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch and diffusers: install the extra 'parity'")
from diffusers.models.attention_processor import Attention as Peer  # noqa: E402
from diffusers.models.attention_processor import AttnAddedKVProcessor  # noqa: E402

from jaxgen.networks.layers.basic import Attention  # noqa: E402

pytestmark = pytest.mark.parity
CHANNELS, WIDTH, HEADS, GROUPS = 8, 5, 2, 4
NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "context_key": "add_k_proj", "context_value": "add_v_proj"}


def test_it_is_diffusers_attention_with_added_keys_and_values():
    torch.manual_seed(0)
    peer = Peer(
        CHANNELS, heads=HEADS, dim_head=CHANNELS // HEADS, added_kv_proj_dim=WIDTH, norm_num_groups=GROUPS, bias=True,
        only_cross_attention=False, residual_connection=True, processor=AttnAddedKVProcessor(),
    ).eval()  # fmt: skip
    given = peer.state_dict()
    layers = {ours: f"{theirs}" for ours, theirs in NAMES.items()} | {"out": "to_out.0"}
    params = {
        ours: {"kernel": given[f"{theirs}.weight"].numpy().T, "bias": given[f"{theirs}.bias"].numpy()}
        for ours, theirs in layers.items()
    }
    params["norm"] = {"scale": given["group_norm.weight"].numpy(), "bias": given["group_norm.bias"].numpy()}
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 4, 4, CHANNELS)).astype(np.float32)
    context = rng.standard_normal((2, 3, WIDTH)).astype(np.float32)
    with torch.no_grad():
        wanted = peer(torch.from_numpy(x).permute(0, 3, 1, 2), encoder_hidden_states=torch.from_numpy(context))
    ours = Attention(HEADS, GROUPS, appended=True)
    with jax.default_matmul_precision("highest"):
        found = ours.apply({"params": params}, jnp.asarray(x), jnp.asarray(context))
    np.testing.assert_allclose(found, wanted.permute(0, 2, 3, 1).numpy(), atol=1e-5)
    assert np.abs(found - x).max() > 0.1
