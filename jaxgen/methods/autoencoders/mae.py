"""The masked autoencoder sees a quarter of an image's patches and learns to predict the others (He et al. 2022)."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Key

from jaxgen.arrays import Array, Batch, Memory, Params
from jaxgen.errors import UserError
from jaxgen.methods.autoencoders.autoencoder import stacked
from jaxgen.methods.base import LossResult, LossState, Method, Model, Turn
from jaxgen.networks.dit import patchify, unpatchify
from jaxgen.networks.layers.stateless import apply_params, init_params
from jaxgen.networks.mae import MAEDecoder, MAEEncoder, grid_of

EPS = 1e-6  # added to the variance of a patch
NEUTRAL = 0.0  # what a panel shows in the place of a missing patch, in [-1, 1]


class Masking(NamedTuple):
    """Holds which patches are missing.

    Attributes:
      keep: the numbers of the visible patches, in random order.
      places: each patch's place in a row of the visible patches and then the missing ones.
      missing: whether a patch is missing.
    """

    keep: Int[Array, "B K"]
    places: Int[Array, "B N"]
    missing: Bool[Array, "B N"]


@dataclasses.dataclass(frozen=True)
class MAE(Method):
    """It has one turn and the groups `encoder` and `decoder`; it draws no images.

    Scores are mean squared errors over the missing patches, in units of the targets: `masked_error` of the prediction,
    `masked_error_of_mean` of the mean of the image's visible patches in its place, and `masked_error_of_copy` of the
    nearest visible patch.

    Attributes:
      encoder: sees the visible patches alone.
      decoder: predicts every patch from their tokens.
      image_shape: `(H, W, C)`; from the config's data.
      mask_share: the share of patches that is missing, drawn for each image.
      normalise: whether targets are patches of mean 0 and variance 1 (section 4.1, "normalized pixels"), or pixels.
    """

    encoder: MAEEncoder
    decoder: MAEDecoder
    image_shape: tuple[int, int, int]
    mask_share: float = 0.75
    normalise: bool = True

    panel_inputs = ("image",)

    def __post_init__(self) -> None:
        if not 0 < self.mask_share < 1 or not 0 < self.visible < self.patches:
            raise UserError(
                f"config.method.mask_share={self.mask_share} leaves {self.visible} of {self.patches} patches visible; "
                "at least one must be visible and one missing."
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Returns the rows and columns of patches."""
        return grid_of((self.image_shape[0], self.image_shape[1]), self.encoder.patch_size)

    @property
    def patches(self) -> int:
        """Returns N, the number of patches of an image."""
        return self.grid[0] * self.grid[1]

    @property
    def visible(self) -> int:
        """Returns the number of patches that the encoder sees in training."""
        return int(self.patches * (1 - self.mask_share))

    def init(
        self, key: Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        of_encoder, of_decoder = jax.random.split(key)
        image = batch["image"][:1]
        masking = self.masking(jnp.zeros((1, self.patches)))
        encoder = init_params(self._encoder, of_encoder, image, masking.keep)
        tokens = apply_params(self._encoder, encoder, image, masking.keep)
        return {"encoder": encoder, "decoder": init_params(self.decoder, of_decoder, *self._told(tokens, masking))}, {}

    def turns(self, stage: int) -> tuple[Turn, ...]:
        return (Turn("predict", ("encoder", "decoder"), self.loss),)

    def loss(self, params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
        image = batch["image"]
        masking = self.masking(jax.random.uniform(key, (len(image), self.patches)))
        error = self.errors(self.predict(params, image, masking), image, masking)
        return error.mean(), ({}, {})

    def masking(self, noise: Float[Array, "B N"]) -> Masking:
        """Returns the masking in which an image's patches of the lowest noise are visible."""
        order = jnp.argsort(noise, axis=1)
        places = jnp.argsort(order, axis=1)
        return Masking(order[:, : self.visible], places, places >= self.visible)

    def predict(self, params: Params, image: Float[Array, "B H W C"], masking: Masking) -> Float[Array, "B N F"]:
        """Returns predictions of all patches, in units of the targets."""
        tokens = apply_params(self._encoder, params["encoder"], image, masking.keep)
        return apply_params(self.decoder, params["decoder"], *self._told(tokens, masking))

    def targets(self, image: Float[Array, "B H W C"]) -> Float[Array, "B N F"]:
        """Returns what is to be predicted of each patch; variances are divided by F - 1."""
        patches = patchify(image, self.encoder.patch_size)
        return (patches - _mean(patches)) / _deviation(patches) if self.normalise else patches

    def errors(
        self, predicted: Float[Array, "B N F"], image: Float[Array, "B H W C"], masking: Masking
    ) -> Float[Array, " B"]:
        """Returns the mean squared errors over each image's missing patches."""
        return self._over_missing(predicted - self.targets(image), masking)

    def encode(self, params: Params, image: Float[Array, "B H W C"]) -> Float[Array, "B N D"]:
        """Returns the tokens of all patches, of which none is missing."""
        return apply_params(self._encoder, params["encoder"], image)[:, self._first :]

    def scores(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "B ..."]]:
        image, masking = batch["image"], self._masking_of(keys)
        targets = self.targets(image)
        shown = ~masking.missing[..., None]
        mean = (targets * shown).sum(axis=1, keepdims=True) / self.visible
        copy = jnp.take_along_axis(targets, self.nearest_visible(masking)[..., None], axis=1)
        return {
            "masked_error": self.errors(self.predict(model.params, image, masking), image, masking),
            "masked_error_of_mean": self._over_missing(mean - targets, masking),
            "masked_error_of_copy": self._over_missing(copy - targets, masking),
        }

    def nearest_visible(self, masking: Masking) -> Int[Array, "B N"]:
        """Returns the number of the visible patch that is nearest to each patch; of equally near ones the first."""
        rows, columns = (axis.reshape(-1) for axis in np.indices(self.grid))
        distance = np.square(rows[:, None] - rows) + np.square(columns[:, None] - columns)
        return jnp.where(masking.missing[:, None], distance.max() + 1, distance[None]).argmin(axis=2)

    def panels(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "*F N H W C"]]:
        """Returns `reconstruction`: the visible patches, the prediction of the others beside them, and the image.

        Targets that are normalised say nothing of a patch's mean and contrast: the panel takes the true ones.
        """
        if "image" not in batch:
            return {}
        image, masking = batch["image"], self._masking_of(keys)
        patches, missing = patchify(image, self.encoder.patch_size), masking.missing[..., None]
        predicted = self.predict(model.params, image, masking)
        if self.normalise:
            predicted = predicted * _deviation(patches) + _mean(patches)
        seen, filled = (jnp.where(missing, other, patches) for other in (NEUTRAL, predicted))
        return {"reconstruction": stacked(self._image(seen), jnp.clip(self._image(filled), -1, 1), image)}

    def _image(self, patches: Float[Array, "B N F"]) -> Float[Array, "B H W C"]:
        return unpatchify(patches, self.encoder.patch_size, *self.image_shape[:2])

    def _masking_of(self, keys: Key[Array, " B"]) -> Masking:
        return self.masking(jax.vmap(lambda key: jax.random.uniform(key, (self.patches,)))(keys))

    @property
    def _encoder(self) -> nn.Module:
        return self.encoder.clone(outputs=0)

    @property
    def _first(self) -> int:
        return int(self.encoder.class_token)

    def _told(self, tokens: Array, masking: Masking) -> tuple[Array, Array, tuple[int, int], int, int]:
        """Returns the decoder's arguments."""
        features = self.encoder.patch_size**2 * self.image_shape[-1]
        return tokens, masking.places, self.grid, features, self._first

    @staticmethod
    def _over_missing(difference: Float[Array, "B N F"], masking: Masking) -> Float[Array, " B"]:
        error = jnp.square(difference).mean(axis=2)
        return (error * masking.missing).sum(axis=1) / masking.missing.sum(axis=1)


def _mean(patches: Float[Array, "B N F"]) -> Float[Array, "B N 1"]:
    return patches.mean(axis=-1, keepdims=True)


def _deviation(patches: Float[Array, "B N F"]) -> Float[Array, "B N 1"]:
    return jnp.sqrt(patches.var(axis=-1, keepdims=True, ddof=1) + EPS)
