"""Gives a source's entries other names: `config.data.rename = section(image="style", condition="image")`.

Each key is the new name of an entry and its value the old one. All are taken from the old names at once, so that two
entries can change places. An entry that is not named keeps its name, unless another one takes it: then it is left out,
which is told at the start of training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxgen.data.source import Example, Examples, Request, Source, check_labels
from jaxgen.errors import UserError, nearest

KEY = "config.data.rename"


class Renamed(Source):
    """Gives another source's examples with the names that `request.rename` says.

    Raises:
      UserError: an old name is none of the source's, two new names are of one old entry, or a label or a caption is
        taken from an entry of another kind.
    """

    config_name = ""  # it is made of a source, and no config names it

    def __init__(self, request: Request, inner: Source):
        super().__init__(request)
        self._inner, self._old = inner, dict(request.rename)
        first = inner[0]
        _check_names(self._old, inner.name, list(first))
        _check_kinds(self._old, first)
        self._lost = tuple(name for name in first if name in self._old and name not in self._old.values())
        if self._labels_change:
            self.num_classes = request.num_classes
        else:
            self.num_classes, self.class_names = inner.num_classes, inner.class_names
        if inner.arrays is not None:
            self.arrays = self._renamed(inner.arrays)
        self.notes = (*inner.notes, *self._told())

    @property
    def _labels_change(self) -> bool:
        return "label" in {*self._old, *self._old.values()}

    @property
    def captions(self) -> list[str] | None:
        """Returns all captions where they can be had without reading an image, else None."""
        known = getattr(self._inner, "captions", None)
        return known if "caption" not in {*self._old, *self._old.values()} else None

    def __len__(self) -> int:
        return len(self._inner)

    def __getitem__(self, index: int) -> Example:
        return self._renamed(self._inner[index])

    def take(self, indices: Sequence[int]) -> Examples:
        return super().take(indices) if self.arrays is not None else self._renamed(self._inner.take(indices))

    def draw(self, indices: Sequence[int], seeds: Sequence[tuple[int, ...]]) -> Examples:
        fixed = self.arrays is not None
        return self.take(indices) if fixed else self._renamed(self._inner.draw(indices, seeds))

    def column(self, entry: str) -> np.ndarray:
        if entry not in self._old and entry in self._old.values():
            raise KeyError(entry)
        return self._inner.column(self._old.get(entry, entry))

    def _renamed(self, entries: Mapping[str, Any]) -> dict[str, Any]:
        kept = {name: values for name, values in entries.items() if name not in self._old.values()}
        found = {**kept, **{new: entries[old] for new, old in self._old.items()}}
        if self._labels_change and "label" in found:
            check_labels(self.name, np.atleast_1d(found["label"]), self.request.num_classes)
        return found

    def _told(self) -> list[str]:
        names = ", ".join(f"{new} is its {old}" for new, old in sorted(self._old.items()))
        return [f"renamed: {names}", *(f"its own {name} is left out" for name in self._lost)]


def _check_names(old: Mapping[str, str], source: str, known: Sequence[str]) -> None:
    for new, name in old.items():
        if name not in known:
            raise UserError(
                f"{KEY}.{new}={name!r}: the examples of {source!r} have no such entry; {nearest(name, known)}"
            )
    for name in known:
        several = [f"{KEY}.{new}" for new, of in old.items() if of == name]
        if len(several) > 1:
            raise UserError(f"{' and '.join(several)} are both {name!r}; an entry has one name, so remove one of them.")


def _check_kinds(old: Mapping[str, str], example: Example) -> None:
    """Checks what `jaxgen.data.sources.open_source` does not: a label is one whole number, and a caption a text."""
    for new, wanted in (("label", "one whole number"), ("caption", "one text")):
        value = np.asarray(example[old[new]]) if new in old else None
        if value is not None and (value.ndim or value.dtype.kind not in {"label": "iu", "caption": "U"}[new]):
            kind = "text" if value.dtype.kind == "U" else str(value.dtype)
            raise UserError(f"{KEY}.{new}={old[new]!r} is {kind} of shape {list(value.shape)}, not {wanted}.")
