"""The digits judge and the memorisation numbers move the way they should."""

import numpy as np
import pytest

from jaxgen.data import open_source
from jaxgen.errors import UserError
from jaxgen.metrics.digits import digits, entropy, judge
from jaxgen.metrics.evidence import Evidence, Score
from jaxgen.metrics.memorisation import memorisation, nearest_distances


@pytest.fixture(scope="module", name="sets")
def _sets():
    train, test = (open_source("digits", split, 8, 1, 10).arrays for split in ("train", "test"))
    return train, test


def _evidence(sets, samples, labels=None):
    train, test = sets
    return Evidence(samples, labels, train["image"], test["image"], test["label"], "digits/test (500)")


def test_the_shipped_judge_knows_held_out_digits(sets):
    probabilities, features = judge(sets[1]["image"])
    assert (probabilities.argmax(1) == sets[1]["label"]).mean() >= 0.98
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
    assert features.shape == (500, 32)


def test_a_judgement_does_not_depend_on_the_batch(sets):
    images = sets[1]["image"][:37]
    np.testing.assert_allclose(judge(images, batch=500)[1], judge(images, batch=10)[1], atol=1e-5)


def test_real_images_have_no_excess_and_noise_all_of_it(sets):
    evidence = _evidence(sets, sets[0]["image"][:1000])
    real = digits(evidence)["frechet_digits"].to_dict()
    assert abs(real["excess"]) < 0.01
    noise = digits(_evidence(sets, evidence.noise))["frechet_digits"].to_dict()
    assert noise["excess"] == pytest.approx(1, abs=0.05)


def test_worse_images_score_worse(sets):
    real = sets[0]["image"][:1000]
    rng = np.random.default_rng(0)
    previous = digits(_evidence(sets, real))["frechet_digits"].value
    for strength in (30, 60, 120):
        noisy = np.clip(real + rng.normal(0, strength, real.shape), 0, 255).astype(np.uint8)
        now = digits(_evidence(sets, noisy))["frechet_digits"].value
        assert now > previous
        previous = now


def test_missing_classes_are_seen(sets):
    train = sets[0]
    half = train["image"][train["label"] < 5]
    scores = digits(_evidence(sets, half))
    assert scores["class_entropy"].value == pytest.approx(np.log(5) / np.log(10), abs=0.02)
    assert scores["frechet_digits"].to_dict()["excess"] > 0.05


def test_labels_are_checked_where_asked_for(sets):
    train = sets[0]
    scores = digits(_evidence(sets, train["image"], train["label"]))
    assert scores["label_accuracy"].value > 0.98
    assert scores["label_accuracy"].floor == (judge(sets[1]["image"])[0].argmax(1) == sets[1]["label"]).mean()
    wrong = digits(_evidence(sets, train["image"], (train["label"] + 1) % 10))
    assert wrong["label_accuracy"].value < 0.02
    assert "label_accuracy" not in digits(_evidence(sets, train["image"]))


def test_entropy_at_its_ends():
    assert entropy(np.eye(10)[np.arange(40) % 10]) == pytest.approx(1)
    assert entropy(np.eye(10)[[3, 3]]) == pytest.approx(0, abs=1e-9)


def test_the_judge_refuses_other_shapes():
    with pytest.raises(UserError, match=r"\(28, 28, 1\)"):
        judge(np.zeros((2, 28, 28, 1), np.uint8))


def test_copies_are_called_copies_and_held_out_images_are_not(sets):
    train, test = sets
    copies = memorisation(_evidence(sets, train["image"][:300]))
    assert copies["nearest_train_distance"].value == pytest.approx(0, abs=2e-3)
    assert copies["share_of_near_copies"].value == 1
    fresh = memorisation(_evidence(sets, test["image"]))
    assert fresh["nearest_train_distance"].value == pytest.approx(fresh["nearest_train_distance"].floor)
    assert fresh["share_of_near_copies"].value <= 0.02


def test_nearest_distances_against_brute_force():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (n, 3, 3, 1), dtype=np.uint8) for n in (7, 11))
    brute = [min(np.linalg.norm((x.astype(float) - y).ravel() / 127.5) for y in b) for x in a]
    np.testing.assert_allclose(nearest_distances(a, b, block=3), brute, rtol=1e-4)


def test_a_judge_that_cannot_tell_gives_no_excess():
    with pytest.raises(UserError, match="noise"):
        Score(1.0, 10, "x", floor=2.0, noise=2.0).to_dict()
