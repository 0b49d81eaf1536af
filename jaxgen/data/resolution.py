"""Fills in a side of `config.data.resolution` that follows from the data: a picture's own ratio of height and width."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from jaxgen.data.sources import own_size
from jaxgen.errors import UserError

log = logging.getLogger("jaxgen")


def own_resolution(source: str, resolution: Any, root: str | None = None) -> Any:
    """Returns a resolution whose side of 0 is filled in so that pictures keep their ratio; others as they are.

    Args:
      source: `config.data.source`, such as "image:cat.png".
      resolution: `config.data.resolution`, such as (0, 128) for 128 pixels of width.
      root: the folder that a relative path starts from.

    Raises:
      UserError: the source's pictures have no size of their own, or the other side is not above 0.
    """
    sides = tuple(resolution) if isinstance(resolution, Sequence) else ()
    if len(sides) != 2 or 0 not in sides or not all(isinstance(side, int) for side in sides):
        return resolution
    height, width = sides
    if not max(height, width) > 0 or min(height, width) < 0:
        raise UserError(f"config.data.resolution is {sides}; one side may be 0, and the other is above 0.")
    size = own_size(source, root)
    if size is None:
        raise UserError(
            f"config.data.resolution={sides}: a side of 0 follows from the one picture of image:<file>, "
            f"and the data source {source!r} has no size of its own; give height and width."
        )
    found = (height or max(1, round(width * size[0] / size[1])), width or max(1, round(height * size[1] / size[0])))
    log.info("config.data.resolution is %dx%d (height x width), in the ratio of the picture", *found)
    return found
