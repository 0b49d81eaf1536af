"""Diffuses the latents of a trained autoencoder (Rombach et al. 2022)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float

from jaxgen.arrays import Array, Batch, Tree
from jaxgen.build import path_of
from jaxgen.codecs.base import Codec, Draw, Shape
from jaxgen.errors import UserError
from jaxgen.networks.layers.stateless import apply_params, init_params
from jaxgen.networks.layers.tiling import decode_tiled, in_chunks
from jaxgen.variational.gaussian import Gaussian


@dataclasses.dataclass(frozen=True)
class Latents(Codec):
    """Images become latents z = scale * (a sample of the encoder's posterior), and samples decode(z / scale).

    Where a batch has `moments` `[B, h, w, 2 D]`, written by `python -m jaxgen.sampling.latents`, no image is encoded.

    Attributes:
      autoencoder: the network of the first stage, equal to that run's `method.network`; its weights are
        `config.init_from.autoencoder`.
      scale: what latents are multiplied by; 0 for the number that the first stage measured and that its weights bring.
      cached: whether every batch must have `moments`, so that a plan, which sees no data, knows of them.
      decode_batch: number of images that are decoded at a time; 0 for the whole batch.
      decode_tile: side of a tile in latents; 0 decodes complete images.
      decode_overlap: latents that neighbouring tiles share; see `jaxgen.networks.layers.tiling.decode_tiled`.
    """

    autoencoder: nn.Module
    scale: float = 0.0
    cached: bool = False
    decode_batch: int = 0
    decode_tile: int = 0
    decode_overlap: int = 8

    group: ClassVar[str] = "autoencoder"
    random: ClassVar[bool] = True
    bounded: ClassVar[bool] = False
    network_needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "autoencoder": ("encode", "decode", "factor", "latent_channels")
    }

    def __post_init__(self) -> None:
        if self.scale < 0 or self.decode_batch < 0:
            raise UserError("The scale and the decode_batch of a method of latents must be at least 0.")

    @property
    def _place(self) -> str:
        return path_of(self) or "config.method"

    @property
    def factor(self) -> int:
        return getattr(self.autoencoder, "factor", 1)

    def shape(self, image_shape: Shape) -> Shape:
        """Returns `(h, w, D)` of an image's latents."""
        height, width, _ = image_shape
        return height // self.autoencoder.factor, width // self.autoencoder.factor, self.autoencoder.latent_channels

    def init(self, key: Array, image_shape: Shape) -> Tree:
        return init_params(self.autoencoder, key, jnp.zeros((1, *image_shape)))

    def fresh_memory(self) -> Tree | None:
        return None if self.scale else {name: jnp.ones(()) for name in ("weight", "mean", "square")}

    def check(self, memory: Tree | None) -> None:
        self.scaling(memory)

    def entries(self, image_shape: Shape) -> Mapping[str, tuple[Shape, DTypeLike]]:
        height, width, channels = self.shape(image_shape)
        return {"moments": ((height, width, 2 * channels), np.float32)} if self.cached else {}

    def scaling(self, memory: Tree | None) -> Array | float:
        """Returns what latents are multiplied by.

        Raises:
          UserError: neither the config nor the weights say it.
        """
        if self.scale:
            return self.scale
        if memory is None:
            raise UserError(
                "The weights of config.init_from.autoencoder came without the scale of their latents: set "
                f"{self._place}.scale to 1 / their standard deviation (0.18215 for Stable Diffusion's)."
            )
        return scale_of(memory)

    def posterior(self, params: Tree, batch: Batch) -> Gaussian:
        """Returns q(z | x), over latents `[B, h, w, D]` before scaling, of the batch's `moments` or of its images."""
        if "moments" in batch:
            return Gaussian.of(batch["moments"])
        return Gaussian.of(apply_params(self.autoencoder, params, batch["image"], method="encode"))

    def encode(
        self, params: Tree, batch: Batch, memory: Tree | None, draw: Draw | None = None
    ) -> Float[Array, "B h w D"]:
        if draw is None:
            return self.posterior(params, batch).mean * self.scaling(memory)
        self.check_cached(batch)
        posterior = self.posterior(params, batch)
        return posterior.at(draw(posterior.mean.shape)) * self.scaling(memory)

    def check_cached(self, batch: Batch) -> None:
        """Raises a UserError where latents must be cached and the batch has none."""
        if self.cached and "moments" not in batch:
            raise UserError(
                f"{self._place}.cached is set, and the data have no 'moments': write them with python -m "
                "jaxgen.sampling.latents, or unset it to encode the images at each step."
            )

    def decode(self, params: Tree, x: Float[Array, "B h w D"], memory: Tree | None) -> Float[Array, "B H W C"]:
        """Returns the images, in [-1, 1], of scaled latents of any size."""

        def whole(z: Array) -> Array:
            return apply_params(self.autoencoder, params, z, method="decode")

        def one(z: Array) -> Array:
            return decode_tiled(whole, z, self.decode_tile, self.decode_overlap) if self.decode_tile else whole(z)

        return jnp.clip(in_chunks(one, x / self.scaling(memory), self.decode_batch), -1, 1)


def scale_of(moments: Mapping[str, Array]) -> Array:
    """Returns 1 / the standard deviation of latents with these moments (Rombach et al. 2022, Appendix G)."""
    mean, square = (moments[name] / moments["weight"] for name in ("mean", "square"))
    return 1 / jnp.sqrt(jnp.maximum(square - jnp.square(mean), 1e-12))
