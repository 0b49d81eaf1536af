"""Holds a generator of pictures that is told the camera and has no object in space: the control of triplanes."""

from __future__ import annotations

from jaxtyping import Float, Int

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.gans.gan_layers import GANNetwork
from jaxgen.networks.pretrained.text_encoder import TextEncoder
from jaxgen.networks.three_d.triplane import START, Planes
from jaxgen.networks.three_d.words import read, read_words


class CameraGenerator(GANNetwork):
    """Maps noise [B, Z] and a camera [B, 25], and tokens [B, L] with a vocabulary, to images [B, H, W, C].

    Its layers are those that make the planes of `TriplaneGenerator`, with one plane, which is the picture, and the
    camera as a part of the style. What two cameras see of one noise therefore agrees only as far as it was learned.

    Raises:
      UserError: the levels do not end at the image's sides.
    """

    config_name = "camera_generator"

    image_shape: tuple[int, int, int]  # (H, W, C), square
    z_dim: int = 64  # the width of the noise that a method draws
    widths: tuple[int, ...] = (96, 64, 48, 32)  # channels at 4, 8, 16, ... pixels of the side, the last at the image's
    vocabulary: int = 0  # number of token ids; 0 reads no captions
    frozen_text: bool = False  # whether the words are those of the frozen encoder of the method, which has no part here
    length: int = 8  # the most tokens of a caption
    words: int = 64  # width of a word's feature
    depth: int = 1  # blocks of the text encoder
    attention_heads: int = 4
    attention_side: int = 8  # the largest side with attention; 0 has none
    cross_word: bool = True  # whether a pixel looks at the words, and not at the sentence alone

    @property
    def reads(self) -> tuple[str, ...]:
        return read(self.vocabulary, self.frozen_text)

    def setup(self) -> None:
        side = START * 2 ** (len(self.widths) - 1)
        if self.image_shape[:2] != (side, side):
            height, width = self.image_shape[:2]
            raise UserError(
                f"config.method.generator.widths has {len(self.widths)} levels, which make images of {side}x{side} "
                f"pixels, and these have {height}x{width}: each level doubles the side, from {START} on."
            )
        sizes = (self.attention_heads, self.attention_side, False, self.cross_word)
        self.of_z = Planes(self.image_shape[-1], self.widths, *sizes, count=1)
        own = self.vocabulary and not self.frozen_text
        sizes_of_text = (self.vocabulary, self.length, self.words, self.depth, self.attention_heads)
        self.text = TextEncoder(*sizes_of_text) if own else None

    def __call__(
        self,
        z: Float[Array, "B Z"],
        camera: Float[Array, "B 25"],
        tokens: Int[Array, "B L"] | None = None,
        words: Float[Array, "B L K"] | None = None,
        train: bool = False,
    ) -> Float[Array, "B H W C"]:
        if not self.vocabulary:
            return self.of_z(z, None, None, camera)[:, 0]
        return self.of_z(z, *read_words(self.text, tokens, words), camera)[:, 0]
