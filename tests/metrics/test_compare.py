"""One look at each set, then numbers: what they are called, what they carry, and what they must not depend on."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxgen.config import SAMPLE_METRICS
from jaxgen.data import open_source
from jaxgen.errors import UserError
from jaxgen.metrics.analysis.outliers import random_noise
from jaxgen.metrics.base import NEEDS
from jaxgen.metrics.choice import open_network
from jaxgen.metrics.compare import compare, compare_samples, set_metrics
from jaxgen.metrics.distributions import manifold
from jaxgen.metrics.distributions.classes import Confidence
from jaxgen.metrics.distributions.frechet import FID, Frechet, frechet_distance
from jaxgen.metrics.distributions.infinity import FIDInfinity
from jaxgen.metrics.distributions.kernel import KID
from jaxgen.metrics.distributions.manifold import Precision, Recall
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.networks import classifier
from jaxgen.metrics.networks.base import FeatureNetwork, Features
from jaxgen.metrics.networks.digits import Digits
from jaxgen.metrics.networks.inception import Inception
from jaxgen.metrics.score import FID_50K, display_name
from jaxgen.metrics.summary import Summary, in_batches, summarise
from jaxgen.registry import classes

DIGITS = Digits()
SETS = (*SAMPLE_METRICS, "inception_score")


@pytest.fixture(scope="module", name="digits")
def _digits():
    return {split: open_source("digits", split, 8, 1, 10).arrays for split in ("train", "test")}


def scores_of(samples, reference, metrics=SETS, network=DIGITS, **options):
    found = compare(samples, reference, metrics=metrics, network=network, reference_name="digits/test", **options)
    return {name: score.value for name, score in found.items()}


def test_only_the_published_inception_gives_a_fid():
    for resize in ("", "legacy", "clean"):
        published = open_network("inception", resize=resize)
        assert [Frechet().number(published), FID().number(published), KID().number(published)] == ["fid", "fid", "kid"]
    foreign = (DIGITS, Inception(given={"some": "weights"}), Inception(tap="768"), Inception(resize="none"))
    assert [Frechet().number(n) for n in foreign] == ["frechet_digits", *["frechet_inception"] * 3]
    for network in foreign:
        for metric, general in ((FID(), "frechet"), (FIDInfinity(), "frechet_infinity")):
            with pytest.raises(UserError, match=f"'{metric.name}' means .* published Inception.*'{general}'"):
                metric.check(network)
    assert Precision().number(DIGITS) == "precision_digits"
    assert Confidence().number(DIGITS) == "confidence"


@pytest.mark.parametrize(
    "n, published, word", [(FID_50K, True, "FID-50k"), (FID_50K - 1, True, "FID"), (FID_50K, False, "FID"),
                           (None, True, "FID"), (FID_50K, None, "FID")]
)  # fmt: skip
def test_fid_50k_is_said_of_nothing_else(n, published, word):
    assert display_name("fid", n, published) == word
    assert display_name("frechet_digits", n, published) == "frechet_digits"


def test_a_score_says_what_it_is_of(digits):
    samples, real = DIGITS(digits["train"]["image"][:300]), DIGITS(digits["test"]["image"])
    floor, noise = DIGITS(digits["train"]["image"][300:600]), DIGITS(random_noise((300, 8, 8, 1)))
    metrics, reference = ("frechet", "precision"), "digits/test (500)"
    found = compare(samples, real, floor, noise, metrics, network=DIGITS, reference_name=reference)
    assert list(found) == ["frechet_digits", "precision_digits"]
    for score in found.values():
        entry = json.loads(json.dumps(score.to_dict()))
        assert (entry["n"], entry["reference_n"], entry["floor_n"]) == (300, 500, 300)
        assert entry["reference"] == "digits/test (500)" and entry["network"] == "digits"
        assert entry["digest"] == DIGITS.digest and len(DIGITS.digest) == 16
        assert entry["resize"] == "none" and entry["published"] is False
        assert abs(entry["excess"]) < 0.2
    assert found["frechet_digits"].floor == pytest.approx(frechet_distance(floor.features, real.features), rel=1e-9)
    assert found["frechet_digits"].noise == pytest.approx(frechet_distance(noise.features, real.features), rel=1e-9)


def test_numbers_do_not_depend_on_batches_or_order(digits):
    images, real = digits["train"]["image"][:400], Summary.of(DIGITS(digits["test"]["image"]))
    whole = scores_of(DIGITS(images), real)
    parts = summarise(lambda x: Digits()(x, batch=24), in_batches(images, 37), keep=True)
    turned = np.random.default_rng(1).permutation(400)
    mixed = DIGITS(images[turned])
    for other in (parts, mixed):
        found = scores_of(other, real)
        assert set(found) == set(whole)
        for name, value in found.items():
            # these two draw subsets and splits by position; the others must agree whatever the order
            loose = other is mixed and name.startswith(("kid", "inception"))
            assert value == pytest.approx(whole[name], rel=0.05 if loose else 1e-6, abs=0.02 if loose else 1e-6), name


def test_numbers_do_not_depend_on_the_devices(digits, devices, monkeypatch):
    names = ("frechet", "kid", "precision", "recall", "density", "coverage", "confidence")
    images = [digits[split]["image"][:300] for split in ("train", "test")]
    many = scores_of(*map(DIGITS, images), names)
    first = jax.local_devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda: first)
    classifier._extractor.cache_clear()
    try:
        assert devices > 1 and classifier._extractor(DIGITS.network, DIGITS.file)._mesh.size == 1
        one = scores_of(*map(DIGITS, images), names)
    finally:
        classifier._extractor.cache_clear()
    assert set(one) == set(many)
    for name, value in many.items():
        assert one[name] == pytest.approx(value, rel=1e-6, abs=1e-6), name


def test_moments_alone_are_enough_for_the_frechet_distance_and_for_nothing_else(digits):
    a, b = (in_batches(digits[split]["image"][:300], 100) for split in ("train", "test"))
    kept = [summarise(DIGITS, images, keep=False) for images in (a, b)]
    assert all(summary.features is None and summary.n == 300 for summary in kept)
    whole = [DIGITS(digits[split]["image"][:300]) for split in ("train", "test")]
    assert scores_of(*kept, ("frechet",)) == pytest.approx(scores_of(*whole, ("frechet",)), rel=1e-9)
    with pytest.raises(UserError, match="only the moments"):
        scores_of(*kept, ("kid",))


def test_what_is_missing_is_said():
    rng = np.random.default_rng(0)
    few, many = Features(rng.normal(size=(3, 4))), Features(rng.normal(size=(50, 4)))
    with pytest.raises(UserError, match="did you mean 'recall'"):
        set_metrics(["recal"])
    with pytest.raises(UserError, match="precision needs at least 4 images on each side; the samples are 3"):
        scores_of(few, many, ("precision",))
    with pytest.raises(UserError, match="class probabilities"):
        scores_of(many, many, ("inception_score",))
    with pytest.raises(UserError, match="labels"):
        seen = Features(many.features, np.full((50, 2), 0.5))
        scores_of(seen, seen, ("label_accuracy",))
    with pytest.raises(UserError, match="no image"):
        summarise(DIGITS, iter(()), keep=True)


def test_a_network_looks_once_at_each_set(digits):
    looks = []

    class Counting(FeatureNetwork):
        name = "counting"
        digest = "0"

        def __call__(self, images, batch=100):
            looks.append(len(images))
            return DIGITS(images)

    train, test = (digits[split]["image"] for split in ("train", "test"))
    images = EvaluationImages(train[:60], None, train, test, None, "x")
    compare_samples(images, ("kid", "coverage"), Counting())
    compare_samples(images, ("frechet", "recall"), Counting())
    assert sorted(looks) == [60, 60, 60, 500]  # samples, floor, noise, held-out
    other = dataclasses.replace(images, samples=train[60:100])
    assert compare_samples(other, ("kid",), Counting())["kid_counting"].n == 40 and len(looks) == 8


def test_few_samples_leave_out_what_needs_neighbours(digits):
    train, test = (digits[split]["image"] for split in ("train", "test"))
    images = EvaluationImages(train[:3], None, train, test, None, "x")
    found = compare_samples(images, SAMPLE_METRICS, DIGITS)
    assert "frechet_digits" in found and not any(name.startswith(("precision", "coverage")) for name in found)
    more = compare_samples(dataclasses.replace(images, samples=images.train[:6]), SAMPLE_METRICS, DIGITS)
    assert list(more) == [metric.number(DIGITS) for metric in set_metrics(SAMPLE_METRICS)]


def test_floor_and_noise_that_agree_give_no_excess():
    rng = np.random.default_rng(0)
    a, b = (Features(rng.normal(size=(50, 4)) + shift) for shift in (0, 100))
    score = compare(b, a, b, b, ("precision",), network=DIGITS, reference_name="x")["precision_digits"]
    assert score.floor == 0 and score.noise is None and "Noise scores 0" in score.note
    assert score.to_dict()["excess"] is None


def test_infinity_is_named_after_the_distance_it_extrapolates(digits):
    seen = DIGITS(digits["train"]["image"][:200])
    found = scores_of(seen, DIGITS(digits["test"]["image"]), ("frechet", "frechet_infinity"))
    assert found["frechet_infinity_digits"] < found["frechet_digits"]


def test_networks_by_name():
    assert isinstance(open_network("digits"), Digits)
    assert open_network("inception") is open_network("inception") is not open_network("inception", resize="clean")
    section = {"name": "jaxgen.metrics.networks.inception:Inception", "tap": "768"}
    assert open_network(section, resize="clean") == Inception(tap="768", resize="clean")
    with pytest.raises(UserError, match="did you mean 'inception'"):
        open_network("incepton")
    with pytest.raises(UserError, match="'digits' takes no weights; leave out weights='some.pth'"):
        open_network("digits", weights="some.pth")
    with pytest.raises(UserError, match="'digits' takes no resize"):
        open_network("digits", resize="clean")
    with pytest.raises(UserError, match="legacy, clean, none"):
        open_network("inception", resize="bicubic")
    with pytest.raises(UserError, match="nowhere.pth"):
        open_network("inception", weights="/nowhere.pth").open()


def test_every_metric_says_what_it_is():
    found = classes("metric")
    assert {"fid", "frechet", "kid", "precision", "label_accuracy", "memorisation", "psnr", "sifid"} <= set(found)
    for name, metric in found.items():
        assert metric.needs and metric.needs <= set(NEEDS), name
        assert metric.better in ("lower", "higher", None) and metric.__doc__.split("\n")[0].endswith("."), name
    assert all(metric.note.endswith(".") for metric in set_metrics(SETS))


def test_metrics_that_share_work_do_it_once(digits, monkeypatch):
    searches, search = [], manifold.precision_recall
    monkeypatch.setattr(manifold, "precision_recall", lambda *given: searches.append(given) or search(*given))
    a, b = (Summary.of(DIGITS(digits[split]["image"][:50])) for split in ("train", "test"))
    assert len(scores_of(a, b, ("precision", "recall"))) == 2 and len(searches) == 1
    assert manifold.Recall(k=4).value(a, b) != manifold.Recall().value(a, b) and len(searches) == 2
    assert Recall(k=4).least == 5


@pytest.mark.nightly
@pytest.mark.parametrize("resize", ["legacy", "clean"])
def test_inception_sees_images_of_several_sizes_as_it_sees_them_alone(resize):
    from jaxgen.networks.pretrained.inception import Inception as Network

    image = np.zeros((1, 299, 299, 3), np.float32)
    params = jax.jit(lambda key: Network().init(key, image, ("2048", "logits_unbiased")))(jax.random.key(0))["params"]
    network = Inception(resize=resize, given=params)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in ((8, 8), (40, 30), (8, 8))]
    mixed = network.see(images, 8)
    for number in (0, 1):
        alone = network(images[number][None], 8)
        np.testing.assert_allclose(mixed.features[number], alone.features[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(mixed.probabilities[number], alone.probabilities[0], rtol=1e-4, atol=1e-7)
    assert not np.allclose(mixed.features[0], mixed.features[1], rtol=1e-3)
