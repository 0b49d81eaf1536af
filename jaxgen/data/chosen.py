"""Takes some examples of a source, chosen at random once: `config.data.examples = 20` learns from 20 of them.

The choice depends on `config.seed` alone, so that the first 10 of 20 chosen examples are those of `examples = 10`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxgen.data.source import Example, Examples, Source
from jaxgen.errors import UserError


class Chosen(Source):
    """Gives some of another source's examples.

    Args:
      inner: the source.
      count: how many of its examples.
      seed: which ones.

    Raises:
      UserError: the source has fewer.
    """

    config_name = ""  # it is made of a source, and no config names it

    def __init__(self, inner: Source, count: int, seed: int):
        super().__init__(inner.request)
        if count > len(inner):
            raise UserError(
                f"config.data.examples={count}, and split {inner.split!r} of {inner.name!r} has {len(inner)}: ask for "
                "fewer, or set it to 0 for all."
            )
        self._inner, self._numbers = inner, np.random.default_rng(seed).permutation(len(inner))[:count]
        self.num_classes, self.class_names = inner.num_classes, inner.class_names
        self.notes = (*inner.notes, f"chosen of {len(inner):,} by config.seed")
        if inner.arrays is not None:
            self.arrays = {key: values[self._numbers] for key, values in inner.arrays.items()}
        if hasattr(inner, "tokenizer"):
            self.tokenizer = inner.tokenizer

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        return self._inner[int(self._numbers[index])]

    def take(self, indices: Sequence[int]) -> Examples:
        return self._inner.take(self._numbers[np.asarray(indices)].tolist())
