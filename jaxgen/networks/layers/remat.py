"""Rematerialisation: a block's inner values are computed again in the backward pass and not kept (Chen et al. 2016)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

from jaxgen.errors import UserError, nearest


def _products(primitive: Any, *avals: Any, **params: Any) -> Any:
    """Keeps results of dense layers and convolutions, but not of attention, whose products have batch dimensions."""
    convolution = primitive.name == "conv_general_dilated"
    return convolution or jax.checkpoint_policies.dots_with_no_batch_dims_saveable(primitive, *avals, **params)


POLICIES = {"block": None, "dots": _products}  # what a block keeps beside its input: nothing, or products


def remat(block: type[nn.Module], policy: str, static: tuple[int, ...] = (), looped: bool = False) -> type[nn.Module]:
    """A block's class with rematerialisation; the same parameters, values and gradients.

    Args:
      policy: "" for the class as it is, "block" to keep nothing but its input, "dots" to keep products with weights.
      static: places of the arguments of `__call__` that are no arrays, `self` being 0.
      looped: whether the block is a loop's body, out of which nothing can be merged with the backward pass.

    Raises:
      UserError: for another policy.
    """
    if not policy:
        return block
    if policy not in POLICIES:
        raise UserError(f"remat={policy!r} is unknown; {nearest(policy, POLICIES)}")
    return nn.remat(block, policy=POLICIES[policy], static_argnums=static, prevent_cse=not looped)
