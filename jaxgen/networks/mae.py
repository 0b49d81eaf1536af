"""Holds the encoder and the decoder of masked autoencoders (He et al. 2022): vision transformers over patches.

The encoder sees only the patches that it is told to keep. The decoder is narrow, puts a learned token in the place of
each missing patch, and predicts all patches. Both add fixed sines and cosines of a patch's place (`grid_positions`).
"""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.dit import patchify
from jaxgen.networks.layers.contract import check_images
from jaxgen.networks.transformer import MLP, TokenAttention, grid_positions


class Block(nn.Module):
    """A block is attention and an MLP, each behind a layer normalisation and added to its input (Dosovitskiy et al.
    2021): [B, N, D] -> [B, N, D].
    """

    config_name = ""  # a part of other networks; no config names it

    heads: int
    mlp_features: int
    eps: float = 1e-6
    dtype: str | None = None

    @nn.compact
    def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        h = nn.LayerNorm(self.eps, dtype=self.dtype, name="norm_in")(tokens)
        tokens = tokens + TokenAttention(self.heads, dtype=self.dtype, name="attention")(h)
        h = nn.LayerNorm(self.eps, dtype=self.dtype, name="norm_mlp")(tokens)
        return tokens + MLP(self.mlp_features, exact=True, dtype=self.dtype, name="mlp")(h)


class MAEEncoder(nn.Module):
    """Maps images to tokens of their patches, row by row, float32.

    Raises:
      UserError: patches do not divide the image, or `outputs` is another number than `width`.
    """

    patch_size: int = 4  # pixels of a patch's side
    width: int = 96  # of the tokens, divisible by 4
    depth: int = 4  # number of blocks
    heads: int = 4  # of every attention, dividing width
    mlp_ratio: float = 4.0  # the MLP's hidden width over `width`
    class_token: bool = True  # a learned token more, which attends with the others
    norm_eps: float = 1e-6  # of every layer normalisation
    # 0 gives tokens. `width`, which a probe asks for by its z_dim, gives their mean [B, width].
    outputs: int = 0
    dtype: str | None = None  # of the arithmetic; parameters and output are float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], keep: Int[Array, "B K"] | None = None
    ) -> Float[Array, "B N D"] | Float[Array, "B D"]:
        """Encodes images in [-1, 1].

        Args:
          keep: the numbers of the patches that are seen, in the order of the tokens that are returned; None for all.
        """
        check_images("masked autoencoder", x)
        rows, columns = grid_of((x.shape[1], x.shape[2]), self.patch_size)
        if self.outputs not in (0, self.width):
            raise UserError(f"The encoder has features of width {self.width}, not {self.outputs}: set z_dim to it.")
        init = nn.initializers.xavier_uniform()
        tokens = nn.Dense(self.width, kernel_init=init, dtype=self.dtype, name="patch_in")(patchify(x, self.patch_size))
        tokens = tokens + grid_positions(rows, columns, self.width)
        if keep is not None:
            tokens = jnp.take_along_axis(tokens, keep[..., None], axis=1)
        if self.class_token:
            token = self.param("class_token", nn.initializers.normal(0.02), (1, 1, self.width))
            tokens = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, self.width)).astype(tokens.dtype), tokens], 1)
        for i in range(self.depth):
            block = Block(self.heads, round(self.width * self.mlp_ratio), self.norm_eps, self.dtype, name=f"block_{i}")
            tokens = block(tokens)
        tokens = nn.LayerNorm(self.norm_eps, name="norm_out")(tokens.astype(jnp.float32))
        return tokens[:, int(self.class_token) :].mean(axis=1) if self.outputs else tokens


class MAEDecoder(nn.Module):
    """Maps the tokens of visible patches to predictions of all patches, [B, K, D] -> [B, N, size size C], float32."""

    width: int = 48  # of the tokens, divisible by 4; narrower than the encoder
    depth: int = 2  # number of blocks
    heads: int = 4  # of every attention, dividing width
    mlp_ratio: float = 4.0  # the MLP's hidden width over `width`
    norm_eps: float = 1e-6  # of every layer normalisation
    dtype: str | None = None  # of the arithmetic; parameters and output are float32

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "B K D"],
        places: Int[Array, "B N"],
        grid: tuple[int, int],
        features: int,
        first: int = 0,
    ) -> Float[Array, "B N F"]:
        """Predicts patches.

        Args:
          tokens: those of the visible patches, behind `first` tokens that belong to no patch.
          places: for each of the N patches, its place in a row of the visible patches and then the missing ones.
          grid: the rows and columns of patches, N together.
          features: the numbers in a patch, size size C.
          first: 1 where there is a class token, and else 0.
        """
        count, missing_patches = len(tokens), places.shape[1] - (tokens.shape[1] - first)
        init = nn.initializers.xavier_uniform()
        h = nn.Dense(self.width, kernel_init=init, dtype=self.dtype, name="token_in")(tokens)
        missing = self.param("mask_token", nn.initializers.normal(0.02), (1, 1, self.width)).astype(h.dtype)
        missing = jnp.broadcast_to(missing, (count, missing_patches, self.width))
        patches = jnp.take_along_axis(jnp.concatenate([h[:, first:], missing], 1), places[..., None], axis=1)
        h = jnp.concatenate([h[:, :first], patches + grid_positions(*grid, self.width)], axis=1)
        for i in range(self.depth):
            block = Block(self.heads, round(self.width * self.mlp_ratio), self.norm_eps, self.dtype, name=f"block_{i}")
            h = block(h)
        h = nn.LayerNorm(self.norm_eps, name="norm_out")(h.astype(jnp.float32))
        return nn.Dense(features, kernel_init=init, name="patch_out")(h[:, first:])


def grid_of(size: tuple[int, int], patch_size: int) -> tuple[int, int]:
    """Returns the rows and columns of patches of an image; raises a UserError where patches do not divide it."""
    height, width = size
    if patch_size < 1 or height % patch_size or width % patch_size:
        raise UserError(f"images of {height}x{width} cannot be cut into patches of {patch_size}x{patch_size}.")
    return height // patch_size, width // patch_size
