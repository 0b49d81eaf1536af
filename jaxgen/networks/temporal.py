"""Holds a transformer over the frames of a video (Guo et al. 2024, AnimateDiff, section 4.2).

It computes what diffusers' `AnimateDiffTransformer3D` computes inside `UNetMotionModel`.
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.layers.basic import GroupNorm, kernel_init, sinusoidal, zeros_init
from jaxgen.networks.layers.spatial_transformer import NORM_EPS, GatedMLP
from jaxgen.networks.transformer import TokenAttention


def frame_positions(frames: int, dim: int) -> Float[Array, "F dim"]:
    """Returns sines and cosines of the frames' numbers, by turns, float32 `[F, dim]` (Vaswani et al. 2017, 3.5).

    Raises:
      UserError: `dim` is odd.
    """
    apart = sinusoidal(jnp.arange(frames, dtype=jnp.float32), dim)  # the sines, then the cosines
    return apart.reshape(frames, 2, dim // 2).swapaxes(1, 2).reshape(frames, dim)


class TemporalBlock(nn.Module):
    """Adds two self-attentions over frames and a gated MLP, each after a LayerNorm: [N, F, D] -> [N, F, D].

    Both attentions see the frames' positions (`frame_positions`) added to their input, where `positions` is above 0.
    The parameters are `norm_1`, `attention_1`, `norm_2`, `attention_2`, `norm_3` and `feed_forward`. The attentions
    have `query`, `key` and `value` without bias and `out` with one.
    """

    config_name = ""  # a part of other networks; no config names it

    heads: int
    positions: int = 32
    dtype: str | None = None

    @nn.compact
    def __call__(self, tokens: Float[Array, "N F D"]) -> Float[Array, "N F D"]:
        def norm(x: Array, name: str) -> Array:
            return nn.LayerNorm(1e-5, dtype=self.dtype, use_fast_variance=False, name=name)(x)

        for i in (1, 2):
            h = norm(tokens, f"norm_{i}")
            if self.positions:
                h = h + frame_positions(*tokens.shape[1:]).astype(h.dtype)
            attention = TokenAttention(self.heads, dtype=self.dtype, qkv_bias=False, name=f"attention_{i}")
            tokens = tokens + attention(h)
        mlp = GatedMLP(4 * tokens.shape[-1], self.dtype, name="feed_forward")
        return tokens + mlp(norm(tokens, "norm_3"))


class TemporalTransformer(nn.Module):
    """Computes x + out(blocks(in(norm(x)))), where the frames of a video attend to each other at each pixel.

    x [B * F, H, W, C] has the F frames of each video one behind the other, and the result has the same shape. `out`
    starts at zero, so a fresh one is the identity. The statistics of `norm` are over all frames of a video. The
    parameters are `norm`, `in`, `block_<i>` and `out`.

    Attributes:
      frames: the number of frames of a video.
      heads: number of heads of every attention.
      depth: number of blocks.
      norm_groups: number of groups of the group normalisation.
      positions: the largest number of frames; 0 for a network that does not know their order.

    Raises:
      UserError: there are more frames than positions, `heads` do not divide C, or C is odd.
    """

    config_name = ""  # a part of other networks; no config names it

    frames: int
    heads: int
    depth: int = 1
    norm_groups: int = 32
    positions: int = 32
    dtype: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "N H W C"]) -> Float[Array, "N H W C"]:
        count, height, width, channels = x.shape
        if 0 < self.positions < self.frames:
            raise UserError(f"Temporal layers of {self.positions} positions cannot see {self.frames} frames.")
        video = x.reshape(count // self.frames, self.frames, height, width, channels)
        h = GroupNorm(self.norm_groups, NORM_EPS, self.dtype, name="norm")(video)
        h = h.transpose(0, 2, 3, 1, 4)  # [B, H, W, F, C]
        across, h = h.shape, h.reshape(-1, self.frames, channels)
        h = nn.Dense(channels, kernel_init=kernel_init, dtype=self.dtype, name="in")(h)
        for i in range(self.depth):
            h = TemporalBlock(self.heads, self.positions, self.dtype, name=f"block_{i}")(h)
        h = nn.Dense(channels, kernel_init=zeros_init, dtype=self.dtype, name="out")(h)
        return x + h.reshape(across).transpose(0, 3, 1, 2, 4).reshape(x.shape)
