"""Edits images by their CLIP embeddings, with unCLIP's decoder (Ramesh et al. 2022, section 3).

An image is two things: its embedding z, which says what it shows, and the noise x_T from which the decoder, told z and
run backwards by DDIM, makes exactly this image. Variations keep z and draw x_T; interpolations walk from the pair of
one image to that of another; a text difference keeps x_T and turns z to where one text lies beside another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Key

from jaxgen.arrays import Array, Batch
from jaxgen.diffusion.prediction import Denoiser
from jaxgen.diffusion.samplers.ddim import DDIM
from jaxgen.editing.interpolation import slerp_noise
from jaxgen.editing.inversion import invert
from jaxgen.editing.model import DiffusionModel
from jaxgen.methods.base import Model
from jaxgen.methods.diffusion.ddpm import DDPM

ENTRY = "embedding"


@dataclasses.dataclass(frozen=True)
class Decoder:
    """Draws images of embeddings.

    Attributes:
      method: a diffusion method that reads the entry `embedding`.
      model: its parameters.
      told: its other conditions, one example each, `{entry: [1, ...]}`; by default of `nulls`.
      steps: of DDIM, in walks.
    """

    method: DDPM
    model: Model
    told: Mapping[str, Array | np.ndarray]
    steps: int = 50

    def batch(self, embedding: Float[Array, "N D"]) -> Batch:
        """Returns the batch that images of these embeddings are drawn for."""
        count = len(embedding)
        others = {name: jnp.repeat(jnp.asarray(rows), count, axis=0) for name, rows in self.told.items()}
        return {**others, ENTRY: embedding}

    def variations(self, embedding: Float[Array, "N D"], keys: Key[Array, " N"]) -> Float[Array, "N H W C"]:
        """Returns an image for each embedding, by the method's own sampler and guidance."""
        return self.method.sample(self.model, keys, self.batch(embedding))

    def noise_of(
        self, images: Float[Array, "N H W C"], embedding: Float[Array, "N D"], keys: Key[Array, " N"]
    ) -> Float[Array, "N ..."]:
        """Returns x_T, of which `drawn_from` makes these images again, to the error of DDIM's inversion."""
        z = self.method.diffused(self.model, {"image": images})
        diffusion = DiffusionModel(self._denoiser(embedding, keys), self.method.schedule)
        return invert(diffusion, z, self.steps, refinements=1)

    def drawn_from(
        self, noise: Float[Array, "N ..."], embedding: Float[Array, "N D"], keys: Key[Array, " N"]
    ) -> Float[Array, "N H W C"]:
        """Returns the images of noise and embeddings, by DDIM without noise and without guidance."""
        solver = DDIM(self.steps, clip=False)
        z = solver(self._denoiser(embedding, keys), self.method.schedule, noise, keys)
        return self.method.decode(self.model, z)

    def _denoiser(self, embedding: Float[Array, "N D"], keys: Key[Array, " N"]) -> Denoiser:
        denoise = self.method.denoiser(self.model.params)
        condition = self.method.condition(self.model.params, self.batch(embedding), keys)
        return lambda x, t: denoise(x, t, **condition)


def nulls(method: DDPM) -> dict[str, Array]:
    """Returns what stands for no condition of each entry that a method reads beside the embedding, `{entry: [1, ...]}`.

    Entries whose shape only the data know are left out.
    """
    found: dict[str, Array] = {}
    for part in method.told.all.values():
        known = {name: shape for name, shape in method.entries.items() if name in part.entries and name != ENTRY}
        if known and part.guides:
            found |= part.null({name: jnp.zeros((1, *shape), dtype) for name, (shape, dtype) in known.items()})
    return found


def interpolated(
    decoder: Decoder,
    images: tuple[Float[Array, "N H W C"], Float[Array, "N H W C"]],
    embeddings: tuple[Float[Array, "N D"], Float[Array, "N D"]],
    keys: Key[Array, " N"],
    count: int = 9,
) -> Float[Array, "count N H W C"]:
    """Returns `count` images between each image of the first half and that of the second, both included.

    Embeddings and noise are interpolated on their arcs (Ramesh et al. 2022, section 3.2).
    """
    noise = tuple(decoder.noise_of(x, z, keys) for x, z in zip(images, embeddings, strict=True))

    def at(share: Array) -> Array:
        x = slerp_noise(noise[0], noise[1], share)
        return decoder.drawn_from(x, slerp_noise(embeddings[0], embeddings[1], share), keys)

    return jax.lax.map(at, jnp.linspace(0.0, 1.0, count))


def text_difference(
    image: Float[Array, "N D"], before: Float[Array, "N D"], after: Float[Array, "N D"], share: Array | float
) -> Float[Array, "N D"]:
    """Returns embeddings that are turned from those of images towards the difference of two texts.

    z_d = (z_after - z_before) / |z_after - z_before|, and the result is slerp(z_image, z_d, share) (section 3.3). The
    paper's shares end between 0.25 and 0.5.

    Args:
      image, before, after: unit vectors; `before` says what the image shows, and `after` what it should show.
    """
    difference = after - before
    direction = difference / jnp.maximum(jnp.linalg.norm(difference, axis=-1, keepdims=True), 1e-12)
    return slerp_noise(image, direction, share)


def changed(
    decoder: Decoder,
    images: Float[Array, "N H W C"],
    embedding: Float[Array, "N D"],
    texts: tuple[Float[Array, "N D"], Float[Array, "N D"]],
    keys: Key[Array, " N"],
    most: float = 0.5,
    count: int = 9,
) -> Float[Array, "count N H W C"]:
    """Returns `count` images from each image to one that the second text says in place of the first.

    The noise stays that of the image, of which the first one is its reconstruction.

    Args:
      texts: unit embeddings of the text before and of the text after.
      most: the share of the way that the last image has gone.
    """
    noise = decoder.noise_of(images, embedding, keys)

    def at(share: Array) -> Array:
        return decoder.drawn_from(noise, text_difference(embedding, *texts, share), keys)

    return jax.lax.map(at, jnp.linspace(0.0, most, count))
