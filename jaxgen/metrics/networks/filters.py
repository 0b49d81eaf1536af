"""Holds a feature network without weights: colours and edges at several sizes, at every pixel of an image.

It stands in for the first layers of a trained network where none is at hand, as for the single-image Fréchet distance.
Its numbers are compared with each other only, and not with those of Inception's features.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.metrics.networks.base import FeatureNetwork, Features
from jaxgen.metrics.networks.extractor import Extractor


@dataclasses.dataclass(frozen=True)
class Filters(FeatureNetwork):
    """Sees, at each pixel and blurred by Gaussians of several widths, the channels and the sizes of their slopes.

    Features of an image are the means over its pixels. The map has, for each width s, the blurred channels in [-1, 1],
    and s times the absolute difference of neighbours to the left and right, and above and below: 3 C len(widths).

    Raises:
      UserError: a width is not above 0, or there is none.
    """

    widths: tuple[float, ...] = (1.0, 2.0, 4.0)  # standard deviations in pixels

    name: ClassVar[str] = "filters"
    gives: ClassVar[frozenset[str]] = FeatureNetwork.gives | {"maps"}

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) <= 0:
            raise UserError(f"The network 'filters' has widths above 0, not {self.widths}.")

    @property
    def digest(self) -> str:
        return "version 1: " + ",".join(f"{width:g}" for width in self.widths)

    @functools.cached_property
    def _extractor(self) -> Extractor:
        return Extractor(lambda _, images: filtered(images, self.widths), {})

    def maps(self, images: UInt8[np.ndarray, "N H W C"], batch: int = 100) -> Float[np.ndarray, "N H W D"]:
        return self._extractor(images, batch)

    def __call__(self, images: UInt8[np.ndarray, "N H W C"], batch: int = 100) -> Features:
        return Features(self.maps(images, batch).mean(axis=(1, 2)))


def filtered(images: Array, widths: tuple[float, ...]) -> Array:
    """Returns the map [B, H, W, 3 C len(widths)] of uint8 images; borders are reflected."""
    x = images.astype(jnp.float32) / 127.5 - 1
    found: list[Array] = []
    for width in widths:
        smooth = _along(_along(x, width, 1), width, 2)
        slopes = [width * jnp.abs(_difference(smooth, axis)) for axis in (1, 2)]
        found += [smooth, *slopes]
    return jnp.concatenate(found, axis=-1)


def _along(x: Array, width: float, axis: int) -> Array:
    """Blurs along one axis by a Gaussian, cut off at three standard deviations."""
    reach = max(1, round(3 * width))
    kernel = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / width)).astype(np.float32)
    around = [(reach, reach) if i == axis else (0, 0) for i in range(x.ndim)]
    padded, size = jnp.pad(x, around, mode="symmetric"), x.shape[axis]
    parts = [share * jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i, share in enumerate(kernel)]
    return functools.reduce(jnp.add, parts) / kernel.sum()


def _difference(x: Array, axis: int) -> Array:
    """Returns half the difference of the two neighbours of each pixel; a border pixel is its own neighbour."""
    size = x.shape[axis]
    before, after = (jnp.clip(jnp.arange(size) + step, 0, size - 1) for step in (-1, 1))
    return (jnp.take(x, after, axis) - jnp.take(x, before, axis)) / 2
