"""Holds a discriminator that is told the camera, and the caption (EG3D, Chan et al. 2022, section 4.3)."""

from __future__ import annotations

import dataclasses
import math

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.gans.equalised import HE, EqualConv, EqualDense, append_deviation, pixel_norm
from jaxgen.networks.gans.gan_layers import GANNetwork, Outputs, leaky_relu
from jaxgen.networks.pretrained.text_encoder import TextEncoder
from jaxgen.networks.three_d.words import read, read_words


class CameraDiscriminator(GANNetwork):
    """Maps images [B, H, W, C] with their camera [B, 25] to `{"logits": [B], "features": [B, F], heads...}`.

    Camera and words become an embedding, whose inner product with the features is added to the logit (Miyato & Koyama
    2018). Words keep their order, so that "a red cube on a blue sphere" is not "a blue cube on a red sphere".

    Raises:
      UserError: the image's sides cannot be halved so often.
    """

    config_name = "camera_discriminator"

    widths: tuple[int, ...] = (32, 64, 96, 128)  # of each level, from the image on; all but the first halve the sides
    group: int = 4  # images whose deviation is appended; 1 appends none
    vocabulary: int = 0  # number of token ids; 0 reads no captions
    frozen_text: bool = False  # whether the words are those of the frozen encoder of the method, which has no part here
    length: int = 8  # the most tokens of a caption
    words: int = 32  # width of a word's feature
    depth: int = 1  # blocks of the text encoder
    heads: dict[str, int] = dataclasses.field(default_factory=dict)  # `{name: width}` of further outputs

    @property
    def reads(self) -> tuple[str, ...]:
        return read(self.vocabulary, self.frozen_text)

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W C"],
        camera: Float[Array, "B 25"],
        tokens: Int[Array, "B L"] | None = None,
        words: Float[Array, "B L K"] | None = None,
        train: bool = False,
    ) -> dict[str, Float[Array, "B ..."]]:
        shrink = 2 ** (len(self.widths) - 1)
        if any(side % shrink for side in x.shape[1:3]):
            raise UserError(
                f"Images of {x.shape[1]}x{x.shape[2]} pixels cannot be halved {len(self.widths) - 1} times: give "
                "config.method.discriminator.widths fewer levels."
            )
        h = leaky_relu(EqualConv(self.widths[0], gain=HE, name="conv_0")(x))
        for i, width in enumerate(self.widths[1:], 1):
            h = leaky_relu(EqualConv(width, gain=HE, resampling="pooled", name=f"conv_{i}")(h))
        h = append_deviation(h, self.group) if self.group > 1 else h
        h = leaky_relu(EqualConv(self.widths[-1], gain=HE, name="last")(h))
        features = leaky_relu(EqualDense(self.widths[-1], HE, name="features")(h.reshape(len(h), -1)))
        outputs = Outputs(self.heads, name="outputs")(features, features, None, train)
        asked = EqualDense(self.widths[-1], name="embedding")(self._told(camera, tokens, words))
        return outputs | {"logits": outputs["logits"] + (asked * features).sum(-1) / math.sqrt(self.widths[-1])}

    def _told(self, camera: Array, tokens: Array | None, words: Array | None) -> Float[Array, "B F"]:
        """Returns a feature of the camera and the words; call it in a compact method."""
        h = leaky_relu(EqualDense(64, HE, name="camera_in")(camera))
        parts = [pixel_norm(EqualDense(64, name="camera_out")(h))]
        if self.vocabulary:
            encoder = None
            if not self.frozen_text:
                encoder = TextEncoder(self.vocabulary, self.length, self.words, self.depth, name="text")
            text, mask = read_words(encoder, tokens, words)
            flat = (text * mask[..., None]).reshape(len(text), -1)
            parts.append(pixel_norm(EqualDense(64, HE, name="sentence")(flat)))
        return leaky_relu(EqualDense(128, HE, name="told")(jnp.concatenate(parts, -1)))
