"""Says which classes a network sees in samples: how evenly they come, how sure it is, whether they were asked for."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxgen.errors import UserError
from jaxgen.metrics.base import RunFacts, SetMetric, Value
from jaxgen.metrics.summary import Summary


class _Classes(SetMetric):
    """These metrics have the same name in every network, and their floor is that of the held-out images."""

    needs = frozenset({"probabilities"})
    better = "higher"
    least = 1
    of_network = False
    floor = "reference"


class ClassEntropy(_Classes):
    """The class entropy says how evenly the classes come; see `entropy`."""

    note = "Share of the maximum: 1 if all classes are equally frequent."
    scores_noise = False

    def value(self, samples: Summary, reference: Summary) -> Value:
        return Value(entropy(samples.known_probabilities))


class Confidence(_Classes):
    """The confidence says how sure the network is of the class that it sees."""

    note = "Mean probability of the likeliest class."

    def value(self, samples: Summary, reference: Summary) -> Value:
        return Value(float(samples.known_probabilities.max(axis=1).mean()))


class LabelAccuracy(_Classes):
    """The label accuracy says how often the network sees the class asked for; see `class_accuracy`.

    Samples of a model that reads no label, but is asked for a held-out example by a picture or a text, are held against
    that example's label.
    """

    needs = frozenset({"probabilities", "labels"})
    note = "Share of samples in which the network sees the class asked for."

    def check_run(self, facts: RunFacts) -> None:
        if not facts.labelled:
            facts.need("label", self)

    def value(self, samples: Summary, reference: Summary) -> Value:
        return Value(class_accuracy(samples.known_probabilities, samples.known_labels).value)


def entropy(probabilities: Float[np.ndarray, "N K"]) -> float:
    """Returns the entropy of how often each class is the likeliest one, as a share of its maximum log(classes)."""
    classes = probabilities.shape[1]
    share = np.bincount(probabilities.argmax(axis=1), minlength=classes) / len(probabilities)
    return float(-(share * np.log(np.maximum(share, 1e-12))).sum() / np.log(classes))


class Accuracy(NamedTuple):
    """Holds the accuracy of all examples and of each label.

    Attributes:
      value: share of examples that were classified as their label.
      per_class: `[K]` the same within each label; NaN for labels that do not occur.
    """

    value: float
    per_class: Float[np.ndarray, " K"]


def class_accuracy(probabilities: Float[np.ndarray, "N K"], labels: Int[np.ndarray, " N"]) -> Accuracy:
    """Returns how often a fixed classifier sees the class that a sample was asked for.

    Args:
      probabilities: `[N, K]`; logits do as well.
      labels: int `[N]` in [0, K), the classes that were asked for.

    Raises:
      UserError: for unequal lengths or labels out of range.
    """
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not labels.size:
        raise UserError(f"Accuracy takes [N, K] and labels [N], not {probabilities.shape} and {labels.shape}.")
    classes = probabilities.shape[1]
    check_labels(labels, classes)
    right = probabilities.argmax(axis=1) == labels
    counts = np.bincount(labels, minlength=classes)
    shares = np.bincount(labels, weights=right, minlength=classes) / np.maximum(counts, 1)
    return Accuracy(float(right.mean()), np.where(counts > 0, shares, np.nan))


def check_labels(labels: Int[np.ndarray, " N"], classes: int) -> None:
    """Raises a UserError unless labels are integers from 0 to `classes - 1`."""
    if not np.issubdtype(labels.dtype, np.integer) or not 0 <= labels.min() <= labels.max() < classes:
        raise UserError(f"Labels are integers from 0 to {classes - 1}, not {labels.dtype} up to {labels.max()}.")
