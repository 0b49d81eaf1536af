"""Compares the distributions of two images' patches: the single-image Fréchet distance."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, UInt8

from jaxgen.errors import UserError
from jaxgen.metrics.distributions.frechet import frechet_distance
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.pairs.base import PairMetric


@dataclasses.dataclass(frozen=True)
class SIFID(PairMetric):
    """SIFID is the single-image Fréchet distance, in spatial features of images at their own size; see `sifid`."""

    network: FeatureNetwork
    needs: ClassVar[frozenset[str]] = PairMetric.needs | {"maps"}
    note: ClassVar[str] = "Of the positions in each image; fewer positions give a higher number."

    def values(
        self, a: UInt8[np.ndarray, "N H W C"], b: UInt8[np.ndarray, "N H W C"], batch: int = 100
    ) -> Float[np.ndarray, " N"]:
        return sifid(self.network.maps(a, batch), self.network.maps(b, batch))

    def look(self) -> dict[str, Any]:
        return {"network": self.network.name, "digest": self.network.digest, "resize": "none"}


def sifid(samples: Float[np.ndarray, "N H W D"], reference: Float[np.ndarray, "M H2 W2 D"]) -> Float[np.ndarray, " N"]:
    """Returns `[N]` Fréchet distances between the positions' features of a sample and of its real image.

    Rott Shaham et al. (2019), SinGAN; the authors take the mean over images. The paper's features are an
    Inception's just before its second max pooling, `[H, W, 192]`, of images at their own size; other features give
    other numbers. Positions are neighbours and the fewer the more biased the number is: compare images of equal size.

    Args:
      samples: `[N, H, W, D]`.
      reference: `[N, H', W', D]`, or `[1, H', W', D]`, one real image for all samples.

    Raises:
      UserError: for unequal numbers of images or features, fewer than two positions, or values that are not finite.
    """
    samples, reference = np.asarray(samples), np.asarray(reference)
    if samples.ndim != 4 or reference.ndim != 4 or samples.shape[3] != reference.shape[3]:
        raise UserError(f"SIFID compares features [N, H, W, D] of equal D, not {samples.shape} and {reference.shape}.")
    if len(reference) not in (1, len(samples)):
        raise UserError(f"SIFID compares pairs of images, not {len(samples)} with {len(reference)}.")
    width = samples.shape[3]
    return np.array(
        [
            frechet_distance(sample.reshape(-1, width), reference[i % len(reference)].reshape(-1, width))
            for i, sample in enumerate(samples)
        ]
    )
