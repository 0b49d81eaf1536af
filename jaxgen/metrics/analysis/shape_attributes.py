"""Reads shape, colour and place from the pixels of images of `caption_shapes`, without a classifier."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Int, UInt8

from jaxgen.data.sources import caption_shapes, shapes
from jaxgen.errors import UserError

TURNS = np.linspace(-1, 1, 7) * shapes.TURN
RADIUS = shapes.RADII[caption_shapes.SIZE]
LEAST = 0.2  # of the distance between black and white: a pixel that is farther from black belongs to the object
UNIT_COLOURS = shapes.COLOURS / np.linalg.norm(shapes.COLOURS, axis=1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Shares of images whose attribute is the wanted one, in [0, 1].

    Attributes:
      shape, colour, position: the share for each attribute alone.
      all: the share of images in which all three are right.
    """

    shape: float
    colour: float
    position: float
    all: float


def read_attributes(images: UInt8[np.ndarray, "N H W 3"]) -> Int[np.ndarray, "N 3"]:
    """Returns int32 `[N, 3]`: shape, colour and position of uint8 images `[N, H, W, 3]`, numbered as in `shapes.NAMES`.

    The object is what is not black. Its colour is the one of nearest direction to its mean, its place the cell of its
    centroid, its shape the one whose outline, at that place and turned a little, overlaps it best. An image that is
    all black has -1 three times.

    Raises:
      UserError: for other arrays.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise UserError(f"Shapes are read from uint8 images [N, H, W, 3], not {images.dtype} of {images.shape}.")
    return np.array([_read(image.astype(np.float64)) for image in images], np.int32).reshape(-1, 3)


def agreement(
    images: UInt8[np.ndarray, "N H W 3"],
    wanted: Int[np.ndarray, "N 3"],
    tell: Callable[[UInt8[np.ndarray, "N H W 3"]], Int[np.ndarray, "N 3"]] = read_attributes,
) -> Agreement:
    """Returns how often uint8 images show the attributes int `[N, 3]` that they should, by what `tell` says of them."""
    right = tell(images) == wanted
    shape, colour, position = (float(x) for x in right.mean(axis=0))
    return Agreement(shape, colour, position, float(right.all(axis=1).mean()))


def _read(image: np.ndarray) -> tuple[int, int, int]:
    inside = np.linalg.norm(image, axis=2) > LEAST * 255 * np.sqrt(3)
    if not inside.any():
        return -1, -1, -1
    height, width = inside.shape
    side = min(height, width)
    rows, columns = np.nonzero(inside)
    centre_y, centre_x = rows.mean() + 0.5, columns.mean() + 0.5
    mean = image[inside].mean(axis=0)
    colour = int((UNIT_COLOURS @ mean).argmax())
    places = np.array(shapes.CENTRES)
    cell = [int(np.abs(places - at).argmin()) for at in (centre_y / height, centre_x / width)]

    y = ((np.arange(height) + 0.5 - centre_y) / (RADIUS * side))[:, None]
    x = ((np.arange(width) + 0.5 - centre_x) / (RADIUS * side))[None]
    overlap = [max(_overlap(distance, inside, x, y, turn) for turn in TURNS) for distance in shapes._DISTANCES]
    return int(np.argmax(overlap)), colour, 3 * cell[0] + cell[1]


def _overlap(distance, inside: np.ndarray, x: np.ndarray, y: np.ndarray, turn: float) -> float:
    """Returns the intersection over union of the object and a shape."""
    cos, sin = np.cos(turn), np.sin(turn)
    drawn = distance(cos * x + sin * y, cos * y - sin * x) <= 0
    return (drawn & inside).sum() / max((drawn | inside).sum(), 1)
