"""`regions`: the hue tells the class and nothing else does, the style is the image's, and what is refused."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from jaxgen.data import open_source
from jaxgen.data.sources.regions import PATTERNS
from jaxgen.errors import UserError


def regions(argument="", split="train", resolution=32, channels=3, **options):
    name = f"regions:{argument}" if argument else "regions"
    return open_source(name, split, resolution=resolution, channels=channels, **options)


def test_the_hue_of_a_pixel_is_that_of_its_class():
    batch = regions("4").take(range(20))
    assert batch["mask"].shape == (20, 32, 32) and {*np.unique(batch["mask"])} == {0, 1, 2, 3}
    for image, mask in zip(batch["image"], batch["mask"], strict=True):
        hues = [colorsys.rgb_to_hsv(*pixel / 255)[0] for pixel in image.reshape(-1, 3)[::7]]
        off = np.abs((np.array(hues) - mask.ravel()[::7] / 4 + 0.5) % 1 - 0.5)
        assert off.max() < 0.02


def test_the_style_is_the_images_and_the_layout_does_not_tell_it():
    batch = regions().take(range(300))
    plain = batch["style"][:, 2] == PATTERNS.index("plain")
    for image, (brightness, saturation, pattern) in zip(batch["image"], batch["style"], strict=True):
        highest, lowest = image.max(axis=-1) / 255, image.min(axis=-1) / np.maximum(image.max(axis=-1), 1)
        assert abs(highest.max() - brightness) < 0.01 and np.abs(1 - lowest - saturation).max() < 0.02
        assert (np.ptp(highest) < 0.01) == (pattern == 0)
    assert 0.15 < plain.mean() < 0.35
    classes = np.array([mask[0, 0] for mask in batch["mask"]])
    brightness = [batch["style"][classes == c, 0].mean() for c in range(6)]
    assert np.ptp(brightness) < 0.15


def test_one_example_in_eight_has_one_class():
    counts = np.array([len(np.unique(mask)) for mask in regions().take(range(400))["mask"]])
    assert 0.08 < (counts == 1).mean() < 0.2 and counts.max() == 5


def test_an_example_is_a_function_of_split_and_number_at_any_resolution():
    again, finer, wide = regions()[7], regions(resolution=64)[7], regions(resolution=(16, 48))[7]
    np.testing.assert_array_equal(again["image"], regions()[7]["image"])
    assert (finer["mask"][::2, ::2] == again["mask"]).mean() > 0.9 and wide["mask"].shape == (16, 48)
    assert not np.array_equal(again["mask"], regions(split="test")[7]["mask"])
    with pytest.raises(IndexError):
        regions(split="val")[5_000]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"argument": "1"}, "a number of classes from 2 to 12"),
        ({"argument": "many"}, "a number of classes from 2 to 12"),
        ({"split": "training"}, "training"),
        ({"channels": 1}, "config.data.channels is 1; set it to 3"),
        ({"num_classes": 6}, "set config.data.num_classes to 0"),
    ],
)
def test_what_it_is_not_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        regions(**options)
