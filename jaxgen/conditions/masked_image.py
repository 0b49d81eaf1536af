"""Shows a network a picture of which a part is unknown, and says which: holes to fill, a canvas to extend."""

from __future__ import annotations

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Key

from jaxgen.arrays import Array, Batch, Tree
from jaxgen.build import path_of
from jaxgen.conditions.base import Condition, Known
from jaxgen.errors import UserError

ERASED = "erased"  # the input of a network that is shown a picture and its mask


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
        check_masked(batch, self.entry, self.mask, shape, path_of(self) or "config.method")
        picture, unknown = known_of(batch, self.entry, self.mask)
        fill = jnp.zeros_like(picture)
        if self.fill == "noise":
            if keys is None:
                raise UserError("A masked image is filled with noise, which needs a key for each image.")
            fill = jax.vmap(lambda key: jax.random.normal(key, picture.shape[1:]))(keys)
        hidden = unknown & ~unknown.all((1, 2, 3), keepdims=True)
        return {"condition": jnp.where(hidden, fill, picture), "known": picture, "unknown": unknown}

    def known(self, batch: Batch) -> Known | None:
        return known_of(batch, self.entry, self.mask)


@dataclasses.dataclass(frozen=True)
class ErasedImage(Condition):
    """Gives a picture whose unknown part is mid-grey, and the mask as one more channel, as `erased` [B, H, W, C + 1].

    The mask's channel is 1 where the image is unknown. What the picture has there is never shown (Nichol et al. 2022,
    "GLIDE", section 2.2). The null is a grey picture, all of it unknown. The graft `inpainting` adds this condition to
    the method that it is put on.

    Attributes:
      entry: the entry of the batch that has the picture, float32 [B, H, W, C] in [-1, 1].
      mask: the entry that is 1 where the image is unknown and 0 where it is the picture's, int32 [B, H, W].
    """

    entry: str = "condition"
    mask: str = "mask"

    gives = (ERASED,)

    @property
    def entries(self) -> tuple[str, ...]:
        return (self.entry, self.mask)

    def null(self, batch: Batch) -> Batch:
        return {self.entry: jnp.zeros_like(batch[self.entry]), self.mask: jnp.ones_like(batch[self.mask])}

    def __call__(
        self, params: Tree, batch: Batch, keys: Key[Array, " B"] | None, shape: tuple[int, ...], train: bool = False
    ) -> Batch:
        check_masked(batch, self.entry, self.mask, shape, path_of(self) or "the graft 'inpainting'")
        picture, unknown = known_of(batch, self.entry, self.mask)
        shown = jnp.where(unknown, jnp.zeros_like(picture), picture)
        return {ERASED: jnp.concatenate([shown, unknown.astype(jnp.float32)], axis=-1)}

    def known(self, batch: Batch) -> Known | None:
        return known_of(batch, self.entry, self.mask)


def known_of(batch: Batch, entry: str, mask: str) -> Known:
    """Returns what is known of the images of a batch: the picture of one entry where the mask of another is 0."""
    return Known(batch[entry].astype(jnp.float32), (batch[mask] != 0)[..., None])


def check_masked(batch: Batch, entry: str, mask: str, shape: tuple[int, ...], where: str) -> None:
    """Raises a UserError unless an entry has pictures of `shape`, and another one masks of them; `where` reads them."""
    pictures, masks = batch[entry], batch[mask]
    if pictures.shape[1:] != shape:
        raise UserError(
            f"{where} reads the entry {entry!r} as pictures [B, H, W, C] of the images' shape {shape}, and it "
            f"has the shape {pictures.shape}: name a corruption that gives such pictures, as one_of and hole do."
        )
    if masks.shape != pictures.shape[:3] or not jnp.issubdtype(masks.dtype, jnp.integer):
        raise UserError(
            f"{where} reads the entry {mask!r} as int32 [B, H, W], 1 where the image is unknown, and it is "
            f"{masks.dtype} of shape {masks.shape}."
        )
