"""Converts the weights of diffusers' `UNet2DConditionModel` to `jaxgen.networks.unet.UNet` and back.

This is the network of Stable Diffusion 1 and 2. Its `attention_head_dim` is the number of heads and not their width, an
old error in the name that its files have kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from jaxgen.errors import UserError
from jaxgen.interop.diffusers_files import Entry
from jaxgen.interop.diffusers_layers import (
    Layer,
    Placer,
    check_entries,
    complete,
    multipliers,
    plain_attention,
    read_layers,
    resnet,
    write_layers,
)
from jaxgen.networks.unet import UNet, at_level

T = TypeVar("T")
MODEL = "UNet2DConditionModel"
CROSS = {"CrossAttnDownBlock2D": True, "DownBlock2D": False, "CrossAttnUpBlock2D": True, "UpBlock2D": False}

# diffusers' defaults for entries that a config lacks.
DEFAULTS: dict[str, Any] = {
    "sample_size": None,
    "in_channels": 4,
    "out_channels": 4,
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "only_cross_attention": False,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "dropout": 0.0,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "cross_attention_dim": 1280,
    "transformer_layers_per_block": 1,
    "reverse_transformer_layers_per_block": None,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "attention_head_dim": 8,
    "num_attention_heads": None,
    "dual_cross_attention": False,
    "use_linear_projection": False,
    "class_embed_type": None,
    "addition_embed_type": None,
    "addition_time_embed_dim": None,
    "num_class_embeds": None,
    "upcast_attention": False,  # the softmax is always float32 here
    "resnet_time_scale_shift": "default",
    "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1.0,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "time_embedding_act_fn": None,
    "timestep_post_act": None,
    "time_cond_proj_dim": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "projection_class_embeddings_input_dim": None,
    "attention_type": "default",
    "class_embeddings_concat": False,
    "mid_block_only_cross_attention": None,
    "cross_attention_norm": None,
    "addition_embed_type_num_heads": 64,
}

SUPPORTED: dict[str, tuple] = {
    "center_input_sample": (False,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None),
    "downsample_padding": (0, 1),
    "mid_block_scale_factor": (1,),
    "act_fn": ("silu", "swish"),
    "reverse_transformer_layers_per_block": (None,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "num_attention_heads": (None,),
    "dual_cross_attention": (False,),
    "class_embed_type": (None, "timestep", "identity", "projection", "simple_projection"),
    "addition_embed_type": (None,),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "resnet_skip_time_act": (False,),
    "resnet_out_scale_factor": (1,),
    "time_embedding_type": ("positional",),
    "time_embedding_act_fn": (None,),
    "timestep_post_act": (None,),
    "time_cond_proj_dim": (None,),
    "conv_in_kernel": (1, 3, 5, 7),
    "conv_out_kernel": (1, 3, 5, 7),
    "attention_type": ("default",),
    "class_embeddings_concat": (False,),
    "cross_attention_norm": (None,),
}
MIDDLE = {"UNetMidBlock2DCrossAttn": 2, "UNetMidBlock2D": 1, None: 0}  # {middle block: number of residual blocks}


def condition_unet_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of `UNet` that make it compute what `UNet2DConditionModel(**config)` computes.

    The last of `num_class_embeds` classes becomes the null class.

    Raises:
      UserError: the config has no equivalent as a `UNet`; the message names the entry.
    """
    config = complete(MODEL, config, DEFAULTS)
    check_entries(MODEL, config, SUPPORTED)
    channels, factors = multipliers(MODEL, config["block_out_channels"])
    check_entries(MODEL, config, {"time_embedding_dim": (None, 4 * channels)})
    levels = len(factors)
    embedding = config["class_embed_type"] or "table"
    classes = config["num_class_embeds"] if embedding == "table" else None
    if classes is not None and classes < 2:
        raise UserError(f"{MODEL}'s num_class_embeds={classes!r} has no equivalent here, only None or at least 2.")
    vector = "projection" in embedding and config["projection_class_embeddings_input_dim"]
    if "projection" in embedding and not vector:
        raise UserError(
            f"{MODEL}'s class_embed_type={embedding!r} needs projection_class_embeddings_input_dim, the vector's width."
        )
    if not isinstance(config["norm_num_groups"], int):
        raise UserError(f"{MODEL}'s norm_num_groups=None has no equivalent here, only a number of groups.")
    return {
        "out_channels": config["out_channels"],
        "channels": channels,
        "channel_multipliers": factors,
        "blocks": _each(config, "layers_per_block", levels, int),
        "attention_levels": attention_levels(config),
        "middle_blocks": MIDDLE[config["mid_block_type"]],
        "middle_attention": config["mid_block_type"] == "UNetMidBlock2DCrossAttn",
        "heads": _each(config, "attention_head_dim", levels, int),
        "dropout": float(config["dropout"]),
        "num_classes": 0 if classes is None else classes - 1,
        "class_embedding": embedding,
        "class_dim": vector or 0,
        "context_dim": _one(config, "cross_attention_dim"),
        "transformer_depth": _each(config, "transformer_layers_per_block", levels, int),
        "only_cross_attention": _each(config, "only_cross_attention", levels, bool),
        "time_cos_first": config["flip_sin_to_cos"],
        "time_freq_shift": float(config["freq_shift"]),
        "time_mode": "adaptive" if config["resnet_time_scale_shift"] == "scale_shift" else "add",
        "downsample_padding": "same" if config["downsample_padding"] == 0 else "symmetric",
        "norm_groups": config["norm_num_groups"],
        "norm_eps": float(config["norm_eps"]),
        "input_kernel": config["conv_in_kernel"],
        "output_kernel": config["conv_out_kernel"],
    }


def attention_levels(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Returns the levels that have attention, from the block types of a complete config."""
    down, up = config["down_block_types"], config["up_block_types"]
    for name in (*down, *up):
        if name not in CROSS:
            raise UserError(f"{MODEL}'s block {name!r} has no equivalent here, only {', '.join(CROSS)}.")
    if not len(down) == len(up) == len(config["block_out_channels"]):
        raise UserError(f"{MODEL}'s down_block_types, up_block_types and block_out_channels are not of one length.")
    if [CROSS[name] for name in down] != [CROSS[name] for name in reversed(up)]:
        raise UserError(f"{MODEL}'s down_block_types and up_block_types attend at different levels, which UNet cannot.")
    return tuple(level for level, name in enumerate(down) if CROSS[name])


def _one(config: Mapping[str, Any], entry: str) -> int:
    """Returns the value of an entry that must be the same at every level."""
    value = config[entry]
    found = {*value} if isinstance(value, Sequence) else {value}
    if len(found) != 1 or not isinstance(next(iter(found)), int):
        raise UserError(f"{MODEL}'s {entry}={value!r} has no equivalent here, only one number for all levels.")
    return found.pop()


def _each(config: Mapping[str, Any], entry: str, levels: int, kind: type[T]) -> T | tuple[T, ...]:
    """Returns the value of an entry that may differ from level to level: one value, or one for each level."""
    value = config[entry]
    every = tuple(value) if isinstance(value, Sequence) else (value,)
    if len(every) not in (1, levels) or not all(isinstance(one, kind) for one in every):
        wanted = f"one {kind.__name__} or one for each level"
        raise UserError(f"{MODEL}'s {entry}={value!r} has no equivalent here, only {wanted}.")
    return tuple(value) if isinstance(value, Sequence) and len({*every}) > 1 else every[0]


def condition_unet_config(unet: UNet, in_channels: int, sample_size: int | None = None) -> dict[str, Any]:
    """Returns the config of the `UNet2DConditionModel` that is equivalent to `unet`, with linear projections.

    Args:
      unet: the network.
      in_channels: the channels of its images.
      sample_size: the usual side of its images, which a pipeline takes if none is asked for.

    Raises:
      UserError: `unet` has an option that `UNet2DConditionModel` cannot express.
    """
    only = {"time_embedding": "sinusoidal", "time_scale": 1.0, "resample": "conv", "vector_dim": 0, "patch_size": 1}
    only |= {"context_attention": "transformer", "skip_scale": 1.0}
    for field, value in only.items():
        if getattr(unet, field) != value:
            raise UserError(f"{MODEL} has no equivalent for {field}={getattr(unet, field)!r}, only {value!r}.")
    if not unet.context_dim:
        raise UserError(f"{MODEL} has no equivalent for context_dim=0, but UNet2DModel has one.")
    if unet.attention_levels is None or unet.middle_attention != (unet.middle_blocks == 2):
        raise UserError(f"{MODEL} needs attention_levels, and attention in a middle of two blocks and there alone.")
    widths = [unet.channels * factor for factor in unet.channel_multipliers]
    here = [level in unet.attention_levels for level in range(len(widths))]
    heads = [unet.heads_for(level, width) for level, width in enumerate(widths)]
    table = unet.class_embedding == "table"
    return {
        "_class_name": MODEL,
        "sample_size": sample_size,
        "in_channels": in_channels,
        "out_channels": unet.out_channels,
        "flip_sin_to_cos": unet.time_cos_first,
        "freq_shift": unet.time_freq_shift,
        "down_block_types": ["CrossAttnDownBlock2D" if one else "DownBlock2D" for one in here],
        "mid_block_type": next(name for name, count in MIDDLE.items() if count == unet.middle_blocks),
        "up_block_types": ["CrossAttnUpBlock2D" if one else "UpBlock2D" for one in reversed(here)],
        "only_cross_attention": unet.only_cross_attention,
        "block_out_channels": widths,
        "layers_per_block": unet.blocks,
        "downsample_padding": 1 if unet.downsample_padding == "symmetric" else 0,
        "dropout": unet.dropout,
        "norm_num_groups": unet.norm_groups,
        "norm_eps": unet.norm_eps,
        "cross_attention_dim": unet.context_dim,
        "transformer_layers_per_block": unet.transformer_depth,
        "attention_head_dim": heads,
        "use_linear_projection": True,
        "class_embed_type": None if table else unet.class_embedding,
        "num_class_embeds": unet.num_classes + 1 if table and unet.num_classes else None,
        "projection_class_embeddings_input_dim": unet.class_dim or None,
        "resnet_time_scale_shift": "scale_shift" if unet.time_mode == "adaptive" else "default",
        "conv_in_kernel": unet.input_kernel,
        "conv_out_kernel": unet.output_kernel,
    }


def layers(unet: UNet, linear: bool) -> Iterator[Layer]:
    """Yields every layer of a `UNet`.

    Args:
      unet: the network.
      linear: whether the projections before and after transformers are linear layers there, or 1x1 convolutions.
    """
    projection = "dense" if linear else "pointwise"
    last = len(unet.channel_multipliers) - 1

    def attention(ours: str, theirs: str, level: int, middle: bool = False) -> Iterator[Layer]:
        if not unet.context_dim:
            yield from plain_attention(ours, theirs)
            return
        only_cross = at_level(unet.only_cross_attention, level) and not middle
        yield f"{ours}/norm", f"{theirs}.norm", "norm"
        yield f"{ours}/in", f"{theirs}.proj_in", projection
        yield f"{ours}/out", f"{theirs}.proj_out", projection
        for i in range(at_level(unet.transformer_depth, level)):
            here, there = f"{ours}/block_{i}", f"{theirs}.transformer_blocks.{i}"
            for k in (1, 2, 3):
                yield f"{here}/norm_{k}", f"{there}.norm{k}", "norm"
            first = "first_cross_attention" if only_cross else "self_attention"
            for name, attn in ((first, "attn1"), ("cross_attention", "attn2")):
                for a, b in (("query", "to_q"), ("key", "to_k"), ("value", "to_v")):
                    yield f"{here}/{name}/{a}", f"{there}.{attn}.{b}", "linear"
                yield f"{here}/{name}/out", f"{there}.{attn}.to_out.0", "dense"
            yield f"{here}/feed_forward/in", f"{there}.ff.net.0.proj", "dense"
            yield f"{here}/feed_forward/out", f"{there}.ff.net.2", "dense"

    def level_of(ours: str, theirs: str, level: int, blocks: int, resampler: str) -> Iterator[Layer]:
        for i in range(blocks):
            yield from resnet(f"{ours}_block_{i}", f"{theirs}.resnets.{i}")
            if level in (unet.attention_levels or ()):
                yield from attention(f"{ours}_attention_{i}", f"{theirs}.attentions.{i}", level)
        if resampler:
            yield f"{ours}_resample", f"{theirs}.{resampler}.0.conv", "conv"

    yield "conv_in", "conv_in", "conv"
    yield "time_in", "time_embedding.linear_1", "dense"
    yield "time_out", "time_embedding.linear_2", "dense"
    if unet.class_embedding == "table" and unet.num_classes:
        yield "class", "class_embedding", "embedding"
    elif unet.class_embedding == "simple_projection":
        yield "class", "class_embedding", "dense"
    elif unet.class_embedding in ("timestep", "projection"):
        yield "class_in", "class_embedding.linear_1", "dense"
        yield "class_out", "class_embedding.linear_2", "dense"
    for level in range(last + 1):
        down, up = f"down_blocks.{level}", f"up_blocks.{last - level}"
        blocks = at_level(unet.blocks, level)
        yield from level_of(f"down_{level}", down, level, blocks, "downsamplers" if level < last else "")
        yield from level_of(f"up_{level}", up, level, blocks + 1, "upsamplers" if level else "")
    for i in range(unet.middle_blocks):
        yield from resnet(f"middle_block_{i}", f"mid_block.resnets.{i}")
    if unet.middle_attention and unet.middle_blocks == 2:
        yield from attention("middle_attention", "mid_block.attentions.0", last, middle=True)
    yield "norm_out", "conv_norm_out", "norm"
    yield "conv_out", "conv_out", "conv"


def unet_inputs(unet: UNet, in_channels: int) -> dict[str, jax.ShapeDtypeStruct | None]:
    """Returns the shapes of what a `UNet` for text is called with, of the smallest image that it takes."""
    side = 2 ** (len(unet.channel_multipliers) - 1)
    labels = {"timestep": (), "identity": (4 * unet.channels,)}.get(unet.class_embedding, (unet.class_dim,))
    label = None if unet.class_embedding == "table" else jax.ShapeDtypeStruct((1, *labels), np.float32)
    if unet.class_embedding == "table" and unet.num_classes:
        label = jax.ShapeDtypeStruct((1,), np.int32)
    return {
        "x": jax.ShapeDtypeStruct((1, side, side, in_channels), np.float32),
        "time": jax.ShapeDtypeStruct((1,), np.float32),
        "label": label,
        "context": jax.ShapeDtypeStruct((1, 1, unet.context_dim), np.float32),
    }


def unet_shapes(unet: UNet, in_channels: int) -> dict[str, Any]:
    """Returns the shapes of the params of a `UNet` for text, without computing the params."""
    return jax.eval_shape(unet.init, jax.random.key(0), **unet_inputs(unet, in_channels))["params"]


def condition_unet_from_diffusers(
    state: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    dtype: str = "float32",
    place: Placer = lambda array: array,
) -> tuple[UNet, dict[str, Any]]:
    """Returns (network, its params) from a `UNet2DConditionModel`'s state and config.

    The arguments are those of `diffusers_layers.read_layers`.

    Raises:
      UserError: the config has no equivalent here, or the state does not fit it.
    """
    unet = UNet(**condition_unet_options(config))
    config = complete(MODEL, config, DEFAULTS)
    wanted = unet_shapes(unet, config["in_channels"])
    table = layers(unet, bool(config["use_linear_projection"]))
    return unet, read_layers(table, state, wanted, dtype, place)


def condition_unet_to_diffusers(params: Mapping[str, Any], unet: UNet, linear: bool = True) -> Iterator[Entry]:
    """Yields the tensors of the `UNet2DConditionModel` that is equivalent to `unet`.

    This is the inverse of `condition_unet_from_diffusers`.

    Args:
      params: the params of `unet`.
      unet: the network.
      linear: the value of `use_linear_projection` in its config.
    """
    return write_layers(layers(unet, linear), params)
