"""Converts CLIP's weights from and to transformers' `CLIPModel` and `CLIPTextModel`.

transformers stores a model as a folder with `config.json` and `model.safetensors`. The functions on dicts of numpy
arrays are pure; neither torch nor transformers is imported.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import safetensors.numpy

from jaxgen.downloads import Published, locate
from jaxgen.errors import UserError, nearest
from jaxgen.files import write_bytes, write_json
from jaxgen.interop.diffusers_files import (
    TEXT_MODEL,
    Weights,
    check_floating,
    open_weights,
    read_header,
    read_json,
)
from jaxgen.interop.file_types import ClipFile
from jaxgen.networks.pretrained.clip import CLIP, ImageTower, TextTower

CONFIG, WEIGHTS = "config.json", "model.safetensors"
PROJECTION = 512  # CLIPConfig's default, for a file without the entry

# {field of the tower: entry of its config}. The towers have the same defaults for missing entries as transformers.
_BOTH = {
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp_features": "intermediate_size",
    "activation": "hidden_act",
    "norm_eps": "layer_norm_eps",
}
TEXT = _BOTH | {"vocabulary": "vocab_size", "length": "max_position_embeddings"}
IMAGE = _BOTH | {"size": "image_size", "patch": "patch_size", "channels": "num_channels"}

# Files written before transformers 4.31 have this end id, which is wrong for CLIP's vocabulary; there the end of a text
# is its largest id.
ARGMAX_END = 2
END = 49407  # CLIPTextConfig's default, for a file without the entry


def _published(model: str, commit: str, config: str, weights: str, tokenizer: str) -> dict[str, Published]:
    url = f"https://huggingface.co/openai/{model}/resolve/{commit}"
    return {
        "config": Published(f"{model}.json", f"{url}/{CONFIG}", config, f"the sizes of {model}"),
        "weights": Published(f"{model}.safetensors", f"{url}/{WEIGHTS}", weights, f"the weights of {model}"),
        "tokenizer": Published(
            f"{model}.tokenizer.json", f"{url}/tokenizer.json", tokenizer, f"the tokenizer of {model}"
        ),
    }


PUBLISHED: dict[str, dict[str, Published]] = {
    # the main branch has no safetensors file; this commit is the hub's conversion
    "clip-vit-base-patch32": _published(
        "clip-vit-base-patch32",
        "b33cedfd0df4e43b8238760678fcc89e1a0d38b3",
        config="b575ef3c36f2a057fa19e221650105052d61cc9c1a972ec15019c6261ec98770",
        weights="99d28a652e6ec46629ab7047a0ac82c69b1fe11e0ce672c43af65d3a9a3fc05d",
        tokenizer="b556ac8c99757ffb677208af34bc8c6721572114111a6e0aaf5fa69ff0b8d842",
    ),
    "clip-vit-large-patch14": _published(
        "clip-vit-large-patch14",
        "32bd64288804d66eefd0ccbe215aa642df71cc41",
        config="8a09b467700c58138c29d53c605b34ebc69beaadd13274a8a2af8ad2c2f4032a",
        weights="a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
        tokenizer="a83e0809aa4c3af7208b2df632a7a69668c6d48775b3c3fe4e1b1199d1f8b8f4",
    ),
}


def published(model: str) -> dict[str, Published]:
    """Returns a model's files: `config`, `weights` and `tokenizer`. Raises UserError for an unknown name."""
    if model not in PUBLISHED:
        raise UserError(f"unknown CLIP {model!r}; {nearest(model, PUBLISHED)}")
    return PUBLISHED[model]


def load_published(model: str) -> tuple[CLIP, dict[str, Any]]:
    """Returns (network, params) of a model of `PUBLISHED`; `jaxgen.downloads.locate` finds or fetches its files."""
    files = published(model)
    config, weights = locate(files["config"]), locate(files["weights"])
    return clip_from_transformers(Weights(read_header(pathlib.Path(weights)), weights), read_config(config))


def load_clip(folder: str | os.PathLike[str]) -> tuple[CLIP, dict[str, Any]]:
    """Returns (network, params) from a folder that `CLIPModel.save_pretrained` wrote.

    Raises:
      UserError: a file is missing or damaged, and as `clip_from_transformers`.
    """
    folder = pathlib.Path(folder)
    return clip_from_transformers(open_weights(folder, TEXT_MODEL), read_config(folder / CONFIG))


def load_text(folder: str | os.PathLike[str]) -> tuple[TextTower, dict[str, Any]]:
    """Returns (network, params) of the text tower in a folder of a `CLIPTextModel` or a `CLIPModel`.

    Stable Diffusion's `text_encoder` is such a folder.

    Raises:
      UserError: as `load_clip`.
    """
    folder = pathlib.Path(folder)
    return text_from_transformers(open_weights(folder, TEXT_MODEL), read_config(folder / CONFIG))


def save_clip(folder: str | os.PathLike[str], clip: CLIP, params: Mapping[str, Any]) -> None:
    """Writes a folder that `CLIPModel.from_pretrained` reads."""
    _write(folder, clip_to_transformers(params, clip), clip_config(clip))


def save_text(folder: str | os.PathLike[str], tower: TextTower, params: Mapping[str, Any]) -> None:
    """Writes a folder that `CLIPTextModel.from_pretrained` reads."""
    _write(folder, text_to_transformers(params, tower), text_config(tower))


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a `config.json`. Raises UserError if the file is missing or damaged, or an entry is of another type."""
    return read_json(path, f"a CLIP folder holds beside {WEIGHTS}", ClipFile)


def _write(folder: str | os.PathLike[str], state: dict[str, np.ndarray], config: Mapping[str, Any]) -> None:
    folder = pathlib.Path(folder)
    write_json(folder / CONFIG, config)
    write_bytes(folder / WEIGHTS, safetensors.numpy.save(state, metadata={"format": "pt"}))


def text_tower(config: Mapping[str, Any]) -> TextTower:
    """Returns the text tower that the config of a `CLIPTextModel` or of a `CLIPModel` describes."""
    config = _part(config, "text_config")
    end = config.get("eos_token_id", END)
    return TextTower(**_fields(config, TEXT), end=None if end == ARGMAX_END else end)


def clip_network(config: Mapping[str, Any]) -> CLIP:
    """Returns the network that a `CLIPModel`'s config describes. Raises UserError if the config lacks a tower."""
    for tower in ("text_config", "vision_config"):
        if not isinstance(config.get(tower), Mapping):
            raise UserError(f"the config has no {tower!r}, so it is not one of a CLIPModel.")
    image = ImageTower(**_fields(_part(config, "vision_config"), IMAGE))
    return CLIP(image, text_tower(config), config.get("projection_dim", PROJECTION))


def _part(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    # if an old file has <name>_dict, transformers uses it and the defaults for what it lacks
    return dict(config.get(f"{name}_dict") or config.get(name, config))


def _fields(config: Mapping[str, Any], entries: Mapping[str, str]) -> dict[str, Any]:
    return {field: config[entry] for field, entry in entries.items() if entry in config}


def text_config(tower: TextTower) -> dict[str, Any]:
    """Returns the config of the equivalent `CLIPTextModel`."""
    config = {entry: getattr(tower, field) for field, entry in TEXT.items()}
    ids = {"bos_token_id": None, "pad_token_id": None, "eos_token_id": ARGMAX_END if tower.end is None else tower.end}
    return {"architectures": ["CLIPTextModel"], "model_type": "clip_text_model", **config, **ids}


def clip_config(clip: CLIP) -> dict[str, Any]:
    """Returns the config of the equivalent `CLIPModel`."""
    image = {entry: getattr(clip.image, field) for field, entry in IMAGE.items()}
    text = text_config(clip.text)
    del text["architectures"]
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": clip.projection,
        "text_config": text | {"projection_dim": clip.projection},
        "vision_config": image | {"model_type": "clip_vision_model", "projection_dim": clip.projection},
    }


# (path in jaxgen, key in transformers, the axes of transformers' array in the order of jaxgen's)
Name = tuple[str, str, tuple[int, ...]]


def text_names(depth: int, prefix: str = "text_model.") -> Iterator[Name]:
    """Yields the names of every weight of the text tower."""
    yield "token/embedding", f"{prefix}embeddings.token_embedding.weight", (0, 1)
    yield "position", f"{prefix}embeddings.position_embedding.weight", (0, 1)
    yield from _block_names(depth, prefix)
    yield from _norm_names("norm_out", f"{prefix}final_layer_norm")


def image_names(depth: int) -> Iterator[Name]:
    """Yields the names of every weight of the image tower."""
    prefix = "vision_model."
    yield "patch", f"{prefix}embeddings.patch_embedding.weight", (2, 3, 1, 0)
    yield "class", f"{prefix}embeddings.class_embedding", (0,)
    yield "position", f"{prefix}embeddings.position_embedding.weight", (0, 1)
    yield from _norm_names("norm_in", f"{prefix}pre_layrnorm")
    yield from _block_names(depth, prefix)
    yield from _norm_names("norm_out", f"{prefix}post_layernorm")


def clip_names(clip: CLIP) -> Iterator[Name]:
    """Yields the names of every weight of the complete network."""
    yield from ((f"text/{ours}", theirs, axes) for ours, theirs, axes in text_names(clip.text.depth))
    yield from ((f"image/{ours}", theirs, axes) for ours, theirs, axes in image_names(clip.image.depth))
    yield "text_projection/kernel", "text_projection.weight", (1, 0)
    yield "image_projection/kernel", "visual_projection.weight", (1, 0)
    yield "logit_scale", "logit_scale", ()


def _norm_names(ours: str, theirs: str) -> Iterator[Name]:
    yield f"{ours}/scale", f"{theirs}.weight", (0,)
    yield f"{ours}/bias", f"{theirs}.bias", (0,)


def _block_names(depth: int, prefix: str) -> Iterator[Name]:
    dense = {
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "out": "self_attn.out_proj",
        "mlp_in": "mlp.fc1",
        "mlp_out": "mlp.fc2",
    }
    for i in range(depth):
        theirs = f"{prefix}encoder.layers.{i}"
        for ours, name in dense.items():
            yield f"block_{i}/{ours}/kernel", f"{theirs}.{name}.weight", (1, 0)
            yield f"block_{i}/{ours}/bias", f"{theirs}.{name}.bias", (0,)
        yield from _norm_names(f"block_{i}/norm_1", f"{theirs}.layer_norm1")
        yield from _norm_names(f"block_{i}/norm_2", f"{theirs}.layer_norm2")


def clip_from_transformers(state: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[CLIP, dict[str, Any]]:
    """Returns (network, its params as nested dicts of float32) from a `CLIPModel`'s state and config.

    Raises:
      UserError: the config is of another model, or the state lacks a weight, has an additional one, or has one of
        another shape.
    """
    clip = clip_network(config)
    images = jax.ShapeDtypeStruct((1, clip.image.size, clip.image.size, clip.image.channels), np.float32)
    wanted = jax.eval_shape(clip.init, jax.random.key(0), images, _tokens(clip.text))["params"]
    return clip, _take(state, clip_names(clip), wanted)


def text_from_transformers(state: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[TextTower, dict[str, Any]]:
    """Returns (network, params) from a `CLIPTextModel`'s state and config, or from the text tower of a `CLIPModel`'s.

    Both of transformers' namings are read, with and without `text_model.` before each name.

    Raises:
      UserError: as `clip_from_transformers`.
    """
    tower = text_tower(config)
    prefix = "text_model." if any(key.startswith("text_model.") for key in state) else ""
    if "text_config" in config:
        state = {key: state[key] for key in state if key.startswith(prefix)}
    wanted = jax.eval_shape(tower.init, jax.random.key(0), _tokens(tower))["params"]
    return tower, _take(state, text_names(tower.depth, prefix), wanted)


def _tokens(tower: TextTower) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, tower.length), np.int32)


def _take(state: Mapping[str, Any], names: Iterator[Name], wanted: Mapping[str, Any]) -> dict[str, Any]:
    where = state.folder if isinstance(state, Weights) else "the state"
    # old files also hold the numbers of the positions, 0, 1, 2, ..., which are no weights
    left = {key for key in state if not key.endswith("embeddings.position_ids")}
    params: dict[str, Any] = {}
    for ours, theirs, axes in names:
        if theirs not in left:
            raise UserError(f"the weights lack {theirs!r}, which their config asks for.")
        left.remove(theirs)
        found = np.asarray(state[theirs])
        check_floating(theirs, found.dtype, where)
        array = found.astype(np.float32, copy=False)
        *parents, leaf = ours.split("/")
        shape: Any = wanted
        for part in (*parents, leaf):
            shape = shape[part]
        there = tuple(shape.shape[axes.index(axis)] for axis in range(len(axes)))
        if array.shape != there:
            raise UserError(f"{theirs!r} has shape {array.shape}, but its config asks for {there}.")
        layer = params
        for part in parents:
            layer = layer.setdefault(part, {})
        layer[leaf] = array.transpose(axes)
    if left:
        raise UserError(f"the weights have {min(left)!r}, which their config does not account for.")
    return params


def clip_to_transformers(params: Mapping[str, Any], clip: CLIP) -> dict[str, np.ndarray]:
    """Returns the state dict of the equivalent `CLIPModel`; this is the inverse of `clip_from_transformers`."""
    return _give(params, clip_names(clip))


def text_to_transformers(
    params: Mapping[str, Any], tower: TextTower, prefix: str = "text_model."
) -> dict[str, np.ndarray]:
    """Returns the state dict of the equivalent `CLIPTextModel`, by default in the naming of published files."""
    return _give(params, text_names(tower.depth, prefix))


def _give(params: Mapping[str, Any], names: Iterator[Name]) -> dict[str, np.ndarray]:
    state: dict[str, np.ndarray] = {}
    for ours, theirs, axes in names:
        leaf: Any = params
        for part in ours.split("/"):
            if part not in leaf:
                raise UserError(f"params lack {ours}: they do not belong to this network.")
            leaf = leaf[part]
        state[theirs] = np.asarray(np.asarray(leaf).transpose(np.argsort(axes)), order="C")
    return state
