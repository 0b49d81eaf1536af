"""Teaches a text encoder new words: rows of its table of tokens learn (Gal et al. 2022, textual inversion)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp

from jaxgen.arrays import Array, Batch, Params, Tree
from jaxgen.errors import UserError
from jaxgen.methods.base import Method
from jaxgen.methods.grafts.base import Graft, Order, network_of, with_network


@dataclasses.dataclass(frozen=True)
class TokenRows(Graft):
    """Appends rows to the text encoder's table of tokens; they learn, and the encoder stays as it is.

    The new ids follow the encoder's vocabulary, and `word` stands for them in texts. The part is
    `{"rows": [count, width]}`, which starts as copies of the rows of words that are near to what is meant, or as the
    rows of a file.

    `jaxgen.runs` looks up `initial` by the tokenizer, and `count` and `word` in `file`, before this class is made.

    Raises:
      UserError: there is nothing to start from, or the count is negative.
    """

    initial_ids: tuple[int, ...] = ()  # the ids whose rows the new ones start from, in turn
    count: int = 0  # how many rows, for a concept of several vectors; 0 takes 1, or as many as a file has
    word: str = ""  # what stands for the rows in captions and prompts, such as "<cat-toy>"; a file brings its own
    initial: str = ""  # the known word, or words, that the rows start from, such as "cat"; in place of initial_ids
    file: str = ""  # a learned_embeds.safetensors of diffusers that the rows start from, in place of `initial`
    group: str = "text"  # the group of the text encoder
    learns: bool = True  # False: the weights stay those of the file, or of config.init_from.<name of the graft>
    order: ClassVar[Order] = "leaves"

    def __post_init__(self) -> None:
        if self.count < 0:
            raise UserError(f"A graft of token rows has a count of 1 or more, not {self.count}.")
        starts = [name for name in ("initial", "initial_ids", "file") if getattr(self, name)]
        if "file" in starts and len(starts) > 1:
            raise UserError(f"A graft of token rows starts from its file or from {starts[0]}, not from both.")
        if not starts and self.learns:
            raise UserError(
                "A graft of token rows needs a word to start from: set `initial`, such as initial='cat', or "
                "initial_ids, or a file."
            )

    @property
    def rows(self) -> int:
        """Returns how many rows are added."""
        return self.count or 1

    def start(self, name: str, key: Array, trained: Method, params: Params, batch: Batch) -> Tree:
        table = self._table(name, params)
        if not self.initial_ids:  # a plan of a run whose rows are a file's
            return {"rows": jnp.zeros((self.rows, table.shape[1]))}
        wrong = [i for i in self.initial_ids if not 0 <= i < len(table)]
        if wrong:
            raise UserError(
                f"config.method.grafts.{name}: the text encoder has {len(table)} tokens, and initial_ids names "
                f"{wrong[0]}."
            )
        ids = [self.initial_ids[i % len(self.initial_ids)] for i in range(self.rows)]
        return {"rows": table[jnp.asarray(ids)].astype(jnp.float32)}

    def loaded(self, name: str, part: Tree, trained: Method, params: Params, batch: Batch) -> Tree:
        source, (count, width) = self.file or f"config.init_from.{name}", part["rows"].shape
        wanted = self._table(name, params).shape[1]
        if width != wanted:
            raise UserError(
                f"{source} has vectors of {width} features, and the text encoder's have {wanted}: it belongs to "
                "another model."
            )
        if count != self.rows:
            raise UserError(
                f"{source} has {count} vectors, and config.method.grafts.{name} has {self.rows}: set its count."
            )
        return part

    def words(self, trained: Method) -> Mapping[str, tuple[int, ...]]:
        if not self.word:
            return {}
        first = network_of(trained, self.group).vocabulary
        return {self.word: tuple(range(first, first + self.rows))}

    def onto(self, trained: Method) -> Method:
        return with_network(trained, self.group, self._larger)

    def _table(self, name: str, params: Params) -> Array:
        if "embedding" not in params[self.group].get("token", {}):
            raise UserError(
                f"config.method.grafts.{name}: the group {self.group!r} has no table of tokens; name the group of a "
                "text encoder."
            )
        return params[self.group]["token"]["embedding"]

    def _larger(self, network: Any) -> Any:
        options: dict[str, Any] = {"vocabulary": network.vocabulary + self.rows}
        if getattr(network, "end", 0) is None:  # the end is the largest id, which a new word would become
            options["end"] = network.vocabulary - 1
        return network.clone(**options)

    def grafted(self, params: Params, part: Tree) -> Params:
        text = params[self.group]
        table = text["token"]["embedding"]
        rows = jnp.concatenate([table, part["rows"].astype(table.dtype)])
        return {**params, self.group: {**text, "token": {**text["token"], "embedding": rows}}}
