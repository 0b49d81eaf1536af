"""Reads and writes folders of diffusers' `ControlNetModel` (Zhang et al. 2023)."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxgen.errors import UserError
from jaxgen.files import user_path, write_json
from jaxgen.interop.diffusers_condition_unet import DEFAULTS as UNET_DEFAULTS
from jaxgen.interop.diffusers_condition_unet import (
    condition_unet_config,
    condition_unet_options,
    layers,
    unet_inputs,
)
from jaxgen.interop.diffusers_files import CONFIG, MODEL, open_weights, read_json, save_weights
from jaxgen.interop.diffusers_layers import Layer, Placer, check_entries, complete, read_layers, write_layers
from jaxgen.interop.file_types import ControlNetFile
from jaxgen.networks.control import OF_WAY_UP, WIDTHS, ControlNet, skip_widths
from jaxgen.networks.unet import UNet

NAME = "ControlNetModel"
# Entries of a U-Net's config that a ControlNet's lacks, since they are of its way up or of its output.
ABSENT = (
    "sample_size", "out_channels", "up_block_types", "dropout", "conv_in_kernel", "conv_out_kernel", "_class_name",
)  # fmt: skip
OWN: dict[str, Any] = {
    "conditioning_channels": 3,
    "conditioning_embedding_out_channels": WIDTHS,
    "controlnet_conditioning_channel_order": "rgb",
    "global_pool_conditions": False,
}
SUPPORTED = {"controlnet_conditioning_channel_order": ("rgb",), "global_pool_conditions": (False,)}
# Options of a U-Net that do not change what its way down computes from the same parameters, or that the run chooses.
FREE = ("parent", "name", "out_channels", "output_kernel", "dropout", "dtype", "remat", "time_scale", "hint_widths")


def read_controlnet(
    folder: str | os.PathLike[str], named_by: str, dtype: str = "float32", place: Placer = lambda array: array
) -> tuple[ControlNet, dict[str, Any]]:
    """Returns the network of a folder, and its params.

    Args:
      folder: what `ControlNetModel.save_pretrained` wrote.
      named_by: the flag or the key that names it, for messages.
      dtype: the type of the params.
      place: what each array passes through, such as `jax.device_put`.

    Raises:
      UserError: the folder is no ControlNet, a file is missing or damaged, or an entry has no equivalent here.
    """
    path = pathlib.Path(user_path(folder, named_by))
    if not path.is_dir():
        wanted = f"a folder with {CONFIG} and {MODEL}.safetensors, as ControlNetModel.save_pretrained writes it"
        raise UserError(f"{named_by}={folder}: there is no such folder; name {wanted}.")
    config = read_json(path / CONFIG, "gives the shapes of a ControlNet", ControlNetFile)
    name = config.get("_class_name", NAME)
    if name != NAME:
        raise UserError(f"{path / CONFIG} is of {name!r}, and {named_by} needs a {NAME}.")
    config = complete(NAME, config, {**UNET_DEFAULTS, **OWN})
    check_entries(NAME, config, SUPPORTED)
    own = {key: value for key, value in config.items() if key in UNET_DEFAULTS}
    crosses = {"CrossAttnDownBlock2D": "CrossAttnUpBlock2D", "DownBlock2D": "UpBlock2D"}
    own["up_block_types"] = [crosses.get(kind, kind) for kind in reversed(own["down_block_types"])]
    widths = tuple(config["conditioning_embedding_out_channels"] or WIDTHS)
    network = ControlNet(**condition_unet_options(own), hint_widths=widths)
    shapes = _shapes(network, int(config["in_channels"]), int(config["conditioning_channels"]))
    table = control_layers(network, bool(config["use_linear_projection"]))
    return network, read_layers(table, open_weights(path), shapes, dtype, place)


def control_layers(network: ControlNet, linear: bool) -> Iterator[Layer]:
    """Yields every layer of a `ControlNet`; the arguments are those of `diffusers_condition_unet.layers`."""
    for ours, theirs, kind in layers(network, linear):
        if not ours.startswith(OF_WAY_UP):
            yield ours, theirs, kind
    yield "hint/conv_in", "controlnet_cond_embedding.conv_in", "conv"
    for i in range(2 * (len(network.hint_widths) - 1)):
        yield f"hint/conv_{i}", f"controlnet_cond_embedding.blocks.{i}", "conv"
    yield "hint/conv_out", "controlnet_cond_embedding.conv_out", "conv"
    for i in range(len(skip_widths(network))):
        yield f"zero_{i}", f"controlnet_down_blocks.{i}", "conv"
    yield "zero_middle", "controlnet_mid_block", "conv"


def check_beside(network: ControlNet, unet: UNet, source: str) -> None:
    """Raises a UserError where a ControlNet has other options than the U-Net that it is to steer."""
    for field in dataclasses.fields(UNet):
        if field.name in FREE:
            continue
        own, other = (_plain(one, field.name) for one in (network, unet))
        if own != other:
            raise UserError(
                f"{source} is for a U-Net with {field.name}={own!r}, and that of this model has {other!r}: it belongs "
                "to another model."
            )


def write_controlnet(
    folder: str | os.PathLike[str], params: Mapping[str, Any], network: ControlNet, linear: bool, dtype: str = ""
) -> None:
    """Writes a folder that `ControlNetModel.from_pretrained` and `read_controlnet` read.

    Args:
      folder: the folder, which is created if it is missing.
      params: those of `network`.
      network: the ControlNet.
      linear: whether the projections before and after transformers are linear layers there, as in the U-Net's file.
      dtype: the type of the tensors; "" keeps each one's own.

    Raises:
      UserError: diffusers has no such network.
    """
    folder = pathlib.Path(folder)
    channels = params["conv_in"]["kernel"].shape[-2]
    config = condition_unet_config(network, channels)
    config = {key: value for key, value in config.items() if key not in ABSENT}
    if network.input_kernel != 3:
        raise UserError(f"{NAME} has no equivalent for input_kernel={network.input_kernel}, only 3.")
    write_json(
        folder / CONFIG,
        {
            "_class_name": NAME,
            **config,
            **OWN,
            "use_linear_projection": linear,
            "conditioning_channels": params["hint"]["conv_in"]["kernel"].shape[-2],
            "conditioning_embedding_out_channels": network.hint_widths,
        },
    )
    save_weights(folder / f"{MODEL}.safetensors", write_layers(control_layers(network, linear), params), dtype)


def _plain(network: UNet, field: str) -> Any:
    """Returns an option in one form: some may be one value for all levels, or one for each."""
    value, levels = getattr(network, field), len(network.channel_multipliers)
    if field in ("heads", "transformer_depth", "only_cross_attention"):
        return value if isinstance(value, tuple) else (value,) * levels
    if field == "attention_resolutions":  # attention_levels say it for every network that diffusers has
        return ()
    return value


def _shapes(network: ControlNet, in_channels: int, hint_channels: int) -> dict[str, Any]:
    """Returns the shapes of a ControlNet's params, without computing them."""
    inputs = unet_inputs(network, in_channels)
    sides = [2 ** (len(network.hint_widths) - 1) * network.side_multiple] * 2
    hint = jax.ShapeDtypeStruct((1, *sides, hint_channels), np.float32)
    return jax.eval_shape(network.init, jax.random.key(0), **inputs, hint=hint)["params"]
