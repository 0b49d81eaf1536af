"""Computes scaled dot-product attention, by batched matrix products, or by cuDNN's fused kernel on a GPU.

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

WIDEST = 128  # the most channels of a head that cuDNN's kernel takes on every GPU that has it
STEP = 8  # it takes multiples of this

_plain: contextvars.ContextVar[bool] = contextvars.ContextVar("plain_attention", default=False)


@contextlib.contextmanager
def plain_attention() -> Iterator[None]:
    """Attention that is traced inside this block is computed by matrix products on every platform.

    Matrix products have forward-mode derivatives (`jax.jvp`, which the exact likelihood takes) and derivatives of every
    order. cuDNN's kernel has neither.
    """
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def attend(
    query: Float[Array, "B N h D"],
    key: Float[Array, "B M h D"],
    value: Float[Array, "B M h D"],
    mask: Shaped[Array, "B M"] | Shaped[Array, "B #h N M"] | None = None,
) -> Float[Array, "B N h D"]:
    """Attends with query [B, N, h, D], key and value [B, M, h, D], and returns [B, N, h, D].

    The mask is nonzero at the keys that queries may attend to: [B, M] for all queries alike, or [B or 1, h or 1, N, M]
    for each, as in causal attention. A query that may attend to none gives zero.
    The softmax is float32 for inputs of every type. On an NVIDIA GPU cuDNN computes bfloat16 and float16 inputs without
    a mask (see `fused`), except inside `plain_attention`.
    """
    if mask is None and not _plain.get() and fused(query, cuda_here()):
        return lax.platform_dependent(query, key, value, cuda=flash_attend, default=products_attend)
    return products_attend(query, key, value, mask)


def fused(query: Float[Array, "B N h D"], on_cuda: bool) -> bool:
    """Returns whether cuDNN's kernel takes such queries: half precision, and a head width that fits."""
    half = query.dtype in (jnp.bfloat16, jnp.float16)
    return on_cuda and half and query.shape[-1] % STEP == 0 and query.shape[-1] <= WIDEST


def cuda_here() -> bool:
    """Returns whether this process computes on an NVIDIA GPU that has the kernel (compute capability 8.0 or more)."""
    if jax.default_backend() != "gpu":
        return False
    capability = getattr(jax.devices()[0], "compute_capability", "")
    return bool(capability) and float(capability) >= 8.0


def flash_attend(
    query: Float[Array, "B N h D"], key: Float[Array, "B M h D"], value: Float[Array, "B M h D"]
) -> Float[Array, "B N h D"]:
    """Computes `attend` by cuDNN's kernel, for inputs that are `fused`."""
    return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")


def products_attend(
    query: Float[Array, "B N h D"],
    key: Float[Array, "B M h D"],
    value: Float[Array, "B M h D"],
    mask: Shaped[Array, "B M"] | Shaped[Array, "B #h N M"] | None = None,
) -> Float[Array, "B N h D"]:
    """Computes `attend` by batched matrix products."""
    query, key, value = (a.transpose(0, 2, 1, 3) for a in (query, key, value))
    query = query * np.asarray(query.shape[-1] ** -0.5, query.dtype)
    logits = jnp.matmul(query, key.transpose(0, 1, 3, 2), preferred_element_type=jnp.float32)
    if mask is not None:
        mask = mask.astype(bool)
        mask = mask[:, None, None, :] if mask.ndim == 2 else mask
        logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
    # The softmax divides by its sum. Here the result is divided and not the weights, because the result is smaller. The
    # gradient of the division is then also a sum over the result, which takes a third of the time on a CPU.
    weights = jnp.exp(logits - lax.stop_gradient(logits).max(-1, keepdims=True))
    if mask is not None:
        weights = jnp.where(mask, weights, 0.0)
    total = weights.sum(-1, keepdims=True)
    if mask is not None:
        total = jnp.where(total > 0, total, 1.0)
    found = jnp.matmul(weights.astype(value.dtype), value, preferred_element_type=jnp.float32) / total
    return found.astype(value.dtype).transpose(0, 2, 1, 3)
