"""Converts the weights of diffusers' `AutoencoderKL` to `jaxgen.networks.autoencoder_kl.AutoencoderKL` and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

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
from jaxgen.networks.autoencoder_kl import AutoencoderKL

MODEL = "AutoencoderKL"
SCALING = 0.18215  # the default scaling_factor, which is that of Stable Diffusion 1 and 2

# diffusers' defaults for entries that a config lacks.
DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",),
    "up_block_types": ("UpDecoderBlock2D",),
    "block_out_channels": (64,),
    "layers_per_block": 1,
    "act_fn": "silu",
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 32,
    "scaling_factor": SCALING,
    "shift_factor": None,
    "latents_mean": None,
    "latents_std": None,
    "force_upcast": True,  # the normalisations are always float32 here
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}


def autoencoder_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of jaxgen's `AutoencoderKL` from diffusers' config.

    Raises:
      UserError: the config has no equivalent here; the message names the entry.
    """
    config = complete(MODEL, config, DEFAULTS)
    kinds = (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D"))
    for entry, only in kinds:
        if any(name != only for name in config[entry]):
            raise UserError(f"{MODEL}'s {entry}={config[entry]!r} has no equivalent here, only {only!r}.")
        if len(config[entry]) != len(config["block_out_channels"]):
            raise UserError(f"{MODEL}'s {entry} and block_out_channels are not of one length.")
    silent = dict.fromkeys(("shift_factor", "latents_mean", "latents_std"), (None,))
    check_entries(MODEL, config, {"act_fn": ("silu", "swish"), **silent})
    channels, factors = multipliers(MODEL, config["block_out_channels"])
    return {
        "out_channels": config["out_channels"],
        "channels": channels,
        "channel_multipliers": factors,
        "blocks": config["layers_per_block"],
        "latent_channels": config["latent_channels"],
        "middle_attention": config["mid_block_add_attention"],
        "quant_conv": config["use_quant_conv"],
        "post_quant_conv": config["use_post_quant_conv"],
        "norm_groups": config["norm_num_groups"],
    }


def autoencoder_config(
    autoencoder: AutoencoderKL, in_channels: int, scaling_factor: float = SCALING, sample_size: int = 512
) -> dict[str, Any]:
    """Returns the config of diffusers' equivalent `AutoencoderKL`.

    Args:
      autoencoder: the network.
      in_channels: the channels of its images.
      scaling_factor: the factor that latents are multiplied by before diffusion, 1 / their standard deviation.
      sample_size: the usual side of the images, in pixels.

    Raises:
      UserError: `norm_eps` is not diffusers' 1e-6.
    """
    if autoencoder.norm_eps != 1e-6:
        raise UserError(f"{MODEL} of diffusers has no equivalent for norm_eps={autoencoder.norm_eps!r}, only 1e-06.")
    widths = [autoencoder.channels * factor for factor in autoencoder.channel_multipliers]
    return {
        "_class_name": MODEL,
        "in_channels": in_channels,
        "out_channels": autoencoder.out_channels,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "block_out_channels": widths,
        "layers_per_block": autoencoder.blocks,
        "latent_channels": autoencoder.latent_channels,
        "norm_num_groups": autoencoder.norm_groups,
        "sample_size": sample_size,
        "scaling_factor": float(scaling_factor),
        "use_quant_conv": autoencoder.quant_conv,
        "use_post_quant_conv": autoencoder.post_quant_conv,
        "mid_block_add_attention": autoencoder.middle_attention,
    }


def layers(autoencoder: AutoencoderKL) -> Iterator[Layer]:
    """Yields every layer of the autoencoder."""
    last = len(autoencoder.channel_multipliers) - 1

    def ends_and_middle(part: str) -> Iterator[Layer]:
        yield f"{part}/conv_in", f"{part}.conv_in", "conv"
        for i in (0, 1):
            yield from resnet(f"{part}/middle_block_{i}", f"{part}.mid_block.resnets.{i}", time=False)
        if autoencoder.middle_attention:
            yield from plain_attention(f"{part}/middle_attention", f"{part}.mid_block.attentions.0")
        yield f"{part}/norm_out", f"{part}.conv_norm_out", "norm"
        yield f"{part}/conv_out", f"{part}.conv_out", "conv"

    yield from ends_and_middle("encoder")
    yield from ends_and_middle("decoder")
    for level in range(last + 1):
        down, up = f"encoder.down_blocks.{level}", f"decoder.up_blocks.{last - level}"
        for i in range(autoencoder.blocks):
            yield from resnet(f"encoder/down_{level}_block_{i}", f"{down}.resnets.{i}", time=False)
        for i in range(autoencoder.blocks + 1):
            yield from resnet(f"decoder/up_{level}_block_{i}", f"{up}.resnets.{i}", time=False)
        if level < last:
            yield f"encoder/down_{level}_resample", f"{down}.downsamplers.0.conv", "conv"
        if level:
            yield f"decoder/up_{level}_resample", f"{up}.upsamplers.0.conv", "conv"
    if autoencoder.quant_conv:
        yield "quant", "quant_conv", "conv"
    if autoencoder.post_quant_conv:
        yield "post_quant", "post_quant_conv", "conv"


def autoencoder_from_diffusers(
    state: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    dtype: str = "float32",
    place: Placer = lambda array: array,
) -> tuple[AutoencoderKL, dict[str, Any]]:
    """Returns (network, its params) from the state and config of diffusers' `AutoencoderKL`.

    The attentions' names from before diffusers 0.15 are read too. The arguments are those of
    `diffusers_layers.read_layers`.

    Raises:
      UserError: the config has no equivalent here, or the state does not fit it.
    """
    autoencoder = AutoencoderKL(**autoencoder_options(config))
    side, channels = autoencoder.factor, config.get("in_channels", DEFAULTS["in_channels"])
    x = jax.ShapeDtypeStruct((1, side, side, channels), np.float32)
    wanted = jax.eval_shape(autoencoder.init, jax.random.key(0), x)["params"]
    return autoencoder, read_layers(layers(autoencoder), state, wanted, dtype, place)


def autoencoder_to_diffusers(params: Mapping[str, Any], autoencoder: AutoencoderKL) -> Iterator[Entry]:
    """Yields the tensors of diffusers' equivalent `AutoencoderKL`; the inverse of `autoencoder_from_diffusers`."""
    return write_layers(layers(autoencoder), params)
