"""Says whether samples are copies, by distances to training images beside those of held-out images."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8

from jaxgen.metrics.base import RunMetric
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.pairwise import BLOCK, nearest
from jaxgen.metrics.score import Score


class Memorisation(RunMetric):
    """Gives `nearest_train_distance` and `share_of_near_copies`, of pixels; see `memorisation`."""

    needs = frozenset({"training images"})
    numbers = ("nearest_train_distance", "share_of_near_copies")

    def scores(self, images: EvaluationImages, network: FeatureNetwork | None) -> dict[str, Score]:
        return memorisation(images)


def nearest_distances(
    a: UInt8[np.ndarray, "N *shape"], b: UInt8[np.ndarray, "M *shape"], block: int = BLOCK
) -> Float[np.ndarray, " N"]:
    """Returns `[N]` Euclidean distances from images of a to the nearest of b, both uint8, scaled to [-1, 1]."""
    _, squares = nearest(a.reshape(len(a), -1), b.reshape(len(b), -1), k=1, block=block)
    return np.sqrt(squares[:, 0]) / 127.5


def memorisation(images: EvaluationImages) -> dict[str, Score]:
    """Returns the mean distance of samples to the nearest training image, and the share of samples nearer than all but
    one percent of the held-out images are; images that were never seen give 0.01.
    """
    ours = nearest_distances(images.samples, images.train)
    theirs = nearest_distances(images.held_out, images.train)
    near = np.quantile(theirs, 0.01)
    reference = f"{len(images.train)} training images; {images.held_out_name}"

    def score(value: float, floor: float, note: str) -> Score:
        return Score(
            value, len(ours), reference, floor=floor, better=None, note=note,
            reference_n=len(images.train), floor_n=len(theirs),
        )  # fmt: skip

    return {
        "nearest_train_distance": score(float(ours.mean()), float(theirs.mean()), "Like the floor: no memorising."),
        "share_of_near_copies": score(float((ours < near).mean()), 0.01, "Much more than the floor: memorising."),
    }
