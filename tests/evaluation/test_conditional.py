"""Numbers of conditional models: known pixels, the unknown part, edges, diversity under one condition, classes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_methods import Plain, tiny_config

from jaxgen.config import section
from jaxgen.data import open_source
from jaxgen.errors import UserError
from jaxgen.evaluation.evaluate import check_before_training, check_best_metric, evaluate, metrics_of
from jaxgen.methods.base import Model
from jaxgen.metrics.asked.classification_accuracy import ClassificationAccuracyScore
from jaxgen.metrics.asked.conditional_diversity import ConditionalDiversity
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.pairs.edges import EdgeDistance, edge_distance
from jaxgen.metrics.pairs.pixels import L2, PSNR, SSIM, ssim
from jaxgen.sampling.generator import Generator

COUNT, SIZE = 12, 16


@dataclasses.dataclass(frozen=True)
class Fill(Plain):
    """Fills the hole with noise of a standard deviation, and moves the known pixels by some levels."""

    noise: float = 0.0
    levels: int = 0
    reads: tuple[str, ...] = ("condition", "mask")

    @property
    def conditions(self):
        return self.reads

    def sample(self, model, keys, batch):
        known = batch["condition"]
        hole = self.noise * jax.vmap(lambda key: jax.random.normal(key, known.shape[1:]))(keys)
        away = jnp.where(known > 0, -1, 1) * self.levels / 127.5
        return jnp.where(batch["mask"][..., None] > 0, hole, known + away)

    def scores(self, model, keys, batch):
        return {}


def config_of(metrics, form="half", source="shapes", size=SIZE):
    config = tiny_config("Plain")
    config.method = section(name="tests_conditional")
    config.data.update(source=source, resolution=size, channels=1 if source == "digits" else 3, num_classes=0)
    config.data.corruptions.condition = section(name="hole", form=form)
    config.evaluate.update(num=COUNT, real=20, metrics=metrics)
    return config


def evaluated(method, metrics, **options):
    generator = Generator(method, config_of(metrics, **options))
    return evaluate(generator, Model({}, {})), generator


@pytest.mark.parametrize(("levels", "exact"), [(0, 1.0), (2, 0.0)])
def test_known_pixels_are_compared_in_levels(levels, exact):
    found, _ = evaluated(Fill(levels=levels), ("known_pixels",))
    assert found["known_pixels_exact"]["value"] == exact and found["known_pixels_error"]["value"] == levels
    assert found["known_pixels_exact"]["floor"] == 1 and found["known_pixels_exact"]["noise"] < 0.01
    assert f"the largest is {levels}." in found["known_pixels_error"]["note"] and found["known_pixels_error"]["n"] == 12


def test_the_unknown_part_has_a_number_of_its_own():
    found, generator = evaluated(Fill(noise=0.5), ("psnr", "l1", "edge_distance"), form="centre")
    # the known part is exact and the hole is 8x8 of 16x16 pixels, so that the error of the whole is a quarter
    assert found["l1_unknown"]["value"] == pytest.approx(4 * found["l1"]["value"])
    assert found["psnr_unknown"]["value"] == pytest.approx(found["psnr"]["value"] - 10 * np.log10(4), abs=1e-6)
    for name in ("psnr_unknown", "l1_unknown", "edge_distance_unknown"):
        assert found[name]["floor_n"] == COUNT and "Of the unknown part alone." in found[name]["note"], name
    config = generator.config
    config.train.update(best_metric="psnr_unknown", evaluate_every_images=8)
    check_best_metric(config, generator, Model({}, {}), ())


def test_the_floor_is_of_real_images_with_a_similar_condition():
    """Of images whose halves are equal, the half that is known tells which real image the unknown one belongs to."""
    levels = np.arange(0, 250, 25, dtype=np.uint8)
    train = np.broadcast_to(levels[:, None, None, None], (10, 8, 8, 1))
    truth = train[[3, 7]] + np.uint8(2)

    def corrupted(images, index=None):
        return {"condition": np.where(np.arange(8) < 4, images[..., 0] / 127.5 - 1, 0)[..., None].astype(np.float32)}

    mask = np.broadcast_to(np.arange(8) >= 4, (2, 8, 8)).astype(np.int32)
    seen = EvaluationImages(
        np.zeros_like(truth), None, train, truth, None, "x", asked={"image": truth, "mask": mask, **corrupted(truth)},
        corrupted=corrupted, hints=("condition",), masked=True,
    )  # fmt: skip
    np.testing.assert_array_equal(seen.neighbours, train[[3, 7]])
    found = L2().scores(seen, None)
    assert found["l2"].floor == found["l2_unknown"].floor == 2.0 and found["l2"].value > 70


@pytest.mark.parametrize("metric", [L2(), PSNR()])
def test_regions_add_up_to_the_whole(metric):
    chance = np.random.default_rng(0)
    a, b = (chance.integers(0, 256, (3, 16, 12, 3), dtype=np.uint8) for _ in range(2))
    region = chance.random((3, 16, 12)) < 0.3
    square = {"l2": np.square, "psnr": lambda x: 255**2 / 10 ** (x / 10)}[metric.name]
    share = region.mean((1, 2))
    inside, outside = (square(metric.values_inside(a, b, part)) for part in (region, ~region))
    np.testing.assert_allclose(share * inside + (1 - share) * outside, square(metric.values(a, b)))
    region[1] = False
    assert np.isnan(metric.values_inside(a, b, region)).tolist() == [False, True, False]


def test_the_similarity_of_a_region_is_of_the_windows_around_its_pixels():
    chance = np.random.default_rng(0)
    a = chance.integers(0, 256, (2, 24, 24, 1), dtype=np.uint8)
    b = a.copy()
    b[:, :6] = chance.integers(0, 256, (2, 6, 24, 1))
    rows = np.broadcast_to(np.arange(24)[:, None], (2, 24, 24))
    np.testing.assert_allclose(SSIM().values_inside(a, b, rows >= 11), 1)  # windows of 11 pixels see rows from 6 on
    # of the 14 rows of windows, centred on the rows 5 to 18, 6 are above row 11
    above = SSIM().values_inside(a, b, rows < 11)
    np.testing.assert_allclose((6 * above + 8) / 14, ssim(a, b))
    np.testing.assert_allclose(SSIM().values_inside(a, b, rows >= 0), ssim(a, b))
    assert np.isnan(SSIM().values_inside(a, b, rows < 4)).all()  # no window is centred there


@pytest.mark.parity
def test_the_similarity_of_a_region_is_that_of_scikit_images_map():
    from skimage.metrics import structural_similarity

    chance = np.random.default_rng(0)
    a, b = (chance.integers(0, 256, (24, 20), dtype=np.uint8) for _ in range(2))
    options = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True)
    local = structural_similarity(a, b, **options)[1]
    region = np.zeros((24, 20), bool)
    region[6:15, 7:12] = True
    found = SSIM().values_inside(a[None, ..., None], b[None, ..., None], region[None])
    assert found[0] == pytest.approx(local[region].mean(), abs=1e-6)


def test_the_edge_distance_is_how_far_an_edge_has_moved():
    images = np.zeros((3, 16, 16, 1), np.uint8)
    for image, column in zip(images, (5, 9, 16), strict=True):
        image[:, column:] = 255
    near, far, none = images
    # a step has edges of two columns: of one that moved by 4 pixels, one column has 4 pixels to go and the other 3
    found = EdgeDistance().values(np.stack([near, near, near, none]), np.stack([near, far, none, none]))
    np.testing.assert_allclose(found, [0, 3.5, np.hypot(16, 16) / 2, 0])
    a, b = np.zeros((2, 1, 9, 9), bool)
    a[0, 0, 0] = b[0, 3, 4] = b[0, 8, 0] = True
    right = np.ones((1, 9, 9), bool)
    right[..., 0] = False
    assert edge_distance(a, b)[0] == pytest.approx((5 + (5 + 8) / 2) / 2)
    assert edge_distance(a, b, right)[0] == pytest.approx((0 + 5) / 2)


def test_draws_under_one_condition_share_all_but_what_the_model_draws():
    generator = Generator(Fill(noise=0.3), config_of(()))
    first = generator.draw(Model({}, {}), 0, COUNT, asked=True)
    again = [generator.draw(Model({}, {}), 0, COUNT, again=k).main for k in (1, 2, 1)]
    hole = first.asked["mask"].astype(bool)
    assert 0.4 < hole.mean() < 0.6 and not (hole == hole[:1]).all()  # halves that differ
    for images in again:
        np.testing.assert_array_equal(images[~hole], first.main[~hole])
        assert (images != first.main)[hole].mean() > 0.9
    np.testing.assert_array_equal(again[0], again[2])
    assert (again[0] != again[1])[hole].mean() > 0.9


@pytest.fixture
def halves(tmp_path):
    """A config of images of noise of a standard deviation of 0.3: what is known tells nothing of the rest."""
    chance = np.random.default_rng(0)
    images = np.clip(127.5 * (1 + 0.3 * chance.normal(size=(2, 200, 16, 16, 1))), 0, 255).round().astype(np.uint8)
    np.savez(tmp_path / "noise.npz", train_images=images[0], test_images=images[1])
    metric = section(name="conditional_diversity", num=40, draws=3)
    config = config_of((metric,), source=f"npz:{tmp_path / 'noise.npz'}")
    config.data.channels, config.evaluate.num = 1, 40
    return config


@pytest.mark.parametrize(("noise", "value", "floor"), [(0.3, 1.0, 1.0), (0.1, 1 / 3, 0.745)])
def test_a_model_that_draws_from_the_posterior_has_its_floor_as_diversity(halves, noise, value, floor):
    """The distance of independent values of deviations a and b is (a^2 + b^2)^1/2; the hole is all that counts."""
    found = evaluate(Generator(Fill(noise=noise), halves), Model({}, {}))["conditional_diversity"]
    assert found["value"] == pytest.approx(value, abs=0.02) and found["floor"] == pytest.approx(floor, abs=0.02)
    assert found["n"] == 40 and "3 draws of each of 40 conditions, l2" in found["note"]


def test_the_diversity_within_a_class_has_the_diversity_of_real_images_of_the_class_as_its_floor():
    chance = np.random.default_rng(0)
    labels = np.arange(60) % 3
    real = np.clip(60 + 60 * labels[:, None] + 5 * chance.normal(size=(60, 64)), 0, 255).astype(np.uint8)
    real = real.reshape(60, 8, 8, 1)
    draws = np.repeat(real[:6, None], 3, axis=1)
    seen = EvaluationImages(real[:6], labels[:6], real, real, labels, "x", draws=draws)
    found = ConditionalDiversity(draws=3, num=6).scores(seen, None)["conditional_diversity"]
    assert found.value == 0 and 0.02 < found.floor < 0.3


@pytest.mark.slow
def test_the_classification_accuracy_score_tells_labels_that_say_nothing():
    train, test = (open_source("digits", split, 8, 1, 10).arrays for split in ("train", "test"))
    real, labels = train["image"][:300], train["label"][:300]
    metric = ClassificationAccuracyScore(steps=60, widths=(8, 16))
    seen = EvaluationImages(
        real, labels, train["image"], test["image"], test["label"], "digits", train_labels=train["label"]
    )
    found = metric.scores(seen, None)["classification_accuracy_score"]
    assert found.value > 0.7 and found.floor > 0.7 and found.noise < 0.3 and found.n == found.floor_n == 300
    mixed = dataclasses.replace(seen, labels=np.roll(labels, 1))
    assert metric.scores(mixed, None)["classification_accuracy_score"].value < 0.3


def test_samples_of_examples_are_held_against_the_examples_classes():
    config = config_of(("label_accuracy",), source="digits", size=8, form="centre")
    config.data.num_classes, config.evaluate.network = 10, "digits"
    check_before_training(config, Fill())
    found = evaluate(Generator(Fill(), config), Model({}, {}))["label_accuracy"]
    assert found["n"] == COUNT and found["floor"] >= 0.9 and 0.1 < found["value"] < 1


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        (section(name="known_pixels", entry="hint"), "'known_pixels' has entry='hint', which no corruption makes"),
        (section(name="conditional_diversity", draws=1), "at least 2 draws of at least 2 conditions"),
        (section(name="conditional_diversity", distance="psnr"), "needs a distance, such as 'l2' or 'lpips'; 'psnr'"),
        (section(name="conditional_diversity", distance="frechet"), "distance"),
        (section(name="edge_distance", threshold=0.0), "needs a threshold above 0"),
        (section(name="classification_accuracy_score", steps=0), "at least one step"),
    ],
)
def test_wrong_use_is_one_sentence_before_training(metric, told):
    with pytest.raises(UserError, match=told):
        check_before_training(config_of((metric,)), Fill())


@pytest.mark.parametrize("name", ["known_pixels", "conditional_diversity", "label_accuracy"])
def test_numbers_of_a_condition_are_refused_without_one(name):
    config = config_of((name,), source="digits", size=8)
    config.evaluate.network = "digits"
    with pytest.raises(UserError, match=f"'{name}' needs .*so leave it out"):
        metrics_of(config, Fill(reads=()))


def test_a_label_that_the_data_do_not_have_is_said_before_training(halves):
    halves.evaluate.update(metrics=("classification_accuracy_score",), at_end=True)
    with pytest.raises(UserError, match="'classification_accuracy_score' reads the entry 'label' of held-out examples"):
        check_before_training(halves, Fill())
