"""Converts the weights of diffusers' `DiTTransformer2DModel` to `jaxgen.networks.dit.DiT` and back.

The functions are pure and take dicts of numpy arrays; neither torch nor diffusers is imported. Read a model's state
from its safetensors file and its config from `config.json`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxgen.errors import UserError
from jaxgen.networks.dit import DiT

# The defaults of DiTTransformer2DModel for entries that a config lacks.
CONFIG_DEFAULTS = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": None,
    "num_layers": 28,
    "dropout": 0.0,
    "norm_num_groups": 32,
    "attention_bias": True,
    "sample_size": 32,
    "patch_size": 2,
    "activation_fn": "gelu-approximate",
    "num_embeds_ada_norm": 1000,
    "upcast_attention": False,
    "norm_type": "ada_norm_zero",
    "norm_elementwise_affine": False,
    "norm_eps": 1e-5,
}

# The options of DiT that DiTTransformer2DModel always has, and the entries of which DiT supports only one value.
FIXED = {
    "mlp_ratio": 4.0,
    "context_dim": 0,
    "vector_dim": 0,
    "time_features": 256,
    "time_scale": 1.0,
    "time_cos_first": True,
    "time_freq_shift": 1.0,
    "norm_eps": 1e-6,
}
SUPPORTED = {
    "attention_bias": True,
    "activation_fn": "gelu-approximate",
    "norm_type": "ada_norm_zero",
    "norm_elementwise_affine": False,
}

EMBEDDERS = {
    "time_in": ("timestep_embedder.linear_1", "dense"),
    "time_out": ("timestep_embedder.linear_2", "dense"),
    "class": ("class_embedder.embedding_table", "embedding"),
}


def dit_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of `DiT` that make it compute what `DiTTransformer2DModel(**config)` does.

    They agree at the config's sample_size. At other sizes diffusers' model stretches the positions of its own size,
    while `DiT` continues to count.

    Raises:
      UserError: the config has no equivalent as a `DiT`; the message names the entry.
    """
    config = {**CONFIG_DEFAULTS, **config}
    for entry, only in SUPPORTED.items():
        if config[entry] != only:
            raise UserError(f"DiTTransformer2DModel's {entry}={config[entry]!r} has no equivalent here, only {only!r}.")
    heads, classes, out_channels = (config[k] for k in ("num_attention_heads", "num_embeds_ada_norm", "out_channels"))
    if not classes:
        raise UserError("DiTTransformer2DModel's num_embeds_ada_norm must be the number of its classes.")
    return {
        "out_channels": config["in_channels"] if out_channels is None else out_channels,
        "patch_size": config["patch_size"],
        "width": heads * config["attention_head_dim"],
        "depth": config["num_layers"],
        "heads": heads,
        "dropout": float(config["dropout"]),
        "num_classes": classes,
        "mlp_norm_eps": float(config["norm_eps"]),
        **FIXED,
    }


def dit_config(dit: DiT, in_channels: int, sample_size: int) -> dict[str, Any]:
    """Returns the config of the `DiTTransformer2DModel` that computes what `dit` does on squares of sample_size pixels.

    This is the inverse of `dit_options`.

    Raises:
      UserError: `dit` has an option that `DiTTransformer2DModel` cannot express.
    """
    for field, only in FIXED.items():
        if getattr(dit, field) != only:
            found = getattr(dit, field)
            raise UserError(f"DiTTransformer2DModel has no equivalent for {field}={found!r}, only {only!r}.")
    if not dit.num_classes:
        raise UserError("DiTTransformer2DModel has no equivalent for num_classes=0: it always takes a label.")
    if dit.width % dit.heads or sample_size % dit.patch_size:
        raise UserError(f"heads={dit.heads} must divide width={dit.width}, and patch_size the sample size.")
    return {
        **SUPPORTED,
        "num_attention_heads": dit.heads,
        "attention_head_dim": dit.width // dit.heads,
        "in_channels": in_channels,
        "out_channels": dit.out_channels,
        "num_layers": dit.depth,
        "dropout": dit.dropout,
        "sample_size": sample_size,
        "patch_size": dit.patch_size,
        "num_embeds_ada_norm": dit.num_classes,
        "norm_eps": dit.norm_eps if dit.mlp_norm_eps is None else dit.mlp_norm_eps,
    }


def names(depth: int) -> Iterator[tuple[str, str, str]]:
    """Yields (path here, prefix in diffusers, kind) of every layer but the embedders; kind is "patch" or "dense"."""
    yield "patch_in", "pos_embed.proj", "patch"
    for i in range(depth):
        ours, theirs = f"block_{i}", f"transformer_blocks.{i}"
        yield f"{ours}/modulation", f"{theirs}.norm1.linear", "dense"
        yield f"{ours}/attention/query", f"{theirs}.attn1.to_q", "dense"
        yield f"{ours}/attention/key", f"{theirs}.attn1.to_k", "dense"
        yield f"{ours}/attention/value", f"{theirs}.attn1.to_v", "dense"
        yield f"{ours}/attention/out", f"{theirs}.attn1.to_out.0", "dense"
        yield f"{ours}/mlp/in", f"{theirs}.ff.net.0.proj", "dense"
        yield f"{ours}/mlp/out", f"{theirs}.ff.net.2", "dense"
    yield "modulation_out", "proj_out_1", "dense"
    yield "patch_out", "proj_out_2", "dense"


def layer_from(state: dict[str, np.ndarray], theirs: str, kind: str) -> dict[str, np.ndarray]:
    """Takes one layer out of the state and returns its arrays as `DiT` has them."""
    weight = np.asarray(take(state, f"{theirs}.weight"), np.float32)
    if kind == "embedding":
        return {"embedding": weight}
    if kind == "patch":  # [D, C, p, p] -> [p p C, D]
        weight = weight.transpose(2, 3, 1, 0).reshape(-1, weight.shape[0])
    else:
        weight = weight.transpose(1, 0)
    return {"kernel": weight, "bias": np.asarray(take(state, f"{theirs}.bias"), np.float32)}


def layer_to(layer: Mapping[str, Any], theirs: str, kind: str, patch_size: int) -> dict[str, np.ndarray]:
    """Returns a layer of `DiT` as entries of a state; the inverse of `layer_from`."""
    if kind == "embedding":
        return {f"{theirs}.weight": np.asarray(layer["embedding"])}
    weight = np.asarray(layer["kernel"])
    if kind == "patch":
        weight = weight.reshape(patch_size, patch_size, -1, weight.shape[-1]).transpose(3, 2, 0, 1)
    else:
        weight = weight.transpose(1, 0)
    return {f"{theirs}.weight": np.ascontiguousarray(weight), f"{theirs}.bias": np.asarray(layer["bias"])}


def take(state: dict[str, np.ndarray], key: str) -> np.ndarray:
    """Removes one weight from the state and returns it. Raises UserError if it is missing."""
    if key not in state:
        raise UserError(f"the state lacks {key!r}, which its config asks for.")
    return state.pop(key)


def stack_blocks(params: Mapping[str, Any]) -> dict[str, Any]:
    """Stacks the entries `block_<i>` of a `DiT`'s params into one entry `blocks`, which a scanned `DiT` has."""
    depth = sum(name.startswith("block_") for name in params)
    if not depth or any(f"block_{i}" not in params for i in range(depth)):
        raise UserError("params have no block_0, block_1, ...: they do not belong to a DiT without scan_blocks.")
    rest = {name: layer for name, layer in params.items() if not name.startswith("block_")}
    return {**rest, "blocks": jax.tree.map(lambda *x: np.stack(x), *(params[f"block_{i}"] for i in range(depth)))}


def unstack_blocks(params: Mapping[str, Any]) -> dict[str, Any]:
    """Inverts `stack_blocks`."""
    if "blocks" not in params:
        raise UserError("params have no 'blocks': they do not belong to a DiT with scan_blocks.")
    rest = {name: layer for name, layer in params.items() if name != "blocks"}
    depth = len(jax.tree.leaves(params["blocks"])[0])
    each = {f"block_{i}": jax.tree.map(lambda x, i=i: np.asarray(x[i]), params["blocks"]) for i in range(depth)}
    return {**rest, **each}


def dit_from_diffusers(state: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> tuple[dict, dict]:
    """Returns (arguments of `DiT`, its params as nested dicts of float32) from a `DiTTransformer2DModel`'s state and
    config.

    `stack_blocks` converts the params for a `DiT` with `scan_blocks`. diffusers' model has embedders of time and class
    in every block, while `DiT` has one for all blocks, as the authors' code has. The published weights are the same in
    each block.

    Raises:
      UserError: the embedders of two blocks differ, the config has no equivalent here, or the state lacks a weight or
        has an additional one.
    """
    options = dit_options(config)
    state = dict(state)
    params: dict[str, Any] = {}
    for ours, theirs, kind in names(options["depth"]):
        layer = params
        for part in ours.split("/"):
            layer = layer.setdefault(part, {})
        layer.update(layer_from(state, theirs, kind))
    for ours, (theirs, kind) in EMBEDDERS.items():
        for i in range(options["depth"]):
            prefix = f"transformer_blocks.{i}.norm1.emb.{theirs}"
            layer = layer_from(state, prefix, kind)
            first = params.setdefault(ours, layer)
            if not all(np.array_equal(first[key], layer[key]) for key in first):
                raise UserError(
                    f"{prefix} differs from that of block 0, but a DiT here has one {ours!r} for all blocks."
                )
    if state:
        raise UserError(f"the state has {min(state)!r}, which its config does not account for.")
    return options, params


def dit_to_diffusers(params: Mapping[str, Any], dit: DiT) -> dict[str, np.ndarray]:
    """Returns the state dict of the `DiTTransformer2DModel` that is equivalent to `dit` with `params`.

    This is the inverse of `dit_from_diffusers`. Blocks that `dit` scans are unstacked.

    Raises:
      UserError: `dit` has an option that `DiTTransformer2DModel` cannot express, or `params` do not belong to `dit`.
    """
    dit_config(dit, 1, dit.patch_size)
    params = unstack_blocks(params) if dit.scan_blocks else params
    state: dict[str, np.ndarray] = {}

    def found(path: str) -> Mapping[str, Any]:
        layer: Any = params
        for part in path.split("/"):
            layer = layer.get(part, {})
        if not layer:
            raise UserError(f"params lack {path}: they do not belong to this DiT.")
        return layer

    for ours, theirs, kind in names(dit.depth):
        state |= layer_to(found(ours), theirs, kind, dit.patch_size)
    for ours, (theirs, kind) in EMBEDDERS.items():
        for i in range(dit.depth):
            prefix = f"transformer_blocks.{i}.norm1.emb.{theirs}"
            state |= layer_to(found(ours), prefix, kind, dit.patch_size)
    return state
