"""Draws noise that belongs to one image each: it depends on that image's key alone, not on the batch."""

from __future__ import annotations

import jax
from jaxtyping import Float, Int, Key, UInt32

from jaxgen.arrays import Array


def per_image_noise(
    keys: Key[Array, "B"], index: Int[Array, ""] | UInt32[Array, ""] | int, shape: tuple[int, ...]
) -> Float[Array, "B *shape"]:
    """Returns `[B, *shape]` float32 standard normals; image i's depend on `keys[i]` and `index` alone."""
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, index), shape))(keys)
