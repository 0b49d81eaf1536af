"""One look at each set, then numbers: what they are called, what they carry, and what they must not depend on."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxgen.data import open_source
from jaxgen.errors import UserError
from jaxgen.metrics import judge
from jaxgen.metrics.digits import JUDGE
from jaxgen.metrics.evidence import FID_50K, EvaluationImages, Score, called
from jaxgen.metrics.features import Features
from jaxgen.metrics.frechet import frechet_distance
from jaxgen.metrics.judges import looker, open_judge
from jaxgen.metrics.outliers import random_noise
from jaxgen.metrics.suite import METRICS, OF_JUDGES, check_metrics, compare, judge_scores, name_of
from jaxgen.metrics.summary import Summary, in_batches, summarise

SETS = ("fid", "kid", "inception_score", "precision", "recall", "density", "coverage", "class_entropy", "confidence")


@pytest.fixture(scope="module", name="digits")
def _digits():
    return {split: open_source("digits", split, 8, 1, 10).arrays for split in ("train", "test")}


@dataclasses.dataclass(frozen=True)
class Named:
    """A network of a name, for what depends on nothing else."""

    name: str = "inception"
    resize: str = "legacy"
    digest: str = "0123456789abcdef"
    tap: str = "2048"
    given: object = None


def scores_of(samples, reference, metrics=SETS, network=JUDGE, **options):
    found = compare(samples, reference, metrics=metrics, network=network, reference_name="digits/test", **options)
    return {name: score.value for name, score in found.items()}


def test_only_the_published_inception_gives_a_fid():
    assert name_of("fid", Named()) == "fid" and name_of("kid", Named()) == "kid"
    assert name_of("fid", Named(resize="clean")) == "fid"
    foreign = (Named("digits"), Named(given={"some": "weights"}), Named(tap="768"), Named(resize="none"))
    assert [name_of("fid", n) for n in foreign] == ["frechet_digits", *["frechet_inception"] * 3]
    assert name_of("precision", Named("digits")) == "precision_digits"
    assert name_of("confidence", Named("digits")) == "confidence"


@pytest.mark.parametrize(
    "n, published, word", [(FID_50K, True, "FID-50k"), (FID_50K - 1, True, "FID"), (FID_50K, False, "FID"),
                           (None, True, "FID"), (FID_50K, None, "FID")]
)  # fmt: skip
def test_fid_50k_is_said_of_nothing_else(n, published, word):
    assert called("fid", n, published) == word
    assert called("frechet_digits", n, published) == "frechet_digits"


def test_a_score_says_what_it_is_of(digits):
    samples, real = JUDGE(digits["train"]["image"][:300]), JUDGE(digits["test"]["image"])
    floor, noise = JUDGE(digits["train"]["image"][300:600]), JUDGE(random_noise((300, 8, 8, 1)))
    metrics, reference = ("fid", "precision"), "digits/test (500)"
    found = compare(samples, real, floor, noise, metrics, network=JUDGE, reference_name=reference)
    assert list(found) == ["frechet_digits", "precision_digits"]
    for score in found.values():
        entry = json.loads(json.dumps(score.to_dict()))
        assert (entry["n"], entry["reference_n"], entry["floor_n"]) == (300, 500, 300)
        assert entry["reference"] == "digits/test (500)" and entry["network"] == "digits"
        assert entry["digest"] == JUDGE.digest and len(JUDGE.digest) == 16
        assert entry["resize"] == "none" and entry["published"] is False
        assert abs(entry["excess"]) < 0.2
    assert found["frechet_digits"].floor == pytest.approx(frechet_distance(floor.features, real.features), rel=1e-9)
    assert found["frechet_digits"].noise == pytest.approx(frechet_distance(noise.features, real.features), rel=1e-9)


def test_numbers_do_not_depend_on_batches_or_order(digits):
    images, real = digits["train"]["image"][:400], Summary.of(JUDGE(digits["test"]["image"]))
    whole = scores_of(JUDGE(images), real)
    parts = summarise(lambda x: JUDGE(x, batch=24), in_batches(images, 37), keep=True)
    turned = np.random.default_rng(1).permutation(400)
    mixed = JUDGE(images[turned])
    for other in (parts, mixed):
        found = scores_of(other, real)
        assert set(found) == set(whole)
        for name, value in found.items():
            # these two draw subsets and splits by position; the others must agree whatever the order
            loose = other is mixed and name.startswith(("kid", "inception"))
            assert value == pytest.approx(whole[name], rel=0.05 if loose else 1e-6, abs=0.02 if loose else 1e-6), name


def test_numbers_do_not_depend_on_the_devices(digits, devices, monkeypatch):
    names = ("fid", "kid", "precision", "recall", "density", "coverage", "confidence")
    images = [digits[split]["image"][:300] for split in ("train", "test")]
    many = scores_of(*map(JUDGE, images), names)
    first = jax.local_devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda: first)
    judge._extractor.cache_clear()
    try:
        assert devices > 1 and judge._extractor(JUDGE.network, JUDGE.file)._mesh.size == 1
        one = scores_of(*map(JUDGE, images), names)
    finally:
        judge._extractor.cache_clear()
    assert set(one) == set(many)
    for name, value in many.items():
        assert one[name] == pytest.approx(value, rel=1e-6, abs=1e-6), name


def test_moments_alone_are_enough_for_fid_and_for_nothing_else(digits):
    a, b = (in_batches(digits[split]["image"][:300], 100) for split in ("train", "test"))
    kept = [summarise(JUDGE, images, keep=False) for images in (a, b)]
    assert all(summary.features is None and summary.n == 300 for summary in kept)
    whole = [JUDGE(digits[split]["image"][:300]) for split in ("train", "test")]
    assert scores_of(*kept, ("fid",)) == pytest.approx(scores_of(*whole, ("fid",)), rel=1e-9)
    with pytest.raises(UserError, match="only the moments"):
        scores_of(*kept, ("kid",))


def test_what_is_missing_is_said():
    rng = np.random.default_rng(0)
    few, many = Features(rng.normal(size=(3, 4))), Features(rng.normal(size=(50, 4)))
    with pytest.raises(UserError, match="did you mean 'recall'"):
        check_metrics(["recal"])
    with pytest.raises(UserError, match="precision needs at least 4 images on each side; the samples are 3"):
        scores_of(few, many, ("precision",))
    with pytest.raises(UserError, match="class probabilities"):
        scores_of(many, many, ("inception_score",))
    with pytest.raises(UserError, match="labels"):
        seen = Features(many.features, np.full((50, 2), 0.5))
        scores_of(seen, seen, ("label_accuracy",))
    with pytest.raises(UserError, match="no image"):
        summarise(JUDGE, iter(()), keep=True)


def test_a_network_looks_once_at_each_set(digits):
    looks = []

    @dataclasses.dataclass(frozen=True)
    class Counting:
        name: str = "counting"
        resize: str = "none"
        digest: str = "0"

        def __call__(self, images, batch=100):
            looks.append(len(images))
            return JUDGE(images)

    train, test = (digits[split]["image"] for split in ("train", "test"))
    evidence = EvaluationImages(train[:60], None, train, test, None, "x")
    judge_scores(Counting(), evidence)
    judge_scores(Counting(), evidence, ("fid", "recall"))
    assert sorted(looks) == [60, 60, 60, 500]  # samples, floor, noise, held-out
    other = dataclasses.replace(evidence, samples=train[60:100])
    assert judge_scores(Counting(), other)["kid_counting"].n == 40 and len(looks) == 8


def test_few_samples_leave_out_what_needs_neighbours(digits):
    train, test = (digits[split]["image"] for split in ("train", "test"))
    evidence = EvaluationImages(train[:3], None, train, test, None, "x")
    found = judge_scores(JUDGE, evidence)
    assert "frechet_digits" in found and not any(name.startswith(("precision", "coverage")) for name in found)
    assert set(judge_scores(JUDGE, dataclasses.replace(evidence, samples=evidence.train[:6]))) == {
        name_of(name, JUDGE) for name in OF_JUDGES if name != "label_accuracy"
    }


def test_floor_and_noise_that_agree_give_no_excess():
    rng = np.random.default_rng(0)
    a, b = (Features(rng.normal(size=(50, 4)) + shift) for shift in (0, 100))
    score = compare(b, a, b, b, ("precision",), network=JUDGE, reference_name="x")["precision_digits"]
    assert score.floor == 0 and score.noise is None and "Noise scores 0" in score.note
    assert score.to_dict()["excess"] is None


def test_infinity_is_called_after_the_fid_it_extrapolates(digits):
    seen = JUDGE(digits["train"]["image"][:200])
    assert name_of("fid_infinity", JUDGE) == "frechet_infinity_digits"
    found = scores_of(seen, JUDGE(digits["test"]["image"]), ("fid", "fid_infinity"))
    assert found["frechet_infinity_digits"] < found["frechet_digits"]


def test_judges_by_name():
    assert open_judge("digits") is JUDGE
    with pytest.raises(UserError, match="did you mean 'inception'"):
        open_judge("incepton")
    with pytest.raises(UserError, match="comes with its weights"):
        open_judge("digits", "some.pth")
    with pytest.raises(UserError, match="choice of resizes"):
        open_judge("digits", "", "clean")
    with pytest.raises(UserError, match="nowhere.pth"):
        open_judge("inception", "/nowhere.pth")


def test_every_metric_says_which_way_is_better():
    assert all(metric.better in ("lower", "higher") and metric.note for metric in METRICS.values())
    assert Score(1.0, 2, "x").to_dict()["excess"] is None


@pytest.mark.slow
@pytest.mark.parametrize("resize", ["legacy", "clean"])
def test_inception_sees_images_of_several_sizes_as_it_sees_them_alone(resize):
    from jaxgen.metrics.inception import Inception
    from jaxgen.networks.pretrained.inception import Inception as Network

    image = np.zeros((1, 299, 299, 3), np.float32)
    params = jax.jit(lambda key: Network().init(key, image, ("2048", "logits_unbiased")))(jax.random.key(0))["params"]
    network = Inception(resize=resize, given=params)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in ((8, 8), (40, 30), (8, 8))]
    mixed = looker(network, 8)(images)
    for number in (0, 1):
        alone = network(images[number][None], 8)
        np.testing.assert_allclose(mixed.features[number], alone.features[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(mixed.probabilities[number], alone.probabilities[0], rtol=1e-4, atol=1e-7)
    assert not np.allclose(mixed.features[0], mixed.features[1], rtol=1e-3)
