"""Computes LPIPS between paired images, and how varied the images of a group are by it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from jaxgen.errors import UserError
from jaxgen.metrics.base import RunFacts
from jaxgen.metrics.networks.lpips import Lpips
from jaxgen.metrics.pairs.base import PairMetric
from jaxgen.networks.pretrained.lpips import layers_of

Distance = Callable[[UInt8[np.ndarray, "N H W C"], UInt8[np.ndarray, "N H W C"]], Float[np.ndarray, " N"]]


@dataclasses.dataclass(frozen=True)
class LPIPS(PairMetric):
    """LPIPS is the learned perceptual distance (Zhang et al. 2018), version 0.1.

    Raises:
      UserError: for an unknown trunk; files that cannot be had are named when the first images are seen.
    """

    trunk: str = "alex"  # "alex", which its authors report, or "vgg"; they give other numbers
    weights: str = ""  # a folder of the published files; "" finds or fetches them

    def __post_init__(self) -> None:
        layers_of(self.trunk)

    @functools.cached_property
    def network(self) -> Lpips:
        """Returns the published network, which is read at the first use."""
        return Lpips(self.trunk, self.weights)

    @property
    def note(self) -> str:
        return f"Version 0.1, {self.trunk}."

    def check_run(self, facts: RunFacts) -> None:
        super().check_run(facts)
        _ = self.network  # reads the weights, so that they are not missed after training

    def values(
        self, a: UInt8[np.ndarray, "N H W C"], b: UInt8[np.ndarray, "N H W C"], batch: int = 100
    ) -> Float[np.ndarray, " N"]:
        return self.network(a, b, batch)

    def values_inside(
        self, a: UInt8[np.ndarray, "N H W C"], b: UInt8[np.ndarray, "N H W C"], region: Bool[np.ndarray, "N H W"],
        batch: int = 100,
    ) -> Float[np.ndarray, " N"]:  # fmt: skip
        """Returns distances whose means over positions are weighted by their share of the region, at each depth."""
        return self.network.inside(a, b, region, batch)

    def look(self) -> dict[str, Any]:
        return {"network": self.network.name, "digest": self.network.digest, "published": True}


@dataclasses.dataclass(frozen=True)
class Diversity:
    """Holds how varied the images within groups are.

    Attributes:
      mean: the mean of the groups' means, in which each group counts once.
      std: the standard deviation of those means.
      groups: the number of each group that has two images or more.
      means: its mean distance.
      sizes: its number of images.
      pairs: the number of pairs that its mean is taken over.
      images: the number of images in all groups.
      left_out: the number of groups of fewer than two images.
      seed: the seed by which pairs were drawn.
    """

    mean: float
    std: float
    groups: tuple[int, ...]
    means: tuple[float, ...]
    sizes: tuple[int, ...]
    pairs: tuple[int, ...]
    images: int
    left_out: int
    seed: int


def nearest_reference(
    lpips: Lpips, images: UInt8[np.ndarray, "N H W C"], references: UInt8[np.ndarray, "K H W C"], batch: int = 32
) -> Int[np.ndarray, " N"]:
    """Returns the number, int `[N]`, of the reference that each image has the smallest LPIPS distance to.

    With the training images as references these are the groups of Ojha et al. (2021), Section 4, for
    `intra_set_diversity` of a generator that saw only few.
    """
    return lpips.matrix(images, references, batch).argmin(1)


def intra_set_diversity(
    distance: Distance,
    images: UInt8[np.ndarray, "N H W C"],
    groups: Int[np.ndarray, " N"],
    pairs: int = 1000,
    seed: int = 0,
) -> Diversity:
    """Returns the mean distance between images of one group, averaged over the groups.

    A generator that repeats its training images scores near 0 where the groups are `nearest_reference`s (Ojha et al.
    2021, Section 4, intra-cluster LPIPS); with labels as groups it is the diversity within classes.

    Args:
      distance: a function of two sets of images, such as an `Lpips`.
      images: uint8 `[N, H, W, C]`.
      groups: int `[N]`, each image's group or class.
      pairs: at most as many different pairs in each group, drawn at random; all of them where there are fewer.

    Raises:
      UserError: where no group has two images, or for unequal numbers.
    """
    groups = np.asarray(groups)
    if groups.shape != (len(images),) or pairs < 1:
        raise UserError(
            f"Diversity needs a group for each of {len(images)} images and at least one pair, "
            f"not groups of shape {groups.shape} and {pairs} pairs."
        )
    first, second, kept, left_out = [], [], [], 0
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        if len(members) < 2:
            left_out += 1
            continue
        # a group's draw is its own, so that it does not depend on which others there are
        chance = np.random.default_rng([seed, int(group) % 2**32])
        low, high = _pairs(len(members), pairs, chance)
        first.append(members[low])
        second.append(members[high])
        kept.append((int(group), len(members), len(low)))
    if not kept:
        raise UserError(f"None of the {left_out} groups has two images, so there is no diversity within any.")
    found = distance(images[np.concatenate(first)], images[np.concatenate(second)])
    numbers, sizes, counts = zip(*kept, strict=True)
    means = [float(np.mean(part)) for part in np.split(found, np.cumsum(counts)[:-1])]
    return Diversity(
        mean=float(np.mean(means)),
        std=float(np.std(means)),
        groups=numbers,
        means=tuple(means),
        sizes=sizes,
        pairs=counts,
        images=len(images),
        left_out=left_out,
        seed=seed,
    )


def _pairs(count: int, most: int, chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns different pairs low < high of `count` things: all of them, or `most` of them, each as likely."""
    total = count * (count - 1) // 2
    number = np.arange(total) if total <= most else np.sort(chance.choice(total, most, replace=False))
    # pair number n is (low, high) with n = high (high - 1) / 2 + low
    high = np.floor((1 + np.sqrt(1 + 8 * number.astype(np.float64))) / 2).astype(np.int64)
    return number - high * (high - 1) // 2, high
