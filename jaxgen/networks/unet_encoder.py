"""Holds a classifier of noisy images: the U-Net's downward half, then attention pooling (Dhariwal & Nichol 2021)."""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.layers import basic as layers
from jaxgen.networks.layers.basic import Attention, Conv, GroupNorm
from jaxgen.networks.layers.contract import check_choices
from jaxgen.networks.unet import ResBlock


class UNetEncoder(nn.Module):
    """Gives logits of p(y | x_t) from a noisy image and its time (Dhariwal & Nichol 2021, section 4.1, appendix I).

    Options that are not documented here are those of `unet.UNet`, whose downward half has the same parameter names.
    """

    num_classes: int = 0  # at least 2
    # "attention": a learned query of the mean, as in CLIP, for one image size; or the "mean" over the pixels
    pool: Literal["attention", "mean"] = "attention"
    channels: int = 64
    channel_multipliers: tuple[int, ...] = (1, 2, 2)
    blocks: int = 2
    attention_resolutions: tuple[int, ...] = (16,)
    middle_attention: bool = True
    heads: int = 1
    head_channels: int = 0
    dropout: float = 0.0
    time_mode: Literal["add", "adaptive"] = "add"
    resample: Literal["conv", "residual"] = "conv"
    norm_groups: int = 32
    norm_eps: float = 1e-5
    dtype: str | None = None

    sees_time = True  # a guidance gives it the time of the noisy images

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], time: Float[Array, " B"], train: bool = False
    ) -> tuple[Float[Array, "B num_classes"], Float[Array, "B D"]]:
        """Maps noisy images [B, H, W, C] and times [B] (0..999) to logits [B, num_classes] and features [B, D].

        H and W are multiples of 2^(levels - 1). Raises UserError where they are not, and for fewer than two classes.
        """
        self.check(x, time)
        embedding = nn.silu(self.embed(time))
        widths = [self.channels * multiplier for multiplier in self.channel_multipliers]
        norm = (self.norm_groups, self.norm_eps)

        def block(h: Array, features: int, name: str, resample: str = "") -> Array:
            module = ResBlock(features, self.time_mode, *norm, resample, self.dropout, self.dtype, name=name)
            return module(h, embedding, train)

        def attention(h: Array, name: str) -> Array:
            return Attention(self.heads_for(h.shape[-1]), *norm, self.dtype, name=name)(h)

        h = Conv(widths[0], dtype=self.dtype, name="conv_in")(x)
        for level, width in enumerate(widths):
            for i in range(self.blocks):
                h = block(h, width, f"down_{level}_block_{i}")
                if min(h.shape[1:3]) in self.attention_resolutions:
                    h = attention(h, f"down_{level}_attention_{i}")
            if level + 1 < len(widths):
                name = f"down_{level}_resample"
                if self.resample == "residual":
                    h = block(h, width, name, "down")
                else:
                    h = Conv(width, stride=2, dtype=self.dtype, name=name)(h)
        h = block(h, widths[-1], "middle_block_0")
        if self.middle_attention:
            h = attention(h, "middle_attention")
        h = block(h, widths[-1], "middle_block_1")

        h = nn.silu(GroupNorm(*norm, self.dtype, name="norm_out")(h))
        tokens = h.reshape(h.shape[0], -1, h.shape[-1])
        if self.pool == "attention":
            features = AttentionPool(self.heads_for(h.shape[-1]), self.dtype, name="pool")(tokens)
        else:
            features = tokens.mean(1)
        features = features.astype(jnp.float32)
        return nn.Dense(self.num_classes, name="classes")(features), features

    def embed(self, time: Array) -> Array:
        """Returns time as a float32 vector [B, 4 channels]."""
        h = layers.sinusoidal(time, self.channels, cos_first=True)
        for name in ("time_in", "time_out"):
            h = nn.Dense(4 * self.channels, kernel_init=layers.kernel_init, name=name)(h)
            h = nn.silu(h) if name == "time_in" else h
        return h

    def heads_for(self, width: int) -> int:
        """Returns the number of attention heads at this many channels."""
        if not self.head_channels:
            return self.heads
        if width % self.head_channels:
            raise UserError(f"head_channels {self.head_channels} does not divide {width} channels.")
        return width // self.head_channels

    def check(self, x: Array, time: Array) -> None:
        """Raises a UserError for options that do not exist and inputs that do not fit them."""
        if self.num_classes < 2:
            raise UserError("A classifier needs classes; set config.data.num_classes to 2 or more.")
        check_choices(self)
        factor = 2 ** (len(self.channel_multipliers) - 1)
        if x.ndim != 4 or x.shape[1] % factor or x.shape[2] % factor:
            raise UserError(
                f"this classifier takes images [B, H, W, C] with sides that are multiples of {factor}, not {x.shape}."
            )
        if time.shape != x.shape[:1]:
            raise UserError(f"time has shape {time.shape}, but a batch of {len(x)} images needs ({len(x)},).")


class AttentionPool(nn.Module):
    """Pools tokens [B, N, C] into [B, C]: their mean attends to all tokens and to itself, with several heads.

    Learned positions [N + 1, C] are added first, so N is fixed (Radford et al. 2021, section 2.4).
    """

    config_name = ""  # a part of other networks; no config names it

    heads: int
    dtype: str | None = None

    sees_time = True  # a guidance gives it the time of the noisy images

    @nn.compact
    def __call__(self, tokens: Float[Array, "B N C"]) -> Float[Array, "B C"]:
        batch, count, channels = tokens.shape
        if self.heads < 1 or channels % self.heads:
            raise UserError(f"{self.heads} attention heads do not divide {channels} channels: choose other heads.")
        init = nn.initializers.normal(channels**-0.5)
        positions = self.param("positions", init, (count + 1, channels), jnp.float32)
        tokens = jnp.concatenate([tokens.mean(1, keepdims=True), tokens], 1)
        tokens = tokens + positions.astype(tokens.dtype)

        def project(a: Array, name: str) -> Array:
            a = nn.Dense(channels, kernel_init=layers.kernel_init, dtype=self.dtype, name=name)(a)
            return a.reshape(batch, -1, self.heads, channels // self.heads)

        query, key, value = project(tokens[:, :1], "query"), project(tokens, "key"), project(tokens, "value")
        pooled = layers.attend(query, key, value).reshape(batch, channels)
        return nn.Dense(channels, kernel_init=layers.kernel_init, dtype=self.dtype, name="out")(pooled)
