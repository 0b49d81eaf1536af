"""Tests the judge of few-shot models and the choice of its sets. That it draws is seen by running it."""

import numpy as np

from studies.few_shot import Prototypes, centred, chosen_sets, measured, strokes

RNG = np.random.default_rng(0)
ROWS, COLUMNS = np.indices((28, 28))


def drawings(classes, count=12):
    """Lines in a direction of each class's own, in places of their own: uint8 images and labels."""
    images, labels = [], []
    for label in classes:
        angle = label * np.pi / 12
        for _ in range(count):
            away = (ROWS - RNG.uniform(9, 18)) * np.cos(angle) + (COLUMNS - RNG.uniform(9, 18)) * np.sin(angle)
            images.append(np.where(np.abs(away) < 1.5, 255, 0))
            labels.append(label)
    return np.stack(images).astype(np.uint8)[..., None], np.array(labels)


def test_the_judge_knows_classes_that_it_never_learned_from_and_no_others():
    images, labels = drawings((1, 4, 7, 10))
    judge = Prototypes(drawings((0, 2, 3, 5, 6, 8, 9, 11)), (images, labels), seed=0)
    assert judge.chance == 0.25
    shown = chosen_sets(labels, size=3, sets=2, draws=4, seed=0)
    real = measured(images[shown.others], shown, images, judge, real=True)
    wrong = measured(np.roll(images[shown.others], 2, axis=0), shown, images, judge)
    copies = measured(images[shown.indices], shown, images, judge)
    assert real["accuracy"] > 0.9 and wrong["accuracy"] < 0.1 and real["n"] == 32
    assert copies["nearest_shown"] == 0 < real["nearest_shown"]


def test_real_images_beside_a_set_are_not_in_it():
    labels = np.repeat(np.arange(3), 12)
    shown = chosen_sets(labels, size=5, sets=4, draws=6, seed=1)
    assert (labels[shown.indices] == shown.labels[:, None]).all() and (
        labels[shown.others] == shown.labels[:, None]
    ).all()
    assert all(not {*a} & {*b} for a, b in zip(shown.indices, shown.others, strict=True))


def test_a_drawing_is_the_same_in_another_place():
    image = np.zeros((2, 28, 28, 1), np.uint8)
    image[0, 5:15, 6:8], image[1, 12:22, 16:18] = 255, 255
    np.testing.assert_array_equal(*centred(image[..., 0].astype(float)))
    np.testing.assert_allclose(*strokes(image), atol=1e-6)
