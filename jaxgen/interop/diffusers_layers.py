"""Lists a model's layers with their names in jaxgen and in diffusers, and reads and writes weights by these tables.

In this room "here" means jaxgen and "there" means diffusers. A model's table gives (path here, prefix there, kind) for
each of its layers. The tensors `<prefix>.weight` and `<prefix>.bias` there are `<path>/kernel` (or `scale`,
`embedding`) and `<path>/bias` here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgen.arrays import Array
from jaxgen.errors import UserError, nearest
from jaxgen.interop.diffusers_files import Entry, Weights, check_floating

Layer = tuple[str, str, str]  # (path here, prefix there, kind)
Placer = Callable[[np.ndarray], np.ndarray | Array]  # what each array that is read passes through


@dataclasses.dataclass(frozen=True)
class Kind:
    """Says how a layer's weight is stored.

    Attributes:
      weight: its name here.
      axes: the axes of the array there, in the order that they have here.
      bias: whether the layer has a bias.
      tail: axes of length 1 that only the array there has, after the others.
    """

    weight: str
    axes: tuple[int, ...]
    bias: bool = True
    tail: tuple[int, ...] = ()

    @property
    def back(self) -> tuple[int, ...]:
        """Returns the axes of the array here, in the order that they have there."""
        return tuple(self.axes.index(axis) for axis in range(len(self.axes)))


KINDS = {
    "conv": Kind("kernel", (2, 3, 1, 0)),
    "pointwise": Kind("kernel", (1, 0), tail=(1, 1)),  # a 1x1 convolution there, a matrix here
    "dense": Kind("kernel", (1, 0)),
    "linear": Kind("kernel", (1, 0), bias=False),
    "norm": Kind("scale", (0,)),
    "scale": Kind("scale", (0,), bias=False),
    "embedding": Kind("embedding", (0, 1), bias=False),
}

# Names of attention layers in files written before diffusers 0.15.
OLD_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def resnet(ours: str, theirs: str, time: bool = True) -> Iterator[Layer]:
    """Yields the layers of a residual block. Its shortcut exists only where the width changes.

    Args:
      ours: the block's path here.
      theirs: the block's prefix there.
      time: whether the block receives an embedding of the time.
    """
    yield f"{ours}/norm_in", f"{theirs}.norm1", "norm"
    yield f"{ours}/conv_in", f"{theirs}.conv1", "conv"
    if time:
        yield f"{ours}/time", f"{theirs}.time_emb_proj", "dense"
    yield f"{ours}/norm_out", f"{theirs}.norm2", "norm"
    yield f"{ours}/conv_out", f"{theirs}.conv2", "conv"
    yield f"{ours}/shortcut", f"{theirs}.conv_shortcut", "conv"


def plain_attention(ours: str, theirs: str) -> Iterator[Layer]:
    """Yields the layers of an attention over pixels that follows a group normalisation."""
    yield f"{ours}/norm", f"{theirs}.group_norm", "norm"
    for here, there in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("out", "to_out.0")):
        yield f"{ours}/{here}", f"{theirs}.{there}", "dense"


def read_layers(
    layers: Iterable[Layer],
    state: Mapping[str, np.ndarray],
    wanted: Mapping[str, Any],
    dtype: str = "float32",
    place: Placer = lambda array: array,
) -> dict[str, Any]:
    """Returns params as nested dicts from a state dict; it reads one tensor at a time.

    Args:
      layers: the model's table.
      state: the tensors by their names there.
      wanted: the params' shapes; a layer named `shortcut` that is not among them is skipped.
      dtype: the type of the params; "" keeps that of the file.
      place: what each array passes through, such as `jax.device_put`.

    Raises:
      UserError: the state lacks a weight, has an additional one, or has one of another shape.
    """
    where = state.folder if isinstance(state, Weights) else "the state"
    there = {_modern(name): name for name in state}
    params: dict[str, Any] = {}

    def take(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name not in there:
            raise UserError(f"{where} lacks {name!r}, which its config asks for.")
        known = there.pop(name)
        found = state.places[known].shape if isinstance(state, Weights) else np.shape(state[known])
        check_floating(name, state.places[known].dtype if isinstance(state, Weights) else state[known].dtype, where)
        if tuple(found) != shape:
            raise UserError(f"{name!r} of {where} has shape {tuple(found)}, but its config asks for {shape}.")
        return np.asarray(state[known])

    def typed(array: np.ndarray) -> np.ndarray:
        return array.astype(jnp.dtype(dtype), copy=False) if dtype else array

    for ours, theirs, name in layers:
        kind, shapes = KINDS[name], _at(wanted, ours)
        if shapes is None and ours.endswith("/shortcut"):
            continue
        if shapes is None:
            raise UserError(f"the network has no layer {ours!r}; its config and its options disagree.")
        layer = params
        for part in ours.split("/"):
            layer = layer.setdefault(part, {})
        shape = shapes[kind.weight].shape
        array = take(f"{theirs}.weight", (*(shape[axis] for axis in kind.back), *kind.tail))
        array = array.reshape(array.shape[: len(kind.axes)])
        layer[kind.weight] = place(np.ascontiguousarray(typed(array).transpose(kind.axes)))
        if kind.bias:
            layer["bias"] = place(typed(take(f"{theirs}.bias", shapes["bias"].shape)))
    if there:
        raise UserError(f"{where} has {min(there)!r}, which its config does not account for.")
    return params


def write_layers(layers: Iterable[Layer], params: Mapping[str, Any]) -> Iterator[Entry]:
    """Yields the tensors of a file; the inverse of `read_layers`. Raises UserError if params lack a layer."""
    for ours, theirs, name in layers:
        kind, layer = KINDS[name], _at(params, ours)
        if layer is None and ours.endswith("/shortcut"):
            continue
        if layer is None or kind.weight not in layer:
            raise UserError(f"params lack {ours}/{kind.weight}: they do not belong to this network.")
        yield Entry(f"{theirs}.weight", layer[kind.weight], kind.back, kind.tail)
        if kind.bias:
            yield Entry(f"{theirs}.bias", layer["bias"], (0,))


def complete(model: str, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a model's config with defaults for missing entries. Raises UserError for an entry not known here."""
    for entry, value in config.items():
        if entry not in defaults and not entry.startswith("_") and value is not None:
            raise UserError(f"{model}'s entry {entry}={value!r} is not known here; {nearest(entry, defaults)}")
    return {**defaults, **config}


def check_entries(model: str, config: Mapping[str, Any], supported: Mapping[str, tuple]) -> None:
    """Raises UserError for the first entry of a model's config that has none of the supported values."""
    for entry, values in supported.items():
        value = config[entry]
        if not any(value == known and isinstance(value, bool) == isinstance(known, bool) for known in values):
            known = " or ".join(map(repr, values))
            raise UserError(f"{model}'s {entry}={value!r} has no equivalent here, only {known}.")


def multipliers(model: str, widths: Iterable[int]) -> tuple[int, tuple[int, ...]]:
    """Returns the finest level's width, and each level's width as a multiple of it.

    Raises:
      UserError: a width is not a multiple of the first.
    """
    widths = tuple(widths)
    if not widths or any(width % widths[0] for width in widths):
        raise UserError(f"{model}'s block_out_channels {widths} are not multiples of the first of them.")
    return widths[0], tuple(width // widths[0] for width in widths)


def _modern(name: str) -> str:
    for old, new in OLD_NAMES.items():
        name = name.replace(old, new)
    return name


def _at(tree: object, path: str) -> Any:
    """Returns the entry at a path such as "block_0/conv" of nested dicts, or None where there is none."""
    for part in path.split("/"):
        if not isinstance(tree, Mapping) or part not in tree:
            return None
        tree = tree[part]
    return tree
