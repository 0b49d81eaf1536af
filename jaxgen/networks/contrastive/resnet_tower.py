"""Holds the convolutional image tower of CLIP (Radford et al. 2021, section 2.4): residual blocks, then attention."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.layers.basic import GroupNorm, attend, kernel_init
from jaxgen.networks.layers.convolution import Conv
from jaxgen.networks.pretrained.clip import TimeFeatures, check_time, projected


class ResNetTower(nn.Module):
    """Maps images to hidden states and a pooled embedding, as `ImageTower` does.

    The first convolution keeps the side, and every level but the first halves it, by the mean of 2x2 pixels before its
    first convolution and beside it (the anti-aliased strides of the paper). Group normalisation takes the place of
    batch normalisation, so that an image's embedding does not depend on its neighbours in the batch.

    Attributes:
      size: height and width of the images; 2^(levels - 1) divides it.
      widths: channels of each level; the last is the width of the hidden states.
      blocks: residual blocks of each level.
      heads: of the attention that pools.
      projection, timed: as in `ImageTower`.
    """

    size: int = 32
    channels: int = 3
    widths: tuple[int, ...] = (32, 64, 128)
    blocks: int = 1
    heads: int = 4
    norm_groups: int = 8
    projection: int = 0
    timed: bool = False
    dtype: str | None = None

    @property
    def width(self) -> int:
        """Returns the features of the hidden states."""
        return self.widths[-1]

    @property
    def sees_time(self) -> bool:
        """Returns whether it is called with the time of noisy images."""
        return self.timed

    @nn.compact
    def __call__(
        self, images: Float[Array, "B H W C"], time: Float[Array, " B"] | None = None
    ) -> tuple[Float[Array, "B N D"], Float[Array, "B D"]]:
        """Returns hidden states [B, 1 + cells, D], of which the first is pooled, and the pooled image.

        Args:
          images: [B, size, size, channels] in [-1, 1].
          time: [B], 0..999, where `timed`.

        Raises:
          UserError: for images of another shape, or options that make no tower.
        """
        self.check(images)
        check_time(self.timed, time)
        h = Conv(self.widths[0], dtype=self.dtype, name="conv_in")(images)
        for level, width in enumerate(self.widths):
            for i in range(self.blocks):
                halve = level > 0 and i == 0
                h = ResidualBlock(width, halve, self.norm_groups, self.dtype, name=f"level_{level}_block_{i}")(h, time)
        h = nn.silu(GroupNorm(self.norm_groups, dtype=self.dtype, name="norm_out")(h))
        tokens = self.pooled(h.reshape(h.shape[0], -1, self.width))
        return tokens, projected(tokens[:, 0], self.projection, self.dtype)

    def pooled(self, cells: Float[Array, "B N D"]) -> Float[Array, "B M D"]:
        """Returns the cells behind what their mean, as a query, finds among them and itself (section 2.4)."""
        batch, count, width = cells.shape
        tokens = jnp.concatenate([cells.mean(1, keepdims=True), cells], axis=1)
        init = nn.initializers.normal(width**-0.5)
        position = self.param("position", init, (count + 1, width), jnp.float32)
        tokens = tokens + position.astype(tokens.dtype)

        def project(x: Array, name: str) -> Array:
            h = nn.Dense(width, kernel_init=kernel_init, dtype=self.dtype, name=name)(x)
            return h.reshape(batch, x.shape[1], self.heads, width // self.heads)

        found = attend(project(tokens[:, :1], "query"), project(tokens, "key"), project(tokens, "value"))
        found = nn.Dense(width, kernel_init=kernel_init, dtype=self.dtype, name="out")(found.reshape(batch, 1, width))
        return jnp.concatenate([found, tokens[:, 1:]], axis=1)

    def check(self, images: Float[Array, "B H W C"]) -> None:
        """Raises a UserError for images of another shape, or options that make no tower."""
        if not self.widths or self.blocks < 1 or self.heads < 1 or self.width % self.heads:
            raise UserError(
                f"a ResNet tower has levels, blocks in each, and heads that divide its last width; it has "
                f"widths={self.widths}, blocks={self.blocks} and heads={self.heads}."
            )
        factor = 2 ** (len(self.widths) - 1)
        wanted = (self.size, self.size, self.channels)
        if self.size % factor or images.ndim != 4 or images.shape[1:] != wanted:
            raise UserError(
                f"this tower sees images {wanted} of a size that {factor} divides, not an array [B, ...] of shape "
                f"{images.shape}."
            )


class ResidualBlock(nn.Module):
    """Adds two convolutions, behind group normalisation each, to its input, whose side it may halve first.

    Its parameters are `norm_1`, `conv_1`, `norm_2`, `conv_2`, `skip` where the channels change, and `time`.
    """

    config_name = ""  # a part of other networks; no config names it

    features: int
    halve: bool
    norm_groups: int
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], time: Float[Array, " B"] | None) -> Float[Array, "B h w D"]:
        h = nn.silu(GroupNorm(min(self.norm_groups, x.shape[-1]), dtype=self.dtype, name="norm_1")(x))
        if self.halve:
            h, x = (nn.avg_pool(a, (2, 2), (2, 2)) for a in (h, x))
        h = Conv(self.features, dtype=self.dtype, name="conv_1")(h)
        if time is not None:
            h = h + TimeFeatures(self.features, self.features, self.dtype, name="time")(time)[:, None, None]
        h = nn.silu(GroupNorm(self.norm_groups, dtype=self.dtype, name="norm_2")(h))
        h = Conv(self.features, dtype=self.dtype, name="conv_2")(h)
        if x.shape[-1] != self.features:
            x = nn.Dense(self.features, use_bias=False, kernel_init=kernel_init, dtype=self.dtype, name="skip")(x)
        return x + h
