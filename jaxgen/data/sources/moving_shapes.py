"""`moving_shapes` shows videos of the objects of `concept_shapes`, each of which moves evenly along a straight line.

"a dotted red circle at the top left": one large object on black, drawn as in `concept_shapes`, in its vocabulary and
without its three concepts. The sentence says where the object is in the first frame. From there it moves towards
another of the nine places, by `SHORTEST` to `LONGEST` of a side and no farther than that place. Shape, colour, texture,
turn and shade stay. Splits: train 60,000, test 2,000.

`config.data.options.frames` is the number of frames, 8 by default. An example holds
    video       uint8 [F, H, W, 3]
    image       uint8 [H, W, 3]     its first frame
    outline     uint8 [F, H, W, 1]  the object's contour in each frame, black on white
    track       float32 [F, 2]      the object's place in each frame, as shares of the width and the height
    label       int32 []            the shape
    attributes  int32 [4]           shape, colour, texture and position in the first frame, numbers into `shapes.NAMES`
    caption     str
    tokens      int32 [LENGTH]      the caption by `TOKENIZER`
"""

from __future__ import annotations

import types

import numpy as np

from jaxgen.data.source import Example, Request
from jaxgen.data.sources import shapes
from jaxgen.data.sources.concept_shapes import ATTRIBUTES, BACKGROUND, KNOWN, SIZE, TOKENIZER, caption
from jaxgen.errors import UserError

SPLITS = {"train": (0, 60_000), "test": (60_000, 2_000)}  # first scene, number of scenes
SHORTEST, LONGEST = 0.15, 0.35  # the way, as a share of a side
PLACES = np.array([(x, y) for y in shapes.CENTRES for x in shapes.CENTRES])  # in the order of the positions


class MovingShapes(shapes.Shapes):
    """Shows objects of four attributes on their way.

    Raises:
      UserError: for an unknown split, or fewer than two frames.
    """

    splits = SPLITS
    tokenizer = TOKENIZER
    first_row = 3_000_000
    options = types.MappingProxyType({"frames": 8})

    def __init__(self, request: Request):
        super().__init__(request)
        self.frames = int(request.options.get("frames", self.options["frames"]))
        if self.frames < 2:
            raise UserError(f"config.data.options.frames is {self.frames}; a video has at least 2.")
        self.notes = (*self.notes, "each image is the first frame of its video")

    def __getitem__(self, index: int) -> Example:
        draws = self.draws(index)
        attributes = np.array(
            [KNOWN[key][int(draw * len(KNOWN[key]))] for key, draw in zip(ATTRIBUTES, draws, strict=False)], np.int32
        )
        shape, colour, texture, position = attributes
        sentence, track = caption(attributes, {}), way(int(position), draws, self.frames)
        drawn = np.array([shape, colour, position, SIZE, texture, BACKGROUND])
        frames = [shapes._render(drawn, draws, self.resolution, (x, y)) for x, y in track]
        return {
            "video": np.stack([frame["image"] for frame in frames]),
            "image": frames[0]["image"],
            "outline": np.stack([frame["outline"] for frame in frames]),
            "track": track.astype(np.float32),
            "label": attributes[0],
            "attributes": attributes,
            "caption": np.str_(sentence),
            "tokens": TOKENIZER([sentence])[0],
        }


def way(position: int, draws: np.ndarray, frames: int) -> np.ndarray:
    """Returns `[frames, 2]`, where an object is that starts at a position; `draws` is as in `shapes`."""
    start = np.array(shapes._centre(position, draws))
    others = np.delete(PLACES, position, axis=0)
    towards = others[int(draws[11] * len(others))] - start
    distance = np.linalg.norm(towards)
    length = min(SHORTEST + (LONGEST - SHORTEST) * draws[12], distance)
    return start + np.linspace(0, 1, frames)[:, None] * (towards * length / distance)
