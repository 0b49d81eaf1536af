"""`sets:<source>` gives each image of a labelled source a set of other images of its class, for few-shot models.

An example has the entries of the source and `set` uint8 [K, H, W, C]: K other images of the class, drawn without
replacement. The image itself is never in its own set (the leave-one-out contexts of Giannone et al. 2022, "Few-Shot
Diffusion Models"). In training the set of an image is another one in each epoch, by the seed, the epoch and the index
alone; elsewhere it is one fixed set. The order of a set has no meaning.

`config.data.options`:

    size     K
    unseen   the classes that are held out, by name or by number: ("8", "9")
    by       the entry whose values `unseen` names: "label", or one that several classes share, such as "alphabet"

The splits are those of the source. With `unseen`, `train` has the images of the other classes alone, and `train/unseen`
has those of the held-out ones; so has every other split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jaxgen.data.source import SHOWN, Example, Examples, Request, Source
from jaxgen.errors import UserError, nearest, some

OPTIONS = "config.data.options"
UNSEEN = "/unseen"  # what ends a split of held-out classes


class Sets(Source):
    """Gives a labelled source's examples with sets of other images of their classes.

    Raises:
      UserError: the source has no labels, a held-out class is unknown, a split has no class, or a class has too few
        images for a set of others.
    """

    takes = "<labelled source>"
    renames = True  # the label may be another entry of the source
    options = {"size": 5, "unseen": (), "by": "label"}

    def __init__(self, request: Request):
        from jaxgen.data.sources import open_source

        super().__init__(request)
        self.size = int(request.options["size"])
        if self.size < 1:
            raise UserError(f"{OPTIONS}.size is {self.size}; a set has at least 1 image.")
        shape = (request.resolution, request.channels, request.num_classes, request.root, request.rename)
        self._inner = open_source(request.argument, request.split.removesuffix(UNSEEN), *shape)
        self.num_classes, self.class_names = self._inner.num_classes, self._inner.class_names
        labels = _column(self.name, self._inner, "label")
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise UserError(f"{self.name!r}: the entry 'label' is {labels.dtype} of shape {labels.shape}, no classes.")
        unseen = self._unseen_classes()
        self._kept = self._of_split(unseen)
        self._groups = _Groups(labels[self._kept])
        self._check_sizes()
        self.notes = (*self._inner.notes, *self._told(labels, unseen))

    def _unseen_classes(self) -> np.ndarray:
        """Returns, for each example of the source, whether its class is held out."""
        by, asked = self.request.options["by"], tuple(self.request.options["unseen"])
        if self.split.endswith(UNSEEN) and not asked:
            raise UserError(
                f"The split {self.split!r} of {self.name!r} has the classes that are held out, and {OPTIONS}.unseen "
                "names none."
            )
        values = _column(self.name, self._inner, by)
        if values.ndim != 1:
            raise UserError(f"{OPTIONS}.by={by!r} has the shape {values.shape[1:]} for each example, not one value.")
        known = {str(value): value for value in np.unique(values)}
        if by == "label":
            known |= {name: number for number, name in enumerate(self.class_names)}
        chosen = [_named(name, known, by, bool(self.class_names)) for name in asked]
        return np.isin(values, np.array(chosen, values.dtype)) if chosen else np.zeros(len(values), bool)

    def _of_split(self, unseen: np.ndarray) -> np.ndarray:
        """Returns the indices of the source's examples that belong to the split."""
        held_out = self.split.endswith(UNSEEN)
        found = np.flatnonzero(unseen == held_out)
        if not found.size:
            which = "no image of the held-out classes" if held_out else "only images of the held-out classes"
            raise UserError(f"Split {self.split!r} of {self.name!r} has {which}: change {OPTIONS}.unseen.")
        return found

    def _check_sizes(self) -> None:
        """Checks that each class has so many images that one of them can have a set of others."""
        few = [(int(c), n) for c, n in zip(self._groups.classes, self._groups.counts, strict=True) if n <= self.size]
        if few:
            number, count = few[0]
            more = f" (and {len(few) - 1} more classes have too few)" if len(few) > 1 else ""
            advice = f"lower {OPTIONS}.size to {min(n for _, n in few) - 1}, or " if min(n for _, n in few) > 1 else ""
            raise UserError(
                f"The class {self._class_name(number)} of {self.name!r}, split {self.split!r}, has {count} "
                f"{'image' if count == 1 else 'images'}, and a set of {self.size} other images needs "
                f"{self.size + 1}{more}: {advice}add images."
            )

    def _class_name(self, number: int) -> str:
        return str(self.class_names[number]) if number < len(self.class_names) else str(number)

    def _told(self, labels: np.ndarray, unseen: np.ndarray) -> list[str]:
        held_out = np.unique(labels[unseen])
        told = [f"sets of {self.size} other {'image' if self.size == 1 else 'images'} of the class"]
        if held_out.size:
            names = some((self._class_name(int(number)) for number in held_out), SHOWN)
            here = "those" if self.split.endswith(UNSEEN) else f"the other {len(self._groups.classes)}"
            classes = "1 class is" if held_out.size == 1 else f"{held_out.size} classes are"
            told.append(f"{classes} held out: {names}; these are the images of {here}")
        return told

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        return {key: values[0] for key, values in self.take([index]).items()}

    def take(self, indices: Sequence[int]) -> Examples:
        return self.draw(indices, [()] * len(indices))

    def draw(self, indices: Sequence[int], seeds: Sequence[tuple[int, ...]]) -> Examples:
        drawn = [self._groups.others(int(i), self.size, seed) for i, seed in zip(indices, seeds, strict=True)]
        others = self._kept[np.array(drawn, int)]
        examples = self._inner.take(self._kept[np.asarray(indices)].tolist())
        return {**examples, "set": self._images(others)}

    def column(self, entry: str) -> np.ndarray:
        if entry == "set":
            return super().column(entry)
        return self._inner.column(entry)[self._kept]

    def _images(self, others: np.ndarray) -> np.ndarray:
        """Returns the images `[N, K, H, W, C]` of indices `[N, K]` of the source; each is read once."""
        if self._inner.arrays is not None:
            return self._inner.arrays["image"][others]
        unique, places = np.unique(others, return_inverse=True)
        return self._inner.take(unique.tolist())["image"][places.reshape(others.shape)]


class _Groups:
    """Holds which examples have which label, int [N].

    Attributes:
      classes: the labels that occur.
      counts: how many examples each has.
    """

    def __init__(self, labels: np.ndarray):
        self.classes, self._of, self.counts = np.unique(labels, return_inverse=True, return_counts=True)
        self._order = np.argsort(self._of, kind="stable")  # the examples, class by class
        self._starts = np.cumsum(self.counts) - self.counts
        self._rank = np.empty(len(labels), int)  # the place of each within its class
        self._rank[self._order] = np.arange(len(labels)) - self._starts[self._of[self._order]]

    def others(self, index: int, size: int, seed: tuple[int, ...]) -> list[int]:
        """Returns `size` different examples of the label of example `index`, none of which is `index`.

        They are Floyd's sample of the others (Bentley & Floyd 1987, "A sample of brilliance").
        """
        of = self._of[index]
        count = int(self.counts[of]) - 1
        # Raw 64-bit draws: numpy promises their stream for ever, that of `choice` it does not.
        words = np.random.Philox(np.random.SeedSequence([*seed, index])).random_raw(size)
        chosen: list[int] = []
        for last, word in zip(range(count - size, count), words.tolist(), strict=True):
            place = word % (last + 1)
            chosen.append(last if place in chosen else place)
        own = int(self._rank[index])
        places = [place + (place >= own) for place in chosen]
        return [int(self._order[self._starts[of] + place]) for place in places]


def _column(name: str, source: Source, entry: str) -> np.ndarray:
    try:
        return np.asarray(source.column(entry))
    except KeyError as error:
        there = ", ".join(sorted(source[0]))
        told = "needs the class of each image" if entry == "label" else f"has {OPTIONS}.by={entry!r}"
        raise UserError(
            f"{name!r} {told}, and the examples of {source.name!r} have {there}: choose a source that gives "
            f"{entry!r}, or name the entry that has it in config.data.rename.{entry}."
        ) from error


def _named(name: object, known: Mapping[str, object], by: str, has_names: bool) -> object:
    """Returns the value that a held-out class has; a whole number stands for itself."""
    if isinstance(name, int) and not isinstance(name, bool) and name in known.values():
        return name
    if isinstance(name, str) and name in known:
        return known[name]
    kinds = "names or numbers" if by == "label" and has_names else "values"
    raise UserError(f"{OPTIONS}.unseen: {name!r} is none of the {kinds} of {by!r}; {nearest(str(name), known)}")
