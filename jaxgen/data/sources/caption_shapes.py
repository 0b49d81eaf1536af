"""`caption_shapes` shows 8 shapes x 8 colours x 9 places on black, each with a sentence; some are held out.

"a red circle at the top left", "an orange star at the centre". One large untextured object; its exact place, turn and
shade differ from scene to scene, as in `shapes`, by whose code it is drawn. Of the 576 combinations, 58 are in no
training image, spread so that every pair of shape, colour and place is in some. Splits:

    train 60,000   test 1,000     combinations that are trained on; other scenes
    unseen 1,000                  only those that are not

An example holds
    image       uint8 [H, W, 3]
    label       int32 []        the shape
    attributes  int32 [3]       shape, colour and position, numbers into `shapes.NAMES`
    tokens      int32 [LENGTH]  the caption by `TOKENIZER`
    caption     str
"""

from __future__ import annotations

import itertools

import numpy as np

from jaxgen.data.source import Example
from jaxgen.data.sources import shapes
from jaxgen.data.word_tokenizer import WordTokenizer

ATTRIBUTES = ("shape", "colour", "position")
NAMES = {key: shapes.NAMES[key] for key in ATTRIBUTES}
SIZE, TEXTURE, BACKGROUND = 2, 0, 2  # large, plain, black
LENGTH = 8
TOKENIZER = WordTokenizer(
    ("a", "an", "at", "the", *NAMES["colour"], *NAMES["shape"], "top", "bottom", "left", "right", "centre"),
    LENGTH,
    strict=True,
)
COMBINATIONS = np.array(list(itertools.product(*(range(len(NAMES[key])) for key in ATTRIBUTES))), np.int32)
# 1, 3 and 7 have inverses modulo 10: of the combinations that differ in one attribute alone, one is held out at most
HELD_OUT = (COMBINATIONS @ np.array([1, 3, 7])) % 10 == 0
SEEN, UNSEEN = COMBINATIONS[~HELD_OUT], COMBINATIONS[HELD_OUT]
SPLITS = {"train": (0, 60_000), "test": (60_000, 1_000), "unseen": (61_000, 1_000)}  # first scene, number of scenes


class CaptionShapes(shapes.Shapes):
    """Shows scenes of three attributes, the same in all but shape, colour and position."""

    splits = SPLITS
    tokenizer = TOKENIZER

    def __getitem__(self, index: int) -> Example:
        draws = self.draws(index)
        combinations = UNSEEN if self.split == "unseen" else SEEN
        attributes = combinations[int(draws[0] * len(combinations))]
        sentence = caption(attributes)
        return {
            "image": draw(attributes, draws, self.resolution),
            "label": attributes[0],
            "attributes": attributes,
            "tokens": TOKENIZER([sentence])[0],
            "caption": np.str_(sentence),
        }


def draw(attributes: np.ndarray, draws: np.ndarray, resolution: tuple[int, int]) -> np.ndarray:
    """Returns uint8 `[H, W, 3]` of shape, colour and position; `draws` is as in `shapes`."""
    return shapes._render(np.array([*attributes, SIZE, TEXTURE, BACKGROUND]), draws, resolution)["image"]


def caption(attributes: np.ndarray) -> str:
    """Returns the sentence of shape, colour and position."""
    shape, colour, position = (NAMES[key][value] for key, value in zip(ATTRIBUTES, attributes, strict=True))
    return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {shape} at the {position}"


def tokens_of(captions: list[str]) -> np.ndarray:
    """Returns int32 `[N, LENGTH]` of captions, "" for none; raises a UserError that names an unknown word."""
    return TOKENIZER(captions)
