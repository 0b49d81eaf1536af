"""Teaches a text encoder new words: rows of its table of tokens learn (Gal et al. 2022, textual inversion)."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp

from jaxgen.arrays import Array, Batch, Params, Tree
from jaxgen.errors import UserError
from jaxgen.methods.base import Method
from jaxgen.methods.grafts.base import Graft, Order, with_network


@dataclasses.dataclass(frozen=True)
class TokenRows(Graft):
    """Appends rows to the text encoder's table of tokens; they learn, and the encoder stays as it is.

    The new ids follow the encoder's vocabulary. The part is `{"rows": [count, width]}`, which starts as copies of the
    rows of `initial_ids`, the tokens of a word that is near to what is meant.

    Raises:
      UserError: there is no initial token, or the counts do not fit.
    """

    initial_ids: tuple[int, ...]  # the ids whose rows the new ones start from, in turn
    count: int = 1  # how many rows, for a concept of several vectors
    group: str = "text"  # the group of the text encoder
    learns: bool = True  # False: the weights are config.init_from.<name of the graft>
    order: ClassVar[Order] = "leaves"

    def __post_init__(self) -> None:
        if not self.initial_ids or self.count < 1:
            raise UserError("A graft of token rows needs initial_ids, the tokens that it starts from, and a count.")

    def start(self, name: str, key: Array, trained: Method, params: Params, batch: Batch) -> Tree:
        if "embedding" not in params[self.group].get("token", {}):
            raise UserError(
                f"config.method.grafts.{name}: the group {self.group!r} has no table of tokens; name the group of a "
                "text encoder."
            )
        table = params[self.group]["token"]["embedding"]
        wrong = [i for i in self.initial_ids if not 0 <= i < len(table)]
        if wrong:
            raise UserError(
                f"config.method.grafts.{name}: the text encoder has {len(table)} tokens, and initial_ids names "
                f"{wrong[0]}."
            )
        ids = [self.initial_ids[i % len(self.initial_ids)] for i in range(self.count)]
        return {"rows": table[jnp.asarray(ids)].astype(jnp.float32)}

    def onto(self, trained: Method) -> Method:
        return with_network(trained, self.group, self._larger)

    def _larger(self, network: Any) -> Any:
        options: dict[str, Any] = {"vocabulary": network.vocabulary + self.count}
        if getattr(network, "end", 0) is None:  # the end is the largest id, which a new word would become
            options["end"] = network.vocabulary - 1
        return network.clone(**options)

    def grafted(self, params: Params, part: Tree) -> Params:
        text = params[self.group]
        table = text["token"]["embedding"]
        rows = jnp.concatenate([table, part["rows"].astype(table.dtype)])
        return {**params, self.group: {**text, "token": {**text["token"], "embedding": rows}}}
