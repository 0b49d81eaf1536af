"""What a data source is: a length and examples, each one a dict of numpy arrays.

Dtypes carry meaning everywhere in jaxgen: **uint8 is an image** `[H, W, C]` (and becomes float32 in [-1, 1]
on the device), int32 is a label, mask or other count, float32 is a number, and a string is text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxgen.errors import UserError, nearest

# A set whose decoded examples take no more than this many bytes is kept in memory.
MEMORY_LIMIT = 512 * 2**20

Example = dict[str, Any]


class Source:
    """A finite, ordered set of examples of one split.

    Held in memory, `arrays` maps each name to all its values stacked, and the methods below do all that is
    needed. A source that reads or renders its examples leaves `arrays` None and overrides `__len__` and
    `__getitem__`, and `take` where reading many at once is cheaper than one by one.

    Attributes:
      name: the source string, such as "digits" or "folder:/data/cats".
      split: the split's name.
      num_classes: number of classes that `label` may take, 0 without labels.
      class_names: their names in the order of the labels, or () where unknown.
      arrays: `{name: array of [len, ...]}` where everything is in memory, else None.
    """

    def __init__(
        self,
        name: str,
        split: str,
        *,
        num_classes: int = 0,
        class_names: Sequence[str] = (),
        arrays: dict[str, np.ndarray] | None = None,
    ):
        self.name = name
        self.split = split
        self.num_classes = num_classes
        self.class_names = tuple(class_names)
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays["image"])

    def __getitem__(self, index: int) -> Example:
        """One example: `image` uint8 [H, W, C] and whatever else the source has; IndexError outside."""
        return {key: values[index] for key, values in self.arrays.items()}

    def take(self, indices: Sequence[int]) -> Example:
        """The examples at `indices`, stacked: `{name: array of [len(indices), ...]}`."""
        if self.arrays is not None:
            return {key: values[np.asarray(indices)] for key, values in self.arrays.items()}
        examples = [self[int(i)] for i in indices]
        return {key: np.stack([example[key] for example in examples]) for key in examples[0]}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.split!r}, {len(self)} examples)"


def batches(source: Source, batch_size: int, limit: int | None = None) -> Iterator[Example]:
    """The first `limit` examples (all, without one) in order, once, for evaluation.

    Yields dicts of arrays with a leading axis of `batch_size`, smaller in the last one; strings included.
    """
    if batch_size < 1:
        raise UserError(f"A batch needs at least one example, but batch_size is {batch_size}.")
    count = len(source) if limit is None else min(limit, len(source))
    for start in range(0, count, batch_size):
        yield source.take(range(start, min(start + batch_size, count)))


def locate(argument: str, root: str | None) -> Any:
    """An `epath.Path` of a file or folder, local or remote; a relative one is taken from `root`."""
    from etils import epath

    path = epath.Path(argument).expanduser()
    return epath.Path(root).expanduser() / path if root and "://" not in argument else path


def check_split(name: str, split: str, known: Sequence[str]) -> None:
    """Raises UserError unless `split` is one of `known`."""
    if split not in known:
        raise UserError(
            f"{name!r} has no split {split!r} (config.data.split); it has {', '.join(known) or 'none'}: "
            f"{nearest(split, known)}"
        )


def hash_split(key: str) -> str:
    """"train" for about nine keys of ten, "test" for the rest, by a hash of the key alone."""
    return "test" if int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) % 10 == 0 else "train"


def check_labels(name: str, labels: np.ndarray | None, num_classes: int) -> None:
    """Raises UserError unless there are labels, all in [0, num_classes); 0 classes asks for nothing."""
    if num_classes == 0:
        return
    if labels is None:
        raise UserError(
            f"{name!r} has no labels, but config.data.num_classes is {num_classes}; set it to 0 or choose "
            "a labelled source."
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if wrong.size:
        first = int(wrong[0])
        raise UserError(
            f"Example {first} of {name!r} has label {int(labels[first])}, outside [0, {num_classes}); set "
            f"config.data.num_classes to {int(labels.max()) + 1} or mend the labels."
        )
