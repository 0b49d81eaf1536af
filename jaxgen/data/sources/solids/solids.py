"""`solids` shows solids in space, one or one upon another, each with a sentence, a camera and the depth of every pixel.

"a red cube", "an orange torus on a blue cone": 5 solids x 8 colours, alone or in pairs, on white. The light belongs to
the world and casts no shadow, so that a point of a surface has the same colour from everywhere. Sizes and a small turn
differ from example to example, and the camera goes around: any azimuth, and an elevation of 10 to 45 degrees, always
towards the origin. All is within the unit ball, z is up, and cameras are those of `jaxgen.geometry.cameras`. An example
is a pure function of its split and index, and the resolution only says how finely it is sampled. `solids` has as many
pairs as single solids, `solids:single` and `solids:pairs` have only those. Of the 40 single ones 4 and of the 1,600
pairs 162 are in no training image; every two attributes of a pair are together in some. Splits:

    train 60,000   test 1,000     combinations that are trained on; other examples
    unseen 1,000                  only those that are not

An example holds
    image       uint8 [H, W, 3]
    camera      float32 [25]
    mask        int32 [H, W]       0 where nothing is, 1 on the solid that is named first, 2 on the one that it is on
    depth       float32 [H, W, 1]  the distance from the camera along the ray of the pixel's centre; 0 where nothing is
    label       int32 []           the solid that is named first
    attributes  int32 [4]          solid and colour, and those of the one below, or -1; numbers into NAMES and COLOURS
    tokens      int32 [LENGTH]     the caption by `TOKENIZER`
    caption     str
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from jaxgen.data.source import Example, Request, Source, check_labels, check_split
from jaxgen.data.sources import shapes
from jaxgen.data.sources.solids.casting import NAMES, Placed, stacked
from jaxgen.data.word_tokenizer import WordTokenizer
from jaxgen.errors import UserError, nearest
from jaxgen.geometry import cameras

COLOURS = shapes.NAMES["colour"]
LENGTH = 8
TOKENIZER = WordTokenizer(("a", "an", "on", *COLOURS, *NAMES), LENGTH, strict=True)
# 1, 3, 7 and 9 have inverses modulo 10: of the combinations that differ in one attribute alone, one is held out at most
SINGLES = np.array(list(itertools.product(range(len(NAMES)), range(len(COLOURS)))), np.int32)
PAIRS = np.array([(*upper, *lower) for upper, lower in itertools.product(SINGLES, SINGLES)], np.int32)
HELD_OUT = {"single": (SINGLES @ [1, 3]) % 10 == 0, "pairs": (PAIRS @ [1, 3, 7, 9]) % 10 == 0}
COMBINATIONS = {"single": np.pad(SINGLES, ((0, 0), (0, 2)), constant_values=-1), "pairs": PAIRS}
KINDS = tuple(COMBINATIONS)
SPLITS = {"train": (0, 60_000), "test": (60_000, 1_000), "unseen": (61_000, 1_000)}  # first example, number of them
FIRST = 6_000_000  # number of the first row of random numbers; other sources use those before it

SIZES = {"single": 0.6, "pairs": 0.41}  # what fits into the unit ball with all its jitter
JITTER = 0.06  # a size's largest change, as a share
TURN = np.pi / 20
ELEVATIONS = (np.pi / 18, np.pi / 4)
AMBIENT, DIFFUSE = 0.55, 0.45
LIGHT = np.array((0.48, -0.36, 0.8))  # towards the light, of length one
SUPERSAMPLING = 3  # samples a pixel along each side; odd, so that one is at the centre


class Solids(Source):
    """Casts rays at solids that are functions of their number, when they are asked for.

    Raises:
      UserError: for an argument other than `single` and `pairs`, an unknown split, or channels that are not 3.
    """

    takes = None
    class_names = NAMES
    tokenizer = TOKENIZER

    def __init__(self, request: Request):
        super().__init__(request)
        if request.argument not in ("", *KINDS):
            raise UserError(
                f"config.data.source={request.source!r}: solids are 'solids:single' or 'solids:pairs', or both in "
                f"'solids'; {nearest(request.argument, KINDS)}"
            )
        check_split(self.name, self.split, tuple(SPLITS))
        if request.channels != 3:
            raise UserError(f"The solids are RGB, but config.data.channels is {request.channels}; set it to 3.")
        check_labels(self.name, np.arange(len(NAMES)), request.num_classes)
        self.num_classes = request.num_classes or len(NAMES)
        self.resolution = request.resolution
        self._kinds = (request.argument,) if request.argument else KINDS
        self._first, self._length = SPLITS[self.split]
        unseen = self.split == "unseen"
        self._combinations = {kind: COMBINATIONS[kind][HELD_OUT[kind] == unseen] for kind in self._kinds}

    def __len__(self) -> int:
        return self._length

    @property
    def captions(self) -> list[str]:
        """Returns the caption of every example; no image is drawn for them."""
        return [caption(self._attributes(self._draws(index))) for index in range(len(self))]

    def scene(self, index: int) -> tuple[Placed, ...]:
        """Returns the solids of an example, the one that is named first at first; see `render`."""
        draws = self._draws(index)
        return placed(self._attributes(draws), draws[4:8])

    def __getitem__(self, index: int) -> Example:
        draws = self._draws(index)
        attributes = self._attributes(draws)
        height, width = self.resolution
        elevation = ELEVATIONS[0] + (ELEVATIONS[1] - ELEVATIONS[0]) * draws[3]
        camera = cameras.look_at_origin(np.asarray(2 * np.pi * draws[2]), elevation, aspect=width / height)
        return {
            **render(placed(attributes, draws[4:8]), attributes[1::2], camera, self.resolution),
            "camera": camera.astype(np.float32),
            "label": attributes[0],
            "attributes": attributes,
            "tokens": self.tokenizer([caption(attributes)])[0],
            "caption": np.str_(caption(attributes)),
        }

    def _draws(self, index: int) -> np.ndarray:
        """Returns the random numbers of one example, `[16]` in [0, 1). Raises IndexError for one that is not there."""
        if not 0 <= index < self._length:
            raise IndexError(f"example {index} of {self._length}")
        return shapes._draws(FIRST + self._first + index)

    def _attributes(self, draws: np.ndarray) -> np.ndarray:
        known = self._combinations[self._kinds[int(draws[0] * len(self._kinds))]]
        return known[int(draws[1] * len(known))]


def placed(attributes: np.ndarray, draws: np.ndarray) -> tuple[Placed, ...]:
    """Returns one solid, or two of which the first rests on the second.

    Args:
      attributes: `[4]`.
      draws: `[4]` in [0, 1), which choose the sizes, then the turns.
    """
    names = [NAMES[number] for number in attributes[::2] if number >= 0]
    sizes = SIZES[KINDS[len(names) - 1]] * (1 + JITTER * (2 * draws[:2] - 1))
    turns = TURN * (2 * draws[2:] - 1)
    heights = stacked(names[0], sizes[0], names[1], sizes[1]) if len(names) == 2 else (0.0,)
    return tuple(Placed(*of) for of in zip(names, sizes, heights, turns, strict=False))


def render(
    solids: Sequence[Placed], colours: Sequence[int] | np.ndarray, camera: np.ndarray, resolution: tuple[int, int]
) -> Example:
    """Returns the picture of solids by a camera: `image`, `mask` and `depth`, as in an example.

    Args:
      solids: what is seen.
      colours: a number into COLOURS for each of them; more are passed over.
      camera: `[25]`; it is outside all solids.
      resolution: (height, width).
    """
    height, width = resolution
    samples, middle = SUPERSAMPLING, SUPERSAMPLING // 2
    origin, directions = cameras.rays(np.asarray(camera, np.float64), height * samples, width * samples)
    directions = directions.reshape(-1, 3)
    depth, image, mask = np.full(len(directions), np.inf), np.ones((len(directions), 3)), np.zeros(len(directions))
    for number, (solid, colour) in enumerate(zip(solids, colours, strict=False), 1):
        found, normals = solid.cast(origin, directions)
        front = np.flatnonzero(found < depth)
        depth[front], mask[front] = found[front], number
        light = AMBIENT + DIFFUSE * np.maximum(normals[front] @ LIGHT, 0)
        image[front] = light[:, None] * (shapes.COLOURS[colour] / 255)
    image = image.reshape(height, samples, width, samples, 3).mean((1, 3))
    centres = (slice(middle, None, samples), slice(middle, None, samples))
    depth = depth.reshape(height * samples, width * samples)[centres]
    return {
        "image": np.round(255 * image).astype(np.uint8),
        "mask": mask.reshape(height * samples, width * samples)[centres].astype(np.int32),
        "depth": np.where(np.isfinite(depth), depth, 0)[..., None].astype(np.float32),
    }


def caption(attributes: np.ndarray) -> str:
    """Returns the sentence of attributes `[4]`: "a red cube", or "a red cube on a blue sphere"."""
    parts = []
    for solid, colour in attributes.reshape(2, 2):
        if solid >= 0:
            parts.append(shapes.with_article(f"{COLOURS[colour]} {NAMES[solid]}"))
    return " on ".join(parts)


def tokens_of(captions: list[str]) -> np.ndarray:
    """Returns int32 `[N, LENGTH]` of captions, "" for none; raises a UserError that names an unknown word."""
    return TOKENIZER(captions)
