"""`caption_shapes` shows 8 shapes x 8 colours x 9 places on black, each with a sentence; some are held out.

"a red circle at the top left", "an orange star at the centre". One large untextured object; its exact place, turn and
shade differ from scene to scene, as in `shapes`, by whose code it is drawn. Of the 576 combinations, 58 are in no
training image, spread so that every pair of shape, colour and place is in some. Splits:

    train 60,000   test 1,000     combinations that are trained on; other scenes
    unseen 1,000                  only those that are not

`caption_shapes:phrases` shows the same scenes and says the same of them in one of several ways, which the scene's
number chooses: "a red circle at the top left", "there is a crimson disc in the upper left corner". Each attribute has
two phrases, each of which means one of its values, and sentences have one of four patterns (`PHRASES`, `PATTERNS`).

`caption_shapes:halves` and `caption_shapes:quarters` show the same scenes as `caption_shapes`, with a mask of the parts
of the object: 0 on the ground, then the parts above and below its centre, of quarters first the left and then the right
one of each. Colours do not tell parts, and no outline lies between them.

An example holds
    image       uint8 [H, W, 3]
    label       int32 []        the shape
    attributes  int32 [3]       shape, colour and position, numbers into `shapes.NAMES`
    tokens      int32 [LENGTH]  the caption by `TOKENIZER`; [PHRASED_LENGTH] by `PHRASE_TOKENIZER` for phrases
    caption     str
    mask        int32 [H, W]    the parts; of halves and quarters alone
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping

import numpy as np

from jaxgen.data.source import Example, Request
from jaxgen.data.sources import shapes
from jaxgen.data.word_tokenizer import WordTokenizer, split
from jaxgen.errors import UserError

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

PHRASED = "phrases"  # the argument of the source whose captions are phrased
PARTS = ("halves", "quarters")  # the arguments of the source whose examples have masks
PHRASES: dict[str, tuple[tuple[str, ...], ...]] = {  # of each value, in the order of NAMES
    "shape": (
        ("circle", "disc"), ("square", "box"), ("triangle", "trigon"), ("diamond", "rhombus"),
        ("cross", "plus"), ("star", "pentagram"), ("heart", "valentine"), ("ring", "hoop"),
    ),
    "colour": (
        ("red", "crimson"), ("orange", "tangerine"), ("yellow", "golden"), ("green", "emerald"),
        ("cyan", "turquoise"), ("blue", "cobalt"), ("purple", "violet"), ("pink", "rosy"),
    ),
    "position": (
        ("at the top left", "in the upper left corner"), ("at the top", "along the upper edge"),
        ("at the top right", "in the upper right corner"), ("at the left", "on the left side"),
        ("at the centre", "in the middle"), ("at the right", "on the right side"),
        ("at the bottom left", "in the lower left corner"), ("at the bottom", "along the lower edge"),
        ("at the bottom right", "in the lower right corner"),
    ),
}  # fmt: skip
PATTERNS = (
    "{a colour} {shape} {position}",
    "there is {a colour} {shape} {position}",
    "{position} there is {a colour} {shape}",
    "{a shape} that is {colour} {position}",
)
PHRASED_LENGTH = 16
PHRASE_TOKENIZER = WordTokenizer(
    tuple(dict.fromkeys(word for text in (
        "a an there is that", *itertools.chain.from_iterable(itertools.chain.from_iterable(PHRASES.values())),
    ) for word in split(text))),
    PHRASED_LENGTH,
    strict=True,
)  # fmt: skip


class CaptionShapes(shapes.Shapes):
    """Shows scenes of three attributes, the same in all but shape, colour and position.

    Raises:
      UserError: for an argument other than `phrases`, `halves` and `quarters`.
    """

    takes = None
    splits = SPLITS

    def __init__(self, request: Request):
        self.tokenizer = self.tokenizer_of(request.argument)
        super().__init__(request)

    @staticmethod
    def tokenizer_of(argument: str = "", root: str | None = None) -> WordTokenizer:
        """Returns the tokenizer of the captions; raises UserError for an unknown argument."""
        if argument not in ("", PHRASED, *PARTS):
            raise UserError(
                f"The data source 'caption_shapes:{argument}' is unknown; it is 'caption_shapes', "
                f"'caption_shapes:{PHRASED}' for captions in several phrases, or 'caption_shapes:{PARTS[0]}' or "
                f"':{PARTS[1]}' for masks of parts."
            )
        return PHRASE_TOKENIZER if argument == PHRASED else TOKENIZER

    @property
    def captions(self) -> list[str]:
        """Returns the caption of every example; no image is drawn for them."""
        return [self._told(self.draws(index))[1] for index in range(len(self))]

    def _told(self, draws: np.ndarray) -> tuple[np.ndarray, str]:
        """Returns the attributes and the caption of an example's random numbers."""
        combinations = UNSEEN if self.split == "unseen" else SEEN
        attributes = combinations[int(draws[0] * len(combinations))]
        phrases = self.request.argument == PHRASED
        return attributes, phrased(attributes, draws[1:5]) if phrases else caption(attributes)

    def __getitem__(self, index: int) -> Example:
        draws, kind = self.draws(index), self.request.argument
        attributes, text = self._told(draws)
        parts = {"mask": parts_of(attributes, draws, self.resolution, kind)} if kind in PARTS else {}
        return {
            "image": draw(attributes, draws, self.resolution),
            **parts,
            "label": attributes[0],
            "attributes": attributes,
            "tokens": self.tokenizer([text])[0],
            "caption": np.str_(text),
        }


def draw(attributes: np.ndarray, draws: np.ndarray, resolution: tuple[int, int]) -> np.ndarray:
    """Returns uint8 `[H, W, 3]` of shape, colour and position; `draws` is as in `shapes`."""
    return shapes._render(np.array([*attributes, SIZE, TEXTURE, BACKGROUND]), draws, resolution)["image"]


def parts_of(attributes: np.ndarray, draws: np.ndarray, resolution: tuple[int, int], kind: str) -> np.ndarray:
    """Returns int32 `[H, W]`: 0 on the ground, and on the object the number of its part, of `halves` or `quarters`."""
    scene = np.array([*attributes, SIZE, TEXTURE, BACKGROUND])
    inside = shapes._render(scene, draws, resolution)["mask"]
    (height, width), (share_x, share_y) = resolution, shapes._centre(int(attributes[2]), draws)
    below = np.arange(height)[:, None] + 0.5 > share_y * height
    if kind == PARTS[0]:
        return (inside * (1 + below)).astype(np.int32)
    right = np.arange(width)[None] + 0.5 > share_x * width
    return (inside * (1 + 2 * below + right)).astype(np.int32)


def caption(attributes: np.ndarray) -> str:
    """Returns the sentence of shape, colour and position."""
    shape, colour, position = (NAMES[key][value] for key, value in zip(ATTRIBUTES, attributes, strict=True))
    return shapes.with_article(f"{colour} {shape} at the {position}")


def phrased(attributes: np.ndarray, draws: np.ndarray) -> str:
    """Returns one of the sentences of shape, colour and position.

    Args:
      draws: `[4]` in [0, 1), which choose the phrase of each attribute, and the pattern.
    """
    named = zip(ATTRIBUTES, attributes, draws[:3], strict=True)
    phrases = {key: PHRASES[key][value][int(draw * len(PHRASES[key][value]))] for key, value, draw in named}
    return sentence(PATTERNS[int(draws[3] * len(PATTERNS))], phrases)


def sentence(pattern: str, phrases: Mapping[str, str]) -> str:
    """Returns a pattern of `PATTERNS` with the phrase of each attribute; "{a colour}" is a phrase with its article."""
    text = pattern
    for key, phrase in phrases.items():
        text = text.replace(f"{{a {key}}}", shapes.with_article(phrase)).replace(f"{{{key}}}", phrase)
    return text


def sentences(attributes: np.ndarray) -> list[str]:
    """Returns every sentence of `caption_shapes:phrases` that says shape, colour and position."""
    of_each = [PHRASES[key][value] for key, value in zip(ATTRIBUTES, attributes, strict=True)]
    chosen = [dict(zip(ATTRIBUTES, phrases, strict=True)) for phrases in itertools.product(*of_each)]
    return [sentence(pattern, phrases) for pattern in PATTERNS for phrases in chosen]


def read_caption(text: str) -> np.ndarray:
    """Returns int32 `[3]`: the shape, colour and position that a text says; -1 where it says none, or several."""
    words = " ".join(split(text))
    found = []
    for key in ATTRIBUTES:
        places: dict[int, tuple[int, int]] = {}  # {where a phrase begins: (its length, value)}, of the longest there
        for value, phrases in enumerate(PHRASES[key]):
            for phrase in phrases:
                for start in re.finditer(rf"\b{phrase}\b", words):
                    places[start.start()] = max(places.get(start.start(), (0, 0)), (len(phrase), value))
        values = {value for _, value in places.values()}
        found.append(values.pop() if len(values) == 1 else -1)
    return np.array(found, np.int32)


def tokens_of(captions: list[str]) -> np.ndarray:
    """Returns int32 `[N, LENGTH]` of captions, "" for none; raises a UserError that names an unknown word."""
    return TOKENIZER(captions)
