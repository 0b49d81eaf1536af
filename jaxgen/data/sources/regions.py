"""`regions` shows plain regions whose hue alone tells their class, under a light and a pattern that the image shares.

It is for models that draw pictures of layouts: the mask says all of the hues and nothing of the style, so that one
layout has many true pictures, and what a model drew can be read back pixel by pixel (`layout_iou`). `regions` has six
classes, and `regions:4` four. One example in eight has one class everywhere: a normalisation removes what is constant
in an image, so that these show whether a network forgets its layout. Each example is a pure function of its split and
index, at any resolution. Splits: train 60,000, val 5,000, test 10,000.

An example holds
    image  uint8 [H, W, 3]
    mask   int32 [H, W]    the class of each pixel
    style  float32 [3]     the brightness and the saturation of the image, and the number of its pattern in `PATTERNS`
"""

from __future__ import annotations

import colorsys

import numpy as np

from jaxgen.data.source import Example, Request, Source, check_split
from jaxgen.data.sources import shapes
from jaxgen.errors import UserError

SPLITS = {"train": (0, 60_000), "test": (60_000, 10_000), "val": (70_000, 5_000)}  # first example, number of examples
FIRST = 5_000_000  # number of the first row of random numbers; other sources use those before it
ROWS = 3  # rows of 16 random numbers in an example: the style and the number of regions, their places, their classes
CLASSES = 6  # where the source is given no number
MOST_CLASSES = 12
REGIONS = (2, 5)  # how many regions an example has, except for those with one
ALONE = 1 / 8  # share of the examples with one class everywhere
PATTERNS = ("plain", "striped", "dotted", "checked")
BRIGHTNESS, SATURATION = (0.5, 1.0), (0.5, 1.0)
DARK = 0.7  # what a pattern leaves of the brightness
PERIOD = 0.25  # of the pattern, of the image's shorter side


class Regions(Source):
    """Draws layouts and their pictures, when they are asked for.

    Raises:
      UserError: a number of classes that is none or too large, an unknown split, or channels that are not 3.
    """

    takes = None

    def __init__(self, request: Request):
        super().__init__(request)
        text = request.argument or str(CLASSES)
        if not text.isdecimal() or not 2 <= int(text) <= MOST_CLASSES:
            raise UserError(
                f"config.data.source={request.source!r}: give a number of classes from 2 to {MOST_CLASSES}, such as "
                "regions:6."
            )
        check_split(self.name, self.split, tuple(SPLITS))
        if request.channels != 3:
            raise UserError(f"The regions are RGB, but config.data.channels is {request.channels}; set it to 3.")
        if request.num_classes:
            raise UserError("The regions have classes of pixels, and no labels; set config.data.num_classes to 0.")
        self.colours = hues(int(text))
        self._first, self._length = SPLITS[self.split]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < self._length:
            raise IndexError(f"example {index} of {self._length}")
        first = FIRST + ROWS * (self._first + index)
        row, places, order = (shapes._draws(first + i) for i in range(ROWS))
        low, high = REGIONS
        count = 1 if row[3] < ALONE else low + int((high - low + 1) * row[4])
        classes = np.argsort(order[: len(self.colours)])[:count]
        mask = _layout(places, classes, self.request.resolution)
        pattern = int(len(PATTERNS) * row[2])
        brightness, saturation = (low + (high - low) * row[i] for i, (low, high) in enumerate((BRIGHTNESS, SATURATION)))
        light = brightness * np.where(_pattern(pattern, mask.shape), DARK, 1.0)[..., None]
        image = 255 * light * (1 - saturation * (1 - self.colours[mask]))
        return {
            "image": (image + 0.5).astype(np.uint8),
            "mask": mask,
            "style": np.array([brightness, saturation, pattern], np.float32),
        }


def hues(classes: int) -> np.ndarray:
    """Returns float64 `[classes, 3]`, the pure colours of the classes, whose hues are evenly spaced."""
    return np.array([colorsys.hsv_to_rgb(i / classes, 1, 1) for i in range(classes)])


def _layout(places: np.ndarray, classes: np.ndarray, resolution: tuple[int, int]) -> np.ndarray:
    """Returns the class of the nearest of some points at each pixel, int32 `[H, W]`."""
    # in units of the shorter side, x to the right and y down
    y, x = ((np.arange(side) + 0.5) / min(resolution) for side in resolution)
    points = places[: 2 * len(classes)].reshape(-1, 2) * np.array(resolution) / min(resolution)
    distances = [np.square(y[:, None] - row) + np.square(x - column) for row, column in points]
    return classes[np.argmin(distances, axis=0)].astype(np.int32)


def _pattern(number: int, shape: tuple[int, ...]) -> np.ndarray:
    """Returns where the pattern is dark, bool `[H, W]`."""
    if not number:
        return np.zeros(shape, bool)
    y, x = ((np.arange(side, dtype=np.float32) + 0.5) * (0.6 / PERIOD / min(shape)) for side in shape)
    return np.broadcast_to(shapes._pattern(number, x[None], y[:, None]), shape)
