"""Guides by a CLIP: by the similarity of an image and a text (Nichol et al. 2022, "GLIDE", section 2.4).

With the image tower f, the text tower g and the temperature tau of a CLIP, the number whose gradient is taken is

    exp(logit_scale) cos(f(x), g(c)) = cos(f(x), g(c)) / tau.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax

from jaxgen.diffusion.guidance.base import GuidanceInputs, Towers
from jaxgen.diffusion.guidance.gradient import ByGradient, Fit, OfNoisy, OfPredicted
from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class BySimilarity(ByGradient):
    """Guidance by both towers of a CLIP, whose weights are `config.init_from.clip_image`, `.clip_text`, `.clip_scale`.

    Attributes:
      image: the image tower: images `[B, H, W, C]`, and their time `[B]` if it `sees_time`, -> an embedding `[B, D]`,
        or the last of several outputs.
      text: the text tower: tokens `[B, L]` -> an embedding `[B, D]`, or the last of several outputs.
      entry: the entry of the batch that has the tokens.
    """

    config_name = ""  # a base of others: no config names it

    image: nn.Module
    text: nn.Module
    entry: str = "tokens"

    wants = "similarity"

    @property
    def required_groups(self) -> tuple[str, ...]:
        return ("clip_image", "clip_text", "clip_scale")

    @property
    def entries(self) -> tuple[str, ...]:
        return (self.entry,)

    @property
    def towers(self) -> Towers | None:
        return Towers(self.image, self.text, self.entry)

    def fit(self, inputs: GuidanceInputs) -> Fit:
        similarity = inputs.similarity
        if similarity is None:
            raise UserError(f"{self.called} needs the similarity of images and the wanted text, by a CLIP.")

        def total(x: jax.Array, t: jax.Array) -> jax.Array:
            return similarity(x, t).sum()

        return total


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIP(BySimilarity, OfNoisy):
    """CLIP guidance (Nichol et al. 2022, section 2.4) has a CLIP of noisy images, whose image tower is told the time.

    The mean of a step moves by scale times Sigma times the gradient of exp(logit_scale) cos(f(x_t, t), g(c)), in the
    form of `Classifier`, which is right for every solver. An image tower without a time is given x_t alike, which is
    the paper's comparison with a CLIP that never saw noise.

    Attributes:
      scale: the factor of the gradient; the paper's released model takes 3.
    """

    called = "CLIP guidance"


@dataclasses.dataclass(frozen=True, kw_only=True)
class UniversalCLIP(BySimilarity, OfPredicted):
    """Guidance by a CLIP of clean images, which sees the predicted x0: `Universal` with a similarity.

    Attributes:
      scale: the factor of the forward gradient; 0 turns forward guidance off.
      backward_steps: the number of gradient steps of backward guidance; 0 turns it off.
      backward_rate: the size of these steps.
    """

    called = "Universal guidance by a CLIP"
