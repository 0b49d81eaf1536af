"""Measures how evenly an object moves in videos on black, and what else changes from frame to frame."""

from __future__ import annotations

import numpy as np
import scipy.ndimage
from jaxtyping import Bool, Float, UInt8

from jaxgen.errors import UserError

OBJECT = 0.2  # of the distance between black and white: a pixel that is farther from black belongs to the object
GROUND = 0.1  # a pixel that is nearer to black belongs to the ground, unless it touches one that is not


def centres(videos: UInt8[np.ndarray, "N F H W C"]) -> Float[np.ndarray, "N F 2"]:
    """Returns where the object of each frame is, in pixels to the right and down: the mean place of its pixels.

    NaN where a frame has no object.
    """
    inside = _lengths(videos) > OBJECT
    height, width = inside.shape[2:]
    count = inside.sum((2, 3))
    columns = (inside.sum(2) * (np.arange(width) + 0.5)).sum(-1)
    rows = (inside.sum(3) * (np.arange(height) + 0.5)).sum(-1)
    with np.errstate(invalid="ignore"):
        return np.stack([columns, rows], -1) / np.where(count, count, np.nan)[..., None]


def even_motion(places: Float[np.ndarray, "N F 2"]) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, " N"]]:
    """Returns how far places are from even motion along a line, and how long that line is.

    The motion a + b f is fitted to the frames f by least squares. The error is the root of the mean squared distance,
    and the length that of b (F - 1). Both are NaN for a video one of whose places is.
    """
    count = places.shape[1]
    time = np.arange(count) - (count - 1) / 2
    slope = np.einsum("f,nfk->nk", time, places) / np.square(time).sum()
    left = places - places.mean(1, keepdims=True) - time[:, None] * slope[:, None]
    return np.sqrt(np.square(left).sum(-1).mean(-1)), np.linalg.norm(slope, axis=-1) * (count - 1)


def flicker(videos: UInt8[np.ndarray, "N F H W C"]) -> Float[np.ndarray, " N"]:
    """Returns the mean squared difference of neighbouring frames off the object, in levels of 255.

    These are the pixels that belong to the ground in both frames. 0 where there are none.
    """
    ground = ~scipy.ndimage.binary_dilation(_lengths(videos) >= GROUND, np.ones((1, 1, 3, 3), bool))
    both = (ground[:, 1:] & ground[:, :-1])[..., None]
    change = np.square(np.diff(videos.astype(np.float64), axis=1)) * both
    count = both.sum((1, 2, 3, 4)) * videos.shape[-1]
    return change.sum((1, 2, 3, 4)) / np.maximum(count, 1)


def change_of_look(videos: UInt8[np.ndarray, "N F H W C"]) -> Float[np.ndarray, " N"]:
    """Returns how much the object's mean colour changes: its standard deviation over the frames, in levels of 255.

    NaN where a frame has no object.
    """
    inside: Bool[np.ndarray, "N F H W"] = _lengths(videos) > OBJECT
    count = inside.sum((2, 3))[..., None].astype(np.float64)
    sums = (videos * inside[..., None]).sum((2, 3), dtype=np.float64)
    means = sums / np.where(count, count, np.nan)
    return np.sqrt(means.var(axis=1).mean(-1))


def _lengths(videos: UInt8[np.ndarray, "N F H W C"]) -> Float[np.ndarray, "N F H W"]:
    """Returns how far each pixel is from black, 1 for white."""
    if videos.dtype != np.uint8 or videos.ndim != 5:
        raise UserError(f"Tracks are read from uint8 videos [N, F, H, W, C], not {videos.dtype} of {videos.shape}.")
    return np.linalg.norm(videos.astype(np.float32), axis=-1) / (255 * np.sqrt(videos.shape[-1]))
