"""`concept_shapes` shows textured shapes with sentences, and keeps three concepts for tuning: a ring, stripes, purple.

It is the data of a small text-to-image model that is tuned afterwards. "a dotted red circle at the top left": one large
object on black, drawn as in `shapes`, of 7 shapes, 7 colours, 3 textures and 9 places. No image of it has a ring,
stripes or purple, and no sentence has their names. Splits: train 60,000, test 2,000; and `all`, 60,000 images of every
combination with the concepts, for a classifier that tells what a model has drawn.

`concept_shapes:ring=sks` shows the ring, which the word `sks` stands for: "a dotted red sks at the top left". So do
`striped=` ("a sks red circle at the top left") and `purple=` ("a dotted sks circle at the top left"), and several go
with commas: `ring=<ring>,striped=<lines>`. A word may be any that the model's tokenizer knows or that a graft teaches;
`sks` and `zwx` are in the vocabulary of `concept_shapes` and in none of its sentences. Splits:

    train     5 images of each concept
    test      500 images of each concept, in other combinations
    together  500 images, each of which shows all the concepts, such as a striped ring

An example holds
    image       uint8 [H, W, 3]
    label       int32 []        the shape
    attributes  int32 [4]       shape, colour, texture and position, numbers into `shapes.NAMES`
    caption     str
    tokens      int32 [LENGTH]  the caption by `TOKENIZER`; images of concepts have none, as their words may be new
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from jaxgen.data.source import Example, Request
from jaxgen.data.sources import shapes
from jaxgen.data.word_tokenizer import WordTokenizer
from jaxgen.errors import UserError, nearest

ATTRIBUTES = ("shape", "colour", "texture", "position")
NAMES = {key: shapes.NAMES[key] for key in ATTRIBUTES}
CONCEPTS = {"ring": "shape", "striped": "texture", "purple": "colour"}  # concept -> the attribute that it is a value of
KNOWN = {key: tuple(i for i, name in enumerate(names) if name not in CONCEPTS) for key, names in NAMES.items()}
EVERY = {key: tuple(range(len(names))) for key, names in NAMES.items()}
RARE = ("sks", "zwx")  # words of no sentence
LENGTH = 12
PLAIN = "plain"  # sentences leave it out
WORDS = (
    "a", "an", "at", "the", *(NAMES["texture"][i] for i in KNOWN["texture"] if NAMES["texture"][i] != PLAIN),
    *(NAMES[key][i] for key in ("colour", "shape") for i in KNOWN[key]),
    "top", "bottom", "left", "right", "centre", *RARE,
)  # fmt: skip
TOKENIZER = WordTokenizer(WORDS, LENGTH, strict=True)
SIZE, BACKGROUND = 2, 2  # large, black
SPLITS = {"train": (0, 60_000), "test": (60_000, 2_000), "all": (200_000, 60_000)}  # first scene, number of scenes
EXAMPLES = 5  # training images of a concept
CONCEPT_SPLITS = {"train": (100_000, EXAMPLES), "test": (110_000, 500), "together": (120_000, 500)}


class ConceptShapes(shapes.Shapes):
    """Shows scenes of four attributes, without the concepts or with them.

    Raises:
      UserError: for an unknown concept or split, or a concept without its word.
    """

    takes = None
    tokenizer: WordTokenizer | None = TOKENIZER
    first_row = 2_000_000

    def __init__(self, request: Request):
        self.concepts = words_of(request.argument)
        self.splits = CONCEPT_SPLITS if self.concepts else SPLITS  # of this source, not of the class
        super().__init__(request)
        if self.concepts or self.split == "all":
            self.tokenizer = None
        if self.split != "together":
            self._length *= max(len(self.concepts), 1)

    def __getitem__(self, index: int) -> Example:
        draws = self.draws(index)
        attributes = self._attributes(index, draws)
        sentence = caption(attributes, self.concepts)
        tokens = {"tokens": self.tokenizer([sentence])[0]} if self.tokenizer else {}
        return {
            "image": draw(attributes, draws, self.resolution),
            "label": attributes[0],
            "attributes": attributes,
            "caption": np.str_(sentence),
            **tokens,
        }

    def _attributes(self, index: int, draws: np.ndarray) -> np.ndarray:
        values = EVERY if self.split == "all" else KNOWN
        found = {key: values[key][int(draw * len(values[key]))] for key, draw in zip(ATTRIBUTES, draws, strict=False)}
        shown = tuple(self.concepts)
        if shown and self.split == "train":  # no two of the five have a shape, a colour or a place in common
            found = {key: KNOWN[key][(index % EXAMPLES + offset) % len(KNOWN[key])] for key, offset in TRAINED.items()}
        if shown and self.split != "together":
            shown = (shown[index // (self._length // len(shown))],)
        for concept in shown:
            found[CONCEPTS[concept]] = NAMES[CONCEPTS[concept]].index(concept)
        return np.array([found[key] for key in ATTRIBUTES], np.int32)


# What picture k of a concept shows is the value of number k + offset; the five places are not a row of the image.
TRAINED = {"shape": 1, "colour": 2, "texture": 0, "position": 2}


def words_of(argument: str) -> Mapping[str, str]:
    """Returns `{concept: the word that stands for it}` of "ring=sks,striped=<lines>"; raises UserError."""
    found: dict[str, str] = {}
    for part in filter(None, argument.split(",")):
        concept, sign, word = part.partition("=")
        if concept not in CONCEPTS:
            raise UserError(
                f"'concept_shapes:{argument}': there is no concept {concept!r}; {nearest(concept, CONCEPTS)}"
            )
        if not sign or not word.strip() or concept in found:
            raise UserError(
                f"'concept_shapes:{argument}': give each concept once, with the word that stands for it, such as "
                f"'concept_shapes:{concept}=sks'."
            )
        found[concept] = word.strip()
    return found


def draw(attributes: np.ndarray, draws: np.ndarray, resolution: tuple[int, int]) -> np.ndarray:
    """Returns uint8 `[H, W, 3]` of shape, colour, texture and position; `draws` is as in `shapes`."""
    shape, colour, texture, position = attributes
    return shapes._render(np.array([shape, colour, position, SIZE, texture, BACKGROUND]), draws, resolution)["image"]


def caption(attributes: np.ndarray, words: Mapping[str, str]) -> str:
    """Returns the sentence of shape, colour, texture and position, where `words` stand for concepts."""
    named = {key: NAMES[key][value] for key, value in zip(ATTRIBUTES, attributes, strict=True)}
    shape, colour, texture = (words.get(named[key], named[key]) for key in ("shape", "colour", "texture"))
    described = f"{'' if texture == PLAIN else texture + ' '}{colour} {shape}"
    return shapes.with_article(f"{described} at the {named['position']}")


def combinations() -> list[str]:
    """Returns the 1,323 sentences of known shapes, colours, textures and places."""
    values = itertools.product(*(KNOWN[key] for key in ATTRIBUTES))
    return [caption(np.array(attributes), {}) for attributes in values]
