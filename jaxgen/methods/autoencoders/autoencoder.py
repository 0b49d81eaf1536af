"""The plain autoencoder maps an image to a short vector and back, and learns by squared error."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Key

from jaxgen.arrays import Array, Batch, Memory, Params
from jaxgen.errors import UserError
from jaxgen.methods.base import LossResult, LossState, Method, Model, Turn
from jaxgen.networks.layers.calls import check_outputs
from jaxgen.networks.layers.stateless import apply_params, init_params


@dataclasses.dataclass(frozen=True)
class Autoencoder(Method):
    """It has one turn and the groups `encoder` and `decoder`; it draws no images.

    Scores: `squared_error`, the sum over an image.

    With `noise` it is a denoising autoencoder (Vincent et al. 2008).
    """

    encoder: nn.Module  # `x [B, H, W, C] -> [B, outputs]`, cloned with `outputs=z_dim`
    decoder: nn.Module  # `z [B, D] -> [B, H, W, C]`
    z_dim: int = 16  # D, the width of the code
    noise: float = 0.0  # standard deviation of normal noise on the input, in units of [-1, 1]

    panel_inputs = ("image",)

    network_needs = {"encoder": ("outputs",)}

    def __post_init__(self) -> None:
        if self.z_dim < 1 or self.noise < 0:
            raise UserError("An autoencoder needs at least one latent, and noise of at least 0.")

    def init(
        self, key: Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        of_encoder, of_decoder = jax.random.split(key)
        encoder = init_params(self._encoder(), of_encoder, batch["image"])
        decoder = init_params(unlabelled(self.decoder), of_decoder, jnp.zeros((1, self.z_dim)))
        return {"encoder": encoder, "decoder": decoder}, {}

    def turns(self, stage: int) -> tuple[Turn, ...]:
        return (Turn("reconstruct", ("encoder", "decoder"), self.loss),)

    def loss(self, params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
        image = batch["image"]
        seen = image + self.noise * jax.random.normal(key, image.shape) if self.noise else image
        return jnp.square(self.decode(params, self.encode(params, seen)) - image).mean(), ({}, {})

    def encode(self, params: Params, image: Float[Array, "B H W C"]) -> Float[Array, "B D"]:
        """Returns the latents `[B, D]` of images."""
        return check_outputs(self.encoder, apply_params(self._encoder(), params["encoder"], image))

    def decode(self, params: Params, z: Float[Array, "B D"]) -> Float[Array, "B H W C"]:
        """Returns the images of latents `[B, D]`, approximately in [-1, 1]."""
        return check_outputs(self.decoder, apply_params(unlabelled(self.decoder), params["decoder"], z))

    def scores(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "B ..."]]:
        image = batch["image"]
        gap = self.decode(model.params, self.encode(model.params, image)) - image
        return {"squared_error": jnp.square(gap).reshape(len(image), -1).sum(axis=1)}

    def panels(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "*F N H W C"]]:
        """Returns `reconstruction`: held-out images, their reconstructions and half the difference, in columns."""
        if "image" not in batch:
            return {}
        image = batch["image"]
        again = self.decode(model.params, self.encode(model.params, image))
        return {"reconstruction": stacked(image, jnp.clip(again, -1, 1), jnp.clip((again - image) / 2, -1, 1))}

    def _encoder(self) -> nn.Module:
        return unlabelled(self.encoder, outputs=self.z_dim)


def unlabelled(network: nn.Module, **options: Any) -> nn.Module:
    """Returns the network with other options and without labels.

    Data with classes give their number to every network, also to those that see no label.
    """
    if hasattr(network, "num_classes"):
        options["num_classes"] = 0
    return network.clone(**options)


def stacked(*versions: Float[Array, "N H W C"]) -> Float[Array, "cells H W C"]:
    """Arranges three versions of the same images in a square, the versions of an image below each other.

    12 images in three versions make a square of 6 by 6, three images one of 3 by 3; further images are left out.
    """
    count = len(versions[0])
    columns = 6 if count >= 12 else min(count, 3)
    blocks = max(columns // 3, 1)
    shape = versions[0].shape[1:]
    cells = jnp.stack([images[: blocks * columns].reshape(blocks, columns, *shape) for images in versions], axis=1)
    return cells.reshape(-1, *shape)
