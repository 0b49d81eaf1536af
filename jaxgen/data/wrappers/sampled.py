"""Holds images that a trained model draws for texts before the first step, and keeps them in a file.

They are what DreamBooth (Ruiz et al. 2022) calls class images: what the model draws for "a photo of a dog" before it
learns of one dog. `config.data.extra.<name>.source = "sampled"` asks for them, and `jaxgen.train.class_images` draws.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from etils import epath

from jaxgen.data.source import Request, Source
from jaxgen.errors import UserError
from jaxgen.files import write_bytes
from jaxgen.files.arrays import read_npz


class Sampled(Source):
    """Gives images of texts; image i is of text `i % N` of N. Until `fill`, all images are black.

    An example has `image` uint8 [H, W, C] and `caption` str.

    Args:
      sentences: the texts, at least one.
      count: the number of images.
      path: the file that keeps them; None for images that are never drawn, as of a plan.
      drawn_by: what tells how they are drawn, by whom and from which seed; a file that another one has drawn is
        refused.

    Raises:
      UserError: the file that is there holds other images.
    """

    config_name = ""  # `jaxgen.runs.setup` makes it

    def __init__(self, request: Request, sentences: Sequence[str], count: int, path: epath.Path | None, drawn_by: str):
        super().__init__(request)
        self.path, self._drawn_by = path, drawn_by
        shape = (count, *request.resolution, request.channels)
        captions = np.array([sentences[i % len(sentences)] for i in range(count)])
        self.arrays = {"image": np.zeros(shape, np.uint8), "caption": captions}
        self.drawn = path is not None and path.exists()
        if path is not None and self.drawn:
            self.arrays["image"][...] = self._read(path)
        self.notes = (f"{'drawn before' if self.drawn else 'drawn before the first step'}: {path}",) if path else ()

    def fill(self, images: np.ndarray) -> None:
        """Takes the images, uint8 `[count, H, W, C]`; sources that are made of this one see them, too."""
        self._held()["image"][...] = images
        self.drawn = True

    def write(self) -> None:
        """Writes the images and how they were drawn, completely or not at all."""
        data = io.BytesIO()
        np.savez(data, images=self._held()["image"], captions=self._held()["caption"], drawn_by=self._drawn_by)
        if self.path is not None:
            write_bytes(self.path, data.getvalue())

    def _read(self, path: epath.Path) -> np.ndarray:
        found, own = read_npz(path), self._held()
        wanted = {"images": own["image"], "captions": own["caption"], "drawn_by": np.array(self._drawn_by)}
        same = all(
            name in found and found[name].shape == values.shape and found[name].dtype.kind == values.dtype.kind
            for name, values in wanted.items()
        )
        same = same and all(np.array_equal(found[name], wanted[name]) for name in ("captions", "drawn_by"))
        if not same or found["images"].dtype != np.uint8:
            raise UserError(
                f"{path} holds images that were drawn otherwise (other texts, another number or size, or another model,"
                " sampler or seed); move it away, and they are drawn again."
            )
        return found["images"]
