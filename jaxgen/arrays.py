"""Names the types of the arrays and trees that the rooms pass to each other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax

from jaxgen.errors import UserError

Array = jax.Array
Tree = Any  # nested dicts of arrays, such as the parameters of one network
Params = dict[str, Tree]  # the parameters of each group: {"generator": ..., "discriminator": ...}
Memory = dict[str, Tree]  # carried from step to step without gradients: {"generator": batch statistics, ...}
Batch = dict[str, Array]  # arrays with a leading batch axis: {"image": [B, H, W, C], "label": [B], ...}
Metrics = dict[str, Array]  # scalars to be logged


class MissingEntry(UserError):
    """This error is raised for an entry that a method reads and a batch does not have."""


@jax.tree_util.register_pytree_with_keys_class
class Entries(dict[str, Any]):
    """This batch says in a sentence which entry a method reads and the data do not have."""

    def __missing__(self, name: str) -> Any:
        raise MissingEntry(
            f"The method reads the entry {name!r} of a batch that has {', '.join(sorted(self)) or 'none'}: choose a "
            "config.data.source that gives it or, if only sampling or panels lack it, name it in the method's "
            "conditions or panel_inputs."
        )

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
        names = tuple(sorted(self))
        return [(jax.tree_util.DictKey(name), self[name]) for name in names], names

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], values: Iterable[Any]) -> Entries:
        return cls(zip(names, values, strict=True))
