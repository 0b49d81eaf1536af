"""Classifies images without training for the classes: by the texts that say them (Radford et al. 2021, section 3.1)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from jaxgen.arrays import Array
from jaxgen.errors import UserError

AT_ONCE = 512  # texts that are encoded together


@dataclasses.dataclass(frozen=True)
class Prompts:
    """Holds the classes of one attribute, and the sentences that say them.

    The embedding of a class is the mean of the unit embeddings of its sentences, made unit again ("ensembling in the
    embedding space", section 3.1.4).

    Attributes:
      classes: the words of each class, in the order of its number.
      templates: sentences with "{}" in the place of a class; several are an ensemble.
      entry: the entry of held-out examples that has the true class, int [B] or [B, K].
      column: of that entry, where it has several.
      tokens: ids `[classes][templates][L]`, by the tokenizer of the data; a run fills them in.
    """

    classes: tuple[str, ...]
    templates: tuple[str, ...] = ("{}",)
    entry: str = "label"
    column: int = 0
    tokens: tuple[tuple[tuple[int, ...], ...], ...] = ()

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or not self.templates or any("{}" not in text for text in self.templates):
            raise UserError(
                "Prompts for zero-shot classification have two classes or more, and templates with {} in the place of "
                f"the class; they have {len(self.classes)} classes and the templates {self.templates!r}."
            )
        if self.column < 0:
            raise UserError(f"The column of prompts is {self.column}; it is at least 0.")

    def texts(self) -> list[list[str]]:
        """Returns the sentences of each class."""
        return [[template.replace("{}", name) for template in self.templates] for name in self.classes]

    def truth(self, values: Int[Array, "B *K"]) -> Int[Array, " B"]:
        """Returns the true classes, of the entry's values."""
        return values if values.ndim == 1 else values[:, self.column]

    def embeddings(self, encode: Callable[[Int[Array, "N L"]], Float[Array, "N D"]]) -> Float[Array, "C D"]:
        """Returns the unit embedding of each class.

        Args:
          encode: gives unit embeddings of texts.
        """
        return class_embeddings(jnp.asarray(self.tokens, jnp.int32), encode)


def class_embeddings(
    tokens: Int[Array, "C T L"], encode: Callable[[Int[Array, "N L"]], Float[Array, "N D"]]
) -> Float[Array, "C D"]:
    """Returns the unit embedding of each class: of the mean over its T texts' unit embeddings."""
    classes, templates, length = tokens.shape
    flat = tokens.reshape(-1, length)
    if len(flat) <= AT_ONCE:
        found = encode(flat)
    else:
        found = jax.lax.map(lambda row: encode(row[None])[0], flat, batch_size=AT_ONCE)
    mean = found.reshape(classes, templates, -1).mean(axis=1)
    return mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)


def tokens_of(prompts: Prompts, tokenize: Callable[[list[str]], np.ndarray]) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Returns the ids of every sentence, as `Prompts.tokens` has them."""
    return tuple(tuple(tuple(map(int, row)) for row in tokenize(texts)) for texts in prompts.texts())
