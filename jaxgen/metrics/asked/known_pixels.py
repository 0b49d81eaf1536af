"""Says whether samples keep the pixels that their condition knows, to the level."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, UInt8

from jaxgen.arrays import to_uint8
from jaxgen.errors import UserError
from jaxgen.metrics.asked.hint_error import check_entry
from jaxgen.metrics.base import RunFacts, RunMetric
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.score import Score


@dataclasses.dataclass(frozen=True)
class KnownPixels(RunMetric):
    """The known pixels of a sample, where the mask is 0, are those of its condition, in 256 levels.

    `known_pixels_exact` is the share of them that agree in all channels, and `known_pixels_error` the mean absolute
    difference of their levels. Samples without a known pixel, such as those of a colourisation among several tasks, are
    left out.
    """

    entry: str = ""  # the condition that has the known pixels; "" takes the only one that a corruption makes

    needs: ClassVar[frozenset[str]] = frozenset({"mask"})
    better = None
    numbers: ClassVar[tuple[str, ...]] = ("known_pixels_exact", "known_pixels_error")

    def check_run(self, facts: RunFacts) -> None:
        check_entry(self, self.entry, facts.hints)

    def scores(self, images: EvaluationImages, network: FeatureNetwork | None) -> dict[str, Score]:
        entry = self.entry or images.hints[0]
        condition, unknown = images.asked[entry], images.unknown
        if unknown is None or condition.shape != images.samples.shape:
            raise UserError(
                f"'known_pixels' compares a sample with its condition, pixel by pixel: the samples have the shape "
                f"{images.samples.shape[1:]} and the condition {condition.shape[1:]}; leave the metric out."
            )
        known, levels = ~unknown, np.asarray(to_uint8(jnp.asarray(condition)))
        exact, error = known_pixels(images.samples, levels, known)
        if not len(exact):
            return {}
        noise = [float(values.mean()) for values in known_pixels(images.noise, levels, known)]
        worst = np.abs(images.samples.astype(int) - levels)[known].max()
        name, count = f"{images.held_out_name}, {entry!r}", len(exact)
        return {
            "known_pixels_exact": Score(
                float(exact.mean()), count, name, floor=1.0, noise=noise[0] if noise[0] < 1 else None, better="higher",
                note="Share of the known pixels; the condition itself has 1.", reference_n=count,
            ),
            "known_pixels_error": Score(
                float(error.mean()), count, name, floor=0.0, noise=noise[1] or None, better="lower",
                note=f"Mean absolute difference of levels up to 255; the largest is {worst}.", reference_n=count,
            ),
        }  # fmt: skip


def known_pixels(
    samples: UInt8[np.ndarray, "N H W C"], condition: UInt8[np.ndarray, "N H W C"], known: Bool[np.ndarray, "N H W"]
) -> tuple[Float[np.ndarray, " M"], Float[np.ndarray, " M"]]:
    """Returns shares of known pixels that agree, and mean absolute differences, of the images with a known pixel."""
    apart = np.abs(samples.astype(int) - condition)
    rows = [apart[i][known[i]] for i in range(len(samples)) if known[i].any()]
    return np.array([(one == 0).all(-1).mean() for one in rows]), np.array([one.mean() for one in rows])
