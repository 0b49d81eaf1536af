"""Holds one number with what it is compared with, as in `metrics.json`."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxgen.errors import UserError

# From how many samples on a Fréchet distance in the published Inception's features is called FID-50k.
FID_50K = 50_000


@dataclasses.dataclass(frozen=True)
class Score:
    """Holds one number and what it is compared with.

    Attributes:
      value: the number.
      n: how many samples it is of.
      reference: data set and split that they were compared with.
      floor: the same number for real images.
      noise: the same number for noise.
      better: "lower", "higher", or None.
      note: a sentence where one is needed.
      std: the standard deviation, where the number is a mean over subsets or splits.
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
        """Returns the entry of `metrics.json`; `excess` is (value - floor) / (noise - floor) where both are known."""
        entries = dataclasses.asdict(self)
        excess = None
        if self.floor is not None and self.noise is not None:
            if self.noise == self.floor:
                raise UserError("A number that is the same for real images and for noise gives no excess.")
            excess = (self.value - self.floor) / (self.noise - self.floor)
        return {**entries, "excess": excess}


def display_name(name: str, n: int | None, published: bool | None) -> str:
    """Returns the name of a number in a report; only `fid` of 50,000 samples in the published Inception is FID-50k.

    Args:
      name, n, published: those of an entry of `metrics.json`.
    """
    if name == "fid":
        return "FID-50k" if published is True and isinstance(n, int) and n >= FID_50K else "FID"
    return name
