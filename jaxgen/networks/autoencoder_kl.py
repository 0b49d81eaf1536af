"""Holds the convolutional autoencoder of latent diffusion (Rombach et al. 2022), of VQGAN's blocks (Esser et al. 2021).

The encoder maps an image to a grid of Gaussians, one for each 2^(levels - 1) x 2^(levels - 1) pixels. The decoder maps
samples of them to images. The network computes what diffusers' `AutoencoderKL` computes. Parameter names are
`encoder/...`, `decoder/...`, `quant` and `post_quant`; inside, `down_<level>_...`, `middle_...` and `up_<level>_...`,
level 0 being the finest.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.layers import basic as layers
from jaxgen.networks.layers.basic import Attention, Conv, GroupNorm


class Residual(nn.Module):
    """norm, SiLU, conv, norm, SiLU, zero conv; then the input is added: [B, H, W, C] -> [B, H, W, features].

    Its parameters are `norm_in`, `conv_in`, `norm_out`, `conv_out`, and `shortcut`, a 1x1 convolution of the input,
    where the width changes.
    """

    config_name = ""  # a part of other networks; no config names it

    features: int
    norm_groups: int
    norm_eps: float
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W features"]:
        norm = (self.norm_groups, self.norm_eps, self.dtype)
        h = nn.silu(GroupNorm(*norm, name="norm_in")(x))
        h = Conv(self.features, dtype=self.dtype, name="conv_in")(h)
        h = nn.silu(GroupNorm(*norm, name="norm_out")(h))
        h = Conv(self.features, kernel_init=layers.zeros_init, dtype=self.dtype, name="conv_out")(h)
        if x.shape[-1] != self.features:
            x = Conv(self.features, size=1, dtype=self.dtype, name="shortcut")(x)
        return x + h


class Part(nn.Module):
    """This is the base of encoder and decoder: it has their options and the layers that both have.

    Other options are those of `AutoencoderKL`.

    Attributes:
      widths: channels of each level, the finest first.
      blocks: residual blocks of a level.
      outputs: channels of the result.
    """

    config_name = ""  # a base class; no config names it

    widths: tuple[int, ...]
    blocks: int
    outputs: int
    middle_attention: bool
    norm_groups: int
    norm_eps: float
    dtype: str | None = None

    def conv(self, features: int, name: str, **options) -> Conv:
        return Conv(features, dtype=self.dtype, name=name, **options)

    def block(self, features: int, name: str) -> Residual:
        return Residual(features, self.norm_groups, self.norm_eps, self.dtype, name=name)

    def middle(self, h: Array) -> Array:
        """Applies two blocks at the coarsest level, and attention of one head between them."""
        h = self.block(self.widths[-1], "middle_block_0")(h)
        if self.middle_attention:
            h = Attention(1, self.norm_groups, self.norm_eps, self.dtype, name="middle_attention")(h)
        return self.block(self.widths[-1], "middle_block_1")(h)

    def finish(self, h: Array) -> Array:
        h = nn.silu(GroupNorm(self.norm_groups, self.norm_eps, self.dtype, name="norm_out")(h))
        return self.conv(self.outputs, "conv_out")(h)


class Encoder(Part):
    """Maps [B, H, W, C] to [B, H / f, W / f, outputs], f being 2^(levels - 1)."""

    config_name = ""  # a part of other networks; no config names it

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w outputs"]:
        h = self.conv(self.widths[0], "conv_in")(x)
        for level, width in enumerate(self.widths):
            for i in range(self.blocks):
                h = self.block(width, f"down_{level}_block_{i}")(h)
            if level != len(self.widths) - 1:
                # one row of zeros below and one column at the right, none above and at the left
                h = self.conv(width, f"down_{level}_resample", stride=2, padding=((0, 1), (0, 1)))(h)
        return self.finish(self.middle(h))


class Decoder(Part):
    """Maps [B, h, w, D] to [B, f h, f w, outputs]; each level has one block more than in the encoder."""

    config_name = ""  # a part of other networks; no config names it

    @nn.compact
    def __call__(self, z: Float[Array, "B h w D"]) -> Float[Array, "B H W outputs"]:
        h = self.middle(self.conv(self.widths[-1], "conv_in")(z))
        for level in reversed(range(len(self.widths))):
            for i in range(self.blocks + 1):
                h = self.block(self.widths[level], f"up_{level}_block_{i}")(h)
            if level:
                h = self.conv(self.widths[level], f"up_{level}_resample", upsampled=True)(h)
        return self.finish(h)


class AutoencoderKL(nn.Module):
    """Encodes images into Gaussians over latents and decodes latents into images.

    The last convolutions of blocks and the attentions' outputs start at zero.
    """

    out_channels: int = 3  # of the decoded images
    channels: int = 128  # width of the finest level
    channel_multipliers: tuple[int, ...] = (1, 2, 4, 4)  # level i has channels * this[i], and 1/2^i of each side
    blocks: int = 2  # residual blocks per level of the encoder; the decoder has one more
    latent_channels: int = 4  # D, the channels of latents, which have the coarsest level's pixels
    # Whether the coarsest level's pixels attend to each other. Without it a decoded pixel depends only on near latents,
    # except through the statistics of the group normalisations.
    middle_attention: bool = True
    quant_conv: bool = True  # whether the encoder ends with a 1x1 convolution of the moments
    post_quant_conv: bool = True  # whether the decoder begins with a 1x1 convolution of the latents
    norm_groups: int = 32  # of every group normalisation; it divides every width
    norm_eps: float = 1e-6  # of every group normalisation
    dtype: str | None = None  # of the arithmetic, say "bfloat16"; parameters, moments and images stay float32

    @property
    def factor(self) -> int:
        """Returns the number of pixels along each side that share a latent."""
        return 2 ** (len(self.channel_multipliers) - 1)

    def setup(self) -> None:
        if not self.channel_multipliers or min(self.channels, self.blocks, self.latent_channels) < 1:
            raise UserError(
                "An autoencoder needs at least one level (channel_multipliers), and at least 1 for channels, blocks "
                "and latent_channels."
            )
        widths = tuple(self.channels * multiplier for multiplier in self.channel_multipliers)
        rest = (self.middle_attention, self.norm_groups, self.norm_eps, self.dtype)
        self.encoder = Encoder(widths, self.blocks, 2 * self.latent_channels, *rest)
        self.decoder = Decoder(widths, self.blocks, self.out_channels, *rest)
        if self.quant_conv:
            self.quant = Conv(2 * self.latent_channels, size=1, dtype=self.dtype)
        if self.post_quant_conv:
            self.post_quant = Conv(self.latent_channels, size=1, dtype=self.dtype)

    def encode(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w 2*D"]:
        """Returns moments [B, H / factor, W / factor, 2 D], float32, of images [B, H, W, C] in [-1, 1].

        Means come first, then log variances; `jaxgen.variational.gaussian.Gaussian.of` takes them.
        Raises UserError for sides that `factor` does not divide.
        """
        if x.ndim != 4 or x.shape[1] % self.factor or x.shape[2] % self.factor:
            raise UserError(
                f"this autoencoder takes images [B, H, W, C] whose sides are multiples of {self.factor}, not an array "
                f"of shape {x.shape}: pad or resize them."
            )
        h = self.encoder(x)
        return jnp.asarray(self.quant(h) if self.quant_conv else h, jnp.float32)

    def decode(self, z: Float[Array, "B h w D"]) -> Float[Array, "B H W out"]:
        """Returns images [B, factor h, factor w, out_channels], float32, not clipped, of latents [B, h, w, D].

        Raises UserError for latents of another width.
        """
        if z.ndim != 4 or z.shape[-1] != self.latent_channels:
            raise UserError(f"this decoder takes latents [B, h, w, {self.latent_channels}], not of shape {z.shape}.")
        return jnp.asarray(self.decoder(self.post_quant(z) if self.post_quant_conv else z), jnp.float32)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W out"]:
        """Decodes the means of the encoded images. Every parameter takes part, so that `init` creates all of them."""
        return self.decode(jnp.split(self.encode(x), 2, -1)[0])
