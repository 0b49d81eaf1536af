"""Holds building blocks of the networks: group normalisation, time features, attention, and convolution.

Parameters are float32; `dtype` is the type of the arithmetic, and sums that decide precision (statistics,
softmax) are always float32. Forms are chosen to run well on a CPU too: group normalisation is two
sums, attention is batched matrix products.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Shaped

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.layers.attention import attend
from jaxgen.networks.layers.convolution import (
    Conv,
    conv,
    downsample,
    kernel_init,
    pointwise,
    upsample,
    zeros_init,
)

__all__ = [
    "Array",
    "Attention",
    "Conv",
    "GroupNorm",
    "attend",
    "conv",
    "downsample",
    "kernel_init",
    "random_fourier",
    "rows_dot",
    "sinusoidal",
    "upsample",
    "zeros_init",
]


class GroupNorm(nn.Module):
    """Normalises groups (Wu & He 2018) of [B, ..., C]; the parameters are `scale` and `bias` of [C].

    Mean and variance are float32 sums of x and x^2 over positions and a group's channels; normalisation and
    affine map are then one multiply and one add per element. `scale` and `shift` [B, C], where given,
    modulate the result as norm(x) (1 + scale) + shift (Dhariwal & Nichol 2021, adaptive group normalisation).
    Raises UserError where `groups` does not divide the channels.
    """

    config_name = ""  # a part of other networks; no config names it

    groups: int
    eps: float = 1e-5
    dtype: str | None = None

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B ... C"],
        scale: Float[Array, "B C"] | None = None,
        shift: Float[Array, "B C"] | None = None,
    ) -> Float[Array, "B ... C"]:
        batch, channels = x.shape[0], x.shape[-1]
        if self.groups < 1 or channels % self.groups:
            raise UserError(
                f"{channels} channels cannot be normalised in {self.groups} groups: choose norm_groups that "
                "divide every width of the network."
            )
        gain = self.param("scale", nn.initializers.ones_init(), (channels,), jnp.float32)
        bias = self.param("bias", zeros_init, (channels,), jnp.float32)
        (out,) = nn.dtypes.promote_dtype(x, dtype=self.dtype)
        x = out.astype(jnp.float32)
        axes = tuple(range(1, x.ndim - 1))
        count = x.size // (batch * self.groups)
        grouped = (batch, self.groups, channels // self.groups)
        mean = x.sum(axes).reshape(grouped).sum(-1, keepdims=True) / count
        square = jnp.square(x).sum(axes).reshape(grouped).sum(-1, keepdims=True) / count
        variance = jnp.maximum(square - jnp.square(mean), 0.0)
        factor = lax.rsqrt(variance + self.eps) * gain.reshape(grouped[1:])
        offset = bias.reshape(grouped[1:]) - mean * factor
        factor, offset = factor.reshape(batch, channels), offset.reshape(batch, channels)
        if scale is not None:
            scale = 1 + scale.astype(jnp.float32)
            factor, offset = factor * scale, offset * scale
        if shift is not None:
            offset = offset + shift.astype(jnp.float32)
        shape = (batch, *(1,) * len(axes), channels)
        return (x * factor.reshape(shape) + offset.reshape(shape)).astype(out.dtype)


def sinusoidal(
    time: Float[Array, " B"],
    dim: int,
    max_period: float = 10000.0,
    cos_first: bool = False,
    freq_shift: float = 0.0,
) -> Float[Array, "B dim"]:
    """Returns sine and cosine features of time [B], float32 [B, dim] (Vaswani et al. 2017, section 3.5).

    Frequencies fall geometrically from 1 to max_period^-1: exp(-ln(max_period) i / (dim/2 - freq_shift)). Ho
    et al. (2020) have the sines first and freq_shift 1, which reaches 1/max_period itself; Dhariwal & Nichol
    (2021) have the cosines first and freq_shift 0. Raises UserError for an odd `dim` or one too small for the
    shift.
    """
    half = dim // 2
    if dim % 2 or half <= freq_shift:
        raise UserError(f"sinusoidal time features need an even dim above {2 * freq_shift:g}, not {dim}.")
    frequency = np.exp(-np.log(max_period) * np.arange(half) / (half - freq_shift)).astype(np.float32)
    angle = time.astype(jnp.float32)[:, None] * frequency
    pair = (jnp.cos(angle), jnp.sin(angle)) if cos_first else (jnp.sin(angle), jnp.cos(angle))
    return jnp.concatenate(pair, -1)


def random_fourier(
    time: Float[Array, " B"], dim: int, std: float = 16.0, cos_first: bool = False, seed: int = 0
) -> Float[Array, "B dim"]:
    """Returns random Fourier features of time [B], float32 [B, dim] (Tancik et al. 2020; Song et al. 2021).

    Features are sin and cos of 2 pi f time with fixed f ~ N(0, std^2), so time should span about a unit. The
    frequencies are constants drawn from `seed` by a generator that NumPy promises never to change: not
    parameters, so no optimiser, weight decay or average can touch them and a checkpoint need not hold them.
    """
    if dim % 2 or dim < 2:
        raise UserError(f"Fourier time features need an even dim, not {dim}.")
    frequency = np.random.RandomState(seed).normal(0.0, std, dim // 2)
    angle = time.astype(jnp.float32)[:, None] * (2 * np.pi * frequency).astype(np.float32)
    pair = (jnp.cos(angle), jnp.sin(angle)) if cos_first else (jnp.sin(angle), jnp.cos(angle))
    return jnp.concatenate(pair, -1)


def rows_dot(x: Array, kernel: Array, dimension_numbers: object, **options: object) -> Array:
    """Computes a flax Dense layer's `dot_general`, x [..., in], kernel [in, features], as a product of two matrices."""
    return pointwise(x, kernel)


class Attention(nn.Module):
    """This is residual attention over the pixels of an image: x + out(attend(norm(x))), x [B, H, W, C].

    With `context` [B, L, D] the keys and values come from it instead (cross-attention); `mask` [B, L] is
    nonzero on its valid tokens, and where none is valid the block changes x only by the constant bias of
    `out`. With `appended` they come from both: those of the context stand beside the pixels' own, so that one softmax
    is over pixels and tokens (Nichol et al. 2022, GLIDE, section 2.1). `out` starts at zero, so a fresh block is the
    identity. Its parameters are `norm`, `query`, `key`, `value` and `out`, and if appended `context_key` and
    `context_value`. Raises UserError where `heads` does not divide the channels.
    """

    config_name = ""  # a part of other networks; no config names it

    heads: int
    norm_groups: int
    norm_eps: float = 1e-5
    dtype: str | None = None
    appended: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W C"],
        context: Float[Array, "B L D"] | None = None,
        mask: Shaped[Array, "B L"] | None = None,
    ) -> Float[Array, "B H W C"]:
        batch, height, width, channels = x.shape
        if self.heads < 1 or channels % self.heads:
            raise UserError(f"{self.heads} attention heads do not divide {channels} channels: choose other heads.")

        def project(tokens: Array, name: str, init: Callable = kernel_init) -> Array:
            return nn.Dense(channels, kernel_init=init, dtype=self.dtype, dot_general=rows_dot, name=name)(tokens)

        tokens = GroupNorm(self.norm_groups, self.norm_eps, self.dtype, name="norm")(x)
        tokens = tokens.reshape(batch, height * width, channels)
        source = tokens if context is None or self.appended else context
        heads = (self.heads, channels // self.heads)
        query, key, value = (
            project(a, name).reshape(batch, a.shape[1], *heads)
            for a, name in ((tokens, "query"), (source, "key"), (source, "value"))
        )
        if self.appended and context is not None:
            of_context = (project(context, f"context_{name}").reshape(batch, -1, *heads) for name in ("key", "value"))
            key, value = (jnp.concatenate(pair, 1) for pair in zip((key, value), of_context, strict=True))
            if mask is not None:
                mask = jnp.concatenate([jnp.ones(tokens.shape[:2], bool), mask != 0], 1)
        tokens = attend(query, key, value, mask).reshape(batch, height * width, channels)
        return x + project(tokens, "out", zeros_init).reshape(x.shape)
