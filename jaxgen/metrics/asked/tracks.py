"""Says how evenly the objects of sampled videos move, and what else changes from frame to frame."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Float, UInt8

from jaxgen.errors import UserError
from jaxgen.metrics.analysis.tracks import centres, change_of_look, even_motion, flicker
from jaxgen.metrics.base import RunFacts, RunMetric
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.score import Score

NUMBERS = ("track_error", "track_length", "flicker", "change_of_look")


@dataclasses.dataclass(frozen=True)
class Tracks(RunMetric):
    """The track error is the distance of an object's places from even motion along a line, in pixels.

    It is for videos of one object on black, such as those of `moving_shapes`. A video that stands still has the error
    0, so `track_length` beside it is the length of the way, in pixels. `flicker` is the mean squared difference of
    neighbouring frames off the object, and `change_of_look` the standard deviation of the object's mean colour over the
    frames, in levels of 255. The floor is that of the true videos, where samples are drawn for held-out ones; as noise
    stand the samples with their frames in another order. Videos with a frame in which there is no object have no track
    and count for `flicker` alone.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"video"})
    measures: ClassVar[frozenset[str]] = frozenset({"video"})
    numbers = NUMBERS
    note = "Of objects on black; the floor is of the true videos, noise of the samples with shuffled frames."

    def check_run(self, facts: RunFacts) -> None:
        if facts.shape[2] == 4:
            raise UserError("'tracks' sees videos on black, of 1 or 3 channels, and these have 4; leave it out.")

    def scores(self, images: EvaluationImages, network: FeatureNetwork | None) -> dict[str, Score]:
        samples = images.samples
        chance = np.random.default_rng(0)
        shuffled = np.stack([video[chance.permutation(video.shape[0])] for video in samples])
        sides = {"samples": measured(samples), "noise": measured(shuffled)}
        if images.entry in images.asked:
            sides["floor"] = measured(images.asked[images.entry])
        found = {}
        for number in NUMBERS:
            means = {side: mean_of(values[number]) for side, values in sides.items()}
            floor, noise = means.get("floor"), means["noise"]
            found[number] = Score(
                means["samples"], int(np.isfinite(sides["samples"][number]).sum()), images.held_out_name, floor=floor,
                noise=None if np.isnan(noise) or noise in (floor, means["samples"]) else noise,
                better=None if number == "track_length" else "lower", note=self.note, reference_n=len(samples),
                floor_n=None if floor is None else len(samples),
            )  # fmt: skip
        return found


def measured(videos: UInt8[np.ndarray, "N F H W C"]) -> dict[str, Float[np.ndarray, " N"]]:
    """Returns the numbers of each video, by their names; NaN where a video has no track."""
    error, length = even_motion(centres(videos))
    return dict(zip(NUMBERS, (error, length, flicker(videos), change_of_look(videos)), strict=True))


def mean_of(values: Float[np.ndarray, " N"]) -> float:
    """Returns the mean over the videos that have a number; NaN where none has."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
