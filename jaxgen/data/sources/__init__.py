"""The table of sources and the one function that opens them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from jaxgen.data.images import check_channels
from jaxgen.data.source import Source
from jaxgen.errors import UserError, nearest

# name -> (module, whether an argument follows a colon); imported only when asked for.
SOURCES = {
    "digits": ("jaxgen.data.sources.digits", False),
    "shapes": ("jaxgen.data.sources.shapes", False),
    "caption_shapes": ("jaxgen.data.sources.caption_shapes", False),
    "tfds": ("jaxgen.data.sources.tfds", True),
    "folder": ("jaxgen.data.sources.folder", True),
    "npz": ("jaxgen.data.sources.npz", True),
    "gaussians": ("jaxgen.data.sources.gaussians", True),
    "captions": ("jaxgen.data.sources.captions", True),
}


def open_source(
    source: str,
    split: str,
    resolution: int | tuple[int, int],
    channels: int,
    num_classes: int = 0,
    root: str | None = None,
) -> Source:
    """Opens one split of a data source.

    Args:
      source: "digits", "shapes", "caption_shapes", "tfds:<name>", "folder:<path>", "npz:<path>",
        "captions:<folder or npz>" or "gaussians:<world>".
      split: a split's name; which there are is each source's to say (its module's docstring).
      resolution: height and width of every image, or one number for both.
      channels: 1 grey, 3 RGB, 4 RGBA. Files with another number are refused, never converted.
      num_classes: labels must lie in [0, num_classes); 0 asks for no labels.
      root: TFDS's data directory; for folders and npz files, what a relative path is relative to.

    Raises:
      UserError: an unknown source or split, an empty set, a file or label that does not fit.
    """
    kind, colon, argument = source.partition(":")
    if kind not in SOURCES:
        raise UserError(f"Unknown data source {source!r} (config.data.source): {nearest(kind, SOURCES)}")
    module, takes_argument = SOURCES[kind]
    if takes_argument and not argument:
        raise UserError(f"The data source {source!r} lacks its argument; write '{kind}:<name or path>'.")
    if colon and not takes_argument:
        raise UserError(f"The data source {source!r} takes no argument; write {kind!r}.")
    size = _check_resolution(resolution)
    check_channels(channels)
    if num_classes < 0:
        raise UserError(f"config.data.num_classes is {num_classes}; it must be 0 or more.")
    opener: Callable[..., Source] = import_module(module).open_split
    opened = opener(source, argument, split, size, channels, num_classes, root)
    if len(opened) == 0:
        raise UserError(f"Split {split!r} of {source!r} is empty; choose another split or add examples.")
    return opened


def _check_resolution(resolution: int | tuple[int, int]) -> tuple[int, int]:
    size = (resolution, resolution) if isinstance(resolution, int) else tuple(resolution)
    if len(size) != 2 or any(not isinstance(side, int) or side < 1 for side in size):
        raise UserError(
            f"config.data.resolution is {resolution!r}; it must be a positive whole number or (height, width)."
        )
    return size
