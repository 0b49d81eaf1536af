"""The plain autoencoder: an image through a narrow vector and back, by squared error."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.methods.base import Batch, Method, Model, Params, Turn


@dataclasses.dataclass(frozen=True)
class Autoencoder(Method):
    """One turn, groups `encoder` and `decoder`; it draws no images. Scores: `squared_error`, the sum over an image.

    Attributes:
      encoder: `x [B, H, W, C] -> [B, outputs]`, cloned with `outputs=latents`. decoder: `z [B, D] -> [B, H, W, C]`.
      latents: D. noise: standard deviation of normal noise on the input, in units of [-1, 1]: a denoising
        autoencoder (Vincent et al. 2008).
    """

    encoder: nn.Module
    decoder: nn.Module
    latents: int = 16
    noise: float = 0.0

    def init(self, key: jax.Array, batch: Batch, stage: int, given: Params, params: Params, memory: dict):
        of_encoder, of_decoder = jax.random.split(key)
        encoder = self._encoder().init(of_encoder, batch["image"])["params"]
        decoder = self.decoder.init(of_decoder, jnp.zeros((1, self.latents)))["params"]
        return {"encoder": encoder, "decoder": decoder}, {}

    def turns(self, stage: int) -> tuple[Turn, ...]:
        return (Turn("reconstruct", ("encoder", "decoder"), self.loss),)

    def loss(self, params: Params, batch: Batch, key: jax.Array, state: Any):
        image = batch["image"]
        seen = image + self.noise * jax.random.normal(key, image.shape) if self.noise else image
        return jnp.square(self.decode(params, self.encode(params, seen)) - image).mean(), ({}, {})

    def encode(self, params: Params, image: jax.Array) -> jax.Array:
        """`[B, D]` latents of images."""
        return self._encoder().apply({"params": params["encoder"]}, image)

    def decode(self, params: Params, z: jax.Array) -> jax.Array:
        """Images of `[B, D]` latents, about [-1, 1]."""
        return self.decoder.apply({"params": params["decoder"]}, z)

    def scores(self, model: Model, keys: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        image = batch["image"]
        gap = self.decode(model.params, self.encode(model.params, image)) - image
        return {"squared_error": jnp.square(gap).reshape(len(image), -1).sum(axis=1)}

    def _encoder(self) -> nn.Module:
        return self.encoder.clone(outputs=self.latents)
