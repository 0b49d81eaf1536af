"""Names the types of the arrays and trees that the rooms pass to each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jaxgen.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8

Array = jax.Array
Tree = Any  # nested dicts of arrays, such as the parameters of one network
Params = dict[str, Tree]  # the parameters of each group: {"generator": ..., "discriminator": ...}
Memory = dict[str, Tree]  # carried from step to step without gradients: {"generator": batch statistics, ...}
Batch = dict[str, Array]  # arrays with a leading batch axis: {"image": [B, H, W, C], "label": [B], ...}
Metrics = dict[str, Array]  # scalars to be logged


def to_uint8(images: Float[Array, "*shape"]) -> UInt8[Array, "*shape"]:
    """Clips float images to [-1, 1] and rounds them to the nearest of 256 levels: the inverse of
    `jaxgen.data.transforms.to_float`."""
    levels = (jnp.clip(images.astype(jnp.float32), -1, 1) + 1) * 127.5
    return jnp.round(levels).astype(jnp.uint8)


def carry_over(old: Tree, new: Tree) -> Tree:
    """Returns `new` with each leaf replaced by that of `old` which has its path and shape; other leaves are copied.

    A method that grows keeps by it what an earlier stage learned: a layer that has its name and shape in both trees.
    """
    kept = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(old)[0]}

    def choose(path: jax.tree_util.KeyPath, leaf: Array) -> Array:
        before = kept.get(jax.tree_util.keystr(path))
        return before if before is not None and before.shape == leaf.shape else jnp.copy(leaf)

    return jax.tree_util.tree_map_with_path(choose, new)


class MissingEntry(UserError):
    """This error is raised for an entry that a method reads and a batch does not have."""


def check_entries(batch: Mapping[str, Any], names: Iterable[str], method: str, source: str) -> None:
    """Raises a MissingEntry for the first of `names` that a batch lacks; `source` says which data have it."""
    missing = [name for name in names if name not in batch]
    if missing:
        raise MissingEntry(
            f"{method} reads the entry {missing[0]!r}, and the data have {', '.join(sorted(batch))}: choose {source}, "
            f"or name the entry that it has in config.data.rename.{missing[0]}."
        )


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
