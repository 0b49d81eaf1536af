"""The judge of 8x8 digits.

Its weights were made by `python main.py --config=configs/classifier_digits.py --workdir=runs/classifier_digits` and
`python -m jaxgen.evaluation.export_classifier runs/classifier_digits digits`.
"""

from __future__ import annotations

from jaxgen.metrics.evidence import EvaluationImages, Score
from jaxgen.metrics.judge import Judge
from jaxgen.metrics.suite import judge_scores
from jaxgen.networks.classifier import Classifier

JUDGE = Judge("digits", (8, 8, 1), Classifier(num_classes=10, widths=(12, 16, 16), features=32))


def digits(evidence: EvaluationImages) -> dict[str, Score]:
    """See `suite.judge_scores`: `frechet_digits`, `kid_digits`, class entropy, confidence, label accuracy,
    `precision_digits`, `recall_digits`, `density_digits`, `coverage_digits`."""
    return judge_scores(JUDGE, evidence)
