"""Checks what a diffusion method is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax.numpy as jnp

from jaxgen.arrays import Array, Batch
from jaxgen.conditions.base import Condition
from jaxgen.diffusion.guidance import Guidance, GuidanceInputs
from jaxgen.diffusion.prediction import Denoiser, check_embed
from jaxgen.errors import UserError
from jaxgen.networks.layers.calls import taken_by

if TYPE_CHECKING:
    from jaxgen.methods.diffusion.ddpm import DDPM


def check_times(method: DDPM) -> None:
    """Raises a UserError where the noise levels that are drawn or embedded do not go with the other options."""
    check_embed(method.schedule, method.embed)
    if method.learned_variance and not method.timesteps.on_levels:
        raise UserError(
            "config.method.learned_variance is trained at the levels of the schedule, and config.method.timesteps "
            f"{type(method.timesteps).__name__} draws noise levels between them; use uniform timesteps."
        )


def check_codec(method: DDPM) -> None:
    """Raises a UserError where the codec does not go with the method's other options."""
    if method.coding.bounded:
        return
    if method.learned_variance:
        raise UserError("config.method.learned_variance is for pixels, whose likelihood it needs, not for latents.")
    if getattr(method.sampler, "clip", False):
        raise UserError("Latents do not lie within [-1, 1]: set config.sampler.clip to False.")
    if method.guidance is not None and method.guidance.sees_images:
        raise UserError(f"A {seer(method.guidance)} sees images, not latents: choose another config.guidance.")
    factor, again = method.coding.factor, getattr(method.network, "side_multiple", 1)
    height, width, _ = method.image_shape
    if again > 0 and (height % (factor * again) or width % (factor * again)):
        raise UserError(
            f"config.data.resolution is {height}x{width} pixels, whose sides must be multiples of {factor * again} "
            f"here: the autoencoder divides them by {factor}, and the network works on multiples of {again}."
        )


def check_parts(method: DDPM) -> None:
    """Raises a UserError for conditions that do not go together, or that the network does not take."""
    codec = (method.coding.group,) if method.coding.group else ()
    guides = ("classifier", "weak", "clip_image", "clip_text", "clip_scale")
    method.told.check(("denoiser", *guides, "pretrained", "dtype", *codec))
    takes, gives = taken_by(method.network), method.told.gives
    for slot in method.network_inputs({slot: jnp.zeros(()) for slot in gives}):
        if gives[slot] in method.parts and takes is not None and slot not in takes:
            raise UserError(
                f"config.method.parts.{gives[slot]} gives {slot!r}, which the network "
                f"{type(method.network).__name__} does not take; it takes {', '.join(sorted(takes))}: name another "
                "config.method.network, or leave the part out."
            )


def check_guidance(method: DDPM) -> None:
    """Raises a UserError where a CLIP of the guidance reads other tokens than the model's text encoder."""
    towers = method.guidance.towers if method.guidance is not None else None
    if towers is None:
        return
    for name, part in method.told.all.items():
        network = getattr(part, "network", None)
        if towers.entry not in part.entries or network is None:
            continue
        for field in ("length", "vocabulary"):
            own, other = getattr(network, field, None), getattr(towers.text, field, None)
            if own and other and own != other:
                raise UserError(
                    f"config.guidance.text has the {field} {other}, and that of config.method.parts.{name}.network is "
                    f"{own}, of the same tokens: name a CLIP that was trained on captions of the same tokenizer."
                )


def seer(guidance: Guidance) -> str:
    """Returns what looks at images for a guidance whose `sees_images` is true."""
    return "classifier" if guidance.towers is None else "CLIP"


def steered(guidance: Guidance, inputs: GuidanceInputs, parts: Mapping[str, Condition]) -> Denoiser:
    """Returns the guided denoiser; the error of a guidance that lacks a null says which parts could have one."""
    try:
        return guidance(inputs)
    except UserError as error:
        if inputs.null is not None or not parts:
            raise
        names = " or ".join(f"config.method.parts.{name}" for name in sorted(parts))
        raise UserError(
            f"{str(error).rstrip('.')}. Give {names} a dropout above 0 in training, or set its knows_null where the "
            "network was taught the null before; or leave config.guidance out."
        ) from error


def weights_of(batch: Batch) -> Array:
    """Returns the entry `weight` of a batch, float32 [B]; raises a UserError where it has another shape or type."""
    weight, count = batch["weight"], len(batch["image"])
    if weight.shape != (count,) or not jnp.issubdtype(weight.dtype, jnp.floating):
        raise UserError(
            f"The data's entry 'weight' is {weight.dtype} of shape {weight.shape}, and the weights of the losses of "
            f"{count} examples are floats of shape ({count},)."
        )
    return weight
