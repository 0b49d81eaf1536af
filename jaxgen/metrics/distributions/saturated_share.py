"""Says how much of the samples is as bright or as dark as a picture can be, which strong guidance makes of them."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Float, UInt8

from jaxgen.metrics.base import RunMetric
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.score import Score


@dataclasses.dataclass(frozen=True)
class SaturatedShare(RunMetric):
    """The saturated share is the share of the samples' values that are at 0 or at 255.

    Strong guidance drives predictions out of [-1, 1], and clipping makes flat, saturated areas of them (Saharia et al.
    2022, section 2.3). The share of real images is the floor: neither more nor less is better than that.
    `saturated_share_error` is the absolute difference from it, of the share at 0 and of that at 255, their mean; its
    floor is that of further real images.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"images"})
    better = None
    numbers: ClassVar[tuple[str, ...]] = ("saturated_share", "saturated_share_error")

    def scores(self, images: EvaluationImages, network: FeatureNetwork | None) -> dict[str, Score]:
        truth, floor = saturated(images.held_out), saturated(images.floor)
        found, noise, count = saturated(images.samples), saturated(images.noise), len(images.samples)
        name, real = images.held_out_name, len(images.held_out)
        shares, errors = (noise.sum(), truth.sum()), (_apart(noise, truth), _apart(floor, truth))
        share = Score(
            float(found.sum()), count, name, floor=float(truth.sum()), noise=_unless(*shares), better=None,
            note="Share of values at 0 or 255; the floor is that of real images, and nearest to it is best.",
            reference_n=real, floor_n=real,
        )  # fmt: skip
        error = Score(
            _apart(found, truth), count, name, floor=errors[1], noise=_unless(*errors), better="lower",
            note="Absolute difference of the shares at 0 and at 255 from those of real images, their mean.",
            reference_n=real, floor_n=len(images.floor),
        )  # fmt: skip
        return {"saturated_share": share, "saturated_share_error": error}


def saturated(images: UInt8[np.ndarray, "N H W C"]) -> Float[np.ndarray, " 2"]:
    """Returns the shares of values at 0 and at 255."""
    return np.array([(images == level).mean() for level in (0, 255)])


def _apart(one: Float[np.ndarray, " 2"], other: Float[np.ndarray, " 2"]) -> float:
    return float(np.abs(one - other).mean())


def _unless(noise: float, floor: float) -> float | None:
    """Returns the number of noise; None where it is that of real images, too."""
    return None if noise == floor else float(noise)
