"""Holds the classifier of Fashion-MNIST, 28x28.

Its weights were made by

    python main.py --config=configs/classifier_fashion_mnist.py --workdir=runs/classifier_fashion_mnist
    python -m jaxgen.evaluation.export_classifier runs/classifier_fashion_mnist fashion
"""

from __future__ import annotations

from jaxgen.metrics.networks.classifier import PackagedClassifier
from jaxgen.networks.classifier import Classifier


class Fashion(PackagedClassifier):
    """Sees grey images of 28x28 pixels; gives 64 features and the probabilities of ten classes."""

    name = "fashion"
    shape = (28, 28, 1)
    network = Classifier(num_classes=10, widths=(16, 32, 48, 48), features=64)
