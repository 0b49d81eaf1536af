"""The judge of Fashion-MNIST, 28x28.

Its weights were made by
`python main.py --config=configs/classifier_fashion_mnist.py --workdir=runs/classifier_fashion_mnist` and
`python -m jaxgen.evaluation.export_classifier runs/classifier_fashion_mnist fashion`.
"""

from __future__ import annotations

from jaxgen.metrics.evidence import EvaluationImages, Score
from jaxgen.metrics.judge import Judge
from jaxgen.metrics.suite import judge_scores
from jaxgen.networks.classifier import Classifier

JUDGE = Judge("fashion", (28, 28, 1), Classifier(num_classes=10, widths=(16, 32, 48, 48), features=64))


def fashion(evidence: EvaluationImages) -> dict[str, Score]:
    """See `suite.judge_scores`: `frechet_fashion`, `kid_fashion`, class entropy, confidence, label accuracy,
    `precision_fashion`, `recall_fashion`, `density_fashion`, `coverage_fashion`."""
    return judge_scores(JUDGE, evidence)
