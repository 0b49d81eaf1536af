"""As many steps as a number of network evaluations allows: how solvers are compared fairly."""

from __future__ import annotations

import dataclasses

from jaxgen.diffusion.samplers.base import Sampler


def within_budget(sampler: Sampler, evaluations: int, levels: int = 0) -> Sampler | None:
    """The sampler with the most steps whose evaluations of the network stay within a budget.

    Args:
      levels: of a discrete schedule, more than which no sampler takes steps; 0 for a continuous one.

    Returns:
      None where a single step needs more evaluations than that.
    """
    low, high = 0, min(evaluations, levels or evaluations)
    while low < high:
        middle = (low + high + 1) // 2
        enough = dataclasses.replace(sampler, steps=middle).evaluations <= evaluations
        low, high = (middle, high) if enough else (low, middle - 1)
    return dataclasses.replace(sampler, steps=low) if low else None
