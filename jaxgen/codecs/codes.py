"""Turns images into the codes of a trained discrete autoencoder, and codes into images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float, Int

from jaxgen.arrays import Array, Batch, Tree
from jaxgen.build import path_of
from jaxgen.errors import UserError
from jaxgen.networks.layers.stateless import apply_params, init_params
from jaxgen.networks.layers.tiling import in_chunks
from jaxgen.variational.codebook import nearest


@dataclasses.dataclass(frozen=True)
class Codes:
    """Images become grids of whole numbers. It is no codec of diffusion: numbers of codes have no noise to be in.

    Where a batch has `codes` `[B, h, w]`, written by `python -m jaxgen.sampling.latents`, no image is encoded.

    Attributes:
      autoencoder: the network of the first stage, equal to that run's `method.network`; its weights and its codebook
        are `config.init_from.autoencoder`.
      cached: whether every batch must have `codes`, so that a plan, which sees no data, knows of them.
      decode_batch: number of images that are decoded at a time; 0 for the whole batch.
    """

    autoencoder: nn.Module
    cached: bool = False
    decode_batch: int = 0

    group: ClassVar[str] = "autoencoder"

    @property
    def size(self) -> int:
        """Returns the number of codes in the codebook."""
        return self.autoencoder.codes

    def grid(self, image_shape: tuple[int, ...]) -> tuple[int, int]:
        """Returns the sides of an image's grid of codes. Raises a UserError for an image that the grid does not fit."""
        height, width, factor = *image_shape[:2], self.autoencoder.factor
        if height % factor or width % factor:
            raise UserError(
                f"The autoencoder has a code for {factor}x{factor} pixels, which do not divide images of "
                f"{height}x{width}: set config.data.resolution to a multiple of {factor}."
            )
        return height // factor, width // factor

    def init(self, key: Array, image_shape: tuple[int, ...]) -> Tree:
        """Returns fresh parameters of the autoencoder."""
        return init_params(self.autoencoder, key, jnp.zeros((1, *image_shape)))

    def fresh_memory(self) -> dict[str, Array]:
        """Returns memory of the shape that comes with the autoencoder's weights."""
        shape = (self.size, self.autoencoder.latent_channels)
        return {"codes": jnp.zeros(shape), "count": jnp.zeros(shape[:1]), "total": jnp.zeros(shape)}

    def check(self, memory: Tree | None) -> None:
        """Raises a UserError unless a codebook of the autoencoder's shape came with its weights."""
        wanted = self.fresh_memory()["codes"].shape
        if not isinstance(memory, Mapping) or "codes" not in memory:
            raise UserError(
                "The weights of config.init_from.autoencoder came without a codebook: name a run of a vq_autoencoder."
            )
        if memory["codes"].shape != wanted:
            raise UserError(
                f"The codebook of config.init_from.autoencoder has the shape {memory['codes'].shape}, and "
                f"{path_of(self.autoencoder) or 'config.method.autoencoder'} says {wanted}: set its codes and "
                "latent_channels to those of that run."
            )

    def entries(self, image_shape: tuple[int, ...]) -> Mapping[str, tuple[tuple[int, ...], DTypeLike]]:
        """Returns `(shape without the batch axis, dtype)` of what it reads of a batch beside `image`."""
        return {"codes": (self.grid(image_shape), np.int32)} if self.cached else {}

    def encode(self, params: Tree, batch: Batch, memory: Tree) -> Int[Array, "B h w"]:
        """Returns the batch's `codes`, or those of its images."""
        if "codes" in batch:
            return batch["codes"]
        return nearest(memory["codes"], apply_params(self.autoencoder, params, batch["image"], method="encode"))

    def check_cached(self, batch: Batch) -> None:
        """Raises a UserError where codes must be cached and the batch has none."""
        if self.cached and "codes" not in batch:
            raise UserError(
                "config.method.cached is set, and the data have no 'codes': write them with python -m "
                "jaxgen.sampling.latents, or unset it to encode the images at each step."
            )

    def decode(self, params: Tree, codes: Int[Array, "B h w"], memory: Tree) -> Float[Array, "B H W C"]:
        """Returns the images, in [-1, 1], of codes."""

        def one(z: Array) -> Array:
            return apply_params(self.autoencoder, params, z, method="decode")

        return jnp.clip(in_chunks(one, memory["codes"][codes], self.decode_batch), -1, 1)
