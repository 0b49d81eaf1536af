"""Holds parts of transformers over tokens [B, N, D]: normalisation, attention, the MLP, and positions on a grid.

Parameters are float32; `dtype` is the type of the arithmetic, while statistics and softmax are always
float32.
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
from jaxgen.networks.layers.basic import attend, kernel_init, rows_dot


def layer_norm(
    x: Float[Array, "B N D"],
    eps: float = 1e-6,
    scale: Float[Array, "B D"] | None = None,
    shift: Float[Array, "B D"] | None = None,
) -> Float[Array, "B N D"]:
    """Normalises layers (Ba et al. 2016) without parameters of its own: x [B, N, D] -> the same.

    `scale` and `shift` [B, D], where given, modulate it as norm(x) (1 + scale) + shift, one value for all
    tokens of an example (Peebles & Xie 2023, adaptive layer normalisation). Statistics and modulation are
    float32; the result has the type of x.
    """
    h = x.astype(jnp.float32)
    h = h - h.mean(-1, keepdims=True)
    h = h * lax.rsqrt(jnp.square(h).mean(-1, keepdims=True) + eps)
    if scale is not None:
        h = h * (1 + scale.astype(jnp.float32)[:, None])
    if shift is not None:
        h = h + shift.astype(jnp.float32)[:, None]
    return h.astype(x.dtype)


class TokenAttention(nn.Module):
    """Lets tokens [B, N, D] attend to each other, or to `context` [B, L, D'], -> [B, N, D]; it has no residual.

    `mask` [B, L] is nonzero on the tokens that may be looked at; where none may, the result is the bias of
    `out`. Its parameters are `query`, `key`, `value`, which have a bias where `qkv_bias`, and `out`. Raises UserError
    where `heads` does not divide D.
    """

    config_name = ""  # a part of other networks; no config names it

    heads: int
    out_init: Callable = kernel_init
    dtype: str | None = None
    qkv_bias: bool = True

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "B N D"],
        context: Float[Array, "B L K"] | None = None,
        mask: Shaped[Array, "B L"] | None = None,
    ) -> Float[Array, "B N D"]:
        batch, length, width = tokens.shape
        if self.heads < 1 or width % self.heads:
            raise UserError(f"{self.heads} attention heads do not divide a width of {width}: choose other heads.")

        def project(a: Array, name: str, init: Callable = kernel_init, bias: bool = True) -> Array:
            return nn.Dense(width, bias, kernel_init=init, dtype=self.dtype, dot_general=rows_dot, name=name)(a)

        source = tokens if context is None else context
        query, key, value = (
            project(a, name, bias=self.qkv_bias).reshape(batch, a.shape[1], self.heads, width // self.heads)
            for a, name in ((tokens, "query"), (source, "key"), (source, "value"))
        )
        h = attend(query, key, value, mask).reshape(batch, length, width)
        return project(h, "out", self.out_init)


class MLP(nn.Module):
    """The MLP is dense, GELU, dropout, dense: [..., D] -> [..., D]; parameters are `in` and `out`.

    The GELU is in its tanh form, or exact.
    """

    config_name = ""  # a part of other networks; no config names it

    features: int
    dropout: float = 0.0
    dtype: str | None = None
    exact: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "... D"], train: bool = False) -> Float[Array, "... D"]:
        def dense(features: int, name: str) -> nn.Dense:
            return nn.Dense(features, kernel_init=kernel_init, dtype=self.dtype, dot_general=rows_dot, name=name)

        h = dense(self.features, "in")(x)
        h = nn.Dropout(self.dropout, deterministic=not train)(nn.gelu(h, approximate=not self.exact))
        return dense(x.shape[-1], "out")(h)


def grid_positions(height: int, width: int, dim: int) -> np.ndarray:
    """Returns fixed sine and cosine features of a grid's cells, float32 [height * width, dim], row by row.

    The first half of the features belongs to the column, the second to the row; each is the sines, then the
    cosines, of its integer times 10000^(-4 i / dim) (Vaswani et al. 2017, section 3.5, once for each axis).
    Raises UserError unless 4 divides dim.
    """
    if dim % 4 or dim < 4:
        raise UserError(f"positions on a grid need a width divisible by 4, not {dim}.")
    frequency = 10000.0 ** (-np.arange(dim // 4) / (dim // 4))

    def features(places: np.ndarray) -> np.ndarray:
        angle = places.reshape(-1, 1) * frequency
        return np.concatenate([np.sin(angle), np.cos(angle)], -1)

    rows, columns = np.indices((height, width))
    return np.concatenate([features(columns), features(rows)], -1).astype(np.float32)
