"""Reads and writes folders of diffusers' `MotionAdapter`, the temporal layers of AnimateDiff (Guo et al. 2024)."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.errors import UserError
from jaxgen.files import user_path, write_json
from jaxgen.interop.diffusers_files import CONFIG, MODEL, Entry, Weights, open_weights, read_json, save_weights
from jaxgen.interop.diffusers_layers import Layer, check_entries, complete, read_layers, write_layers
from jaxgen.interop.file_types import MotionFile
from jaxgen.networks.temporal import TemporalTransformer, frame_positions
from jaxgen.networks.unet import UNet, at_level

NAME = "MotionAdapter"
DEFAULTS: dict[str, Any] = {
    "block_out_channels": (320, 640, 1280, 1280),
    "motion_layers_per_block": 2,
    "motion_transformer_layers_per_block": 1,
    "motion_mid_block_layers_per_block": 1,
    "motion_transformer_layers_per_mid_block": 1,
    "motion_num_attention_heads": 8,
    "motion_norm_num_groups": 32,
    "motion_max_seq_length": 32,
    "use_motion_mid_block": True,
    "conv_in_channels": None,
}
POSITIONS = ".pos_embed.pe"  # the table of the frames' positions, which is computed here


class MotionOptions(NamedTuple):
    """Holds what the graft `motion` calls the options of a folder."""

    heads: int
    depth: int
    middle: bool
    positions: int


def read_motion(folder: str | os.PathLike[str], named_by: str, unet: UNet) -> tuple[MotionOptions, dict[str, Any]]:
    """Returns the options of a folder, and the parameters of a part of the graft `motion`.

    Args:
      folder: what `MotionAdapter.save_pretrained` wrote.
      named_by: the flag or the key that names it, for messages.
      unet: the U-Net between whose blocks the layers are to stand.

    Raises:
      UserError: the folder is none of temporal layers, a file is missing or damaged, it belongs to another U-Net, or an
        entry has no equivalent here.
    """
    path = pathlib.Path(user_path(folder, named_by))
    if not path.is_dir():
        wanted = f"a folder with {CONFIG} and {MODEL}.safetensors, as {NAME}.save_pretrained writes it"
        raise UserError(f"{named_by}={folder}: there is no such folder; name {wanted}.")
    config = read_json(path / CONFIG, "gives the shapes of temporal layers", MotionFile)
    if config.get("_class_name", NAME) != NAME:
        raise UserError(f"{path / CONFIG} is of {config['_class_name']!r}, and {named_by} needs a {NAME}.")
    config = complete(NAME, config, DEFAULTS)
    check_entries(NAME, config, {"motion_mid_block_layers_per_block": (1,), "conv_in_channels": (None,)})
    _check_unet(config, unet, f"{named_by}={folder}")
    depth = _one(config, "motion_transformer_layers_per_block")
    middle = bool(config["use_motion_mid_block"])
    if middle and _one(config, "motion_transformer_layers_per_mid_block") != depth:
        raise UserError(f"{path / CONFIG}: the middle has another depth than the other layers, and here they are one.")
    heads = _one(config, "motion_num_attention_heads")
    options = MotionOptions(heads, depth, middle, int(config["motion_max_seq_length"]))
    weights = open_weights(path)
    kept = Weights({k: v for k, v in weights.places.items() if not k.endswith(POSITIONS)}, weights.folder)
    return options, read_layers(motion_layers(unet, options), kept, _shapes(unet, options))


def motion_layers(unet: UNet, options: MotionOptions) -> Iterator[Layer]:
    """Yields every layer of the temporal transformers between a U-Net's blocks; a path here begins with their place."""
    for ours, theirs, _ in _places(unet, options.middle):
        yield f"{ours}/norm", f"{theirs}.norm", "norm"
        yield f"{ours}/in", f"{theirs}.proj_in", "dense"
        yield f"{ours}/out", f"{theirs}.proj_out", "dense"
        for i in range(options.depth):
            here, there = f"{ours}/block_{i}", f"{theirs}.transformer_blocks.{i}"
            for k in (1, 2, 3):
                yield f"{here}/norm_{k}", f"{there}.norm{k}", "norm"
            for k in (1, 2):
                for a, b in (("query", "to_q"), ("key", "to_k"), ("value", "to_v")):
                    yield f"{here}/attention_{k}/{a}", f"{there}.attn{k}.{b}", "linear"
                yield f"{here}/attention_{k}/out", f"{there}.attn{k}.to_out.0", "dense"
            yield f"{here}/feed_forward/in", f"{there}.ff.net.0.proj", "dense"
            yield f"{here}/feed_forward/out", f"{there}.ff.net.2", "dense"


def write_motion(
    folder: str | os.PathLike[str], params: Mapping[str, Any], unet: UNet, options: MotionOptions, dtype: str = ""
) -> None:
    """Writes a folder that `MotionAdapter.from_pretrained` and `read_motion` read.

    Args:
      folder: the folder, which is created if it is missing.
      params: those of a part of the graft `motion`.
      unet: the U-Net.
      options: those of the graft.
      dtype: the type of the tensors; "" keeps each one's own.

    Raises:
      UserError: diffusers has no such layers.
    """
    if not options.positions:
        raise UserError(f"{NAME} always knows the order of frames, so that layers with positions=0 have no file there.")
    folder = pathlib.Path(folder)
    write_json(
        folder / CONFIG,
        {
            "_class_name": NAME,
            **DEFAULTS,
            "block_out_channels": tuple(unet.widths),
            "motion_layers_per_block": unet.blocks,
            "motion_transformer_layers_per_block": options.depth,
            "motion_transformer_layers_per_mid_block": options.depth,
            "motion_num_attention_heads": options.heads,
            "motion_norm_num_groups": unet.norm_groups,
            "motion_max_seq_length": options.positions,
            "use_motion_mid_block": options.middle,
        },
    )
    entries: Iterable[Entry] = [*write_layers(motion_layers(unet, options), params), *_positions(unet, options)]
    save_weights(folder / f"{MODEL}.safetensors", entries, dtype)


def _places(unet: UNet, middle: bool) -> Iterator[tuple[str, str, int]]:
    """Yields the place here, the prefix there and the width of each temporal transformer."""
    last = len(unet.widths) - 1
    for level, width in enumerate(unet.widths):
        attends = level in (unet.attention_levels or ())
        for way, number, more in (("down", level, 0), ("up", last - level, 1)):
            for i in range(at_level(unet.blocks, level) + more):
                ours = f"{way}_{level}_{'attention' if attends else 'block'}_{i}"
                yield ours, f"{way}_blocks.{number}.motion_modules.{i}", width
    if middle:
        yield "middle_attention", "mid_block.motion_modules.0", unet.widths[-1]


def _positions(unet: UNet, options: MotionOptions) -> Iterator[Entry]:
    for _, theirs, width in _places(unet, options.middle):
        table = np.asarray(frame_positions(options.positions, width))[None]
        for i in range(options.depth):
            yield Entry(f"{theirs}.transformer_blocks.{i}{POSITIONS}", table, (0, 1, 2))


def _shapes(unet: UNet, options: MotionOptions) -> dict[str, Any]:
    """Returns the shapes of all parameters, without computing them."""
    network = TemporalTransformer(1, options.heads, options.depth, unet.norm_groups, options.positions)
    found = {}
    for ours, _, width in _places(unet, options.middle):
        x = jax.ShapeDtypeStruct((1, 1, 1, width), jnp.float32)
        found[ours] = jax.eval_shape(network.init, jax.random.key(0), x)["params"]
    return found


def _check_unet(config: Mapping[str, Any], unet: UNet, source: str) -> None:
    """Raises a UserError unless a config is for the widths, blocks and norms of a U-Net."""
    there = (
        tuple(config["block_out_channels"]), _one(config, "motion_layers_per_block"), config["motion_norm_num_groups"],
    )  # fmt: skip
    here = (tuple(unet.widths), unet.blocks, unet.norm_groups)
    names = ("block_out_channels", "motion_layers_per_block", "motion_norm_num_groups")
    for entry, own, other in zip(names, there, here, strict=True):
        if own != other:
            raise UserError(
                f"{source} is for a U-Net of {entry}={own}, and that of this model has {other}: it belongs to another "
                "model."
            )


def _one(config: Mapping[str, Any], entry: str) -> int:
    """Returns an entry that is one number, or a list of equal ones. Raises a UserError for others."""
    value = config[entry]
    values = {*value} if isinstance(value, list | tuple) else {value}
    if len(values) != 1 or not isinstance(first := values.pop(), int):
        raise UserError(f"{NAME}'s {entry}={value!r} has no equivalent here, only one number for all blocks.")
    return first
