"""The contract of denoising networks says what they are called with; this module checks what does not fit.

    network(x, time, label=None, context=None, context_mask=None, condition=None, vector=None, train=False) -> image

x: float32 [B, H, W, C].
time: float32 [B], on the scale of the network's `time_scale` (0..999 for the schedules' conditioning).
label: int32 [B] in 0..num_classes, where the network's num_classes is above 0 and only there.
context: float32 [B, L, context_dim], where the network's context_dim is above 0 and only there.
context_mask: [B, L], nonzero on the context's valid tokens.
condition: float32 [B, H, W, C'], joined to the channels of x.
vector: float32 [B, vector_dim], where the network's vector_dim is above 0 and only there.
train: whether dropout is on.

The result is float32 [B, H, W, out_channels]. Inputs that do not fit the options raise a UserError. A network checks
its own options and sizes between `check_images` and `check_inputs`.
"""

from __future__ import annotations

import typing

import flax.linen as nn
import jax.numpy as jnp

from jaxgen.arrays import Array
from jaxgen.errors import UserError


def check_choices(network: nn.Module) -> None:
    """Raises a UserError for an option whose value is not one of those in its `Literal` annotation."""
    for field, hint in typing.get_type_hints(type(network)).items():
        known = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
        if known and getattr(network, field) not in known:
            raise UserError(f"{field} is {' or '.join(map(repr, known))}, not {getattr(network, field)!r}.")


def check_images(name: str, x: Array) -> None:
    """Raises a UserError unless x is [B, H, W, C]. `name` is the network's, in messages."""
    if x.ndim != 4:
        raise UserError(f"the {name} takes images [B, H, W, C], not an array of shape {x.shape}.")


def check_inputs(
    name: str,
    num_classes: int,
    context_dim: int,
    x: Array,
    time: Array,
    label: Array | None,
    context: Array | None,
    context_mask: Array | None,
    condition: Array | None,
) -> None:
    """Raises a UserError for inputs that do not fit the contract, given the network's options.

    name: the network's, in messages.
    num_classes, context_dim: its options; where 0, it takes no label or no context, and else it needs one.
    """
    batch = x.shape[0]
    if time.shape != (batch,):
        raise UserError(f"time has shape {time.shape}, but a batch of {batch} images needs ({batch},).")
    if label is None and num_classes:
        raise UserError(
            f"this {name} has num_classes={num_classes} and needs a label for each image; "
            f"{num_classes} stands for no class."
        )
    if label is not None and not num_classes:
        raise UserError(f"a label was given, but this {name} has num_classes=0: set num_classes.")
    if label is not None and (label.shape != (batch,) or not jnp.issubdtype(label.dtype, jnp.integer)):
        raise UserError(f"label is {label.dtype} of {label.shape}, not integers of ({batch},).")
    if context is None and context_dim:
        raise UserError(f"this {name} has context_dim={context_dim} and needs context [B, L, D].")
    if context is not None and not context_dim:
        raise UserError(f"context was given, but this {name} has context_dim=0: set context_dim.")
    if context is not None and (context.ndim != 3 or context.shape[0] != batch or context.shape[-1] != context_dim):
        raise UserError(f"context has shape {context.shape}, but this {name} needs ({batch}, L, {context_dim}).")
    if context_mask is not None and (context is None or context_mask.shape != context.shape[:2]):
        raise UserError("context_mask needs the batch and length of context, [B, L].")
    if condition is not None and (condition.ndim != 4 or condition.shape[:3] != x.shape[:3]):
        raise UserError(
            f"condition has shape {condition.shape}, but images of shape {x.shape} need the same batch, "
            "height and width: resize it first."
        )


def check_vector(name: str, vector_dim: int, x: Array, vector: Array | None) -> None:
    """Raises a UserError unless `vector` is [B, vector_dim], or None where `vector_dim` is 0."""
    if vector is None and vector_dim:
        raise UserError(f"this {name} has vector_dim={vector_dim} and needs a vector [B, {vector_dim}].")
    if vector is not None and (vector.shape != (x.shape[0], vector_dim) or not vector_dim):
        raise UserError(
            f"a vector of shape {vector.shape} was given, but this {name} has vector_dim={vector_dim}: set vector_dim "
            f"to {vector.shape[-1] if vector.ndim == 2 else 'the width of vectors [B, D]'}."
        )
