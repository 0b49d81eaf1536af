"""Converts the weights of diffusers' `PriorTransformer` to `PriorTransformer` here and back, and reads its folders.

diffusers' model keeps two vectors beside its weights: the mean and the standard deviation of the embeddings, by which
what it predicts becomes an embedding. They are no part of the network here and are given apart, as `Statistics`.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgen.errors import UserError
from jaxgen.files import write_json
from jaxgen.interop.diffusers_files import CONFIG, MODEL, Entry, check_floating, open_weights, read_json, save_weights
from jaxgen.interop.diffusers_layers import Layer, check_entries, complete, read_layers, write_layers
from jaxgen.interop.file_types import PriorFile
from jaxgen.networks.pretrained.prior_transformer import BEHIND, PriorTransformer

NAME = "PriorTransformer"
# The defaults of diffusers' model for entries that a config lacks.
DEFAULTS = {
    "num_attention_heads": 32,
    "attention_head_dim": 64,
    "num_layers": 20,
    "embedding_dim": 768,
    "num_embeddings": 77,
    "additional_embeddings": BEHIND,
    "dropout": 0.0,
    "time_embed_act_fn": "silu",
    "norm_in_type": None,
    "embedding_proj_norm_type": None,
    "encoder_hid_proj_type": "linear",
    "added_emb_type": "prd",
    "time_embed_dim": None,
    "embedding_proj_dim": None,
    "clip_embed_dim": None,
}
SUPPORTED: dict[str, tuple] = {
    "additional_embeddings": (BEHIND,),
    "time_embed_act_fn": ("silu",),
    "norm_in_type": (None,),
    "embedding_proj_norm_type": (None, "layer"),
    "encoder_hid_proj_type": ("linear",),
    "added_emb_type": ("prd",),
}


class Statistics(NamedTuple):
    """Holds what makes an embedding of a prediction x: `x * std + mean`, each float32 [D]."""

    mean: np.ndarray
    std: np.ndarray


def prior_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of `PriorTransformer` here that make it compute what diffusers' model of a config does.

    They agree where diffusers' model is given a mask of the text, as its pipelines do: without one it also leaves the
    causal mask out, which the network here always has. Dropout, which published priors do not have, is not taken over.

    Raises:
      UserError: the config has no equivalent here; the message names the entry.
    """
    config = complete(NAME, config, DEFAULTS)
    check_entries(NAME, config, SUPPORTED)
    width, outputs = config["num_attention_heads"] * config["attention_head_dim"], config["embedding_dim"]
    for entry, only in (("time_embed_dim", width), ("clip_embed_dim", outputs)):
        if config[entry] not in (None, only):
            raise UserError(f"{NAME}'s {entry}={config[entry]!r} has no equivalent here, only {only}.")
    return {
        "outputs": outputs,
        "context_dim": outputs,
        "vector_dim": config["embedding_proj_dim"] or outputs,
        "length": config["num_embeddings"],
        "width": width,
        "depth": config["num_layers"],
        "heads": config["num_attention_heads"],
        "vector_norm": config["embedding_proj_norm_type"] == "layer",
    }


def prior_config(prior: PriorTransformer) -> dict[str, Any]:
    """Returns the config of the equivalent model of diffusers; this is the inverse of `prior_options`.

    Raises:
      UserError: the tokens of texts have another width than embeddings of images, which diffusers' model cannot have.
    """
    if prior.context_dim != prior.outputs:
        raise UserError(
            f"diffusers' {NAME} has no equivalent for context_dim={prior.context_dim} beside outputs={prior.outputs}: "
            "there the tokens of texts are as wide as embeddings."
        )
    return {
        "_class_name": NAME,
        **DEFAULTS,
        "num_attention_heads": prior.heads,
        "attention_head_dim": prior.width // prior.heads,
        "num_layers": prior.depth,
        "embedding_dim": prior.outputs,
        "num_embeddings": prior.length,
        "embedding_proj_norm_type": "layer" if prior.vector_norm else None,
        "embedding_proj_dim": prior.vector_dim,
    }


def layers(prior: PriorTransformer) -> Iterator[Layer]:
    """Yields the layers of a prior."""
    yield "time_in", "time_embedding.linear_1", "dense"
    yield "time_out", "time_embedding.linear_2", "dense"
    yield "x_in", "proj_in", "dense"
    yield "vector_in", "embedding_proj", "dense"
    yield "context_in", "encoder_hidden_states_proj", "dense"
    if prior.vector_norm:
        yield "vector_norm", "embedding_proj_norm", "norm"
    for i in range(prior.depth):
        ours, theirs = f"block_{i}", f"transformer_blocks.{i}"
        yield f"{ours}/norm_1", f"{theirs}.norm1", "norm"
        for here, there in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("out", "to_out.0")):
            yield f"{ours}/{here}", f"{theirs}.attn1.{there}", "dense"
        yield f"{ours}/norm_2", f"{theirs}.norm3", "norm"
        yield f"{ours}/mlp_in", f"{theirs}.ff.net.0.proj", "dense"
        yield f"{ours}/mlp_out", f"{theirs}.ff.net.2", "dense"
    yield "norm_out", "norm_out", "norm"
    yield "out", "proj_to_clip_embeddings", "dense"


def prior_shapes(prior: PriorTransformer) -> dict[str, Any]:
    """Returns the shapes of a prior's params, without computing the params."""

    def of(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((1, *shape), np.float32)

    inputs = (of(prior.outputs), of(), of(prior.length, prior.context_dim), of(prior.vector_dim))
    return jax.eval_shape(prior.init, jax.random.key(0), *inputs)["params"]


def prior_from_diffusers(
    state: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> tuple[PriorTransformer, dict[str, Any], Statistics]:
    """Returns (network, its params as nested dicts of float32, the statistics) from a state and a config of diffusers.

    Raises:
      UserError: the config has no equivalent here, or the state lacks a weight, has an additional one, or has one of
        another shape.
    """
    prior = PriorTransformer(**prior_options(config))
    left = {name: state[name] for name in state}

    def alone(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in left or np.shape(left[name]) != shape:
            what = f"of shape {np.shape(left[name])}" if name in left else "missing"
            raise UserError(f"{NAME}'s weight {name!r} is {what}, and its config asks for shape {shape}.")
        found = np.asarray(left.pop(name))
        check_floating(name, found.dtype, NAME)
        return found.astype(np.float32)

    position = alone("positional_embedding", (1, prior.length + BEHIND, prior.width))[0]
    query = alone("prd_embedding", (1, 1, prior.width))[0, 0]
    statistics = Statistics(*(alone(f"clip_{name}", (1, prior.outputs))[0] for name in ("mean", "std")))
    params = read_layers(layers(prior), left, prior_shapes(prior))
    return prior, {**params, "position": position, "query": query}, statistics


def prior_to_diffusers(
    params: Mapping[str, Any], prior: PriorTransformer, statistics: Statistics | None = None
) -> Iterator[Entry]:
    """Yields the tensors of the equivalent model of diffusers; this is the inverse of `prior_from_diffusers`.

    Args:
      params: the params of `prior`.
      prior: the network.
      statistics: of the embeddings; by default mean 0 and standard deviation 1.
    """
    mean, std = statistics or (np.zeros(prior.outputs, np.float32), np.ones(prior.outputs, np.float32))
    yield Entry("positional_embedding", np.asarray(params["position"])[None], (0, 1, 2))
    yield Entry("prd_embedding", np.asarray(params["query"])[None, None], (0, 1, 2))
    yield Entry("clip_mean", np.asarray(mean)[None], (0, 1))
    yield Entry("clip_std", np.asarray(std)[None], (0, 1))
    yield from write_layers(layers(prior), params)


def as_prior(network: Any) -> PriorTransformer:
    """Returns a network that has a form in diffusers; raises a UserError for another."""
    if not isinstance(network, PriorTransformer):
        raise UserError(f"A prior whose network is {type(network).__name__} has no form in diffusers.")
    return network


def load_prior(folder: str | os.PathLike[str]) -> tuple[PriorTransformer, dict[str, Any], Statistics]:
    """Returns (network, params, statistics) from a folder that diffusers' `PriorTransformer.save_pretrained` wrote.

    Raises:
      UserError: a file is missing or damaged, and as `prior_from_diffusers`.
    """
    folder = pathlib.Path(folder)
    config = read_json(folder / CONFIG, f"the folder of a {NAME} holds", PriorFile)
    return prior_from_diffusers(open_weights(folder), config)


def save_prior(
    folder: str | os.PathLike[str],
    prior: PriorTransformer,
    params: Mapping[str, Any],
    statistics: Statistics | None = None,
) -> None:
    """Writes a folder that diffusers' `PriorTransformer.from_pretrained` reads; arguments of `prior_to_diffusers`."""
    folder = pathlib.Path(folder)
    config = prior_config(prior)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG, config)
    save_weights(folder / f"{MODEL}.safetensors", prior_to_diffusers(params, prior, statistics))
