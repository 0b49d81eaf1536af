"""Draws a GAN's images with their codes, and pairs of images and masks, of which the most uncertain are dropped."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from jaxgen.arrays import Array, to_uint8
from jaxgen.data.transforms import to_float
from jaxgen.errors import UserError
from jaxgen.methods.base import Method, Model
from jaxgen.methods.gans import codes
from jaxgen.methods.gans.gan import GAN
from jaxgen.methods.segmentation.segmentation import Segmentation
from jaxgen.runs.state import seed_key

AT_ONCE = 16  # images that are drawn, or segmented, together
Drawn = tuple[Array, dict[str, Array]]  # images, and what else belongs to them


@dataclasses.dataclass(frozen=True)
class Painter:
    """Holds a GAN that makes images of codes, and its model."""

    gan: GAN
    model: Model

    @classmethod
    def of(cls, method: Method, model: Model) -> Painter:
        """Returns the painter of a trained model. Raises a UserError for a method without codes (`codes.check`)."""
        return cls(codes.check(method), model)

    def draw(self, seed: int, num: int) -> dict[str, np.ndarray]:
        """Returns `num` images with their codes: `image` uint8 [N, H, W, C], the code's arrays, and labels if any.

        Image i depends on the seed and on i alone; of a generator of classes it has the class `i % classes`.
        """

        def made(model: Model, batch: dict[str, Array]) -> dict[str, Array]:
            return {**batch, "image": to_uint8(self.gan.sample_from_z(model, codes.read(self.gan, batch), batch))}

        return self._gathered(made, self.model, seed, num)

    def _gathered(self, made: Callable, model: Model, seed: int, num: int) -> dict[str, np.ndarray]:
        """Returns what `made(model, codes)` gives, of all images, by programs of one shape."""
        program = jax.jit(lambda model, key, index: made(model, self._codes(key, index)))
        root = seed_key(jnp.uint32(seed), "dataset gan")
        parts = [jax.device_get(program(model, root, index)) for index in _indices(num)]
        return {name: np.concatenate([part[name] for part in parts])[:num] for name in parts[0]}

    def _codes(self, key: Array, index: Int[Array, " B"]) -> dict[str, Array]:
        found = codes.draw(self.gan, jax.vmap(lambda i: jax.random.fold_in(key, i))(index))
        return {**found, **{name: index % self.gan.num_classes for name in self.gan.generator.reads}}

    def pairs(self, labeller: Segmentation, model: Model, seed: int, num: int) -> Pairs:
        """Returns `num` images with the masks that a labeller gives them, by the features of codes or of the images.

        Args:
          labeller: the trained method; `model` is its model.
          seed: as of `draw`; other images have another seed.
        """

        def made(models: tuple[Model, Model], batch: dict[str, Array]) -> dict[str, Array]:
            image = to_uint8(self.gan.sample_from_z(models[0], codes.read(self.gan, batch), batch))
            mask, doubt = labeller.segmented(models[1], {**batch, **to_float({"image": image})})
            return {"image": image, "mask": mask, "doubt": doubt}

        found = self._gathered(made, (self.model, model), seed, num)  # type: ignore[arg-type]  # two models
        return Pairs(found["image"], found["mask"].astype(np.uint8), found["doubt"])


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Holds generated images with their masks.

    Attributes:
      images: of the GAN.
      masks: the class of each pixel.
      doubt: the Jensen-Shannon divergence of the members at each pixel, in nats.
    """

    images: UInt8[np.ndarray, "N H W C"]
    masks: UInt8[np.ndarray, "N H W"]
    doubt: Float[np.ndarray, "N H W"]

    @property
    def uncertainty(self) -> Float[np.ndarray, " N"]:
        """Returns the uncertainty of each image: the sum over its pixels (Zhang et al. 2021, section 3)."""
        return self.doubt.sum(axis=(1, 2), dtype=np.float64)

    def certain(self, drop: float) -> Bool[np.ndarray, " N"]:
        """Returns which images are left when the share `drop` of the most uncertain ones is dropped.

        Of equally uncertain images the later ones are dropped.

        Raises:
          UserError: the share is not in [0, 1), or nothing would be left.
        """
        count = len(self.images)
        dropped = round(drop * count) if 0 <= drop < 1 else count
        if dropped >= count:
            raise UserError(f"--drop={drop:g}: give a share from 0 to below 1 that leaves some of {count} pairs.")
        kept = np.zeros(count, bool)
        kept[np.argsort(self.uncertainty, kind="stable")[: count - dropped]] = True
        return kept


def _indices(num: int) -> Iterator[np.ndarray]:
    count = min(AT_ONCE, num)
    for start in range(0, num, count):
        yield np.arange(start, start + count, dtype=np.int32)
