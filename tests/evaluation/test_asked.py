"""Metrics see what samples were asked for: the true image, the condition, the attributes, the embedding."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from tiny_methods import PIXELS, Plain, tiny_config

from jaxgen.config import section
from jaxgen.data.corruptions import LowResolution
from jaxgen.errors import UserError
from jaxgen.evaluation.evaluate import check_before_training, evaluate, metrics_of
from jaxgen.methods.base import Model
from jaxgen.metrics.asked.attribute_accuracy import AttributeAccuracy
from jaxgen.metrics.base import NEEDS
from jaxgen.metrics.choice import find_metric
from jaxgen.metrics.command import WORDS
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.pairs.pixels import PSNR
from jaxgen.runs.setup import make_method, open_split
from jaxgen.sampling.generator import Generator

COUNT = 12


@dataclasses.dataclass(frozen=True)
class Enlarge(Plain):
    """Repeats the pixels of a small copy; `error` of them are raised by as much, in [-1, 1]."""

    error: float = 0.0
    reads: tuple[str, ...] = ("condition",)

    @property
    def conditions(self):
        return self.reads

    def sample(self, model, keys, batch):
        images = batch["condition"].repeat(2, axis=1).repeat(2, axis=2)
        return images * (1 - self.error) + self.error * jnp.sign(images)

    def scores(self, model, keys, batch):
        return {}


def config_of(metrics, size=16, source="shapes", **options):
    config = tiny_config("Plain")
    config.method = section(name="tests_asked", **options)
    config.data.update(source=source, resolution=size, channels=1 if source == "digits" else 3)
    config.data.corruptions.condition = section(name="low_resolution", factor=2)
    config.evaluate.update(num=COUNT, real=20, metrics=metrics)
    return config


def evaluated(metrics, method=None, **options):
    config = config_of(metrics, **options)
    generator = Generator(method or Enlarge(), config)
    return evaluate(generator, Model({}, {})), generator


def small_copies(images):
    """uint8 images with the mean of each 2x2 pixels in their place, by NumPy."""
    n, h, w, c = images.shape
    means = (images / 127.5 - 1).reshape(n, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))
    return means.repeat(2, axis=1).repeat(2, axis=2)


@pytest.mark.parity
def test_psnr_and_ssim_are_those_of_scikit_image_against_the_true_images():
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    found, generator = evaluated(("psnr", "ssim", "l1"))
    truth = generator.source("test").take(range(COUNT))["image"]
    drawn = np.round((small_copies(truth) + 1) * 127.5).astype(np.uint8)
    pairs = list(zip(truth, drawn, strict=True))
    psnr = np.mean([peak_signal_noise_ratio(a, b) for a, b in pairs])
    options = dict(channel_axis=-1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
    ssim = np.mean([structural_similarity(a, b, **options) for a, b in pairs])
    assert found["psnr"]["value"] == pytest.approx(psnr, abs=0.02)
    assert found["ssim"]["value"] == pytest.approx(ssim, abs=2e-3)
    assert found["l1"]["value"] == pytest.approx(np.abs(truth.astype(float) - drawn).mean(), abs=0.02)
    assert found["psnr"]["noise"] < 12 < found["psnr"]["value"] and found["psnr"]["n"] == COUNT
    assert found["psnr"]["reference"] == "shapes/test (20), in pairs"


def test_the_hint_error_is_nothing_for_samples_that_keep_to_their_condition():
    kept, _ = evaluated(("hint_error",))
    off, generator = evaluated(("hint_error",), Enlarge(error=0.5))
    assert kept["hint_error"]["value"] < 1 / 127  # of rounding to levels
    small = small_copies(generator.source("test").take(range(COUNT))["image"])
    moved = small * 0.5 + 0.5 * np.sign(small)
    expected = np.sqrt(np.square(moved - small).mean(axis=(1, 2, 3))).mean()
    assert off["hint_error"]["value"] == pytest.approx(expected, abs=5e-3)
    assert off["hint_error"]["floor"] == 0 < kept["hint_error"]["value"] < off["hint_error"]["noise"]


def test_a_random_corruption_is_made_again_with_the_samples_own_numbers():
    @dataclasses.dataclass(frozen=True)
    class Copy(Plain):
        conditions = ("condition",)

        def sample(self, model, keys, batch):
            return batch["condition"]

        def scores(self, model, keys, batch):
            return {}

    config = config_of(("hint_error",))
    config.data.corruptions.condition = section(name="hole", form="half")
    found = evaluate(Generator(Copy(), config), Model({}, {}))
    assert found["hint_error"]["value"] < 1 / 127  # another half for each image would be off by much more


def test_attributes_are_held_against_those_asked_for():
    config = config_of(("attribute_accuracy",), size=32, source="caption_shapes")
    config.evaluate.network = ""
    right = evaluate(Generator(Enlarge(), config), Model({}, {}))
    assert right["attribute_accuracy"]["value"] >= 0.75 and right["attribute_accuracy_colour"]["value"] == 1
    assert right["attribute_accuracy"]["floor"] == 1 and right["attribute_accuracy"]["noise"] < 0.2

    source = open_split(config, "test")
    rows = source.take(range(COUNT))
    seen = EvaluationImages(
        np.roll(rows["image"], 1, axis=0), None, rows["image"], rows["image"], None, "x",
        asked={"image": rows["image"], "attributes": rows["attributes"]},
    )  # fmt: skip
    found = AttributeAccuracy().scores(seen, None)
    same = np.roll(rows["attributes"], 1, axis=0) == rows["attributes"]  # the reader sees true images without a fault
    assert found["attribute_accuracy_shape"].value == pytest.approx(same[:, 0].mean())
    assert found["attribute_accuracy"].value == pytest.approx(same.all(axis=1).mean())


@dataclasses.dataclass(frozen=True)
class Encode(Plain):
    """Gives the embedding of the data, turned by an angle, or its tokens, the first of them wrong."""

    gives: str = "embedding"
    cosine: float = 0.6
    conditions = ("condition",)

    def sample(self, model, keys, batch):
        x = batch["condition"]
        if self.gives == "tokens":
            return (x * 10).astype(jnp.int32).at[:, 0].add(1)
        across = jnp.roll(x, 1, axis=1) * jnp.where(jnp.arange(x.shape[1]) % 2, 1, -1)  # at a right angle to x
        return self.cosine * x + (1 - self.cosine**2) ** 0.5 * across

    def scores(self, model, keys, batch):
        return {}


@pytest.fixture
def vectors(tmp_path):
    """A config of data with pairs (a, b, a, b, ...) beside the images, as embeddings and as tokens."""
    pairs = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    embedding = np.tile(pairs, 4)
    arrays = {"condition": embedding, "embedding": embedding, "tokens": (embedding * 10).astype(np.int32)}
    images = np.zeros((40, 8, 8, 1), np.uint8)
    both = {f"{split}_{name}": values for split in ("train", "test") for name, values in arrays.items()}
    np.savez(tmp_path / "data.npz", train_images=images, test_images=images, **both)
    config = tiny_config("Plain")
    config.data.source = f"npz:{tmp_path / 'data.npz'}"
    config.evaluate.num = COUNT
    return config


def test_embeddings_and_tokens_are_held_against_the_true_ones(vectors):
    vectors.evaluate.metrics = ("cosine_similarity",)
    found = evaluate(Generator(Encode(), vectors), Model({}, {}))["cosine_similarity"]
    # x is (a, b, a, b, ...), so that (-b, a, -b, a, ...) is at a right angle to it and as long
    assert found["value"] == pytest.approx(0.6, abs=1e-5) and found["std"] < 1e-5 and abs(found["noise"]) < 0.4
    vectors.evaluate.metrics = ("token_accuracy",)
    found = evaluate(Generator(Encode(gives="tokens"), vectors), Model({}, {}))["token_accuracy"]
    assert found["value"] == pytest.approx(7 / 8)


def test_the_number_of_a_video_is_the_mean_of_its_frames():
    chance = np.random.default_rng(0)
    ours, truth = (chance.integers(0, 256, (4, 3, 8, 8, 3), dtype=np.uint8) for _ in range(2))
    still = truth[:, 0]
    seen = EvaluationImages(ours, None, still, still, None, "x", asked={"video": truth}, entry="video")
    found = PSNR().scores(seen, None)["psnr"]
    errors = np.square(ours.astype(float) - truth).mean(axis=(2, 3, 4))  # [4, 3], one for each frame
    frames = 10 * np.log10(255**2 / errors)
    assert found.value == pytest.approx(np.mean(frames)) and found.std == pytest.approx(np.mean(frames, axis=1).std())
    short = dataclasses.replace(seen, asked={"video": truth[:, :2]})
    with pytest.raises(UserError, match="compared in equal shapes only"):
        PSNR().scores(short, None)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (dict(metrics=("ssim",), size=8), "ssim needs images of at least 11x11 pixels"),
        (dict(metrics=(section(name="attribute_accuracy", entry="pose"),)), "reads the entry 'pose' of held-out examp"),
        (dict(metrics=("clip_score",), size=8, source="digits"), "'clip_score' reads the entry 'caption'"),
        (dict(metrics=(section(name="clip_score", weights="/nowhere"),)), "/nowhere"),
        (dict(metrics=(section(name="lpips", weights="/nowhere"),)), "/nowhere"),
        (dict(metrics=(section(name="hint_error", entry="hint"),)), "has entry='hint', which no corruption makes"),
        (dict(metrics=("cosine_similarity",)), "measures embeddings, and this 'tests_asked' gives images"),
        (dict(metrics=(section(name="attribute_accuracy", reader="clip"),)), "reader.name='clip' is unknown"),
    ],
)
def test_what_a_run_cannot_give_is_one_sentence_before_training(change, told):
    with pytest.raises(UserError, match=told):
        check_before_training(config_of(**change), Enlarge())


@pytest.mark.parametrize("name", ["psnr", "attribute_accuracy", "hint_error"])
def test_samples_that_were_drawn_for_no_example_have_no_truth(name):
    config = tiny_config("Holed")
    config.data.num_classes = 10
    config.evaluate.metrics = (name,)
    with pytest.raises(UserError, match=f"'{name}' needs .*so leave it out|'{name}' needs .*no held-out example"):
        metrics_of(config, make_method(config))


def test_the_command_of_image_sets_says_what_is_known_of_a_run_alone():
    assert set(WORDS.elsewhere) | WORDS.offers | {"moments", "features", "probabilities", "maps"} == set(NEEDS)
    for name in ("hint_error", "attribute_accuracy", "cosine_similarity", "token_accuracy"):
        assert find_metric(name, WORDS).needs <= set(WORDS.elsewhere)


def test_labels_are_those_of_the_examples_that_other_conditions_are_of():
    config = tiny_config("Plain")
    config.data.num_classes = 10
    config.data.corruptions.condition = section(name="low_resolution", factor=2)
    generator = Generator(Enlarge(reads=("condition", "label")), config)
    drawn = generator.draw(Model({}, {}), 0, COUNT, asked=True)
    rows = generator.source("test").take(range(COUNT))
    np.testing.assert_array_equal(drawn.labels, rows["label"])
    np.testing.assert_array_equal(drawn.asked["image"], rows["image"])
    small = LowResolution(2)(None, jnp.asarray(rows["image"][3] / 127.5 - 1)).picture
    np.testing.assert_allclose(drawn.asked["condition"][3], small, atol=1e-5)
    wanted = generator.draw(Model({}, {}), 0, COUNT, labels=[4], asked=True)
    assert (wanted.labels == 4).all() and PIXELS == drawn.images[0].size
