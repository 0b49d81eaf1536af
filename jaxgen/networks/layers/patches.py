"""Cuts images into patches and joins patches to images."""

from __future__ import annotations

from jaxtyping import Float

from jaxgen.arrays import Array


def patchify(x: Float[Array, "B H W C"], size: int) -> Float[Array, "B N D"]:
    """Cuts images [B, H, W, C] into tokens [B, (H/size) (W/size), size size C], row by row, channels last."""
    patches = to_patches(x, size)
    return patches.reshape(x.shape[0], -1, patches.shape[-1])


def unpatchify(tokens: Float[Array, "B N D"], size: int, height: int, width: int) -> Float[Array, "B H W C"]:
    """Inverts `patchify` for images of this height and width in pixels."""
    return from_patches(tokens.reshape(tokens.shape[0], height // size, width // size, -1), size)


def to_patches(x: Float[Array, "B H W C"], size: int) -> Float[Array, "B h w D"]:
    """Cuts images [B, H, W, C] into a map of patches, [B, H/size, W/size, size size C], channels last."""
    if size == 1:
        return x
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // size, size, width // size, size, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, height // size, width // size, size * size * channels)


def from_patches(x: Float[Array, "B h w D"], size: int) -> Float[Array, "B H W C"]:
    """Inverts `to_patches`."""
    if size == 1:
        return x
    batch, rows, columns, features = x.shape
    x = x.reshape(batch, rows, columns, size, size, features // size**2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, rows * size, columns * size, features // size**2)
