"""Holds the classifier of 8x8 digits.

Its weights were made by

    python main.py --config=configs/classifier_digits.py --workdir=runs/classifier_digits
    python -m jaxgen.evaluation.export_classifier runs/classifier_digits digits
"""

from __future__ import annotations

from jaxgen.metrics.networks.classifier import PackagedClassifier
from jaxgen.networks.classifier import Classifier


class Digits(PackagedClassifier):
    """Sees grey images of 8x8 pixels; gives 32 features and the probabilities of ten classes."""

    name = "digits"
    shape = (8, 8, 1)
    network = Classifier(num_classes=10, widths=(12, 16, 16), features=32)
