"""The causal transformer against transformers' `GPT2LMHeadModel` with random weights: the same logits, with the cache
and without.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch and transformers: install the extra 'parity'")
import transformers  # noqa: E402

from jaxgen.networks.discrete.causal_transformer import CausalTransformer  # noqa: E402

pytestmark = pytest.mark.parity
WIDTH, DEPTH, HEADS, WORDS, LENGTH = 24, 3, 4, 40, 17


def converted(state):
    """Our parameters from GPT-2's; its linear layers are [in, out] as ours are."""

    def norm(name):
        return {"scale": state[f"{name}.weight"], "bias": state[f"{name}.bias"]}

    def dense(name):
        return {"kernel": state[f"{name}.weight"], "bias": state[f"{name}.bias"]}

    def block(name):
        whole = dense(f"{name}.attn.c_attn")
        parts = {key: np.split(value, 3, axis=-1) for key, value in whole.items()}
        qkv = {part: {key: parts[key][i] for key in parts} for i, part in enumerate(("query", "key", "value"))}
        return {
            "norm_1": norm(f"{name}.ln_1"), **qkv, "out": dense(f"{name}.attn.c_proj"), "norm_2": norm(f"{name}.ln_2"),
            "mlp_in": dense(f"{name}.mlp.c_fc"), "mlp_out": dense(f"{name}.mlp.c_proj"),
        }  # fmt: skip

    return {
        "token": {"embedding": state["transformer.wte.weight"]}, "position": state["transformer.wpe.weight"],
        "norm_out": norm("transformer.ln_f"), **{f"block_{i}": block(f"transformer.h.{i}") for i in range(DEPTH)},
    }  # fmt: skip


def test_logits_equal_those_of_gpt2():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=WORDS, n_positions=LENGTH, n_embd=WIDTH, n_layer=DEPTH, n_head=HEADS, attn_pdrop=0.0,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value) * 0.2)
    tokens = np.random.default_rng(0).integers(0, WORDS, (3, LENGTH))
    with torch.no_grad():
        wanted = model(torch.from_numpy(tokens)).logits.numpy()
    params = converted({name: value.numpy() for name, value in model.state_dict().items()})
    network = CausalTransformer(vocabulary=WORDS, length=LENGTH, width=WIDTH, depth=DEPTH, heads=HEADS)
    fresh = jax.eval_shape(network.init, jax.random.key(0), jnp.asarray(tokens))["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda x: x.shape, fresh)
    with jax.default_matmul_precision("highest"):
        found = jax.jit(network.apply)({"params": params}, jnp.asarray(tokens))
    assert np.abs(wanted).max() > 1
    np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=1e-4)
