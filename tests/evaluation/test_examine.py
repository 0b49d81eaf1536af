"""What the numbers saw: copies beside their originals, the best before the worst, and the files of both."""

from __future__ import annotations

import json

import numpy as np
import pytest
from etils import epath
from PIL import Image

from jaxgen.config import defaults, from_json, to_json
from jaxgen.data import open_source
from jaxgen.errors import UserError
from jaxgen.evaluation import examine as module
from jaxgen.evaluation.evaluate import Evaluation
from jaxgen.evaluation.examine import examine
from jaxgen.evaluation.record import write_scores
from jaxgen.metrics.compare import compare_samples
from jaxgen.metrics.distributions.memorisation import nearest_distances
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.networks.digits import Digits
from jaxgen.report.images import grid
from jaxgen.report.page import write_report


@pytest.fixture(scope="module", name="images")
def _evidence():
    train, test = (open_source("digits", split, 8, 1, 10).arrays for split in ("train", "test"))
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), np.uint8)
    samples = np.concatenate([train["image"][:8], noise])  # eight copies, then noise
    return EvaluationImages(samples, None, train["image"], test["image"], test["label"], "digits/test (500)")


def test_a_copy_stands_beside_its_original(images):
    figures = {figure.name: figure for figure in examine(images, Digits())}
    assert list(figures) == ["nearest_pixels", "nearest_features", "most_real", "least_real"]
    for name in ("nearest_pixels", "nearest_features"):
        scores = np.array(figures[name].scores)
        assert len(scores) == module.SHOWN
        np.testing.assert_allclose(scores[:8], 0, atol=1e-9)
        assert scores[8:].min() > 1
        # the first row begins with the copy and its original
        row = grid(np.repeat(images.samples[:1], 2, 0), columns=2, pad=2)
        np.testing.assert_array_equal(figures[name].picture[: row.shape[0], : row.shape[1]], row)


def test_distances_are_those_of_memorisation(images):
    scores = examine(images, None)[0].scores
    np.testing.assert_allclose(scores, nearest_distances(images.samples[: module.SHOWN], images.train))


def test_the_best_are_better_than_the_worst(images):
    figures = {figure.name: figure for figure in examine(images, Digits())}
    best, worst = (figures[name].scores for name in ("most_real", "least_real"))
    assert best == sorted(best, reverse=True) and worst == sorted(worst)
    assert min(best[:8]) > max(worst[:6])
    first = figures["least_real"].picture[1:49, 1:49, :1]
    assert any((first == image.repeat(6, 0).repeat(6, 1)).all() for image in images.samples[8:])


def test_without_a_network_there_are_pixels_alone(images):
    assert [figure.name for figure in examine(images, None)] == ["nearest_pixels"]


def test_the_pictures_are_written_with_the_numbers_and_shown(images, tmp_path):
    workdir = epath.Path(tmp_path)
    scores = compare_samples(images, ("frechet", "precision"), Digits())
    write_scores(workdir, Evaluation(scores, images, Digits()), 8, 256)
    seen = json.loads((tmp_path / "samples" / "seen.json").read_text())
    for name, entry in seen.items():
        with Image.open(tmp_path / "samples" / f"{name}.png") as picture:
            assert min(picture.size) > 40
        assert entry["text"].endswith(".") and entry["scores"]
    page = write_report(workdir).read_text()
    assert 'id="seen"' in page and "What the numbers saw" in page
    assert all(entry["title"] in page for entry in seen.values())
    (tmp_path / "samples" / "most_real.png").unlink()
    with pytest.raises(UserError, match="most_real"):
        write_report(workdir)


def test_numbers_that_saw_no_images_leave_no_pictures(tmp_path):
    write_scores(epath.Path(tmp_path), Evaluation({}), 8, 256)
    assert not (tmp_path / "samples").exists() and (tmp_path / "metrics.json").exists()


def test_a_config_from_before_the_weights_can_be_evaluated():
    config = defaults()
    old = json.loads(to_json(config))
    del old["evaluate"]["weights"], old["evaluate"]["resize"], old["evaluate"]["network"]
    assert from_json(json.dumps(old)).evaluate.to_dict() == config.evaluate.to_dict()
