"""`scenes` shows one to three textured shapes on a patterned ground, with the exact class of every pixel.

It is for segmentation: shapes and ground have the same colours and textures, so that neither tells what a pixel belongs
to. `scenes` has all shapes of `jaxgen.data.sources.shapes`, and `scenes:circle,star` only those, as classes in that
order. Each scene is a pure function of its split and index, at any resolution. Splits: train 60,000, val 5,000, test
10,000.

An example holds
    image  uint8 [H, W, 3]
    mask   int32 [H, W]    0 on the ground, 1 + the number of the shape that is in front elsewhere
    label  int32 []        the number of the shape that covers the others
"""

from __future__ import annotations

import numpy as np

from jaxgen.data.source import Example, Request, Source, check_labels, check_split
from jaxgen.data.sources import shapes
from jaxgen.errors import UserError, nearest

SPLITS = {"train": (0, 60_000), "test": (60_000, 10_000), "val": (70_000, 5_000)}  # first scene, number of scenes
FIRST = 1_000_000  # number of the first row of random numbers; `shapes` uses those before it
ROWS = 5  # rows of 16 random numbers in a scene: two for the ground and its colours, one for each object
PALETTE = np.concatenate([shapes.COLOURS, shapes.BACKGROUNDS])
RADII = (0.17, 0.29)  # of the image's shorter side
CENTRES = (0.2, 0.8)  # of each side
TURN = np.pi / 10
PERIODS = (0.1, 0.25)  # of the ground's pattern, of the shorter side
DARK = 0.6  # what a texture leaves of an object's colour
SUPERSAMPLING = 2  # samples a pixel along each side


class Scenes(Source):
    """Draws scenes that are functions of their number, when they are asked for.

    Raises:
      UserError: for a shape that does not exist or is named twice, an unknown split, or channels that are not 3.
    """

    takes = None

    def __init__(self, request: Request):
        super().__init__(request)
        known = shapes.NAMES["shape"]
        names = tuple(request.argument.split(",")) if request.argument else known
        for name in names:
            if name not in known or names.count(name) > 1:
                why = "names a shape twice" if name in known else f"has no shape {name!r}; {nearest(name, known)}"
                raise UserError(f"config.data.source={request.source!r} {why}")
        check_split(self.name, self.split, tuple(SPLITS))
        if request.channels != 3:
            raise UserError(f"The scenes are RGB, but config.data.channels is {request.channels}; set it to 3.")
        check_labels(self.name, np.arange(len(names)), request.num_classes)
        self.num_classes = request.num_classes or len(names)
        self.class_names = names
        self._shapes = np.array([known.index(name) for name in names])
        self._first, self._length = SPLITS[self.split]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < self._length:
            raise IndexError(f"scene {index} of {self._length}")
        first = FIRST + ROWS * (self._first + index)
        return _scene(np.stack([shapes._draws(first + i) for i in range(ROWS)]), self._shapes, self.request.resolution)


def _scene(draws: np.ndarray, known: np.ndarray, resolution: tuple[int, int]) -> Example:
    """Returns one example from its random numbers `[ROWS, 16]`; `known` are the shapes of the classes."""
    (height, width), side, samples = resolution, min(resolution), SUPERSAMPLING
    # Lengths are in units of the shorter side, x to the right and y down.
    x = ((np.arange(width * samples, dtype=np.float32) + 0.5) / (samples * side))[None, :]
    y = ((np.arange(height * samples, dtype=np.float32) + 0.5) / (samples * side))[:, None]
    colours = PALETTE[np.argsort(draws[0, : len(PALETTE)])]
    image = _ground(draws[1], colours[:2], x, y)
    mask, label = np.zeros(image.shape[:2], np.int32), 0
    for row, colour in zip(draws[2 : 3 + int(3 * draws[1, 0])], colours[2:], strict=False):
        label = int(row[0] * len(known))
        u, v = _own(row, x, y, (width / side, height / side))
        inside = shapes._DISTANCES[known[label]](u, v) <= 0
        texture = int(4 * row[5])
        dark = shapes._pattern(texture, u, v) if texture else np.zeros_like(inside)
        image = np.where(inside[..., None], np.where(dark[..., None], DARK * colour, colour), image)
        mask = np.where(inside, label + 1, mask)
    blocks = image.reshape(height, samples, width, samples, 3)
    return {
        "image": shapes._quantise(blocks.mean((1, 3), dtype=np.float32)),
        # the class of the sample just below and to the right of the pixel's centre
        "mask": mask[samples // 2 :: samples, samples // 2 :: samples].astype(np.int32),
        "label": np.int32(label),
    }


def _ground(row: np.ndarray, colours: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns the ground, float32 `[h, w, 3]`: one colour, or a pattern of two."""
    texture, angle = int(4 * row[1]), np.pi * row[2]
    period = PERIODS[0] + (PERIODS[1] - PERIODS[0]) * row[3]
    u = (np.cos(angle) * x + np.sin(angle) * y) * (0.6 / period) + row[4]
    v = (np.cos(angle) * y - np.sin(angle) * x) * (0.6 / period) + row[5]
    second = shapes._pattern(texture, u, v) if texture else np.zeros(u.shape, bool)
    return np.where(second[..., None], colours[1], colours[0]).astype(np.float32)


def _own(row: np.ndarray, x: np.ndarray, y: np.ndarray, size: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the coordinates of an object, in which it lies within the unit circle."""
    low, high = CENTRES
    centre_x, centre_y = (size[i] * (low + (high - low) * row[1 + i]) for i in range(2))
    radius = RADII[0] + (RADII[1] - RADII[0]) * row[3]
    turn = TURN * (2 * row[4] - 1)
    cos, sin = np.float32(np.cos(turn) / radius), np.float32(np.sin(turn) / radius)
    x, y = x - np.float32(centre_x), y - np.float32(centre_y)
    return cos * x + sin * y, cos * y - sin * x
