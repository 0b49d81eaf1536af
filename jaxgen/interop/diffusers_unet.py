"""Converts the weights of diffusers' `UNet2DModel` to `jaxgen.networks.unet.UNet` and back.

The functions are pure and take dicts of numpy arrays; neither torch nor diffusers is imported. Read a model's state
from its safetensors file and its config from `config.json`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from jaxgen.errors import UserError
from jaxgen.interop.diffusers_layers import Layer, plain_attention, read_layers, resnet, write_layers
from jaxgen.networks.unet import UNet, at_level

# The defaults of UNet2DModel for entries that a config lacks.
CONFIG_DEFAULTS = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (224, 448, 672, 896),
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
    "act_fn": "silu",
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "class_embed_type": None,
    "num_class_embeds": None,
}

# {block type: (whether it has attention, how it resamples)}. None stands for downsample_type or upsample_type.
BLOCKS = {
    "DownBlock2D": (False, "conv"),
    "ResnetDownsampleBlock2D": (False, "resnet"),
    "AttnDownBlock2D": (True, None),
    "UpBlock2D": (False, "conv"),
    "ResnetUpsampleBlock2D": (False, "resnet"),
    "AttnUpBlock2D": (True, None),
}


def unet_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of `UNet` that make it compute what `UNet2DModel(**config)` computes.

    The last of `num_class_embeds` classes becomes the null class.

    Raises:
      UserError: the config has no equivalent as a `UNet`; the message names the entry.
    """
    config = {**CONFIG_DEFAULTS, **config}
    channels = config["block_out_channels"]
    groups = config["norm_num_groups"]
    adaptive = config["resnet_time_scale_shift"] == "scale_shift"
    supported = {
        "center_input_sample": (False,),
        "time_embedding_type": ("positional",),
        "time_embedding_dim": (None, 4 * channels[0]),
        "mid_block_type": ("UNetMidBlock2D",),
        "mid_block_scale_factor": (1,),
        "downsample_padding": (0, 1),
        "downsample_type": ("conv", "resnet"),
        "upsample_type": ("conv", "resnet"),
        "act_fn": ("silu", "swish"),
        "resnet_time_scale_shift": ("default", "scale_shift"),
        "class_embed_type": (None,),
    }
    if config["add_attention"]:
        # With scale_shift and None, UNet2DModel leaves out the middle attention's normalisation.
        supported["attn_norm_num_groups"] = (groups,) if adaptive else (None, groups)
    for entry, values in supported.items():
        if config[entry] not in values:
            known = " or ".join(map(repr, values))
            raise UserError(f"UNet2DModel's {entry}={config[entry]!r} has no equivalent here, only {known}.")
    if any(width % channels[0] for width in channels):
        raise UserError(f"block_out_channels {tuple(channels)} are not multiples of the first of them.")

    attention, resample = block_kinds(config)
    size = config["sample_size"]
    if any(attention) and size is None:
        raise UserError("this config lacks sample_size, which decides where attention is; add the image size.")
    side = size if isinstance(size, int) or size is None else min(size)
    classes = config["num_class_embeds"]
    head_channels = config["attention_head_dim"]
    return {
        "out_channels": config["out_channels"],
        "channels": channels[0],
        "channel_multipliers": tuple(width // channels[0] for width in channels),
        "blocks": config["layers_per_block"],
        "attention_resolutions": tuple(side // 2**level for level, here in enumerate(attention) if here),
        "middle_attention": config["add_attention"],
        "head_channels": 0 if head_channels is None else head_channels,
        "dropout": float(config["dropout"]),
        "num_classes": 0 if classes is None else classes - 1,
        "time_cos_first": config["flip_sin_to_cos"],
        "time_freq_shift": float(config["freq_shift"]),
        "time_mode": "adaptive" if adaptive else "add",
        "resample": resample,
        "downsample_padding": "same" if config["downsample_padding"] == 0 else "symmetric",
        "norm_groups": groups,
        "norm_eps": float(config["norm_eps"]),
    }


def block_kinds(config: Mapping[str, Any]) -> tuple[list[bool], str]:
    """Returns which levels have attention, and `UNet`'s `resample`, from the block types of a complete config."""
    down, up = config["down_block_types"], config["up_block_types"]
    for name in (*down, *up):
        if name not in BLOCKS:
            raise UserError(f"UNet2DModel's block {name!r} has no equivalent here, only {', '.join(BLOCKS)}.")
    attention = [BLOCKS[name][0] for name in down]
    if attention != [BLOCKS[name][0] for name in reversed(up)]:
        raise UserError("down_block_types and up_block_types attend at different levels, which UNet cannot.")
    ways = {BLOCKS[name][1] or config["downsample_type"] for name in down[:-1]}
    ways |= {BLOCKS[name][1] or config["upsample_type"] for name in up[:-1]}
    if len(ways) > 1:
        raise UserError("this config resamples by convolutions in some blocks and residual blocks in others.")
    return attention, "residual" if ways == {"resnet"} else "conv"


def names(unet: UNet, attention: list[bool]) -> Iterator[Layer]:
    """Yields every layer of a `UNet`; `attention` says for each level whether it has attention."""

    def level_of(ours: str, theirs: str, blocks: int, attends: bool, resampler: str) -> Iterator[Layer]:
        for i in range(blocks):
            yield from resnet(f"{ours}_block_{i}", f"{theirs}.resnets.{i}")
            if attends:
                yield from plain_attention(f"{ours}_attention_{i}", f"{theirs}.attentions.{i}")
        if resampler and unet.resample == "residual":
            yield from resnet(f"{ours}_resample", f"{theirs}.{resampler}.0")
        elif resampler:
            yield f"{ours}_resample", f"{theirs}.{resampler}.0.conv", "conv"

    blocks = at_level(unet.blocks, 0)  # one number for all levels
    yield "conv_in", "conv_in", "conv"
    yield "time_in", "time_embedding.linear_1", "dense"
    yield "time_out", "time_embedding.linear_2", "dense"
    if unet.num_classes:
        yield "class", "class_embedding", "embedding"
    last = len(attention) - 1
    for level, here in enumerate(attention):
        down = "downsamplers" if level < last else ""
        up = "upsamplers" if level else ""
        yield from level_of(f"down_{level}", f"down_blocks.{level}", blocks, here, down)
        yield from level_of(f"up_{level}", f"up_blocks.{last - level}", blocks + 1, here, up)
    yield from resnet("middle_block_0", "mid_block.resnets.0")
    if unet.middle_attention:
        yield from plain_attention("middle_attention", "mid_block.attentions.0")
    yield from resnet("middle_block_1", "mid_block.resnets.1")
    yield "norm_out", "conv_norm_out", "norm"
    yield "conv_out", "conv_out", "conv"


def unet_from_diffusers(state: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> tuple[dict, dict]:
    """Returns (arguments of `UNet`, its params as nested dicts of float32) from a `UNet2DModel`'s state and config.

    Raises:
      UserError: the config has no equivalent here, or the state lacks a weight, has an additional one, or has one of
        another shape.
    """
    options = unet_options(config)
    config = {**CONFIG_DEFAULTS, **config}
    attention, _ = block_kinds(config)
    unet = UNet(**options)
    size = config["sample_size"] or 2 ** len(attention)
    sides = (size, size) if isinstance(size, int) else tuple(size)
    x = jax.ShapeDtypeStruct((1, *sides, config["in_channels"]), np.float32)
    time = jax.ShapeDtypeStruct((1,), np.float32)
    label = jax.ShapeDtypeStruct((1,), np.int32) if unet.num_classes else None
    wanted = jax.eval_shape(unet.init, jax.random.key(0), x, time, label)["params"]
    return options, read_layers(names(unet, attention), state, wanted)


def unet_to_diffusers(params: Mapping[str, Any], unet: UNet) -> dict[str, np.ndarray]:
    """Returns the state dict of the `UNet2DModel` that is equivalent to `unet` with `params`.

    This is the inverse of `unet_from_diffusers`.

    Raises:
      UserError: `unet` has an option that `UNet2DModel` cannot express.
    """
    defaults = {"context_dim": 0, "time_embedding": "sinusoidal", "time_scale": 1.0, "middle_blocks": 2}
    defaults |= {"class_embedding": "table", "input_kernel": 3, "output_kernel": 3, "vector_dim": 0, "patch_size": 1}
    defaults["skip_scale"] = 1.0
    if isinstance(unet.blocks, tuple):
        raise UserError(f"UNet2DModel has no equivalent for blocks={unet.blocks}, only one number for all levels.")
    for field, only in defaults.items():
        if getattr(unet, field) != only:
            raise UserError(f"UNet2DModel has no equivalent for {field}={getattr(unet, field)!r}, only {only!r}.")
    levels = range(len(unet.channel_multipliers))
    attention = [f"down_{level}_attention_0" in params for level in levels]
    return {entry.name: entry.array() for entry in write_layers(names(unet, attention), params)}
