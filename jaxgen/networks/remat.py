"""Rematerialisation: a block's inner values are computed again in the backward pass and not kept (Chen et al. 2016)."""

from __future__ import annotations

import flax.linen as nn
import jax

from jaxgen.errors import UserError, nearest

# What a block keeps beside its input.
POLICIES = {
    "block": None,  # nothing
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # results of dense layers, but not of attention
}


def remat(block: type[nn.Module], policy: str, static: tuple[int, ...] = ()) -> type[nn.Module]:
    """A block's class with rematerialisation; the same parameters, values and gradients.

    Args:
      policy: "" for the class as it is, "block" to keep nothing but its input, "dots" to keep matrix products too.
      static: places of the arguments of `__call__` that are no arrays, `self` being 0.

    Raises:
      UserError: for another policy.
    """
    if not policy:
        return block
    if policy not in POLICIES:
        raise UserError(f"remat={policy!r} is unknown; {nearest(policy, POLICIES)}")
    return nn.remat(block, policy=POLICIES[policy], static_argnums=static)
