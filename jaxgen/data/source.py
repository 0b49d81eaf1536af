"""A data source is a length and examples, each one a dict of NumPy arrays.

Dtypes carry meaning everywhere in jaxgen: **uint8 is an image** `[H, W, C]` (and becomes float32 in [-1, 1]
on the device), int32 is a label, a mask or another count, float32 is a number, and a string is text.

A source of your own is a class in any module that Python can import. It says how many examples there are and gives one:

    class Cells(Source):
        def __len__(self):
            return 1000

        def __getitem__(self, index):
            return {"image": photo_of(index, self.request.resolution), "label": np.int32(index % 3)}

`config.data.source = "my_package.sources:Cells"` names it, and "my_package.sources:Cells:plate7" gives it the argument
`self.request.argument`. Where all examples fit in memory, fill `self.arrays` instead:

    class Cells(Source):
        def __init__(self, request):
            super().__init__(request)
            self.arrays = {"image": images, "label": labels}      # uint8 [N, H, W, C] and int32 [N]
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from jaxgen.errors import UserError, nearest, some

if TYPE_CHECKING:  # its import takes long, and only paths need it
    from etils import epath

# A set whose decoded examples take no more than this many bytes is kept in memory.
MEMORY_LIMIT = 512 * 2**20

SHOWN = 12  # names of classes in one line
CHUNK = 256  # examples that are read at a time

Example = dict[str, Any]  # one example: arrays, and NumPy's numbers and texts
Examples = dict[str, np.ndarray]  # several examples, stacked: arrays with a leading axis


@dataclasses.dataclass(frozen=True)
class Request:
    """Holds what `config.data` asks of a source.

    Attributes:
      source: the complete text, such as "folder:photos"; it names the source in messages.
      argument: what follows the source's name and a colon, such as "photos"; "" where nothing does.
      split: the split's name, such as "train"; which there are is the source's to say.
      resolution: (height, width) that every image must have.
      channels: number of channels that every image must have: 1 for grey, 3 for RGB, 4 for RGBA.
      num_classes: every `label` must lie in [0, num_classes); 0 asks for no labels.
      root: the folder that a relative path starts from, or None for the current one.
      rename: `{new name of an entry: old name}`; `open_source` sees to it, after the source has been opened.
      options: the source's own options, all of them (`Source.options`), from `config.data.options`.
    """

    source: str
    argument: str
    split: str
    resolution: tuple[int, int]
    channels: int
    num_classes: int = 0
    root: str | None = None
    rename: Mapping[str, str] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Source:
    """This is the contract: a source is a finite, ordered set of examples of one split.

    A source either fills `arrays`, and the methods below do all that is needed, or leaves it None and overrides
    `__len__` and `__getitem__`, and `take` where reading many at once is cheaper than one by one. Examples are read by
    several threads at a time, and a source must be picklable for `config.data.workers`.

    Attributes:
      request: what was asked for.
      num_classes: number of classes that `label` may take, 0 without labels.
      class_names: their names in the order of the labels, or () where they are unknown.
      arrays: `{name: array of [len, ...]}` where everything is in memory, else None.
      notes: what is to be told at the start of training about how the data were understood, such as "4 files passed
        over: .tif"; short sentences without a full stop.
    """

    # What follows the name and a colon: "" for nothing, "<path>" for an argument that must be there, None where an
    # argument may be there.
    takes: ClassVar[str | None] = None
    renames: ClassVar[bool] = False  # whether it gives entries their new names itself, as one that is made of another
    # The keys of `config.data.options` that it takes and their defaults, whose types the values must have.
    options: ClassVar[Mapping[str, Any]] = {}
    class_names: tuple[str, ...] = ()
    arrays: dict[str, np.ndarray] | None = None
    notes: tuple[str, ...] = ()

    def __init__(self, request: Request):
        """Opens what is asked for; raises UserError for a split that is not there, or data that do not fit."""
        self.request = request
        self.num_classes = request.num_classes

    @property
    def name(self) -> str:
        """Returns the text that names the source, such as "digits" or "folder:/data/cats"."""
        return self.request.source

    @property
    def split(self) -> str:
        """Returns the split's name."""
        return self.request.split

    def __len__(self) -> int:
        """Returns how many examples there are."""
        return len(self._held()["image"])

    def __getitem__(self, index: int) -> Example:
        """Returns one example: `image` uint8 [H, W, C] and what else the source has; raises IndexError outside."""
        return {key: values[index] for key, values in self._held().items()}

    def take(self, indices: Sequence[int]) -> Examples:
        """Returns the examples at `indices`, stacked: `{name: array of [len(indices), ...]}`."""
        if self.arrays is not None:
            return {key: values[np.asarray(indices)] for key, values in self.arrays.items()}
        examples = [self[int(i)] for i in indices]
        return {key: np.stack([example[key] for example in examples]) for key in examples[0]}

    def draw(self, indices: Sequence[int], seeds: Sequence[tuple[int, ...]]) -> Examples:
        """Returns the examples at `indices`, stacked, as training reads them.

        A source whose examples have a random part overrides this method; `take` and `[]` then give one fixed draw.

        Args:
          indices: the examples.
          seeds: for each example whole numbers of 0 or more that differ in every epoch; the random part may depend on
            these and on the index, and on nothing else.
        """
        return self.take(indices)

    def column(self, entry: str) -> np.ndarray:
        """Returns one entry of all examples, `[len, ...]`; a source that knows it without reading images overrides it.

        Raises:
          KeyError: the examples have no such entry.
        """
        if self.arrays is not None:
            return self.arrays[entry]
        chunks = [range(i, min(i + CHUNK, len(self))) for i in range(0, len(self), CHUNK)]
        return np.concatenate([self.take(chunk)[entry] for chunk in chunks])

    def summary(self) -> str:
        """Returns one line that says what the source holds, such as "30 examples in 3 classes: bus, car, train"."""
        first = self[0]
        found = f"{self.name}, split {self.split}: {len(self):,} {'example' if len(self) == 1 else 'examples'}"
        if self.class_names:
            names = some((str(name) for name in self.class_names), SHOWN)
            found += f" in {_classes(len(self.class_names))}: {names}"
        elif self.num_classes:
            found += f" in {_classes(self.num_classes)}"
        kinds = [_kind(key, value) for key, value in first.items() if key not in ("image", "label", "caption")]
        parts = [found, *(["with captions"] if "caption" in first else []), *([", ".join(kinds)] if kinds else [])]
        return "; ".join([*parts, *self.notes])

    def _held(self) -> dict[str, np.ndarray]:
        if self.arrays is None:
            raise UserError(
                f"The data source {self.name!r} gives no examples: fill its 'arrays', or write __len__ and __getitem__."
            )
        return self.arrays

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.split!r}, {len(self)} examples)"


def _classes(count: int) -> str:
    return f"{count} {'class' if count == 1 else 'classes'}"


def _kind(key: str, value: Any) -> str:
    """Returns the name, type and shape of an entry, such as "mask int32 [8, 8]"."""
    array = np.asarray(value)
    kind = "text" if array.dtype.kind in "SUO" else str(array.dtype)
    return f"{key} {kind} {[*array.shape]}" if array.ndim else f"{key} {kind}"


class Arrays(Source):
    """Holds examples that are in memory already, for use in Python: `Arrays({"image": images, "label": labels})`.

    Args:
      arrays: `image` uint8 `[N, H, W, C]`, and other arrays of N rows.
      name: the source's name in messages.
      split: the split's name in messages.
    """

    def __init__(self, arrays: dict[str, np.ndarray], name: str = "arrays", split: str = "all"):
        height, width, channels = arrays["image"].shape[1:]
        super().__init__(Request(name, "", split, (height, width), channels))
        self.arrays = arrays


def batches(source: Source, batch_size: int, limit: int | None = None) -> Iterator[Examples]:
    """Yields the first `limit` examples in order, once, for evaluation; without a limit, all examples.

    A batch is a dict of arrays, texts among them, with a leading axis of `batch_size`, or less in the last batch.

    Raises:
      UserError: for a batch size below 1.
    """
    if batch_size < 1:
        raise UserError(f"A batch needs at least one example, but batch_size is {batch_size}.")
    count = len(source) if limit is None else min(limit, len(source))
    for start in range(0, count, batch_size):
        yield source.take(range(start, min(start + batch_size, count)))


def locate(argument: str, root: str | None) -> epath.Path:
    """Returns the path of a file or folder, local or remote; a relative path starts from `root`.

    Raises:
      UserError: for a text that can be no path here.
    """
    from jaxgen.files import user_path

    path = user_path(argument, "config.data.source")
    return user_path(root, "config.data.root") / path if root and "://" not in argument else path


def check_split(name: str, split: str, known: Sequence[str]) -> None:
    """Raises UserError unless `split` is one of `known`."""
    if split not in known:
        raise UserError(
            f"{name!r} has no split {split!r}; it has {', '.join(known) or 'none'}: {nearest(split, known)}"
        )


def hash_split(key: str) -> str:
    """Returns "train" for about nine keys of ten and "test" for the others, by a hash of the key alone."""
    data = key.encode(errors="surrogateescape")  # a file's name may be no text
    return "test" if int.from_bytes(hashlib.blake2b(data, digest_size=8).digest()) % 10 == 0 else "train"


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
            f"config.data.num_classes to {int(labels.max()) + 1} or correct the labels."
        )
