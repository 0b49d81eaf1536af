"""Whether samples are copies: distances to their nearest training images, beside those of held-out images."""

from __future__ import annotations

import numpy as np

from jaxgen.metrics.evidence import Evidence, Score


def nearest_distances(a: np.ndarray, b: np.ndarray, block: int = 256) -> np.ndarray:
    """`[N]` Euclidean distances from each row of a to the nearest of b; images are flattened, in [-1, 1]."""
    a, b = (np.asarray(x, np.float32).reshape(len(x), -1) / 127.5 - 1 for x in (a, b))
    squares = (b**2).sum(1)
    found = []
    for start in range(0, len(a), block):
        part = a[start : start + block]
        distances = (part**2).sum(1)[:, None] + squares - 2 * part @ b.T
        found.append(np.sqrt(np.maximum(distances.min(axis=1), 0)))
    return np.concatenate(found)


def memorisation(evidence: Evidence) -> dict[str, Score]:
    """Mean distance of samples to the nearest training image, and the share of samples nearer than all but one
    percent of the held-out images are; 0.01 is what images that were never seen give."""
    ours = nearest_distances(evidence.samples, evidence.train)
    theirs = nearest_distances(evidence.held_out, evidence.train)
    near = np.quantile(theirs, 0.01)
    reference = f"{len(evidence.train)} training images; {evidence.held_out_name}"
    common = {"n": len(ours), "reference": reference, "better": None}
    return {
        "nearest_train_distance": Score(
            float(ours.mean()), floor=float(theirs.mean()), note="Like the floor: no memorising.", **common
        ),
        "share_of_near_copies": Score(
            float((ours < near).mean()), floor=0.01, note="Much more than the floor: memorising.", **common
        ),
    }
