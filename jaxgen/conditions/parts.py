"""Joins the conditions of a method into what its network is called with."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Key

from jaxgen.arrays import Array, Batch, MissingEntry, Params, Tree
from jaxgen.conditions.base import Condition, Known
from jaxgen.errors import UserError

# The inputs of a network that several conditions may give, and the axis along which theirs are joined.
AXES = {"vector": -1, "condition": -1, "context": 1, "context_mask": 1}


@dataclasses.dataclass(frozen=True)
class Parts:
    """Holds all conditions of a method.

    Attributes:
      own: conditions that fields of the method ask for, by name. They are dropped together.
      named: those of `config.method.parts`, by name. Each is dropped by itself.
      dropout: the share of training examples of which `own` are dropped.
      own_guide: whether guidance may use the nulls of `own`.
    """

    own: Mapping[str, Condition]
    named: Mapping[str, Condition]
    dropout: float = 0.0
    own_guide: bool = False

    @property
    def all(self) -> dict[str, Condition]:
        """Returns every condition; the order is that of names and not of the config, which a stored one loses."""
        return {**self.own, **dict(sorted(self.named.items()))}

    @property
    def guiding(self) -> dict[str, Condition]:
        """Returns those of which guidance may use the null."""
        return {k: part for k, part in self.all.items() if (self.own_guide if k in self.own else part.guides)}

    @property
    def learned(self) -> dict[str, Condition]:
        """Returns `{group: condition}` of the parameters that learn."""
        return {part.group(name): part for name, part in self.all.items() if part.learns}

    @property
    def frozen(self) -> dict[str, Condition]:
        """Returns `{group: condition}` of the parameters that are given."""
        groups = {part.group(name): part for name, part in self.all.items()}
        return {group: part for group, part in groups.items() if group and group not in self.learned}

    @property
    def entries(self) -> tuple[str, ...]:
        """Returns the entries of a batch that they read."""
        return tuple(dict.fromkeys(entry for part in self.all.values() for entry in part.entries))

    @property
    def gives(self) -> dict[str, str]:
        """Returns `{input of a network: a condition that gives it}`."""
        return {slot: name for name, part in self.all.items() for slot in part.gives}

    def check(self, groups: tuple[str, ...]) -> None:
        """Raises a UserError for conditions that do not go together; `groups` are names of the method's own groups."""
        givers: dict[str, str] = {}
        for name, part in self.all.items():
            if name in self.named and (name in self.own or (part.learns and part.group(name) in groups)):
                raise UserError(
                    f"config.method.parts.{name}: the method has a part or a group of parameters of the name "
                    f"{name if name in self.own else part.group(name)!r}; use another name."
                )
            for slot in part.gives:
                if slot in givers and slot not in AXES:
                    raise UserError(
                        f"config.method.parts.{givers[slot]} and config.method.parts.{name} both give {slot!r}, which "
                        "a network takes once: leave one of them out."
                    )
                givers[slot] = name
        self._check_shared()

    def _check_shared(self) -> None:
        """Raises a UserError where parts read one entry, which is dropped for all of them, and differ in dropout."""
        readers: dict[str, str] = {}
        for name, part in self.all.items():
            for entry in part.entries:
                first = readers.setdefault(entry, name)
                before = self.all[first]
                own = first in self.own and name in self.named
                wrong = part.dropout > 0 or part.knows_null if own else _nulls(part) != _nulls(before)
                advice = "leave its dropout and knows_null out" if own else "give them the same dropout and knows_null"
                if wrong:
                    raise UserError(
                        f"config.method.parts.{name} reads the entry {entry!r} as {first!r} does, and the null takes "
                        f"its place for both: {advice}."
                    )

    def init(self, keys: Mapping[str, Array], batch: Batch) -> Params:
        """Returns fresh parameters of the groups that learn, from one random key for each.

        Raises:
          MissingEntry: the batch lacks an entry that a part reads.
        """
        for name, part in self.named.items():
            _check_entries(name, part, batch)
        return {group: part.init(keys[group], batch) for group, part in self.learned.items()}

    def __call__(
        self, params: Params, batch: Batch, keys: Key[Array, " B"] | None, shape: tuple[int, ...], train: bool = False
    ) -> Batch:
        """Returns what all conditions give, joined; `params` are those of all groups, the rest is as for one condition.

        Raises:
          MissingEntry: the batch lacks an entry that a part reads.
          UserError: a part gives other inputs than it says, or contexts have different widths.
        """
        given = {}
        for name, part in self.all.items():
            group = part.group(name)
            own = None if keys is None else _folded(keys, name)
            if name in self.named:
                _check_entries(name, part, batch)
            given[name] = part(params[group] if group else {}, batch, own, shape, train)
            if given[name].keys() != {*part.gives}:
                raise UserError(
                    f"config.method.parts.{name} gives {', '.join(sorted(given[name]))}, and its `gives` says "
                    f"{', '.join(part.gives)}: correct {type(part).__name__}."
                )
        return joined(given)

    def known(self, batch: Batch) -> Known | None:
        """Returns what of the images is known, by the first condition that knows of any."""
        return next(filter(None, (part.known(batch) for part in self.all.values())), None)

    def null(self, batch: Batch) -> Batch:
        """Returns the entries that stand for no condition, of those that guidance may leave out."""
        return {entry: value for part in self.guiding.values() for entry, value in part.null(batch).items()}

    def dropped(self, batch: Batch, key: Array) -> Batch:
        """Returns a batch in which the null has taken the place of some examples' conditions, at random."""
        if self.dropout:
            null = {entry: value for part in self.own.values() for entry, value in part.null(batch).items()}
            batch = _mixed(batch, null, key, self.dropout)
        for name, part in sorted(self.named.items()):
            if part.dropout:
                _check_entries(name, part, batch)
                # of the entries and not of the name: parts that read the same are dropped together
                own = jax.random.fold_in(key, zlib.crc32(",".join(part.entries).encode()))
                batch = _mixed(batch, part.null(batch), own, part.dropout)
        return batch


def joined(given: Mapping[str, Batch]) -> Batch:
    """Returns what a network is called with, from what each condition gives.

    Vectors and the channels of pictures are concatenated, and the tokens of contexts follow each other; where one
    context has a mask, all tokens of those without one are valid.

    Raises:
      UserError: contexts of different widths.
    """
    slots: dict[str, dict[str, Array]] = {}
    for name, batch in given.items():
        for slot, array in batch.items():
            slots.setdefault(slot, {})[name] = array
    contexts = slots.get("context", {})
    widths = {name: x.shape[-1] for name, x in contexts.items()}
    if len({*widths.values()}) > 1:
        said = ", ".join(f"{width} of {name}" for name, width in widths.items())
        raise UserError(f"The contexts of config.method.parts have different widths, {said}: they must be equal.")
    if "context_mask" in slots and len(contexts) > 1:
        masks = slots["context_mask"]
        slots["context_mask"] = {
            name: masks[name] != 0 if name in masks else jnp.ones(x.shape[:2], bool) for name, x in contexts.items()
        }
    return {slot: _together(slot, list(arrays.values())) for slot, arrays in slots.items()}


def _together(slot: str, arrays: list[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else jnp.concatenate(arrays, AXES[slot])


def _nulls(part: Condition) -> tuple[Any, ...]:
    return part.entries, part.dropout, part.knows_null


def _folded(keys: Key[Array, " B"], name: str) -> Key[Array, " B"]:
    number = zlib.crc32(name.encode())
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def _mixed(batch: Batch, null: Mapping[str, Tree], key: Array, share: float) -> Batch:
    count = len(next(iter(null.values())))
    dropped = jax.random.bernoulli(key, share, (count,))

    def mixed(null: Array, value: Array) -> Array:
        return jnp.where(dropped.reshape(-1, *(1,) * (value.ndim - 1)), null, value)

    return {**batch, **{name: mixed(value, batch[name]) for name, value in null.items()}}


def _check_entries(name: str, part: Condition, batch: Batch) -> None:
    for entry in part.entries:
        if entry not in batch:
            there = ", ".join(sorted(batch)) or "nothing"
            picture = "condition" in part.gives
            made = f", or make it of the images by config.data.corruptions.{entry}" if picture else ""
            raise MissingEntry(
                f"config.method.parts.{name} reads the entry {entry!r} of a batch that has {there}: choose a "
                f"config.data.source that gives it, or name the one that it has in config.data.rename.{entry}{made}."
            )
