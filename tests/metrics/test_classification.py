"""Accuracy by class, and a classifier that learns from samples: good ones teach, spoilt ones do not."""

import numpy as np
import pytest

from jaxgen.data import open_source
from jaxgen.errors import UserError
from jaxgen.metrics.analysis.classification import classification_accuracy_score
from jaxgen.metrics.distributions.classes import class_accuracy
from jaxgen.networks.classifier import Classifier

NETWORK = Classifier(num_classes=10, widths=(8, 12), features=24)


@pytest.fixture(scope="module", name="sets")
def _sets():
    train, test = (open_source("digits", split, 8, 1, 10).arrays for split in ("train", "test"))
    return train["image"], train["label"], test["image"], test["label"]


@pytest.fixture(scope="module", name="scores")
def _scores(sets):
    images, labels, *test = sets
    spoilt = np.where(labels == 3, 8, labels)  # every 3 is sold as an 8
    return classification_accuracy_score(images, spoilt, *test, NETWORK, steps=150, real=(images, labels))


def test_accuracy_by_class():
    probabilities = np.eye(4)[[0, 0, 1, 1, 1]]
    found = class_accuracy(probabilities, np.array([0, 1, 1, 1, 3]))
    assert found.value == pytest.approx(3 / 5)
    np.testing.assert_allclose(found.per_class, [1, 2 / 3, np.nan, 0])


def test_a_classifier_learns_digits_from_real_images(scores):
    assert scores.real.value > 0.9
    assert np.nanmin(scores.real.per_class) > 0.6


def test_a_class_that_samples_show_wrongly_is_found(scores, sets):
    assert scores.samples.per_class[3] < 0.1
    assert scores.samples.value < scores.real.value - 0.05
    others = np.arange(10) != 3
    assert scores.samples.per_class[others].mean() > 0.85
    share = (sets[3] == 3).mean()
    total = np.bincount(sets[3], minlength=10) @ np.nan_to_num(scores.samples.per_class) / len(sets[3])
    assert scores.samples.value == pytest.approx(total) and 0 < share < 1


def test_the_same_arguments_give_the_same_number_and_labels_without_meaning_teach_nothing(sets):
    images, labels, *test = sets
    mixed = np.random.default_rng(0).permutation(labels)
    first, again = (classification_accuracy_score(images, mixed, *test, NETWORK, steps=40) for _ in range(2))
    np.testing.assert_array_equal(first.samples.per_class, again.samples.per_class)
    assert first.real is None and first.samples.value < 0.35
    other = classification_accuracy_score(images, mixed, *test, NETWORK, steps=40, seed=1)
    assert (other.samples.per_class != first.samples.per_class).any()


def test_few_samples_and_dropout_are_allowed(sets):
    images, labels, *test = sets
    network = Classifier(num_classes=10, widths=(8,), features=16, dropout=0.2)
    score = classification_accuracy_score(images[:30], labels[:30], *test, network, steps=60, learning_rate=0.01)
    assert 0.2 < score.samples.value < 0.95


def test_bad_sets_are_refused(sets):
    images, labels, test_images, test_labels = sets
    for arguments, words in (
        ((images / 255.0, labels, test_images, test_labels), "uint8"),
        ((images[:, :4], labels, test_images, test_labels), "uint8 images"),
        ((images, labels[:5], test_images, test_labels), "needs a label"),
        ((images, labels + 1, test_images, test_labels), "from 0 to 9"),
    ):
        with pytest.raises(UserError, match=words):
            classification_accuracy_score(*arguments, NETWORK, steps=1)
    with pytest.raises(UserError, match="one step"):
        classification_accuracy_score(*sets, NETWORK, steps=0)
    with pytest.raises(UserError, match="labels"):
        class_accuracy(np.eye(3), np.zeros(2, int))
