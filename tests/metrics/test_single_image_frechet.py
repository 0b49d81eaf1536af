"""The features without weights, and the distance of samples to one picture, beside its shuffled blocks."""

from __future__ import annotations

import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.metrics.base import RunFacts
from jaxgen.metrics.distributions.single_image import SingleImageFrechet, shuffled
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.networks.filters import Filters

RANDOM = np.random.default_rng(0)


def waves(count, height=24, width=32):
    """Smooth waves, each with another phase: one texture."""
    rows, columns = np.indices((height, width))
    phases = RANDOM.uniform(0, 2 * np.pi, (count, 1, 1))
    levels = 127.5 + 100 * np.sin(0.5 * columns + 0.3 * rows + phases)
    return np.repeat(np.round(levels)[..., None], 3, axis=-1).astype(np.uint8)


def test_the_features_tell_colours_and_edges_apart():
    network = Filters((1.0, 2.0))
    flat = np.full((1, 12, 14, 3), 255, np.uint8)
    flat[..., 1] = 0
    found = network.maps(flat)
    assert found.shape == (1, 12, 14, 18)
    for i in range(2):
        colours = np.broadcast_to([1.0, -1.0, 1.0], (1, 12, 14, 3))
        np.testing.assert_allclose(found[..., 9 * i : 9 * i + 3], colours, atol=1e-6)
        np.testing.assert_allclose(found[..., 9 * i + 3 : 9 * i + 9], 0, atol=1e-6)
    ramp = np.repeat(np.arange(0, 140, 10, dtype=np.uint8)[None, None, :, None], 12, axis=1)
    middle = Filters((2.0,)).maps(ramp)[0, 6, 7]
    np.testing.assert_allclose(middle[1:], [0, 2 * 10 / 127.5], atol=1e-3)  # the slope a pixel, times the width
    np.testing.assert_allclose(network(flat).features, found.mean((1, 2)), atol=1e-6)
    with pytest.raises(UserError, match="widths above 0"):
        Filters((0.0,))


def test_shuffled_blocks_are_the_picture_s_own():
    picture = RANDOM.integers(0, 256, (10, 13, 3), np.uint8)
    mixed = shuffled(picture, 4, 1)
    assert (mixed != picture).any() and (mixed[8:] == picture[8:]).all() and (mixed[:, 12:] == picture[:, 12:]).all()

    def blocks(image):
        return sorted(image[i : i + 4, j : j + 4].tobytes() for i in (0, 4) for j in (0, 4, 8))

    assert blocks(mixed) == blocks(picture)


def images(samples, train):
    return EvaluationImages(samples, None, train, train, None, "a picture")


@pytest.mark.slow
def test_the_same_texture_is_nearer_than_shuffled_blocks_and_another_one_is_not():
    made = waves(5)
    picture, metric = made[:1], SingleImageFrechet(block=6)
    found = metric.scores(images(made[1:], picture), Filters())
    same = found["single_image_frechet_filters"]
    assert same.value < same.noise / 3 and same.floor == 0 and same.n == 4
    assert found["single_image_diversity_filters"].value > 0.5
    other = metric.scores(images(made[1:].swapaxes(1, 2)[:, :24].repeat(2, axis=2)[:, :, :32], picture), Filters())
    assert other["single_image_frechet_filters"].value > 2 * same.value
    small = metric.scores(images(made[1:, ::2, ::2], picture), Filters())["single_image_frechet_filters"]
    assert small.value < small.noise and "Of 12x16 pixels" in small.note  # of a scale that is not the last
    twice = metric.scores(images(np.repeat(picture, 2, axis=0), picture), Filters())
    assert abs(twice["single_image_frechet_filters"].value) < 1e-6
    assert twice["single_image_diversity_filters"].value == 0


def test_what_cannot_be_compared_with_one_picture_is_refused():
    made = waves(2)
    with pytest.raises(UserError, match="learned from 2"):
        SingleImageFrechet().scores(images(made, made), Filters())
    with pytest.raises(UserError, match="in another ratio"):
        SingleImageFrechet().scores(images(made[:, :12], made[:1]), Filters())
    with pytest.raises(UserError, match="smaller block"):
        SingleImageFrechet(block=20).check_run(RunFacts((24, 32, 3), "image", "a picture", frozenset(), ()))
    with pytest.raises(UserError, match="block=0"):
        SingleImageFrechet(block=0)
