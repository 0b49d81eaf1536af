"""What judges are given, and what they say."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Attributes:
    samples: uint8 `[N, H, W, C]`, from the model. labels: int32 `[N]` they were asked for, or None.
    train: uint8 `[M, H, W, C]`, what the model learned from. held_out: uint8 `[K, H, W, C]`, what it never saw.
    held_out_labels: int32 `[K]` where the data have labels, else None.
    held_out_name: the data set and split of `held_out`, to be printed with each number.
    """

    samples: np.ndarray
    labels: np.ndarray | None
    train: np.ndarray
    held_out: np.ndarray
    held_out_labels: np.ndarray | None
    held_out_name: str

    @property
    def floor(self) -> np.ndarray:
        """As many training images as there are samples, chosen once: real against real at the same n."""
        count = min(len(self.samples), len(self.train))
        return self.train[np.random.default_rng(0).permutation(len(self.train))[:count]]

    @property
    def noise(self) -> np.ndarray:
        """Uniform noise of the samples' shape."""
        return np.random.default_rng(0).integers(0, 256, self.samples.shape, dtype=np.uint8)


@dataclasses.dataclass(frozen=True)
class Score:
    """One number and what it stands against.

    Attributes:
      value: the number. n: how many samples it is of. reference: what they were held against.
      floor: the same number for real images. noise: for noise. better: "lower", "higher", or None.
      note: a sentence where one is needed.
    """

    value: float
    n: int
    reference: str
    floor: float | None = None
    noise: float | None = None
    better: str | None = "lower"
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As in `metrics.json`; with `excess` = (value - floor) / (noise - floor) where both are known."""
        entries = dataclasses.asdict(self)
        excess = None
        if self.floor is not None and self.noise is not None:
            if self.noise == self.floor:
                raise UserError("A judge that cannot tell real images from noise gives no excess.")
            excess = (self.value - self.floor) / (self.noise - self.floor)
        return {**entries, "excess": excess}
