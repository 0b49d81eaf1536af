"""Brings images to the size that a network sees; the resize is a part of every published number.

`legacy` is the resize of the first FID (Heusel et al. 2017), TensorFlow 1's, which aliases where it shrinks. `clean` is
the one of clean-FID (Parmar et al. 2022, "On Aliased Resizing"), which does not. Never compare their numbers.
"""

from __future__ import annotations

import concurrent.futures
import os

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Num, UInt8
from PIL import Image

from jaxgen.errors import UserError

SIZE = 299


def legacy(images: Num[jax.Array, "B H W C"], size: tuple[int, int] = (SIZE, SIZE)) -> Float[jax.Array, "B H2 W2 C"]:
    """Returns TensorFlow 1's bilinear resize (`align_corners=False`): output pixel i is read at source i * in / out.

    No half pixel is added and nothing is averaged: the result leans to the upper left, and shrinking skips pixels.

    Args:
      images: `[B, H, W, C]`, uint8 or floating.
      size: height and width of the result.

    Returns:
      float32 `[B, *size, C]` in the range of the images.
    """
    x = images.astype(jnp.float32)
    if x.shape[1:3] == tuple(size):
        return x
    for axis in (2, 1):  # along rows first, as TensorFlow rounds
        low, high, part = _neighbours(x.shape[axis], size[axis - 1])
        shape = [1] * x.ndim
        shape[axis] = -1
        start = jnp.take(x, low, axis)
        x = start + (jnp.take(x, high, axis) - start) * part.reshape(shape)
    return x


def _neighbours(source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns for each target pixel the two source pixels that it is between, and how far it is from the first.

    They are float32, as TensorFlow computes them.
    """
    place = np.arange(target, dtype=np.float32) * np.float32(source / target)
    low = place.astype(np.int32)
    return low, np.minimum(low + 1, source - 1), place - low.astype(np.float32)


def clean(images: UInt8[np.ndarray, "N H W C"], size: tuple[int, int] = (SIZE, SIZE)) -> Float[np.ndarray, "N H2 W2 C"]:
    """Returns Pillow's bicubic resize in floating point, clipped to [0, 255]; its window widens where it shrinks.

    It runs on the host, one channel at a time, with the images split over the cores.

    Args:
      images: uint8 `[N, H, W, C]`.
      size: height and width of the result.

    Returns:
      float32 `[N, *size, C]`, not rounded.

    Raises:
      UserError: for another type or number of axes.
    """
    if images.dtype != np.uint8 or images.ndim != 4:
        raise UserError(f"The clean resize takes uint8 images [N, H, W, C], not {images.dtype} {images.shape}.")
    resized = np.empty((len(images), *size, images.shape[-1]), np.float32)

    def fill(number: int) -> None:
        for channel in range(images.shape[-1]):
            plane = Image.fromarray(images[number, :, :, channel].astype(np.float32))
            plane = plane.resize((size[1], size[0]), Image.Resampling.BICUBIC)
            resized[number, :, :, channel] = np.clip(np.asarray(plane), 0, 255)

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(fill, range(len(images))))
    return resized


def centred(x: Num[jax.Array, "*shape"]) -> Float[jax.Array, "*shape"]:
    """Maps [0, 255] to [-1, 1) as the first Inception graph does: (x - 128) / 128."""
    return (x.astype(jnp.float32) - 128) / 128
