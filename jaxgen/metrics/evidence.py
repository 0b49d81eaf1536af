"""What judges are given, and what they say."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np

from jaxgen.errors import UserError
from jaxgen.metrics.features import FeatureNetwork, Features

# From how many samples on a Fréchet distance in the published Inception's features is called FID-50k.
FID_50K = 50_000

Which = Literal["samples", "held_out", "floor", "noise"]


@dataclasses.dataclass(frozen=True)
class EvaluationImages:
    """Attributes:
    samples: uint8 `[N, H, W, C]`, from the model. labels: int32 `[N]` they were asked for, or None.
    train: uint8 `[M, H, W, C]`, what the model learned from. held_out: uint8 `[K, H, W, C]`, what it never saw.
    held_out_labels: int32 `[K]` where the data have labels, else None.
    held_out_name: the data set, split and size of `held_out`, to be printed with each number.
    weights: a file, or a folder, of published weights; "" looks where `jaxgen.downloads` says.
    resize: how images come to a published network's size, "legacy" or "clean".
    """

    samples: np.ndarray
    labels: np.ndarray | None
    train: np.ndarray
    held_out: np.ndarray
    held_out_labels: np.ndarray | None
    held_out_name: str
    weights: str = ""
    resize: str = "legacy"
    _seen: dict[tuple[str, ...], Features] = dataclasses.field(default_factory=dict, init=False, repr=False)

    @property
    def floor(self) -> np.ndarray:
        """As many training images as there are samples, chosen once: real against real at the same n."""
        count = min(len(self.samples), len(self.train))
        return self.train[np.random.default_rng(0).permutation(len(self.train))[:count]]

    @property
    def noise(self) -> np.ndarray:
        """Uniform noise of the samples' shape."""
        return np.random.default_rng(0).integers(0, 256, self.samples.shape, dtype=np.uint8)

    def features(self, network: FeatureNetwork, which: Which) -> Features:
        """What a network sees of one of the sets: extracted once, then remembered."""
        key = (network.name, network.digest, network.resize, which)
        if key not in self._seen:
            self._seen[key] = network(getattr(self, which))
        return self._seen[key]

    def remember(self, network: FeatureNetwork, which: Which, features: Features) -> None:
        """Features that are known from elsewhere, such as a cache."""
        self._seen[(network.name, network.digest, network.resize, which)] = features


@dataclasses.dataclass(frozen=True)
class Score:
    """One number and what it stands against.

    Attributes:
      value: the number. n: how many samples it is of. reference: data set and split that they were held against.
      floor: the same number for real images. noise: for noise. better: "lower", "higher", or None.
      note: a sentence where one is needed. std: where the number is a mean over subsets or splits.
      reference_n, floor_n: how many images those are of.
      network: whose features they are, digest: of its weights, resize: how images came to its size; "" without one.
      published: whether these are the weights that others publish numbers with.
    """

    value: float
    n: int
    reference: str
    floor: float | None = None
    noise: float | None = None
    better: str | None = "lower"
    note: str = ""
    std: float | None = None
    reference_n: int | None = None
    floor_n: int | None = None
    network: str = ""
    digest: str = ""
    resize: str = ""
    published: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As in `metrics.json`; with `excess` = (value - floor) / (noise - floor) where both are known."""
        entries = dataclasses.asdict(self)
        excess = None
        if self.floor is not None and self.noise is not None:
            if self.noise == self.floor:
                raise UserError("A judge that cannot tell real images from noise gives no excess.")
            excess = (self.value - self.floor) / (self.noise - self.floor)
        return {**entries, "excess": excess}


def called(name: str, n: Any, published: Any) -> str:
    """What a number is called before people: `fid` is FID-50k from 50,000 samples on, in the published Inception's
    features, and nothing else is."""
    if name == "fid":
        return "FID-50k" if published is True and isinstance(n, int) and n >= FID_50K else "FID"
    return name
