"""Understands arrays of images: the order of their axes, and the range of their values.

Images are uint8, or floats in [0, 1], [-1, 1] or 0..255. The range is found from the lowest and the highest value of
all images together, and told at the start of training; what fits none of the three is refused.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxgen.data.images import MODES
from jaxgen.errors import UserError

TOLERANCE = 1e-3  # of a range of 1, a quarter of a level: what arithmetic adds to the ends of a range
BRIGHT = 16  # the highest value from which floats are taken for 0..255
DARK = 128  # uint8 images below are told of, since they may be another range


@dataclasses.dataclass(frozen=True)
class Range:
    """Holds a range of values that stands for black to white, and the words that tell of it."""

    low: float
    high: float
    told: str = ""

    def levels(self, images: np.ndarray) -> np.ndarray:
        """Returns images of this range as uint8, rounded to the nearest level."""
        if images.dtype == np.uint8:
            return images
        clipped = np.clip(images.astype(np.float32), self.low, self.high)
        return np.round((clipped - self.low) * (255 / (self.high - self.low))).astype(np.uint8)


def check_layout(name: str, shape: tuple[int, ...], channels: int | None = None) -> None:
    """Raises a UserError unless a shape is [N, H, W] or [N, H, W, C], with the `channels` that are asked for.

    Args:
      name: the source's text, for messages.
      channels: 1, 3 or 4; None takes 1 and 3.
    """
    wanted = (channels,) if channels else (1, 3)
    own = shape[3] if len(shape) == 4 else 1
    told = f"The images of {name!r} have shape {list(shape)}"
    if len(shape) == 3 and shape[-1] in MODES and shape[-1] in wanted and own not in wanted:
        raise UserError(f"{told}, which is one image [H, W, C]; save images[None] for [N, H, W, C].")
    if len(shape) not in (3, 4):
        raise UserError(f"{told}; [N, H, W] or [N, H, W, C] is needed.")
    if 0 in shape[1:]:
        raise UserError(f"{told}, without a pixel; save the images again.")
    if own in wanted:
        return
    if own not in MODES and shape[1] in wanted:
        raise UserError(f"{told}, which is [N, C, H, W]; save images.transpose(0, 2, 3, 1) for [N, H, W, C].")
    if own not in MODES and shape[2] in wanted:
        raise UserError(f"{told}, which is [H, W, C, N]; save images.transpose(3, 0, 1, 2) for [N, H, W, C].")
    if channels is None:
        raise UserError(f"The images of {name!r} have {own} channels; metrics see grey (1) or RGB (3) ones.")
    mend = f"set config.data.channels={own}" if own in MODES else "save them as grey (1), RGB (3) or RGBA (4) images"
    raise UserError(f"The images of {name!r} have {own} channel(s), but config.data.channels is {channels}; {mend}.")


def range_of(name: str, arrays: list[np.ndarray]) -> Range:
    """Returns the range of all images of a file, [N, H, W] or [N, H, W, C] each.

    Raises:
      UserError: for values that are not finite, with their count; a range that is none of the three; another type.
    """
    kinds = {array.dtype.kind if array.dtype != np.uint8 else "uint8" for array in arrays}
    if kinds == {"uint8"}:
        highest = max((int(array.max()) for array in arrays if array.size), default=255)
        dark = f"uint8 images, whose highest value is {highest} of 255" if highest < DARK else ""
        return Range(0, 255, dark)
    if kinds != {"f"}:
        types = " and ".join(sorted({str(array.dtype) for array in arrays}))
        raise UserError(f"The images of {name!r} are {types}; save them as uint8, or as floats in [0, 1].")
    _check_finite(name, arrays)
    full = [array for array in arrays if array.size]
    low = min((float(array.min()) for array in full), default=0.0)
    high = max((float(array.max()) for array in full), default=1.0)
    found = _named(low, high)
    values = f"from {low:.4g} to {high:.4g}"
    if found is None:
        raise UserError(
            f"The images of {name!r} are floats {values}, which is none of [0, 1], [-1, 1] and 0..255; scale them to "
            "one of these, or save them as uint8."
        )
    return dataclasses.replace(found, told=f"{arrays[0].dtype} images {values}, taken for {found.told}")


def _named(low: float, high: float) -> Range | None:
    """Returns the range that values from `low` to `high` are of, or None."""
    if -TOLERANCE <= low and high <= 1 + TOLERANCE:
        return Range(0, 1, "[0, 1]")
    if -1 - 2 * TOLERANCE <= low < 0 and high <= 1 + 2 * TOLERANCE:
        centred = abs(low + 0.5) < 0.01 and abs(high - 0.5) < 0.01  # a range of its own: [-0.5, 0.5]
        return None if centred else Range(-1, 1, "[-1, 1]")
    if -255 * TOLERANCE <= low and BRIGHT <= high <= 255 * (1 + TOLERANCE):
        return Range(0, 255, "0..255")
    return None


def _check_finite(name: str, arrays: list[np.ndarray]) -> None:
    for array in arrays:
        good = np.isfinite(array).reshape(len(array), -1)
        broken = np.flatnonzero(~good.all(axis=1))
        if broken.size:
            raise UserError(
                f"{broken.size:,} of {len(array):,} images of {name!r} are not finite ({int((~good).sum()):,} values "
                f"are NaN or infinity), the first is image {broken[0]}; repair or remove them."
            )
