"""Diffuses videos: each frame is what another codec makes of it as an image."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float

from jaxgen.arrays import Array, Batch, MissingEntry, Tree
from jaxgen.codecs.base import Codec, Draw, Shape
from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True)
class Frames(Codec):
    """A batch's `video` [B, F, H, W, C] becomes [B, F, ...], each frame by itself, and back.

    Attributes:
      of: the codec of one frame.
      count: the number F of frames.
    """

    of: Codec
    count: int

    config_name = ""  # `DDPM.video` makes it
    gives = "video"

    @property
    def group(self) -> str:  # type: ignore[override]
        return self.of.group

    @property
    def random(self) -> bool:  # type: ignore[override]
        return self.of.random

    @property
    def bounded(self) -> bool:  # type: ignore[override]
        return self.of.bounded

    @property
    def factor(self) -> int:
        return self.of.factor

    def shape(self, image_shape: Shape) -> Shape:
        return self.count, *self.of.shape(image_shape)

    def init(self, key: Array, image_shape: Shape) -> Tree:
        return self.of.init(key, image_shape)

    def fresh_memory(self) -> Tree | None:
        return self.of.fresh_memory()

    def check(self, memory: Tree | None) -> None:
        self.of.check(memory)

    def entries(self, image_shape: Shape) -> Mapping[str, tuple[Shape, DTypeLike]]:
        return {"video": ((self.count, *image_shape), np.uint8)}

    def encode(
        self, params: Tree, batch: Batch, memory: Tree | None, draw: Draw | None = None
    ) -> Float[Array, "B F ..."]:
        check_video(batch, self.count)
        frames = {"image": flat(batch["video"])}
        of_frames = None if draw is None else lambda shape: flat(draw((shape[0] // self.count, self.count, *shape[1:])))
        return apart(self.of.encode(params, frames, memory, of_frames), self.count)

    def decode(self, params: Tree, x: Float[Array, "B F ..."], memory: Tree | None) -> Float[Array, "B F H W C"]:
        return apart(self.of.decode(params, flat(x), memory), self.count)


def check_video(batch: Mapping[str, Any], frames: int) -> None:
    """Raises a UserError unless a batch has a `video` [B, F, H, W, C] of this many frames."""
    if "video" not in batch:
        there = ", ".join(sorted(batch)) or "nothing"
        raise MissingEntry(
            f"The model learns from videos, and a batch has {there}: choose a config.data.source that gives the entry "
            "'video', such as 'moving_shapes' or an npz: file with 'videos' [N, F, H, W, C]."
        )
    shape = batch["video"].shape
    if len(shape) != 5 or shape[1] != frames:
        found = f"have {shape[1]} frames" if len(shape) == 5 else f"are of shape {shape}"
        raise UserError(
            f"The model is of {frames} frames, and the data's videos {found}: set the graft's frames, as in "
            "config.method.grafts.motion.frames, or choose other data."
        )


def flat(video: Float[Array, "B F ..."]) -> Float[Array, "N ..."]:
    """Returns the frames of videos as examples, those of a video one behind the other."""
    return video.reshape(math.prod(video.shape[:2]), *video.shape[2:])


def apart(frames: Float[Array, "N ..."], count: int) -> Float[Array, "B F ..."]:
    """Returns the videos of `count` frames each that `flat` was given."""
    return frames.reshape(len(frames) // count, count, *frames.shape[1:])


def repeated(x: Array, count: int) -> Array:
    """Returns the examples `[B, ...]` with each `count` times, as `flat` orders frames; pictures of frames, which are
    `[B, F, H, W, C]`, are only put in that order.
    """
    return flat(x) if x.ndim == 5 else jnp.repeat(x, count, axis=0)
