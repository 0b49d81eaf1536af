"""Holds unCLIP's diffusion prior (Ramesh et al. 2022, section 2.2): an image's CLIP embedding from a text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Key

from jaxgen.arrays import Array, Batch
from jaxgen.codecs.embedding import Embedding
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.methods.diffusion.ddpm import DDPM

OF_CANDIDATES = 2_000  # folded into a sample's key for candidates behind the first; samplers use smaller numbers
DISTANCES = ("prior_distance", "text_distance", "shuffled_distance")


@dataclasses.dataclass(frozen=True)
class Prior(DDPM):
    """Diffuses embeddings of images, told the text; of several samples it keeps the one that is nearest to the text.

    The codec is `embedding`, the network `prior_transformer`, and the text one of `parts`, whose `pooled` vector is the
    text's embedding in the space of the images' embeddings. All else is `ddpm`'s; the paper predicts x0.

    Its numbers on held-out data are, with d(a, b) = 1 - cos(a, b): `prior_distance`, d(sample, image), which should be
    below `text_distance`, d(text, image); `shuffled_distance`, d(sample for another text, image), which should not; and
    `prior_over_text`, the first divided by the second.

    Attributes:
      candidates: how many samples are drawn for each that is kept; the paper's number is 2.

    Raises:
      UserError: the codec is another, no part gives the text's embedding, or candidates are below 1.
    """

    candidates: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.codec, Embedding):
            raise UserError(
                f"A prior diffuses embeddings, and config.method.codec is {type(self.codec).__name__}: name the codec "
                "'embedding', with the width of the embeddings."
            )
        if "vector" not in self.told.gives:
            raise UserError(
                "A prior reads the embedding of a text, and none of config.method.parts gives a vector: set "
                "config.method.parts.text.pooled."
            )
        if self.candidates < 1:
            raise UserError(f"config.method.candidates is {self.candidates}; it is 1 or more.")

    @property
    def vectors(self) -> Embedding:
        """Returns the codec, which is one of embeddings."""
        assert isinstance(self.codec, Embedding)  # by __post_init__
        return self.codec

    def sample(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> Float[Array, "B D"]:
        if self.candidates == 1 or "noise" in batch:  # given noise is the same for all candidates
            return super().sample(model, keys, batch)
        own = [keys, *(_folded(keys, OF_CANDIDATES + number) for number in range(1, self.candidates))]
        drawn = jax.lax.map(lambda keys: super(Prior, self).sample(model, keys, batch), jnp.stack(own))
        text = self.text_embedding(model, keys, batch)
        best = cosine(drawn, text).argmax(axis=0)
        return jnp.take_along_axis(drawn, best[None, :, None], axis=0)[0]

    def text_embedding(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> Float[Array, "B D"]:
        """Returns the embeddings of a batch's texts, which need not be of length 1.

        Raises:
          UserError: they have another width than embeddings of images.
        """
        found = self.condition(model.params, batch, keys)["vector"]
        if found.shape[-1] != self.shape[0]:
            raise UserError(
                f"A prior compares embeddings of texts and images, and those of config.method.parts have "
                f"{found.shape[-1]} numbers, while config.method.codec.width is {self.shape[0]}: take both from one "
                "CLIP, and give the prior no other vector."
            )
        return found

    def scores(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "B ..."]]:
        """Returns the numbers of `ddpm`, and the distances that the class explains."""
        truth = batch[self.vectors.entry]
        others = {**batch, **{name: jnp.roll(batch[name], 1, axis=0) for name in self.conditions}}
        drawn, text = self.sample(model, keys, batch), self.text_embedding(model, keys, batch)
        found = (drawn, text, self.sample(model, keys, others))
        distances = (1 - cosine(embedding, truth) for embedding in found)
        return {**super().scores(model, keys, batch), **dict(zip(DISTANCES, distances, strict=True))}

    def summary(self, scores: Mapping[str, np.ndarray]) -> dict[str, float]:
        found = super().summary(scores)
        if found.get("text_distance"):
            found["prior_over_text"] = found["prior_distance"] / found["text_distance"]
        return found

    def better(self, score: str) -> str | None:
        return None if score in ("text_distance", "shuffled_distance") else super().better(score)


def cosine(a: Float[Array, "... D"], b: Float[Array, "... D"]) -> Float[Array, "..."]:
    """Returns the cosines of vectors; 0 where one of them is zero."""
    lengths = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
    return (a * b).sum(axis=-1) / jnp.maximum(lengths, 1e-12)


def _folded(keys: Key[Array, " B"], number: int) -> Key[Array, " B"]:
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)
