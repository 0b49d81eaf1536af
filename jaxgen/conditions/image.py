"""Shows a network a picture beside the noisy image: a low resolution, a sketch, a damaged copy."""

from __future__ import annotations

import dataclasses
import math
import zlib
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Float, Key

from jaxgen.arrays import Array, Batch, Tree
from jaxgen.build import path_of
from jaxgen.conditions.base import Condition
from jaxgen.errors import UserError
from jaxgen.networks.layers.basic import sinusoidal


@dataclasses.dataclass(frozen=True)
class Image(Condition):
    """Gives a picture of the batch as `condition` [B, h, w, C], resized to what is diffused; the null is mid-grey.

    With noise conditioning augmentation (Ho et al. 2022, "Cascaded Diffusion Models", section 4.2), the picture is
    sqrt(1 - s^2) times itself plus s times noise, and the network is told s by a `vector`. In training s is drawn
    uniformly from [0, `noise`] for each image; in sampling it is `sampling_noise`.

    With blurring augmentation (ibid., for stages of 128 pixels and more), a share of the training pictures is blurred
    before all else, by a Gaussian filter whose standard deviation is drawn uniformly for each picture and is not told.
    Pictures that one samples for are not blurred.

    Attributes:
      entry: the entry of the batch that has the picture, float32 [B, h', w', C] in [-1, 1] of any size.
      resize: how it is resized.
      noise: the largest s of training; 0 adds no noise.
      sampling_noise: s of sampling.
      noise_features: the width of the vector that tells s.
      blur: the least and the largest standard deviation of the blur, in pixels of the picture; (0, 0) blurs none. The
        paper's are (0.4, 0.6).
      blur_share: the share of training pictures that are blurred.

    Raises:
      UserError: a number is out of its range.
    """

    entry: str = "condition"
    resize: Literal["cubic", "linear", "nearest"] = "cubic"
    noise: float = 0.0
    sampling_noise: float = 0.0
    noise_features: int = 32
    blur: tuple[float, float] = (0.0, 0.0)
    blur_share: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.sampling_noise <= self.noise <= 1:
            raise UserError(
                "A picture of config.method.parts has 0 <= sampling_noise <= noise <= 1, not "
                f"{self.sampling_noise} and {self.noise}: set sampling_noise to at most the noise of training, in a "
                "stage of a cascade by config.method.overrides.stage_<number>.parts."
            )
        if not (0 <= self.blur[0] <= self.blur[1] < math.inf and 0 < self.blur_share <= 1):
            raise UserError(
                "A picture of config.method.parts has a blur of two standard deviations of at least 0, the smaller "
                f"first, and a blur_share above 0 and at most 1, not {self.blur} and {self.blur_share}."
            )

    @property
    def entries(self) -> tuple[str, ...]:
        return (self.entry,)

    @property
    def gives(self) -> tuple[str, ...]:
        return ("condition", "vector") if self.noise else ("condition",)

    def null(self, batch: Batch) -> Batch:
        return {self.entry: jnp.zeros_like(batch[self.entry])}

    def __call__(
        self, params: Tree, batch: Batch, keys: Key[Array, " B"] | None, shape: tuple[int, ...], train: bool = False
    ) -> Batch:
        picture = pictures_of(batch, self.entry, path_of(self) or "config.method.parts")
        if train and self.blur[1]:
            picture = self._blurred(picture, keys)
        picture = resized(picture, shape[:2], self.resize)
        return self._noised(picture, keys, train) if self.noise else {"condition": picture}

    def _blurred(self, picture: Array, keys: Key[Array, " B"] | None) -> Array:
        if keys is None:
            raise UserError(f"{path_of(self) or 'config.method.parts'} blurs, which needs a key for each image.")
        low, high = self.blur

        def drawn(key: Array) -> tuple[Array, Array]:
            of_sigma, of_share = jax.random.split(jax.random.fold_in(key, zlib.crc32(b"blur")))
            sigma = jax.random.uniform(of_sigma, minval=low, maxval=high)
            return sigma, jax.random.bernoulli(of_share, self.blur_share)

        sigma, chosen = jax.vmap(drawn)(keys)
        return jnp.where(chosen[:, None, None, None], blurred(picture, sigma, math.ceil(3 * high)), picture)

    def _noised(self, picture: Array, keys: Key[Array, " B"] | None, train: bool) -> Batch:
        if keys is None:
            raise UserError(f"{path_of(self) or 'config.method.parts'} adds noise, which needs a key for each image.")

        def drawn(key: Array) -> tuple[Array, Array]:
            of_level, of_noise = jax.random.split(key)
            return jax.random.uniform(of_level) * self.noise, jax.random.normal(of_noise, picture.shape[1:])

        levels, noise = jax.vmap(drawn)(keys)
        levels = levels if train else jnp.full(len(picture), self.sampling_noise)
        s = levels[:, None, None, None]
        told = sinusoidal(1000 * levels, self.noise_features)
        return {"condition": jnp.sqrt(1 - s**2) * picture + s * noise, "vector": told}


def pictures_of(batch: Batch, entry: str, reader: str) -> Float[Array, "B h w C"]:
    """Returns the pictures of an entry, as float32; `reader` says in the message who reads them.

    Raises:
      UserError: the entry has another number of axes.
    """
    pictures = batch[entry]
    if pictures.ndim != 4:
        raise UserError(
            f"{reader} reads the entry {entry!r} as pictures [B, h, w, C], and it has the shape {pictures.shape}."
        )
    return pictures.astype(jnp.float32)


def resized(pictures: Float[Array, "B h w C"], size: tuple[int, ...], how: str) -> Float[Array, "B H W C"]:
    """Returns pictures of this height and width; those that have it already are not touched."""
    if pictures.shape[1:3] == size:
        return pictures
    return jax.image.resize(pictures, (len(pictures), *size, pictures.shape[-1]), how)


def blurred(images: Float[Array, "B H W C"], sigma: Float[Array, " B"], radius: int) -> Float[Array, "B H W C"]:
    """Returns images through a Gaussian filter, each with a standard deviation of its own; edges are reflected.

    Args:
      images: of any range.
      sigma: standard deviations in pixels; 0 changes nothing.
      radius: the filter has 2 radius + 1 pixels along each side.
    """
    offsets = jnp.arange(-radius, radius + 1)
    weights = jnp.exp(-0.5 * jnp.square(offsets / jnp.maximum(sigma, 1e-3)[:, None]))
    weights = (weights / weights.sum(axis=1, keepdims=True))[..., None, None, None]
    for axis in (1, 2):
        pad = [(0, 0)] * 4
        pad[axis] = (radius, radius)
        padded, side = jnp.pad(images, pad, mode="reflect"), images.shape[axis]
        shifted = (jax.lax.slice_in_dim(padded, i, i + side, axis=axis) for i in range(2 * radius + 1))
        images = sum((weights[:, i] * x for i, x in enumerate(shifted)), jnp.zeros_like(images))
    return images
