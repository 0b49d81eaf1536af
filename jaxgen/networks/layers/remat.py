"""Rematerialisation: a block's inner values are computed again in the backward pass and not kept (Chen et al. 2016)."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

from jaxgen.errors import UserError, nearest


def _products(primitive: Any, *avals: Any, **params: Any) -> Any:
    """Returns whether a result is kept: those of dense layers and convolutions are, those of attention, whose products
    have batch dimensions, are not."""
    convolution = primitive.name == "conv_general_dilated"
    return convolution or jax.checkpoint_policies.dots_with_no_batch_dims_saveable(primitive, *avals, **params)


POLICIES = {"block": None, "dots": _products}  # what a block keeps beside its input: nothing, or products


def remat(block: type[nn.Module], policy: str, static: tuple[int, ...] = (), looped: bool = False) -> type[nn.Module]:
    """Returns a block's class with rematerialisation. Parameters, values and gradients stay the same.

    Args:
      policy: "" for the class as it is, "block" to keep nothing but its input, "dots" to keep products with weights.
      static: positions of those arguments of `__call__` that are not arrays; `self` has position 0.
      looped: whether the block is the body of a loop. The compiler cannot merge a loop's body with the backward
        pass, so nothing has to prevent it.

    Raises:
      UserError: the policy is unknown.
    """
    if not policy:
        return block
    if policy not in POLICIES:
        raise UserError(f"remat={policy!r} is unknown; {nearest(policy, POLICIES)}")
    return nn.remat(block, policy=POLICIES[policy], static_argnums=static, prevent_cse=not looped)
