"""`shapes` draws coloured shapes of which everything is known, at any resolution.

Each scene shows one object on a plain ground. Each scene is a pure function of its split and index: what it shows, and
the small changes of place, turn and shade, come from a hash of the scene's number, and the resolution only says how
finely it is sampled. Splits, with scene numbers that never overlap:

    train 60,000   test 10,000   val 5,000    every combination of attributes
    seen 60,000                               never `colour = (shape + 3) % 8`
    unseen 5,000                              only those: each shape and each colour known, the pair new

An example holds
    image       uint8 [H, W, 3]
    label       int32 []         the shape
    attributes  int32 [6]        numbers into NAMES, in the order of ATTRIBUTES
    caption     str              "a large striped red circle at the top left on a grey background"
    mask        int32 [H, W]     1 on the object, 0 on the ground
    outline     uint8 [H, W, 1]  its contour, black on white
    style       uint8 [H, W, 3]  the same scene as a chalk drawing on a board: another palette, and a contour
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from jaxgen.data.source import Example, Request, Source, check_labels, check_split
from jaxgen.errors import UserError

ATTRIBUTES = ("shape", "colour", "position", "size", "texture", "background")
NAMES = {
    "shape": ("circle", "square", "triangle", "diamond", "cross", "star", "heart", "ring"),
    "colour": ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink"),
    "position": ("top left", "top", "top right", "left", "centre", "right", "bottom left", "bottom", "bottom right"),
    "size": ("small", "medium", "large"),
    "texture": ("plain", "striped", "dotted", "checked"),
    "background": ("white", "grey", "black", "beige", "navy"),
}
# Colours in the order of NAMES, RGB in [0, 255].
COLOURS = np.array(
    [
        (220, 30, 30),
        (245, 140, 20),
        (240, 225, 40),
        (40, 160, 50),
        (50, 210, 220),
        (40, 70, 225),
        (130, 40, 170),
        (250, 130, 190),
    ],
    np.float32,
)
BACKGROUNDS = np.array([(250, 250, 250), (128, 128, 128), (12, 12, 12), (225, 205, 170), (25, 35, 85)], np.float32)
BOARDS = np.array([(60, 95, 80), (45, 70, 60), (20, 35, 30), (80, 75, 45), (30, 45, 75)], np.float32)
CHALK = np.array((245, 245, 235), np.float32)
RADII = (0.13, 0.18, 0.24)  # of the image's shorter side
CENTRES = (0.27, 0.5, 0.73)  # of each side
JITTER = 0.025  # of each side, so that a centre stays in its third
TURN = np.pi / 20
LINE = 0.02  # half the width of a contour, of the shorter side
SUPERSAMPLING = 3  # samples a pixel along each side

SPLITS = {
    "train": (0, 60_000),
    "test": (60_000, 10_000),
    "val": (70_000, 5_000),
    "seen": (75_000, 60_000),
    "unseen": (135_000, 5_000),
}  # first scene, number of scenes


class Shapes(Source):
    """Draws scenes that are functions of their number, when they are asked for.

    At 32 pixels it draws several thousand a second and core.

    Raises:
      UserError: for an unknown split, channels that are not 3, or more classes than there are shapes.
    """

    takes: ClassVar[str | None] = ""
    class_names = NAMES["shape"]
    splits: dict[str, tuple[int, int]] = SPLITS
    first_row: ClassVar[int] = 0  # number of scene 0's row of random numbers; sources of other scenes have rows apart

    def __init__(self, request: Request):
        super().__init__(request)
        check_split(self.name, self.split, tuple(self.splits))
        if request.channels != 3:
            raise UserError(f"The shapes are RGB, but config.data.channels is {request.channels}; set it to 3.")
        check_labels(self.name, np.arange(len(NAMES["shape"])), request.num_classes)
        self.num_classes = request.num_classes or len(NAMES["shape"])
        self.resolution = request.resolution
        self._first, self._length = self.splits[self.split]

    def __len__(self) -> int:
        return self._length

    def draws(self, index: int) -> np.ndarray:
        """Returns the random numbers of one scene, `[16]` in [0, 1). Raises IndexError for one that is not there."""
        if not 0 <= index < self._length:
            raise IndexError(f"scene {index} of {self._length}")
        return _draws(self.first_row + self._first + index)

    def __getitem__(self, index: int) -> Example:
        draws = self.draws(index)
        attributes = _attributes(draws, self.split)
        return {
            "label": attributes[0],
            "attributes": attributes,
            "caption": np.str_(caption(attributes)),
            **_render(attributes, draws, self.resolution),
        }


def caption(attributes: np.ndarray) -> str:
    """Returns the sentence of one scene; it leaves "plain" out."""
    words = {key: NAMES[key][value] for key, value in zip(ATTRIBUTES, attributes, strict=True)}
    texture = "" if words["texture"] == "plain" else words["texture"] + " "
    return (
        f"a {words['size']} {texture}{words['colour']} {words['shape']} at the {words['position']} "
        f"on a {words['background']} background"
    )


def with_article(words: str) -> str:
    """Returns words with "a" or "an" before them."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _draws(scene: int) -> np.ndarray:
    """Returns 16 numbers in [0, 1) that depend on the scene's number alone (SplitMix64, Steele et al. 2014)."""
    golden = np.uint64(0x9E3779B97F4A7C15)
    z = (np.arange(16, dtype=np.uint64) + np.uint64(16 * scene + 1)) * golden
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)) * 2.0**-53


def _attributes(draws: np.ndarray, split: str) -> np.ndarray:
    counts = np.array([len(NAMES[key]) for key in ATTRIBUTES])
    attributes = (draws[:6] * counts).astype(np.int32)
    held_out = (attributes[0] + 3) % 8
    if split == "unseen":
        attributes[1] = held_out
    if split == "seen":
        attributes[1] = (held_out + 1 + int(draws[1] * 7)) % 8
    return attributes


def _centre(position: int, draws: np.ndarray) -> tuple[float, float]:
    """Returns where the object is, as shares of the width and the height."""
    return (
        CENTRES[position % 3] + JITTER * (2 * draws[6] - 1),
        CENTRES[position // 3] + JITTER * (2 * draws[7] - 1),
    )


def _render(
    attributes: np.ndarray, draws: np.ndarray, resolution: tuple[int, int], centre: tuple[float, float] | None = None
) -> Example:
    shape, colour, position, size, texture, background = (int(a) for a in attributes)
    height, width = resolution
    side = min(height, width)
    radius = RADII[size]
    # Lengths are in units of the shorter side, x to the right and y down.
    share_x, share_y = _centre(position, draws) if centre is None else centre
    centre_x, centre_y = share_x * width / side, share_y * height / side
    turn = TURN * (2 * draws[8] - 1)

    # Only the box around the object is sampled.
    line = max(LINE, 0.5 / side)
    columns = _extent(centre_x, radius + line, side, width)
    rows = _extent(centre_y, radius + line, side, height)
    samples = SUPERSAMPLING
    x = (np.arange(columns.start * samples, columns.stop * samples, dtype=np.float32) + 0.5) / (samples * side)
    y = (np.arange(rows.start * samples, rows.stop * samples, dtype=np.float32) + 0.5) / (samples * side)
    x = ((x - np.float32(centre_x)) / np.float32(radius))[None, :]
    y = ((y - np.float32(centre_y)) / np.float32(radius))[:, None]
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    x, y = cos * x + sin * y, cos * y - sin * x
    distance = _DISTANCES[shape](x, y)

    inside = distance <= 0
    cover = _pixels(inside)
    contour = _pixels(np.abs(distance) <= np.float32(line / radius))
    dark = _pixels(inside & _pattern(texture, x, y)) if texture else np.zeros_like(cover)

    paint = COLOURS[colour] * np.float32(0.9 + 0.1 * draws[9])
    ground = BACKGROUNDS[background] * np.float32(0.94 + 0.06 * draws[10])
    pastel = 0.5 * (paint + CHALK)

    image = np.broadcast_to(ground, (height, width, 3)).copy()
    patch = image[rows, columns]
    patch += cover * (paint - ground) - dark * (0.4 * paint)
    style = np.broadcast_to(BOARDS[background], (height, width, 3)).copy()
    patch = style[rows, columns]
    patch += cover * (pastel - BOARDS[background]) - dark * (0.35 * pastel)
    patch += contour * (CHALK - patch)
    outline = np.full((height, width, 1), 255, np.float32)
    outline[rows, columns] *= 1 - contour
    mask = np.zeros((height, width), np.int32)
    mask[rows, columns] = cover[..., 0] >= 0.5
    return {
        "image": _quantise(image),
        "mask": mask,
        "outline": _quantise(outline),
        "style": _quantise(style),
    }


def _extent(centre: float, reach: float, side: int, pixels: int) -> slice:
    return slice(max(0, int((centre - reach) * side)), min(pixels, int(np.ceil((centre + reach) * side))))


def _pixels(samples: np.ndarray) -> np.ndarray:
    """Turns bool [S h, S w] into the share of true samples in each pixel, float32 [h, w, 1]."""
    s = SUPERSAMPLING
    counts = samples.view(np.uint8)
    counts = sum(counts[i::s] for i in range(1, s)) + counts[::s]
    counts = sum(counts[:, j::s] for j in range(1, s)) + counts[:, ::s]
    return counts[..., None] * np.float32(1 / (s * s))


def _quantise(values: np.ndarray) -> np.ndarray:
    return (values + np.float32(0.5)).astype(np.uint8)


def _pattern(texture: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns where the texture is dark, in the object's own units (its radius is 1)."""
    if texture == 1:
        return np.mod(y, 0.6) < 0.3
    if texture == 2:
        return (np.mod(x, 0.6) - 0.3) ** 2 + (np.mod(y, 0.6) - 0.3) ** 2 < 0.19**2
    return (np.mod(x, 0.7) < 0.35) ^ (np.mod(y, 0.7) < 0.35)


# Distances to the outline, negative inside, near it of slope about 1; every shape within the unit circle.


def _circle(x, y):
    return np.hypot(x, y) - np.float32(0.95)


def _square(x, y):
    return np.maximum(np.abs(x), np.abs(y)) - np.float32(0.7)


def _triangle(x, y):
    slanted = np.float32(np.sqrt(0.75)) * np.abs(x) - np.float32(0.5) * y
    return np.maximum(slanted, y) - np.float32(0.5)


def _diamond(x, y):
    # Corners at (0.62, 0) and (0, 1).
    return (np.abs(x) / np.float32(0.62) + np.abs(y) - 1) / np.float32(np.hypot(1 / 0.62, 1))


def _cross(x, y):
    x, y = np.abs(x), np.abs(y)
    return np.maximum(np.minimum(x, y) - np.float32(0.28), np.maximum(x, y) - np.float32(0.95))


def _star(x, y):
    # Folded into the half of one point, between its tip and the next inner corner.
    fifth = 2 * np.pi / 5
    angle = np.arctan2(x, -y)
    angle = np.abs(angle - np.round(angle / fifth) * fifth)
    radius = np.hypot(x, y)
    inner = 0.45 * np.array([np.cos(np.pi / 5), np.sin(np.pi / 5)])
    normal = np.array([inner[1], 1 - inner[0]]) / np.hypot(inner[1], 1 - inner[0])
    u, v = np.float32(normal[0]), np.float32(normal[1])
    return (radius * np.cos(angle) - 1) * u + radius * np.sin(angle) * v


def _heart(x, y):
    # A square on its corner and a circle on each of its two upper sides, moved to have its centroid at 0.
    y = y - np.float32(0.233)
    side, x = 1.05, np.abs(x)
    centre = np.float32(side / np.sqrt(8))
    lobe = np.hypot(x - centre, y + centre) - np.float32(side / 2)
    body = (x + np.abs(y)) * np.float32(np.sqrt(0.5)) - np.float32(side / 2)
    return np.minimum(lobe, body)


def _ring(x, y):
    return np.abs(np.hypot(x, y) - np.float32(0.7)) - np.float32(0.25)


_DISTANCES = (_circle, _square, _triangle, _diamond, _cross, _star, _heart, _ring)
