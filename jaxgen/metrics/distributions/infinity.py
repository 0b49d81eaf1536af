"""Estimates a distance without its bias in the number of samples, by a line in 1/n read at 1/n = 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxgen.errors import UserError
from jaxgen.metrics.base import SetMetric, Value
from jaxgen.metrics.distributions.frechet import frechet_distance, only_published
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.summary import Summary

POINTS = 15
SMALLEST = 10  # the smallest subset has this part of all samples


class FrechetInfinity(SetMetric):
    """Estimates the Fréchet distance at infinitely many samples, in any network's features; see `extrapolate`."""

    note = "Extrapolated to infinitely many samples; the reference stays as it is."
    least = 20

    def value(self, samples: Summary, reference: Summary) -> Value:
        return Value(extrapolate(frechet_distance, samples.kept_features, reference.kept_features).value)

    def number(self, network: FeatureNetwork) -> str:
        return "fid_infinity" if network.published else f"frechet_infinity_{network.name}"


class FIDInfinity(FrechetInfinity):
    """FID-infinity is this estimate in the published Inception's features alone (Chong & Forsyth 2020)."""

    def check(self, network: FeatureNetwork) -> None:
        only_published(self.name, "frechet_infinity", network)


class Extrapolated(NamedTuple):
    """Holds an estimate at infinitely many samples, and those that it was fitted to.

    Attributes:
      value: the estimate at infinitely many samples.
      sizes: `[P]` sizes of the subsets, of which the last has all samples.
      values: `[P]` estimates from the subsets.
    """

    value: float
    sizes: Int[np.ndarray, " P"]
    values: Float[np.ndarray, " P"]


def extrapolate(
    estimator: Callable[[np.ndarray, np.ndarray], float],
    samples: Float[np.ndarray, "N ..."],
    reference: Float[np.ndarray, "M ..."],
    sizes: tuple[int, ...] | None = None,
    both: bool = False,
    seed: int = 0,
) -> Extrapolated:
    """Returns the estimate at infinitely many samples (Chong & Forsyth 2020); for the FID it is FID-infinity.

    The bias of the Fréchet distance and of the logarithm of the Inception score is linear in 1/n to first order, once
    n is well above the number of features; with fewer samples than features the line is no guide. The value may be
    below 0: it is an estimate with noise, larger than that of the full set.

    Args:
      estimator: `(features [n, D], features [m, D]) -> float`, such as `frechet_distance`.
      samples, reference: `[N, ...]`, `[M, ...]`.
      sizes: sizes of the subsets of the samples, at least two different ones; by default 15 from N / 10 to N. The
      subsets
        are nested: each is the beginning of one random order.
      both: whether the reference shrinks by the same share, which removes its own bias too; else all of it is used, as
      in the
        paper, and its bias stays. Only the first makes real against real 0 on average.

    Raises:
      UserError: for sizes that are too few or out of range.
    """
    samples, reference = np.asarray(samples), np.asarray(reference)
    count = len(samples)
    if sizes is None:
        sizes = tuple(np.linspace(max(count // SMALLEST, 2), count, POINTS).astype(int))
    if len(set(sizes)) < 2 or min(sizes) < 2 or max(sizes) > count:
        raise UserError(f"Extrapolation needs two or more different sizes between 2 and {count}, not {sizes}.")
    chance = np.random.default_rng(seed)
    order = chance.permutation(count)
    others = chance.permutation(len(reference))
    values = []
    for size in sizes:
        beside = reference[others[: max(round(len(reference) * size / count), 2)]] if both else reference
        values.append(estimator(samples[order[:size]], beside))
    slope_and_value = np.polyfit(1 / np.asarray(sizes, np.float64), np.asarray(values, np.float64), 1)
    return Extrapolated(float(slope_and_value[1]), np.asarray(sizes), np.asarray(values))
