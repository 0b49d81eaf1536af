"""The error of a principal subspace is what an autoencoder of the same width has to beat."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, UInt8

from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True)
class Subspace:
    """This is the linear autoencoder of least squared error, the principal components (Baldi & Hornik 1989).

    Attributes:
      mean: the mean image, float64 `[P]`.
      basis: the principal components `[width, P]`, orthonormal rows, the largest variance first.
    """

    mean: Float[np.ndarray, " P"]
    basis: Float[np.ndarray, "width P"]

    @classmethod
    def fit(cls, images: UInt8[np.ndarray, "N H W C"], width: int) -> Subspace:
        """Returns the subspace of uint8 images `[N, H, W, C]`.

        Raises:
          UserError: for a width that is not between 1 and what the images span at most.
        """
        flat = _flat(images)
        most = min(len(flat) - 1, flat.shape[1])
        if not 1 <= width <= most:
            raise UserError(f"A principal subspace of {len(flat)} images has a width from 1 to {most}, not {width}.")
        mean = flat.mean(axis=0)
        return cls(mean, np.linalg.svd(flat - mean, full_matrices=False)[2][:width])

    def error(self, images: UInt8[np.ndarray, "N H W C"]) -> Float[np.ndarray, " N"]:
        """Returns `[N]` squared distances of uint8 images from the subspace, summed over values in [-1, 1]."""
        gap = _flat(images) - self.mean
        return np.square(gap - gap @ self.basis.T @ self.basis).sum(axis=1)


def _flat(images: np.ndarray) -> np.ndarray:
    if images.ndim != 4 or images.dtype != np.uint8 or not len(images):
        raise UserError(f"A principal subspace takes uint8 images [N, H, W, C], not {images.dtype} {images.shape}.")
    return images.reshape(len(images), -1) / 127.5 - 1
