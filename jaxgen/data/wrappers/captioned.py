"""Gives each image of a source each of some sentences: `config.data.captions = ("a photo of a cat", ...)`.

So a model learns from pictures without texts: textual inversion and DreamBooth say the same few things of each. Example
i is image `i % N` of the N images with sentence `i // N`, so that every pair occurs once in an epoch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxgen.data.source import Example, Examples, Request, Source


class Captioned(Source):
    """Gives another source's examples with each of some sentences as `caption`, in place of their own.

    Args:
      inner: the source of the images.
      sentences: at least one.
    """

    config_name = ""  # it is made of a source, and no config names it

    def __init__(self, request: Request, inner: Source, sentences: Sequence[str]):
        super().__init__(request)
        self._inner, self._sentences = inner, np.array(sentences)
        self.num_classes, self.class_names = inner.num_classes, inner.class_names
        count = f"{len(inner):,} images, each with {len(sentences):,} {'text' if len(sentences) == 1 else 'texts'}"
        own = " in place of its own caption" if "caption" in inner[0] else ""
        self.notes = (*inner.notes, count + own)
        if inner.arrays is not None and len(sentences) == 1:
            self.arrays = {**inner.arrays, "caption": self._sentences.repeat(len(inner))}

    @property
    def captions(self) -> list[str]:
        """Returns all captions; no image is read for them."""
        return [str(sentence) for sentence in self._sentences for _ in range(len(self._inner))]

    def __len__(self) -> int:
        return len(self._inner) * len(self._sentences)

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        sentence, image = divmod(index, len(self._inner))
        return {**self._inner[image], "caption": self._sentences[sentence]}

    def draw(self, indices: Sequence[int], seeds: Sequence[tuple[int, ...]]) -> Examples:
        sentence, image = np.divmod(np.asarray(indices), len(self._inner))
        own = [(*seed, int(i)) for seed, i in zip(seeds, sentence, strict=True)]
        return {**self._inner.draw(image.tolist(), own), "caption": self._sentences[sentence]}

    def take(self, indices: Sequence[int]) -> Examples:
        sentence, image = np.divmod(np.asarray(indices), len(self._inner))
        return {**self._inner.take(image.tolist()), "caption": self._sentences[sentence]}
