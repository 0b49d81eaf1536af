"""A camera is 25 numbers, as in EG3D (Chan et al. 2022): where it stands and looks, and how wide it sees.

Numbers 0 to 15 are the matrix [4, 4], row by row, that takes points from the camera's axes to the world's. The camera
looks along its z; its x points to the right of the picture and its y down (OpenCV's axes). Numbers 16 to 24 are the
intrinsic matrix [3, 3], which takes directions to places in the picture, as shares of its width and height.

All functions take the arrays of NumPy and of JAX alike, and return arrays of the kind they are given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

NUMBERS = 25  # of a camera
DISTANCE = 3.5  # from the origin; the unit ball lies at 2.5 to 4.5 along every ray that meets it
FOCAL = 1.67  # length in units of the shorter side; the unit ball fills 0.996 of it: FOCAL = .498 sqrt(DISTANCE**2 - 1)


def look_at_origin(
    azimuth: Float[Any, "*B"],
    elevation: Float[Any, "*B"],
    distance: float = DISTANCE,
    focal: float = FOCAL,
    aspect: float = 1.0,
) -> Float[Any, "*B 25"]:
    """Returns cameras on a sphere that look at its centre, the origin, with the world's z upwards.

    Args:
      azimuth: the angle around z from x towards y, in radians.
      elevation: the angle above the plane of x and y, in radians, between -pi/2 and pi/2, both excluded.
      distance: from the camera to the origin.
      focal: the focal length in units of the picture's shorter side.
      aspect: the picture's width over its height.
    """
    xp = azimuth.__array_namespace__()
    azimuth, elevation = xp.broadcast_arrays(azimuth, elevation)
    sin_a, cos_a, sin_e, cos_e = xp.sin(azimuth), xp.cos(azimuth), xp.sin(elevation), xp.cos(elevation)
    zero, one = xp.zeros_like(azimuth), xp.ones_like(azimuth)
    forward = xp.stack([-cos_e * cos_a, -cos_e * sin_a, -sin_e], -1)
    right = xp.stack([-sin_a, cos_a, zero], -1)
    down = xp.stack([sin_e * cos_a, sin_e * sin_a, -cos_e], -1)
    rows = xp.stack([right, down, forward, -distance * forward], -1)  # [*B, 3, 4]
    last = xp.stack([zero, zero, zero, one], -1)
    focal_x, focal_y = focal * min(1.0, 1 / aspect), focal * min(1.0, aspect)
    intrinsic = [focal_x * one, zero, 0.5 * one, zero, focal_y * one, 0.5 * one, zero, zero, one]
    return xp.concatenate([rows.reshape(*azimuth.shape, 12), last, xp.stack(intrinsic, -1)], -1)


def turned(camera: Float[Any, "*B 25"], angle: float) -> Float[Any, "*B 25"]:
    """Returns cameras that have gone around the world's z by an angle in radians, from x towards y."""
    xp = camera.__array_namespace__()
    cos, sin = float(np.cos(angle)), float(np.sin(angle))
    x, y, others = camera[..., :4], camera[..., 4:8], camera[..., 8:]
    return xp.concatenate([cos * x - sin * y, sin * x + cos * y, others], -1)


def rays(camera: Float[Any, "*B 25"], height: int, width: int) -> tuple[Float[Any, "*B 3"], Float[Any, "*B H W 3"]]:
    """Returns where the rays of a camera begin, and their directions, of length one, through the pixels' centres."""
    xp = camera.__array_namespace__()
    to_world = camera[..., :16].reshape(*camera.shape[:-1], 4, 4)
    intrinsic = camera[..., 16:].reshape(*camera.shape[:-1], 3, 3)
    v = (xp.arange(height, dtype=camera.dtype)[:, None] + 0.5) / height
    u = (xp.arange(width, dtype=camera.dtype)[None, :] + 0.5) / width
    skew, (focal_x, focal_y) = intrinsic[..., 0, 1], (intrinsic[..., 0, 0], intrinsic[..., 1, 1])
    y = (v - intrinsic[..., 1, 2, None, None]) / focal_y[..., None, None]
    x = (u - intrinsic[..., 0, 2, None, None] - skew[..., None, None] * y) / focal_x[..., None, None]
    x, y = xp.broadcast_arrays(x, y)
    inverse = 1 / xp.sqrt(x * x + y * y + 1)
    local = xp.stack([x * inverse, y * inverse, inverse], -1)  # [*B, H, W, 3]
    turned = local @ to_world[..., None, :3, :3].swapaxes(-1, -2)
    return to_world[..., :3, 3], turned


def project(
    camera: Float[Any, "*B 25"], points: Float[Any, "*B N 3"]
) -> tuple[Float[Any, "*B N 2"], Float[Any, "*B N"]]:
    """Returns where points appear, (u, v) as shares of the width and height, and how far along the camera's z they are.

    Places of points behind the camera mean nothing.
    """
    to_world = camera[..., :16].reshape(*camera.shape[:-1], 4, 4)
    intrinsic = camera[..., 16:].reshape(*camera.shape[:-1], 3, 3)
    local = (points - to_world[..., None, :3, 3]) @ to_world[..., :3, :3]
    ahead = local[..., 2]
    return ((local / ahead[..., None]) @ intrinsic.swapaxes(-1, -2))[..., :2], ahead


def orbit(count: int, elevation: float = np.pi / 7, aspect: float = 1.0) -> Float[np.ndarray, "count 25"]:
    """Returns `count` cameras, evenly spaced on a circle around z, for a turn about an object."""
    azimuth = np.arange(count, dtype=np.float32) * np.float32(2 * np.pi / count)
    return look_at_origin(azimuth, np.full(count, elevation, np.float32), aspect=aspect)
