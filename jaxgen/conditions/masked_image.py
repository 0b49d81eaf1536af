"""Shows a network a picture of which a part is unknown, and says which: holes to fill, a canvas to extend."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Key

from jaxgen.arrays import Array, Batch, Tree
from jaxgen.build import path_of
from jaxgen.conditions.base import Condition
from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True)
class MaskedImage(Condition):
    """Gives a picture whose unknown part is noise, as `condition`; and what of it is known, for `methods.palette`.

    An example whose mask is 1 everywhere has nothing to be kept: its picture, such as a grey or a compressed copy, is
    shown as it is. In others, what the picture has where the mask is 1 is never shown, whatever it is. The network is
    not given the mask (Saharia et al. 2022, "Palette", section 3). The null is a grey picture, all of it unknown.

    Attributes:
      entry: the entry of the batch that has the picture, float32 [B, H, W, C] in [-1, 1].
      mask: the entry that is 1 where the image is unknown and 0 where it is the picture's, int32 [B, H, W].
      fill: what the network sees in the unknown part: standard normal "noise", as in the paper, or mid-"grey".
    """

    entry: str = "condition"
    mask: str = "mask"
    fill: Literal["noise", "grey"] = "noise"

    gives = ("condition", "known", "unknown")

    @property
    def entries(self) -> tuple[str, ...]:
        return (self.entry, self.mask)

    def null(self, batch: Batch) -> Batch:
        return {self.entry: jnp.zeros_like(batch[self.entry]), self.mask: jnp.ones_like(batch[self.mask])}

    def __call__(
        self, params: Tree, batch: Batch, keys: Key[Array, " B"] | None, shape: tuple[int, ...], train: bool = False
    ) -> Batch:
        picture, mask = batch[self.entry], batch[self.mask]
        self._check(picture, mask, shape)
        picture = picture.astype(jnp.float32)
        unknown = (mask != 0)[..., None]
        fill = jnp.zeros_like(picture)
        if self.fill == "noise":
            if keys is None:
                raise UserError("A masked image is filled with noise, which needs a key for each image.")
            fill = jax.vmap(lambda key: jax.random.normal(key, picture.shape[1:]))(keys)
        hidden = unknown & ~unknown.all((1, 2, 3), keepdims=True)
        return {"condition": jnp.where(hidden, fill, picture), "known": picture, "unknown": unknown}

    def _check(self, picture: Array, mask: Array, shape: tuple[int, ...]) -> None:
        where = path_of(self) or "config.method"
        if picture.shape[1:] != shape:
            raise UserError(
                f"{where} reads the entry {self.entry!r} as pictures [B, H, W, C] of the images' shape {shape}, and it "
                f"has the shape {picture.shape}: name a corruption that gives such pictures, as one_of and hole do."
            )
        if mask.shape != picture.shape[:3] or not jnp.issubdtype(mask.dtype, jnp.integer):
            raise UserError(
                f"{where} reads the entry {self.mask!r} as int32 [B, H, W], 1 where the image is unknown, and it is "
                f"{mask.dtype} of shape {mask.shape}."
            )
