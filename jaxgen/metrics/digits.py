"""The judge of 8x8 digits.

Its weights were made by `python main.py --config=configs/judge_digits.py --workdir=runs/judge_digits` and
`python -m jaxgen.interop.judge_weights runs/judge_digits digits`.
"""

from __future__ import annotations

import numpy as np

from jaxgen.metrics.evidence import Evidence, Score
from jaxgen.metrics.judge import Judge
from jaxgen.networks.classifier import Classifier

JUDGE = Judge("digits", (8, 8, 1), Classifier(num_classes=10, widths=(12, 16, 16), features=32))


def judge(images: np.ndarray, batch: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """`[N, 10]` class probabilities and `[N, 32]` features of uint8 digits `[N, 8, 8, 1]`."""
    return JUDGE(images, batch)


def digits(evidence: Evidence) -> dict[str, Score]:
    """See `Judge.scores`: `frechet_digits`, `kid_digits`, class entropy, confidence, label accuracy."""
    return JUDGE.scores(evidence)
