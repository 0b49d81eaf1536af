"""Brings arrays of any file to the types that examples have, and refuses what these do not hold."""

from __future__ import annotations

import numpy as np

from jaxgen.data.images import MODES
from jaxgen.errors import UserError
from jaxgen.files.arrays import texts


def plain(values: np.ndarray, where: str, image_axes: int) -> np.ndarray:
    """Returns an array as uint8 (images), int32 (other whole numbers and truth values), float32, or texts.

    Args:
      where: what the array is called in messages.
      image_axes: how many axes uint8 must have to be images; 3 in one example, 4 in an array of them. With one axis
        more, of frames, they are a video, if the last axis is one of channels: 1, 3 or 4.

    Raises:
      UserError: for values that int32 or float32 do not hold, and other types.
    """
    kind = values.dtype.kind
    if kind in "SU":
        return texts(values, where)
    if kind in "biu":
        video = values.ndim == image_axes + 1 and values.shape[-1] in MODES
        if values.dtype == np.uint8 and (values.ndim == image_axes or video):
            return values
        limits = np.iinfo(np.int32)
        if values.size and (int(values.min()) < limits.min or int(values.max()) > limits.max):
            raise UserError(
                f"{where} reaches from {values.min()} to {values.max()}, more than int32 holds; number them anew."
            )
        return values.astype(np.int32)
    if kind != "f":
        raise UserError(f"{where} is {values.dtype}, which no example holds; remove or convert it.")
    with np.errstate(over="ignore"):
        found = values.astype(np.float32)
    if (np.isinf(found) & np.isfinite(values)).any():
        raise UserError(f"{where} has values that float32 cannot hold; scale them.")
    return found
