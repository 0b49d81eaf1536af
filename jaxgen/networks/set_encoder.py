"""Holds a transformer over the patches of several images, which tells what the images of a set have in common."""

from __future__ import annotations

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.dit import patchify
from jaxgen.networks.layers.basic import kernel_init
from jaxgen.networks.pretrained.text_encoder import Block
from jaxgen.networks.transformer import grid_positions


class SetEncoder(nn.Module):
    """Maps sets of K images [B, K, H, W, C] to tokens [B, L, width] and a vector [B, width], float32.

    Each image is cut into patches, and the patches of all images of a set attend to each other (the set-based vision
    transformer of Giannone et al. 2022, "Few-Shot Diffusion Models"). A patch knows its place in its image and not the
    number of its image, so that another order of the images gives the tokens in another order and the same vector, and
    K may change from call to call. (The authors' code stacks the images of a set along their channels, which fixes K
    and depends on the order.)

    Its parameters are `patch_in`, `block_<i>/{norm_1, attention, norm_2, mlp}` and `norm_out`.

    Attributes:
      patch_size: pixels of a patch's side; it divides height and width.
      width, depth, heads: sizes of the transformer; 4 divides the width.
      averaged: the tokens are the means over the images of a set, L = (H / patch_size) (W / patch_size); by default
        they are those of all images, and L is K times as large.
    """

    encodes_sets: ClassVar[bool] = True

    patch_size: int = 4
    width: int = 64
    depth: int = 2
    heads: int = 4
    averaged: bool = False
    dtype: str | None = None

    @nn.compact
    def __call__(self, images: Float[Array, "B K H W C"]) -> tuple[Float[Array, "B L D"], Float[Array, "B D"]]:
        """Encodes sets of images in [-1, 1]. Raises a UserError for arrays of another shape."""
        if images.ndim != 5:
            raise UserError(f"a set encoder takes sets of images [B, K, H, W, C], not an array of {images.shape}.")
        batch, count, height, width, channels = images.shape
        size = self.patch_size
        if size < 1 or height % size or width % size:
            raise UserError(
                f"patch_size={size} of the set encoder does not divide images of {height}x{width} pixels: choose a "
                "divisor."
            )
        patches = patchify(images.reshape(batch * count, height, width, channels), size)
        h = nn.Dense(self.width, kernel_init=kernel_init, dtype=self.dtype, name="patch_in")(patches)
        h = h + grid_positions(height // size, width // size, self.width).astype(h.dtype)
        places = h.shape[1]
        h = h.reshape(batch, count * places, self.width)
        for i in range(self.depth):
            h = Block(self.heads, self.dtype, name=f"block_{i}")(h, None)
        h = jnp.asarray(nn.LayerNorm(dtype=self.dtype, name="norm_out")(h), jnp.float32)
        tokens = h.reshape(batch, count, places, self.width).mean(axis=1) if self.averaged else h
        return tokens, h.mean(axis=1)
