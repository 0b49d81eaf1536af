"""Compares the edges of paired images: how many pixels those of one are from those of the other."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import ClassVar

import jax
import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import distance_transform_edt

from jaxgen.data.corruptions import Edges
from jaxgen.errors import UserError
from jaxgen.metrics.networks.extractor import Extractor
from jaxgen.metrics.pairs.base import PairMetric


@dataclasses.dataclass(frozen=True)
class EdgeDistance(PairMetric):
    """The edge distance is the mean distance in pixels from an edge of one image to the nearest of the other.

    It is the symmetric chamfer distance (Barrow et al. 1977), the mean of both directions. The edges are those of the
    corruption `edges`, so that a sample that keeps to its edges as a hint has 0, as the true image has.

    Raises:
      UserError: the threshold is not positive.
    """

    threshold: float = 0.1  # of the gradient's length, as `edges` has it

    note: ClassVar[str] = "In pixels; the image's diagonal where only one of two images has edges."

    def __post_init__(self) -> None:
        if self.threshold <= 0:
            raise UserError(f"'edge_distance' needs a threshold above 0 to find edges, not {self.threshold}.")

    def values(
        self, a: UInt8[np.ndarray, "N H W C"], b: UInt8[np.ndarray, "N H W C"], batch: int = 100
    ) -> Float[np.ndarray, " N"]:
        return edge_distance(self._edges(a, batch), self._edges(b, batch))

    def values_inside(
        self, a: UInt8[np.ndarray, "N H W C"], b: UInt8[np.ndarray, "N H W C"], region: Bool[np.ndarray, "N H W"],
        batch: int = 100,
    ) -> Float[np.ndarray, " N"]:  # fmt: skip
        """Returns means over the edges in the region, to the nearest edge anywhere."""
        return edge_distance(self._edges(a, batch), self._edges(b, batch), region)

    def _edges(self, images: np.ndarray, batch: int) -> np.ndarray:
        return _finder(self.threshold)(images, batch)


@functools.cache
def _finder(threshold: float) -> Callable[[np.ndarray, int], np.ndarray]:
    """Returns a function from uint8 images `[N, H, W, C]` to their edges, bool `[N, H, W]`, which is compiled once."""
    edges = Edges(threshold)

    def find(_: dict[str, jax.Array], images: jax.Array) -> jax.Array:
        pictures = jax.vmap(lambda image: edges(jax.random.key(0), image).picture)(images / 127.5 - 1)
        return pictures[..., 0] > 0

    return Extractor(find, {})


def edge_distance(
    a: Bool[np.ndarray, "N H W"], b: Bool[np.ndarray, "N H W"], region: Bool[np.ndarray, "N H W"] | None = None
) -> Float[np.ndarray, " N"]:
    """Returns `[N]` symmetric chamfer distances of edges, in pixels.

    Args:
      a, b: which pixels are edges.
      region: where given, distances start from the edges in it alone; NaN where it is empty.
    """
    within = np.ones_like(a) if region is None else region
    pairs = zip(a, b, within, strict=True)
    return np.array([_both_ways(x, y, inside) if inside.any() else np.nan for x, y, inside in pairs])


def _both_ways(x: np.ndarray, y: np.ndarray, region: np.ndarray) -> float:
    return (_one_way(x & region, y) + _one_way(y & region, x)) / 2


def _one_way(start: np.ndarray, end: np.ndarray) -> float:
    """Returns the mean distance of the pixels of `start` to the nearest of `end`."""
    if not start.any():
        return 0.0
    return float(distance_transform_edt(~end)[start].mean()) if end.any() else float(np.hypot(*end.shape))
