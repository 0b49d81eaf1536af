"""Reads and writes the files of Custom Diffusion (Kumari et al. 2023): `pytorch_custom_diffusion_weights.safetensors`.

A file of diffusers has the keys and values of cross-attention that were learned, and with `freeze_model="crossattn"`
the queries and outputs too: `<attention>.processor.to_k_custom_diffusion.weight` [out, in] and so on. Attentions that
did not learn have an entry of length 0, without which diffusers does not load a file.

Layers of a network that no pipeline of diffusers has are called by their paths here, `<group>.<path with
dots>.custom_diffusion.weight`, and only jaxgen reads such a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

import numpy as np

from jaxgen.errors import UserError, nearest
from jaxgen.interop.adapters.lora import Names, usual_file
from jaxgen.interop.diffusers_files import Entry, Weights, check_floating, read_header, save_weights

FILE = "pytorch_custom_diffusion_weights.safetensors"
KEY = re.compile(
    r"^(?:unet\.)?(?P<attention>.+)\.processor\.(?P<layer>to_[kqv]|to_out)_custom_diffusion(\.0)?\.(?P<kind>weight|bias)$"
)
OWN = re.compile(r"^(?P<layer>.+)\.custom_diffusion\.(?P<kind>weight|bias)$")
PIPELINE = "unet"  # the prefix of the names of a network that diffusers has, too
LAYER = re.compile(r"^(?P<attention>.+attn[12])\.(?P<layer>to_[kqv]|to_out)(\.0)?$")


def read_custom_diffusion(path: str | os.PathLike[str], names: Names, named_by: str) -> dict[str, np.ndarray]:
    """Returns `{path of a parameter here: array}` of a file, in float32; kernels are [in, out].

    Args:
      path: a file, or a folder with one of the usual name.
      names: the names of the U-Net's layers.
      named_by: the flag or the key that names it, for messages.

    Raises:
      UserError: as `usual_file`; or the file is damaged or of another kind, or the U-Net has no such layer.
    """
    place = usual_file(path, FILE, named_by)
    of_diffusers = names.prefix == PIPELINE
    ours = {theirs if of_diffusers else f"{names.prefix}.{theirs}": here for here, theirs in names.layers.items()}
    weights, found = Weights(read_header(place), place), {}
    for key in weights:
        if not np.prod(weights.places[key].shape):
            continue
        match = KEY.match(key) or OWN.match(key)
        if match is None:
            raise UserError(f"{named_by}={place} holds {key!r}, which is no part of a file of Custom Diffusion.")
        layer = match["layer"]
        if match.re is KEY:
            layer = f"{match['attention']}.{layer}{'.0' if layer == 'to_out' else ''}"
        if layer not in ours:
            raise UserError(
                f"{named_by}={place} has the layer {layer!r}, which the model does not have; {nearest(layer, ours)}"
            )
        array = weights[key]
        check_floating(key, array.dtype, os.fspath(place))
        bias = match["kind"] == "bias"
        array = array.astype(np.float32)
        found[f"{ours[layer]}/{'bias' if bias else 'kernel'}"] = array if bias else np.ascontiguousarray(array.T)
    if not found:
        raise UserError(f"{named_by}={place} holds no weights of Custom Diffusion.")
    return found


def write_custom_diffusion(
    file: str | os.PathLike[str], leaves: Mapping[str, np.ndarray], names: Names, dtype: str = ""
) -> None:
    """Writes a file that diffusers' `unet.load_attn_procs` and `read_custom_diffusion` read.

    Args:
      file: the file.
      leaves: `{path of a parameter here: array}`, as `read_custom_diffusion` gives them.
      names: the names of the U-Net's layers.
      dtype: the type of the tensors; "" keeps each one's own.

    Raises:
      UserError: a parameter is of no attention, or an attention lacks its keys or its values.
    """
    save_weights(file, (_entries if names.prefix == PIPELINE else _own_entries)(leaves, names), dtype)


def _own_entries(leaves: Mapping[str, np.ndarray], names: Names) -> Iterator[Entry]:
    for path, leaf in leaves.items():
        here, _, kind = path.rpartition("/")
        if here not in names.layers or (kind, leaf.ndim) not in (("kernel", 2), ("bias", 1)):
            raise UserError(f"{path!r} is no parameter of a linear layer, and Custom Diffusion's file has those alone.")
        stem = f"{names.prefix}.{names.layers[here]}.custom_diffusion"
        yield Entry(f"{stem}.{'bias' if kind == 'bias' else 'weight'}", leaf, (0,) if kind == "bias" else (1, 0))


def _entries(leaves: Mapping[str, np.ndarray], names: Names) -> Iterator[Entry]:
    learned: dict[str, set[str]] = {}
    for path, leaf in leaves.items():
        here, _, kind = path.rpartition("/")
        match = LAYER.match(names.layers.get(here, ""))
        if match is None or kind not in ("kernel", "bias"):
            raise UserError(f"{path!r} is no parameter of an attention, and Custom Diffusion's file has those alone.")
        learned.setdefault(match["attention"], set()).add(match["layer"])
        stem = f"{match['attention']}.processor.{match['layer']}_custom_diffusion"
        stem += ".0" if match["layer"] == "to_out" else ""
        yield Entry(f"{stem}.{'bias' if kind == 'bias' else 'weight'}", leaf, (0,) if kind == "bias" else (1, 0))
    for attention, layers in learned.items():
        if not {"to_k", "to_v"} <= layers or ("to_q" in layers) != ("to_out" in layers):
            raise UserError(
                f"A file of Custom Diffusion has keys and values of an attention, or all four projections, and of "
                f"{attention!r} {', '.join(sorted(layers))} learned: choose others by the graft's `where`."
            )
    others = {match["attention"] for match in map(LAYER.match, names.layers.values()) if match} - learned.keys()
    for attention in sorted(others):
        yield Entry(f"{attention}.processor", np.zeros(0, np.float32), (0,))
