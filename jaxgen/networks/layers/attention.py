"""Scaled dot-product attention: batched matrix products, or cuDNN's fused kernel on a GPU.

The fused kernel (Dao et al. 2022, FlashAttention) never holds the weights of all pairs, so that its memory grows with
the number of tokens and not with its square.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Shaped

from jaxgen.arrays import Array

WIDEST = 128  # channels of a head that cuDNN's kernel takes on every GPU that has one; multiples of STEP only
STEP = 8

_plain: contextvars.ContextVar[bool] = contextvars.ContextVar("plain_attention", default=False)


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Attention that is traced inside is made of matrix products on every platform: it has forward-mode derivatives
    (`jax.jvp`, the exact likelihood) and derivatives of any order, which cuDNN's kernel has not."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def attend(
    query: Float[Array, "B N h D"],
    key: Float[Array, "B M h D"],
    value: Float[Array, "B M h D"],
    mask: Shaped[Array, "B M"] | None = None,
) -> Float[Array, "B N h D"]:
    """Scaled dot-product attention: query [B, N, h, D], key and value [B, M, h, D] -> [B, N, h, D].

    mask [B, M]: nonzero where a key may be looked at. A query with nothing to look at yields zero.
    The softmax is float32 for inputs of every type. On an NVIDIA GPU bfloat16 and float16 without a mask go to cuDNN
    (`fused`), but under `plain_attention`.
    """
    if mask is None and not _plain.get() and fused(query, cuda_here()):
        return lax.platform_dependent(query, key, value, cuda=flash_attend, default=products_attend)
    return products_attend(query, key, value, mask)


def fused(query: Float[Array, "B N h D"], on_cuda: bool) -> bool:
    """Whether cuDNN's kernel takes such queries [B, N, h, D]: half precision, and heads of a fitting width."""
    half = query.dtype in (jnp.bfloat16, jnp.float16)
    return on_cuda and half and query.shape[-1] % STEP == 0 and query.shape[-1] <= WIDEST


def cuda_here() -> bool:
    """Whether this process computes on an NVIDIA GPU of a generation that the kernel is made for (Ampere, 8.0, on)."""
    if jax.default_backend() != "gpu":
        return False
    capability = getattr(jax.devices()[0], "compute_capability", "")
    return bool(capability) and float(capability) >= 8.0


def flash_attend(
    query: Float[Array, "B N h D"], key: Float[Array, "B M h D"], value: Float[Array, "B M h D"]
) -> Float[Array, "B N h D"]:
    """`attend` by cuDNN; see `fused`."""
    return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")


def products_attend(
    query: Float[Array, "B N h D"],
    key: Float[Array, "B M h D"],
    value: Float[Array, "B M h D"],
    mask: Shaped[Array, "B M"] | None = None,
) -> Float[Array, "B N h D"]:
    """`attend` as batched matrix products."""
    query, key, value = (a.transpose(0, 2, 1, 3) for a in (query, key, value))
    query = query * np.asarray(query.shape[-1] ** -0.5, query.dtype)
    logits = jnp.matmul(query, key.transpose(0, 1, 3, 2), preferred_element_type=jnp.float32)
    if mask is not None:
        mask = mask.astype(bool)[:, None, None, :]
        logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
    # The softmax's division is left to the result, which is smaller than the weights; its gradient then is a sum over
    # the result, too, and not over the weights: a third of the time on a CPU.
    weights = jnp.exp(logits - lax.stop_gradient(logits).max(-1, keepdims=True))
    if mask is not None:
        weights = jnp.where(mask, weights, 0.0)
    total = weights.sum(-1, keepdims=True)
    if mask is not None:
        total = jnp.where(total > 0, total, 1.0)
    found = jnp.matmul(weights.astype(value.dtype), value, preferred_element_type=jnp.float32) / total
    return found.astype(value.dtype).transpose(0, 2, 1, 3)
