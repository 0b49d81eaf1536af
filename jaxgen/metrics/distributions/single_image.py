"""Compares samples with the one picture that a model learned from: their patches, and how much they differ."""

from __future__ import annotations

import dataclasses
import functools
from typing import ClassVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from jaxgen.data.images import MODES, fit
from jaxgen.errors import UserError
from jaxgen.metrics.base import RunFacts, RunMetric
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.pairs.sifid import sifid
from jaxgen.metrics.score import Score


@dataclasses.dataclass(frozen=True)
class SingleImageFrechet(RunMetric):
    """The single-image Fréchet distance is the mean distance of samples to the picture, in features of their positions.

    See `jaxgen.metrics.pairs.sifid`. Its noise is not noise but the control that a model of patches has to beat: the
    picture cut into square blocks that are shuffled, which has the picture's colours and small patterns, and seams.

    `single_image_diversity_<network>` is the standard deviation of a pixel over the samples, averaged over pixels, over
    the standard deviation of the picture's pixels (Rott Shaham et al. 2019, section 3): 0 where all samples are alike.
    """

    block: int = 8  # pixels of a side of the control's blocks

    needs: ClassVar[frozenset[str]] = frozenset({"maps", "training images"})
    note = "Noise is the picture with its blocks shuffled."

    def __post_init__(self) -> None:
        if self.block < 1:
            raise UserError(f"'single_image_frechet' shuffles blocks of at least 1 pixel, not block={self.block}.")

    def check_run(self, facts: RunFacts) -> None:
        if min(facts.shape[:2]) < 2 * self.block:
            raise UserError(
                f"{self.name!r} shuffles blocks of {self.block}x{self.block} pixels, and the images have "
                f"{facts.shape[0]}x{facts.shape[1]}; choose a smaller block."
            )

    def scores(self, images: EvaluationImages, network: FeatureNetwork | None) -> dict[str, Score]:
        if network is None:
            raise UserError(f"{self.name} needs a feature network that gives spatial features, and none is given.")
        if len(images.train) != 1:
            raise UserError(f"{self.name} compares with one picture, and the model learned from {len(images.train)}.")
        count, size = len(images.samples), images.samples.shape[1:3]
        picture = self._at_size(images.train[0], size)[None]
        shuffles = np.stack([shuffled(picture[0], self.block, seed) for seed in range(min(count, 8))])
        seen = network.maps(picture)
        value, noise = (float(sifid(network.maps(side), seen).mean()) for side in (images.samples, shuffles))
        spread = float(images.samples.std(axis=0).mean() / max(picture.std(), 1e-6))
        score = functools.partial(
            Score, n=count, reference=images.held_out_name, reference_n=1, network=network.name, digest=network.digest,
            resize="none",
        )  # fmt: skip
        note = f"Of {size[0]}x{size[1]} pixels. {self.note}"
        found = score(value, floor=0.0, noise=noise if noise > 0 else None, floor_n=1, note=note)
        return {
            f"single_image_frechet_{network.name}": found,
            f"single_image_diversity_{network.name}": score(spread, better=None),
        }

    def _at_size(self, picture: UInt8[np.ndarray, "H W C"], size: tuple[int, int]) -> UInt8[np.ndarray, "h w C"]:
        """Returns the picture at the size of the samples, which are smaller until a model's last scale has begun."""
        height, width, channels = picture.shape
        if abs(round(size[1] * height / width) - size[0]) > max(1, height / width):
            raise UserError(
                f"{self.name}: the samples have {size[0]}x{size[1]} pixels and the picture {height}x{width}, in "
                "another ratio; the distance is of images of one size: leave config.sampler.size out."
            )
        mode = MODES[channels]
        return fit(Image.fromarray(picture[..., 0] if mode == "L" else picture, mode), size)


def shuffled(image: UInt8[np.ndarray, "H W C"], block: int, seed: int) -> UInt8[np.ndarray, "H W C"]:
    """Returns an image whose square blocks have changed places at random; what is left at two borders stays."""
    rows, columns = image.shape[0] // block, image.shape[1] // block
    inner = image[: rows * block, : columns * block]
    blocks = inner.reshape(rows, block, columns, block, -1).swapaxes(1, 2).reshape(rows * columns, block, block, -1)
    blocks = blocks[np.random.default_rng(seed).permutation(len(blocks))]
    found = image.copy()
    parts = blocks.reshape(rows, columns, block, block, -1).swapaxes(1, 2)
    found[: rows * block, : columns * block] = parts.reshape(inner.shape)
    return found
