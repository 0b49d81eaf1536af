"""The judge of Fashion-MNIST, 28x28.

Its weights were made by `python main.py --config=configs/judge_fashion_mnist.py --workdir=runs/judge_fashion_mnist` and
`python -m jaxgen.interop.judge_weights runs/judge_fashion_mnist fashion`.
"""

from __future__ import annotations

import numpy as np

from jaxgen.metrics.evidence import Evidence, Score
from jaxgen.metrics.judge import Judge
from jaxgen.networks.classifier import Classifier

JUDGE = Judge("fashion", (28, 28, 1), Classifier(num_classes=10, widths=(16, 32, 48, 48), features=64))


def judge(images: np.ndarray, batch: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """`[N, 10]` class probabilities and `[N, 64]` features of uint8 images `[N, 28, 28, 1]`."""
    return JUDGE(images, batch)


def fashion(evidence: Evidence) -> dict[str, Score]:
    """See `Judge.scores`: `frechet_fashion`, `kid_fashion`, class entropy, confidence, label accuracy."""
    return JUDGE.scores(evidence)
