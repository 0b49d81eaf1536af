"""Holds the images that an evaluation of a model sees, and what feature networks see of them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int, UInt8

from jaxgen.errors import UserError
from jaxgen.metrics import reference
from jaxgen.metrics.networks.base import FeatureNetwork, Features
from jaxgen.metrics.statistics import Statistics
from jaxgen.metrics.summary import Summary

Which = Literal["samples", "held_out", "floor", "noise"]
NEIGHBOURS, POOL = 100, 200  # samples that have a real image of a similar condition, and images that it is chosen from


@dataclasses.dataclass(frozen=True)
class EvaluationImages:
    """Holds the images that an evaluation compares, and caches what networks have seen of them.

    Attributes:
      samples: uint8 `[N, H, W, C]`, from the model; `[N, ...]` of a method that gives something else.
      labels: int32 `[N]` they were asked for, or None.
      train: uint8 `[M, H, W, C]`, what the model learned from.
      held_out: uint8 `[K, H, W, C]`, what it never saw.
      held_out_labels: int32 `[K]` where the data have labels, else None.
      held_out_name: the data set, split and size of `held_out`, to be printed with each number.
      statistics: published ones, the reference of the metrics that need no more of it; None where that is `held_out`.
      asked: `{entry: [N, ...]}`, what each sample was drawn for: conditions, and the held-out examples they are of.
      entry: the entry of `asked` that is the true one of each sample.
      corrupted: what the config's corruptions make of images `[N, H, W, C]`, with the random numbers of the N samples,
        or of those whose numbers are given as `index`.
      hints: the entries of `asked` that corruptions made as pictures.
      masked: whether `asked["mask"]` was made by a corruption and says what is unknown.
      train_labels: int32 `[M]` where the data have labels, else None.
      draws: uint8 `[P, D, H, W, C]`, D samples under each of the conditions of the first P samples, those first; None
        where no metric needs them.
    """

    samples: UInt8[np.ndarray, "N H W C"]
    labels: Int[np.ndarray, " N"] | None
    train: UInt8[np.ndarray, "M H W C"]
    held_out: UInt8[np.ndarray, "K H W C"]
    held_out_labels: Int[np.ndarray, " K"] | None
    held_out_name: str
    statistics: Statistics | None = None
    asked: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    entry: str = "image"
    corrupted: Callable[..., Mapping[str, np.ndarray]] | None = None
    hints: tuple[str, ...] = ()
    masked: bool = False
    train_labels: Int[np.ndarray, " M"] | None = None
    draws: UInt8[np.ndarray, "P D H W C"] | None = None
    _seen: dict[tuple[str, ...], Summary] = dataclasses.field(default_factory=dict, init=False, repr=False)

    @property
    def truth(self) -> np.ndarray:
        """Returns the true one of each sample, `[N, ...]`.

        Raises:
          UserError: there is none, or it has another shape than the samples.
        """
        if self.entry not in self.asked:
            raise UserError(f"These samples were drawn for no held-out example with an entry {self.entry!r}.")
        found = self.asked[self.entry]
        if found.shape != self.samples.shape:
            raise UserError(
                f"The samples have the shape {self.samples.shape[1:]}, and the held-out {self.entry!r} of their "
                f"examples {found.shape[1:]}; they are compared in equal shapes only."
            )
        return found

    @property
    def unknown(self) -> Bool[np.ndarray, "N H W"] | None:
        """Returns which pixels of each sample were to be drawn; None where all were, since there is no mask."""
        if not self.masked or self.asked["mask"].shape != self.samples.shape[:-1]:
            return None
        return self.asked["mask"].astype(bool)

    @functools.cached_property
    def neighbours(self) -> UInt8[np.ndarray, "F H W C"] | None:
        """Returns other real images in the place of the first samples: those with the most similar conditions.

        Each of the first 100 samples has the one of at most 200 training images of which the corruptions make, with the
        sample's own random numbers, the condition that is nearest to the sample's, in squared differences. None
        where no corruption makes a picture of an image.
        """
        if self.corrupted is None or not self.hints or self.entry != "image" or not len(self.train):
            return None
        chosen = np.linspace(0, len(self.train) - 1, min(len(self.train), POOL)).astype(int)
        pool, count = self.train[chosen], min(len(self.samples), NEIGHBOURS)
        nearest = []
        for i in range(count):
            made = self.corrupted(pool, index=np.full(len(pool), i))
            squares = [np.square(made[name] - self.asked[name][i]).reshape(len(pool), -1).sum(1) for name in self.hints]
            nearest.append(int(np.argmin(sum(squares))))
        return pool[nearest]

    @property
    def floor(self) -> UInt8[np.ndarray, "L H W C"]:
        """Returns as many training images as there are samples, chosen once, to compare real images with real ones."""
        count = min(len(self.samples), len(self.train))
        return self.train[np.random.default_rng(0).permutation(len(self.train))[:count]]

    @property
    def noise(self) -> UInt8[np.ndarray, "N H W C"]:
        """Returns uniform noise of the samples' shape."""
        return np.random.default_rng(0).integers(0, 256, self.samples.shape, dtype=np.uint8)

    def enough(self, least: int) -> bool:
        """Returns whether each set has so many images. Two are asked for in any case, and are never too few."""
        return least <= max(min(len(self.samples), len(self.train), len(self.held_out)), 2)

    def summary(self, network: FeatureNetwork, which: Which) -> Summary:
        """Returns what a network sees of one of the sets; each is seen once.

        Slow networks keep what they see of held-out images, which are the same in every run, on the disk.
        """
        key = (network.name, network.digest, network.resize, which)
        if key not in self._seen:
            if which == "held_out" and network.keeps_reference:
                found = reference.of_array(network, self.held_out, self.held_out_name)
                seen = Features(found.kept_features, found.probabilities)
            else:
                seen = network(getattr(self, which))
            labels = {"samples": self.labels, "held_out": self.held_out_labels}.get(which)
            self._seen[key] = Summary.of(seen, labels)
        return self._seen[key]

    def sides(self, network: FeatureNetwork, statistics: bool = False) -> tuple[dict[str, Summary], str]:
        """Returns the four sets as `SetMetric.score` takes them, and the name of the reference.

        Args:
          statistics: whether published statistics, where there are any, take the place of held-out images.
        """
        names: dict[str, Which] = {"samples": "samples", "reference": "held_out", "floor": "floor", "noise": "noise"}
        published = self.statistics if statistics else None
        if published is None:
            return {side: self.summary(network, which) for side, which in names.items()}, self.held_out_name
        del names["reference"]
        known = {"reference": published.summary}
        return known | {side: self.summary(network, which) for side, which in names.items()}, published.label
