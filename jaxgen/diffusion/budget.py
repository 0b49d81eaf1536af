"""Chooses the steps of a solver by a number of network evaluations, so that solvers are compared at equal cost."""

from __future__ import annotations

import dataclasses

from jaxgen.diffusion.samplers.base import Sampler


def within_budget(sampler: Sampler, evaluations: int, levels: int = 0) -> Sampler | None:
    """Returns the sampler with the most steps whose evaluations of the network stay within a budget.

    Args:
      evaluations: the budget for one batch.
      levels: the number of levels of a discrete schedule, which limits the steps; 0 for a continuous schedule.

    Returns:
      The sampler, or None where a single step already needs more evaluations than the budget.
    """
    low, high = 0, min(evaluations, levels or evaluations)
    while low < high:
        middle = (low + high + 1) // 2
        enough = dataclasses.replace(sampler, steps=middle).evaluations <= evaluations
        low, high = (middle, high) if enough else (low, middle - 1)
    return dataclasses.replace(sampler, steps=low) if low else None
