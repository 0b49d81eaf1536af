"""Shows a network a picture beside the noisy image: a low resolution, a sketch, a damaged copy."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Key

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

    Attributes:
      entry: the entry of the batch that has the picture, float32 [B, h', w', C] in [-1, 1] of any size.
      resize: how it is resized.
      noise: the largest s of training; 0 adds no noise.
      sampling_noise: s of sampling.
      noise_features: the width of the vector that tells s.
    """

    entry: str = "condition"
    resize: Literal["cubic", "linear", "nearest"] = "cubic"
    noise: float = 0.0
    sampling_noise: float = 0.0
    noise_features: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.sampling_noise <= self.noise <= 1:
            raise UserError(
                "A picture of config.method.parts has 0 <= sampling_noise <= noise <= 1, not "
                f"{self.sampling_noise} and {self.noise}."
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
        picture = batch[self.entry]
        if picture.ndim != 4:
            raise UserError(
                f"{path_of(self) or 'config.method.parts'} reads the entry {self.entry!r} as pictures [B, h, w, C], "
                f"and it has the shape {picture.shape}."
            )
        picture = picture.astype(jnp.float32)
        if picture.shape[1:3] != shape[:2]:
            size = (len(picture), *shape[:2], picture.shape[-1])
            picture = jax.image.resize(picture, size, self.resize)
        return self._noised(picture, keys, train) if self.noise else {"condition": picture}

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
