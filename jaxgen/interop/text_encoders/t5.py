"""Converts the weights of T5's encoder from and to transformers' `T5EncoderModel`.

transformers stores a model as a folder with `config.json` and `model.safetensors`, or several such files and their
index. The folder may also be one of a whole T5, of which the decoder is not read. Neither torch nor transformers is
imported.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import jax
import numpy as np

from jaxgen.errors import UserError
from jaxgen.files import write_json
from jaxgen.interop.diffusers_files import CONFIG, TEXT_MODEL, Weights, open_weights, read_json, save_folder
from jaxgen.interop.diffusers_layers import Layer, Placer, read_layers, write_layers
from jaxgen.interop.file_types import T5File
from jaxgen.networks.pretrained.t5 import T5Encoder

# {field of the encoder: (entry of the config, transformers' default for a missing one)}
FIELDS: dict[str, tuple[str, Any]] = {
    "vocabulary": ("vocab_size", 32128),
    "width": ("d_model", 512),
    "depth": ("num_layers", 6),
    "heads": ("num_heads", 8),
    "head_width": ("d_kv", 64),
    "mlp_features": ("d_ff", 2048),
    "buckets": ("relative_attention_num_buckets", 32),
    "farthest": ("relative_attention_max_distance", 128),
    "norm_eps": ("layer_norm_epsilon", 1e-6),
}
FEED_FORWARD: dict[str, Literal["gelu", "relu"]] = {"relu": "relu", "gated-gelu": "gelu"}  # {in the config: here}
KINDS = ("t5", "mt5")  # model types whose encoders are the same network
WORDS, TIED = "shared.weight", "encoder.embed_tokens.weight"  # one table, under either name or both
DECODER = ("decoder.", "lm_head.")


def t5_encoder(config: Mapping[str, Any], length: int = 128) -> T5Encoder:
    """Returns the encoder that a config of transformers describes, for texts of up to `length` tokens.

    Raises:
      UserError: the config is of another model, or has a feed-forward layer that is not known here.
    """
    kind = config.get("model_type", "t5")
    if kind not in KINDS:
        known = " and ".join(KINDS)
        raise UserError(f"the config is of a model of the type {kind!r}; the encoders read here are {known}.")
    layer = config.get("feed_forward_proj", "relu")
    if layer not in FEED_FORWARD:
        raise UserError(
            f"feed_forward_proj={layer!r} of the config has no equivalent here, only {' and '.join(FEED_FORWARD)}."
        )
    fields = {field: config.get(entry, default) for field, (entry, default) in FIELDS.items()}
    return T5Encoder(**fields, length=length, feed_forward=FEED_FORWARD[layer])


def t5_config(encoder: T5Encoder) -> dict[str, Any]:
    """Returns the config of the equivalent `T5EncoderModel`."""
    layers = {here: there for there, here in FEED_FORWARD.items()}
    return {
        "architectures": ["T5EncoderModel"],
        "model_type": "t5",
        **{entry: getattr(encoder, field) for field, (entry, _) in FIELDS.items()},
        "feed_forward_proj": layers[encoder.feed_forward],
        "is_encoder_decoder": False,
        "use_cache": False,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }


def load_t5(
    folder: str | os.PathLike[str], length: int = 128, dtype: str = "float32", place: Placer = lambda array: array
) -> tuple[T5Encoder, dict[str, Any]]:
    """Returns (network, params) from a folder that `save_pretrained` of transformers wrote, one tensor at a time.

    Args:
      folder: the folder of a `T5EncoderModel`, or of a whole T5.
      length: the most tokens of a text.
      dtype: the type of the params; "" keeps that of the files.
      place: what each array passes through, such as `jax.device_put`.

    Raises:
      UserError: a file is missing or damaged, and as `t5_from_transformers`.
    """
    folder = pathlib.Path(folder)
    config = read_json(folder / CONFIG, "gives the sizes of the T5 encoder", T5File)
    try:
        return t5_from_transformers(open_weights(folder, TEXT_MODEL), config, length, dtype, place)
    except UserError as error:
        said = str(error)
        raise error if os.fspath(folder) in said else UserError(f"{folder}: {said}") from error


def save_t5(
    folder: str | os.PathLike[str], encoder: T5Encoder, params: Mapping[str, Any], dtype: str = "", shard: int = 0
) -> None:
    """Writes a folder that `T5EncoderModel.from_pretrained` reads.

    Args:
      dtype: the type of all weights in the files, such as "bfloat16"; by default each keeps its own.
      shard: the most bytes of weights of one file, unless one tensor is larger; 0 writes one file.

    Raises:
      UserError: the params do not belong to the network.
    """
    write_json(pathlib.Path(folder) / CONFIG, t5_config(encoder))
    save_folder(folder, write_layers(layers(encoder), params), TEXT_MODEL, dtype, shard)


def layers(encoder: T5Encoder, words: str = WORDS) -> Iterator[Layer]:
    """Yields every layer of the encoder, with its names here and in transformers."""
    yield "token", words.removesuffix(".weight"), "embedding"
    first = "encoder.block.0.layer.0.SelfAttention"
    yield "distance", f"{first}.relative_attention_bias", "embedding"
    inside = {"mlp_in": "wi_0", "mlp_gate": "wi_1"} if encoder.feed_forward == "gelu" else {"mlp_in": "wi"}
    for i in range(encoder.depth):
        attention, feed_forward = (f"encoder.block.{i}.layer.{j}" for j in (0, 1))
        yield f"block_{i}/norm_1", f"{attention}.layer_norm", "scale"
        for ours, theirs in {"query": "q", "key": "k", "value": "v", "out": "o"}.items():
            yield f"block_{i}/{ours}", f"{attention}.SelfAttention.{theirs}", "linear"
        yield f"block_{i}/norm_2", f"{feed_forward}.layer_norm", "scale"
        for ours, theirs in {**inside, "mlp_out": "wo"}.items():
            yield f"block_{i}/{ours}", f"{feed_forward}.DenseReluDense.{theirs}", "linear"
    yield "norm_out", "encoder.final_layer_norm", "scale"


def t5_from_transformers(
    state: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    length: int = 128,
    dtype: str = "float32",
    place: Placer = lambda array: array,
) -> tuple[T5Encoder, dict[str, Any]]:
    """Returns (network, its params as nested dicts) from the state and the config of a T5; a decoder is left out.

    Raises:
      UserError: the config is of another model, or the state lacks a weight of the encoder, has an additional one, or
        has one of another shape.
    """
    encoder = t5_encoder(config, length)
    tokens = jax.ShapeDtypeStruct((1, 2), np.int32)
    wanted = jax.eval_shape(encoder.init, jax.random.key(0), tokens)["params"]
    words = WORDS if WORDS in state else TIED
    left_out = {name for name in state if name.startswith(DECODER)} | ({TIED} if words == WORDS else set())
    if isinstance(state, Weights):
        state = Weights({name: at for name, at in state.places.items() if name not in left_out}, state.folder)
    else:
        state = {name: array for name, array in state.items() if name not in left_out}
    return encoder, read_layers(layers(encoder, words), state, wanted, dtype, place)


def t5_to_transformers(params: Mapping[str, Any], encoder: T5Encoder) -> dict[str, np.ndarray]:
    """Returns the state dict of the equivalent `T5EncoderModel`; the inverse of `t5_from_transformers`."""
    return {entry.name: entry.array() for entry in write_layers(layers(encoder), params)}
