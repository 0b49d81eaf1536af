"""The classifiers of the package, and numbers in their features and of copies, move the way they should."""

import dataclasses
from importlib import resources

import jax
import numpy as np
import pytest
import tiny

from jaxgen.config import SAMPLE_METRICS
from jaxgen.data import open_source
from jaxgen.errors import UserError
from jaxgen.evaluation import export_classifier
from jaxgen.evaluation.export_classifier import export
from jaxgen.metrics.choice import open_network
from jaxgen.metrics.compare import compare_samples
from jaxgen.metrics.distributions.classes import entropy
from jaxgen.metrics.distributions.memorisation import memorisation, nearest_distances
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.networks.digits import Digits
from jaxgen.metrics.networks.fashion import Fashion
from jaxgen.metrics.score import Score
from jaxgen.networks.classifier import Classifier
from jaxgen.runs.loaded_groups import load_group


@pytest.fixture(scope="module", name="sets")
def _sets():
    train, test = (open_source("digits", split, 8, 1, 10).arrays for split in ("train", "test"))
    return train, test


def _images(sets, samples, labels=None):
    train, test = sets
    return EvaluationImages(samples, labels, train["image"], test["image"], test["label"], "digits/test (500)")


def _frechet(images):
    return compare_samples(images, ("frechet",), Digits())["frechet_digits"]


def digits(images, network=None):
    """The numbers that the configs of digits name."""
    names = (*SAMPLE_METRICS, "label_accuracy") if images.labels is not None else SAMPLE_METRICS
    return compare_samples(images, names, network or Digits())


def test_the_classifier_of_digits_knows_held_out_digits(sets):
    seen = Digits()(sets[1]["image"])
    assert (seen.probabilities.argmax(1) == sets[1]["label"]).mean() >= 0.98
    np.testing.assert_allclose(seen.probabilities.sum(1), 1, atol=1e-6)
    assert seen.features.shape == (500, 32)


def test_features_do_not_depend_on_the_batch(sets):
    images = sets[1]["image"][:37]
    np.testing.assert_allclose(Digits()(images, batch=500).features, Digits()(images, batch=10).features, atol=1e-5)


def test_real_images_have_no_excess_and_noise_all_of_it(sets):
    images = _images(sets, sets[0]["image"][:1000])
    real = _frechet(images).to_dict()
    assert abs(real["excess"]) < 0.01
    noise = _frechet(_images(sets, images.noise)).to_dict()
    assert noise["excess"] == pytest.approx(1, abs=0.05)


def test_worse_images_score_worse(sets):
    real = sets[0]["image"][:1000]
    rng = np.random.default_rng(0)
    previous = _frechet(_images(sets, real)).value
    for strength in (30, 60, 120):
        noisy = np.clip(real + rng.normal(0, strength, real.shape), 0, 255).astype(np.uint8)
        now = _frechet(_images(sets, noisy)).value
        assert now > previous
        previous = now


def test_the_kernel_distance_agrees_with_the_frechet_distance_and_has_no_floor(sets):
    images = _images(sets, sets[0]["image"][:1000])
    real = digits(images)["kid_digits"].to_dict()
    assert abs(real["excess"]) < 0.01
    assert abs(real["floor"]) < 0.03 * real["noise"]
    half = digits(_images(sets, sets[0]["image"][sets[0]["label"] < 5]))["kid_digits"].to_dict()
    assert half["excess"] > 0.02 + real["excess"]


def test_a_classifier_says_more_than_distances_and_of_what(sets):
    train = sets[0]
    scores = digits(_images(sets, train["image"][:400], train["label"][:400]))
    names = {"frechet_digits", "kid_digits", "class_entropy", "confidence", "label_accuracy"}
    assert set(scores) == names | {f"{name}_digits" for name in ("precision", "recall", "density", "coverage")}
    assert list(scores)[0] == "frechet_digits"  # what a report shows first
    for score in scores.values():
        assert (score.n, score.reference_n, score.network, score.digest) == (400, 500, "digits", Digits().digest)
    assert scores["precision_digits"].value > 0.8 and scores["recall_digits"].value > 0.8
    copies = digits(_images(sets, train["image"][np.arange(400) % 10]))
    assert copies["recall_digits"].value < 0.1 and copies["coverage_digits"].value < 0.2
    assert copies["precision_digits"].value > 0.5


def test_missing_classes_are_seen(sets):
    train = sets[0]
    half = train["image"][train["label"] < 5]
    scores = digits(_images(sets, half))
    assert scores["class_entropy"].value == pytest.approx(np.log(5) / np.log(10), abs=0.02)
    assert scores["frechet_digits"].to_dict()["excess"] > 0.05


def test_labels_are_checked_where_asked_for(sets):
    train = sets[0]
    scores = digits(_images(sets, train["image"], train["label"]))
    assert scores["label_accuracy"].value > 0.98
    seen = Digits()(sets[1]["image"]).probabilities.argmax(1)
    assert scores["label_accuracy"].floor == (seen == sets[1]["label"]).mean()
    wrong = digits(_images(sets, train["image"], (train["label"] + 1) % 10))
    assert wrong["label_accuracy"].value < 0.02
    assert "label_accuracy" not in digits(_images(sets, train["image"]))


def test_entropy_at_its_ends():
    assert entropy(np.eye(10)[np.arange(40) % 10]) == pytest.approx(1)
    assert entropy(np.eye(10)[[3, 3]]) == pytest.approx(0, abs=1e-9)


def test_a_classifier_refuses_other_shapes():
    with pytest.raises(UserError, match=r"\(28, 28, 1\)"):
        Digits()(np.zeros((2, 28, 28, 1), np.uint8))


@pytest.mark.parametrize("shipped", [Digits(), Fashion()], ids=lambda j: j.name)
def test_the_shipped_weights_are_those_of_the_network(shipped):
    example = jax.ShapeDtypeStruct((1, *shipped.shape), np.float32)
    wanted = jax.eval_shape(shipped.network.init, jax.random.key(0), example)["params"]
    assert jax.tree.map(np.shape, shipped.weights()) == jax.tree.map(lambda x: x.shape, wanted)
    file = resources.files("jaxgen.metrics.networks").joinpath(shipped.file)
    assert len(file.read_bytes()) < 200_000
    noise = np.random.default_rng(0).integers(0, 256, (3, *shipped.shape), np.uint8)
    seen = shipped(noise)
    assert seen.probabilities.shape == (3, 10) and seen.features.shape == (3, shipped.network.features)
    np.testing.assert_allclose(seen.probabilities.sum(1), 1, atol=1e-6)


def test_the_classifier_of_fashion_knows_held_out_clothes():
    try:
        test = open_source("tfds:fashion_mnist", "test", 28, 1, 10).arrays
    except UserError as error:
        pytest.skip(f"needs prepared data: {error}")
    images, labels = test["image"], test["label"]
    probabilities = Fashion()(images[:2000]).probabilities
    assert (probabilities.argmax(1) == labels[:2000]).mean() >= 0.9
    held_out = images[4000:8000], labels[4000:8000], "test"
    given = EvaluationImages(images[:1000], labels[:1000], images[1000:4000], *held_out)
    real = digits(given, Fashion())
    assert abs(real["frechet_fashion"].to_dict()["excess"]) < 0.01
    assert abs(real["kid_fashion"].to_dict()["excess"]) < 0.01
    assert real["label_accuracy"].value >= 0.9
    flat = np.broadcast_to(images[:1000].mean(axis=(1, 2), keepdims=True), (1000, 28, 28, 1)).astype(np.uint8)
    blurred = digits(dataclasses.replace(given, samples=flat, labels=None), Fashion())
    assert blurred["frechet_fashion"].to_dict()["excess"] > 0.1


@pytest.mark.nightly
def test_a_trained_classifier_is_written_where_the_package_looks_for_it(tmp_path, capsys):
    lean = ["--config.train.total_images=128", "--config.train.checkpoint_every_images=128"]
    lean += ["--config.evaluate.at_end=False"]
    run = tmp_path / "run"
    assert tiny.call("--config=configs/classifier_digits.py", f"--workdir={run}", *lean) == 0
    with np.load(export(run, "digits", tmp_path)) as written:
        params, _, _ = load_group(run, "classifier")
        assert set(written) == {f"{layer}/{leaf}" for layer, p in params.items() for leaf in p}
        np.testing.assert_array_equal(written["classes/bias"], params["classes"]["bias"].astype(np.float16))
    capsys.readouterr()
    assert export_classifier.main([str(run), "fashion"]) == 2
    assert "another network than that of 'fashion'" in capsys.readouterr().err


def test_copies_are_called_copies_and_held_out_images_are_not(sets):
    train, test = sets
    copies = memorisation(_images(sets, train["image"][:300]))
    assert copies["nearest_train_distance"].value == 0
    assert copies["share_of_near_copies"].value == 1
    fresh = memorisation(_images(sets, test["image"]))
    assert fresh["nearest_train_distance"].value == pytest.approx(fresh["nearest_train_distance"].floor)
    assert fresh["share_of_near_copies"].value <= 0.02


def test_nearest_distances_against_brute_force():
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 256, (n, 3, 3, 1), dtype=np.uint8) for n in (7, 11))
    brute = [min(np.linalg.norm((x.astype(float) - y).ravel() / 127.5) for y in b) for x in a]
    np.testing.assert_allclose(nearest_distances(a, b, block=3), brute, rtol=1e-4)


def test_numbers_that_cannot_tell_gives_no_excess():
    with pytest.raises(UserError, match="noise"):
        Score(1.0, 10, "x", floor=2.0, noise=2.0).to_dict()


@pytest.mark.slow
def test_a_trained_classifier_of_any_data_becomes_a_feature_network(tmp_path, capsys):
    lean = ["--config.train.total_images=128", "--config.train.checkpoint_every_images=128"]
    lean += ["--config.evaluate.at_end=False", "--config.data.resolution=16"]
    run, file = tmp_path / "run", tmp_path / "shapes.npz"
    assert tiny.call("--config=configs/classifier_shapes.py", f"--workdir={run}", *lean) == 0
    assert export_classifier.main([str(run), f"--out={file}"]) == 0
    network = open_network("classifier", weights=str(file))
    images = open_source("caption_shapes", "test", 16, 3, 8).take(range(5))["image"]
    seen = network(images)
    params, _, _ = load_group(run, "classifier")
    logits, features = Classifier(25, (8, 16, 32, 48, 48), 64).apply({"params": params}, images / 127.5 - 1)
    np.testing.assert_allclose(seen.features, features, atol=1e-4)
    np.testing.assert_allclose(seen.probabilities, jax.nn.softmax(logits[:, :8]), atol=1e-5)  # the shape alone
    assert network.digest == open_network(dict(name="classifier", weights=str(file))).digest and network.width == 64
    with pytest.raises(UserError, match=r"sees images of shape \(16, 16, 3\), not \(8, 8, 1\)"):
        network.check_shape((8, 8, 1))
    capsys.readouterr()
    assert export_classifier.main([str(run), "digits", f"--out={file}"]) == 2
    assert "give one of the two" in capsys.readouterr().err


@pytest.mark.parametrize("arrays", [{}, {"shape": [8, 8, 1], "classes": 3}, {"shape": [8, 8], "classes": "x"}])
def test_a_file_without_a_classifier_is_refused_by_its_name(tmp_path, arrays):
    np.savez(tmp_path / "mine.npz", image=np.zeros((2, 8, 8, 1), np.uint8), **arrays)
    with pytest.raises(UserError, match="mine.npz' holds no classifier .*export_classifier RUN --out=FILE"):
        open_network("classifier", weights=str(tmp_path / "mine.npz")).open()
    with pytest.raises(UserError, match="network is missing the key 'weights'"):
        open_network("classifier")
