"""Noise that belongs to one image each: it depends on that image's key alone, not on the batch."""

from __future__ import annotations

import jax


def per_image_noise(keys: jax.Array, index: jax.Array | int, shape: tuple[int, ...]) -> jax.Array:
    """`[B, *shape]` float32 standard normals; image i's depend on `keys[i]` and `index` alone."""
    return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, index), shape))(keys)
