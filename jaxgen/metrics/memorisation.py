"""Whether samples are copies: distances to their nearest training images, beside those of held-out images."""

from __future__ import annotations

import numpy as np

from jaxgen.metrics.evidence import EvaluationImages, Score
from jaxgen.metrics.pairwise import BLOCK, nearest


def nearest_distances(a: np.ndarray, b: np.ndarray, block: int = BLOCK) -> np.ndarray:
    """`[N]` Euclidean distances from each image of a to the nearest of b, both uint8 `[N, ...]`, as in [-1, 1]."""
    _, squares = nearest(*(x.reshape(len(x), -1) for x in (a, b)), k=1, block=block)
    return np.sqrt(squares[:, 0]) / 127.5


def memorisation(evidence: EvaluationImages) -> dict[str, Score]:
    """Mean distance of samples to the nearest training image, and the share of samples nearer than all but one
    percent of the held-out images are; 0.01 is what images that were never seen give."""
    ours = nearest_distances(evidence.samples, evidence.train)
    theirs = nearest_distances(evidence.held_out, evidence.train)
    near = np.quantile(theirs, 0.01)
    reference = f"{len(evidence.train)} training images; {evidence.held_out_name}"
    common = {"n": len(ours), "reference": reference, "reference_n": len(evidence.train), "floor_n": len(theirs)}
    common |= {"better": None}
    return {
        "nearest_train_distance": Score(
            float(ours.mean()), floor=float(theirs.mean()), note="Like the floor: no memorising.", **common
        ),
        "share_of_near_copies": Score(
            float((ours < near).mean()), floor=0.01, note="Much more than the floor: memorising.", **common
        ),
    }
