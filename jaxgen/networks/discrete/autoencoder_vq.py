"""Holds the convolutional autoencoder of discrete codes (Esser et al. 2021, VQGAN): that of latent diffusion, without
Gaussians.

The encoder maps an image to a vector for each 2^(levels - 1) x 2^(levels - 1) pixels, the decoder maps vectors of the
codebook to images; the codebook itself is memory of the method (`jaxgen.methods.autoencoders.vq_autoencoder`). The
network computes what diffusers' `VQModel` computes around its codebook. Parameter names are those of
`jaxgen.networks.autoencoder_kl`.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.autoencoder_kl import Decoder, Encoder
from jaxgen.networks.layers.basic import Conv


class AutoencoderVQ(nn.Module):
    """Encodes images into vectors to be quantised, and decodes vectors into images.

    The last convolutions of blocks and the attentions' outputs start at zero.
    """

    out_channels: int = 3  # of the decoded images
    channels: int = 128  # width of the finest level
    channel_multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)  # level i has channels * this[i], and 1/2^i of each side
    blocks: int = 2  # residual blocks per level of the encoder; the decoder has one more
    latent_channels: int = 256  # D, the width of a vector
    codes: int = 1024  # K, the vectors of the codebook, which the method keeps
    middle_attention: bool = True  # whether the coarsest level's pixels attend to each other
    norm_groups: int = 32  # of every group normalisation; it divides every width
    norm_eps: float = 1e-6  # of every group normalisation
    dtype: str | None = None  # of the arithmetic, say "bfloat16"; parameters, vectors and images stay float32

    @property
    def factor(self) -> int:
        """Returns the number of pixels along each side that share a code."""
        return 2 ** (len(self.channel_multipliers) - 1)

    def setup(self) -> None:
        if not self.channel_multipliers or min(self.channels, self.blocks, self.latent_channels) < 1 or self.codes < 2:
            raise UserError(
                "A discrete autoencoder needs at least one level (channel_multipliers), at least 1 for channels, "
                "blocks and latent_channels, and at least 2 codes."
            )
        widths = tuple(self.channels * multiplier for multiplier in self.channel_multipliers)
        rest = (self.middle_attention, self.norm_groups, self.norm_eps, self.dtype)
        self.encoder = Encoder(widths, self.blocks, self.latent_channels, *rest)
        self.decoder = Decoder(widths, self.blocks, self.out_channels, *rest)
        self.quant = Conv(self.latent_channels, size=1, dtype=self.dtype)
        self.post_quant = Conv(self.latent_channels, size=1, dtype=self.dtype)

    def encode(self, x: Float[Array, "B H W C"]) -> Float[Array, "B h w D"]:
        """Returns vectors [B, H / factor, W / factor, D], float32, of images [B, H, W, C] in [-1, 1].

        Raises UserError for sides that `factor` does not divide.
        """
        if x.ndim != 4 or x.shape[1] % self.factor or x.shape[2] % self.factor:
            raise UserError(
                f"this autoencoder takes images [B, H, W, C] whose sides are multiples of {self.factor}, not an array "
                f"of shape {x.shape}: pad or resize them."
            )
        return jnp.asarray(self.quant(self.encoder(x)), jnp.float32)

    def decode(self, z: Float[Array, "B h w D"]) -> Float[Array, "B H W out"]:
        """Returns images [B, factor h, factor w, out_channels], float32, not clipped, of vectors [B, h, w, D].

        Raises UserError for vectors of another width.
        """
        if z.ndim != 4 or z.shape[-1] != self.latent_channels:
            raise UserError(f"this decoder takes vectors [B, h, w, {self.latent_channels}], not of shape {z.shape}.")
        return jnp.asarray(self.decoder(self.post_quant(z)), jnp.float32)

    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W out"]:
        """Decodes the encoded images without quantisation. Every parameter takes part, so that `init` creates all."""
        return self.decode(self.encode(x))
