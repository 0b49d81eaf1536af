"""Makes pictures of arrays: grids, PNG files and GIF animations, with numpy and Pillow only; MP4 with PyAV.

Images are `[..., H, W, C]` with one channel (grey), three (RGB) or four (RGBA, drawn over white), either uint8 or
floats in [-1, 1]. Floats outside this range are clipped. A value that is not finite is drawn in magenta, so
that it is visible.
"""

from __future__ import annotations

import fractions
import importlib.util
import io
import math
from typing import TYPE_CHECKING

import numpy as np
from etils import epath
from PIL import Image

from jaxgen.errors import UserError
from jaxgen.files import write_bytes
from jaxgen.files.carried import text_chunks

if TYPE_CHECKING:
    from jaxtyping import Shaped, UInt8

READABLE = 48  # a cell whose longer side has fewer pixels is magnified
PADDING = 128  # grey level between the cells, which differs from black and from white
NOT_FINITE = (255, 0, 255)


def to_rgb(images: Shaped[np.ndarray, "*N H W C"]) -> UInt8[np.ndarray, "*N H W 3"]:
    """Converts images `[..., H, W, 1, 3 or 4]`, uint8 or float in [-1, 1], to uint8 `[..., H, W, 3]`.

    RGBA images (4 channels, the last one opacity) are drawn over white.

    Raises:
      UserError: the images have another number of channels or another dtype.
    """
    images = np.asarray(images)
    if images.ndim < 3 or images.shape[-1] not in (1, 3, 4):
        raise UserError(
            f"Pictures need a last axis of 1 (grey), 3 (RGB) or 4 (RGBA) channels, not shape {images.shape}."
        )
    if images.dtype == np.uint8:
        return _three_channels(images)
    if images.dtype.kind != "f" and images.dtype.name != "bfloat16":
        raise UserError(f"Pictures are uint8 or floats in [-1, 1], not {images.dtype.name}.")
    values = images.astype(np.float32)
    finite = np.isfinite(values)
    levels = np.round((np.clip(np.where(finite, values, 0), -1, 1) + 1) * 127.5).astype(np.uint8)
    broken = ~finite.all(axis=-1)
    levels = _three_channels(levels)
    levels[broken] = NOT_FINITE
    return levels


def _three_channels(levels: UInt8[np.ndarray, "*N H W C"]) -> UInt8[np.ndarray, "*N H W 3"]:
    """Returns grey images as RGB, and RGBA images over white; RGB images as they are."""
    if levels.shape[-1] == 4:
        share = levels[..., 3:].astype(np.float32) / 255
        return np.round(levels[..., :3] * share + 255 * (1 - share)).astype(np.uint8)
    return np.repeat(levels, 3, axis=-1) if levels.shape[-1] == 1 else levels


def grid(
    images: Shaped[np.ndarray, "N H W C"], columns: int | None = None, pad: int = 1, scale: int | None = None
) -> UInt8[np.ndarray, "rows columns 3"]:
    """Places images side by side, row by row, in one picture.

    Args:
      images: `[N, H, W, C]`.
      columns: cells in a row; by default the smallest number that makes the grid no taller than wide.
      pad: pixels of grey between the cells and at the edges.
      scale: integer magnification by repeated pixels; by default the smallest with which a cell's longer side has at
        least 48 pixels.

    Returns:
      uint8 `[pad + R (scale H + pad), pad + columns (scale W + pad), 3]` with R rows. The upper left corner of image i
      is at row pad + (i // columns) (scale H + pad) and column pad + (i % columns) (scale W + pad).

    Raises:
      UserError: the rank, number of channels or dtype is wrong, there are no images, or a number is below its minimum.
    """
    images = np.asarray(images)
    if images.ndim != 4:
        raise UserError(f"A grid is made of images [N, H, W, C], not of shape {images.shape}.")
    return animation(images[None], columns=columns, pad=pad, scale=scale)[0]


def animation(
    frames: Shaped[np.ndarray, "F N H W C"], columns: int | None = None, pad: int = 1, scale: int | None = None
) -> UInt8[np.ndarray, "F rows columns 3"]:
    """Makes one grid of each frame. The arguments and errors are those of `grid`.

    Args:
      frames: `[F, N, H, W, C]`.

    Returns:
      uint8 `[F, rows, columns, 3]`, where each frame has the shape that `grid` gives.
    """
    frames = np.asarray(frames)
    if frames.ndim != 5:
        raise UserError(f"An animation is made of frames [F, N, H, W, C], not of shape {frames.shape}.")
    if 0 in frames.shape:
        raise UserError(f"There is nothing to draw in shape {frames.shape}.")
    cells = to_rgb(frames)
    count, number, height, width, _ = cells.shape
    columns = math.ceil(math.sqrt(number)) if columns is None else columns
    scale = max(1, math.ceil(READABLE / max(height, width))) if scale is None else scale
    if columns < 1 or scale < 1 or pad < 0:
        raise UserError(f"columns and scale start at 1 and pad at 0, not {columns}, {scale} and {pad}.")
    rows = math.ceil(number / columns)
    cells = cells.repeat(scale, axis=2).repeat(scale, axis=3)
    height, width = height * scale, width * scale
    canvas = np.full((count, pad + rows * (height + pad), pad + columns * (width + pad), 3), PADDING, np.uint8)
    for i in range(number):
        top = pad + (i // columns) * (height + pad)
        left = pad + (i % columns) * (width + pad)
        canvas[:, top : top + height, left : left + width] = cells[:, i]
    return canvas


def save_indices(
    path: epath.PathLike, array: UInt8[np.ndarray, "H W"], colours: UInt8[np.ndarray, "K 3"], index: int | None = None
) -> None:
    """Writes numbers of classes `[H, W]`, uint8, as a PNG file whose palette shows class i in colour i of at most 256.

    `index` is that of `save_png`.
    """
    picture = Image.fromarray(np.ascontiguousarray(array))
    picture.putpalette(colours.astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True, pnginfo=text_chunks(index))
    write_bytes(path, buffer.getvalue())


def save_png(path: epath.PathLike, array: Shaped[np.ndarray, "H W C"], index: int | None = None) -> None:
    """Writes one picture `[H, W, 1, 3 or 4]`, uint8 or float in [-1, 1], atomically as a PNG file; `gs://` works.

    The file carries the texts of `jaxgen.files.carried.carrying`, where a command has set some.

    Args:
      index: the number of the picture among those of its call, which the file then carries, too.

    Raises:
      UserError: the shape or dtype is wrong.
    """
    array = np.asarray(array)
    if array.ndim != 3:
        raise UserError(f"A PNG is made of one picture [H, W, C], not of shape {array.shape}; use grid for several.")
    buffer = io.BytesIO()
    Image.fromarray(_grey_where_possible(to_rgb(array))).save(buffer, "PNG", optimize=True, pnginfo=text_chunks(index))
    write_bytes(path, buffer.getvalue())


def save_gif(
    path: epath.PathLike, frames: Shaped[np.ndarray, "F H W C"], ms: int = 60, hold_last_ms: int = 1500
) -> None:
    """Writes frames `[F, H, W, 1, 3 or 4]`, uint8 or float in [-1, 1], atomically as an endless GIF; `gs://` works.

    Grey frames are exact; coloured frames are reduced to 256 colours each. GIF rounds times to hundredths of a second.
    Equal neighbouring frames are stored as one with the sum of their times.

    Args:
      ms: milliseconds for which each frame but the last is shown.
      hold_last_ms: milliseconds for which the last frame is shown.

    Raises:
      UserError: the shape or dtype is wrong, there are no frames, or a time is under 20 ms, which browsers slow down to
        100 ms.
    """
    frames = np.asarray(frames)
    if frames.ndim != 4 or len(frames) == 0:
        raise UserError(f"A GIF is made of frames [F, H, W, C], not of shape {frames.shape}; use animation for grids.")
    if ms < 20 or hold_last_ms < 20:
        raise UserError(f"A GIF's frames last at least 20 ms, not {ms} and {hold_last_ms}: browsers slow them down.")
    pictures = _grey_where_possible(to_rgb(frames))
    colours = pictures.ndim == 4
    first, *rest = (Image.fromarray(p).quantize(256) if colours else Image.fromarray(p) for p in pictures)
    times = [ms] * (len(pictures) - 1) + [hold_last_ms]
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=times, loop=0)
    write_bytes(path, buffer.getvalue())


def can_write_mp4() -> bool:
    """Tells whether PyAV is installed, which `save_mp4` needs: pip install "jaxgen[video]"."""
    return importlib.util.find_spec("av") is not None


def save_mp4(path: epath.PathLike, frames: Shaped[np.ndarray, "F H W C"], ms: int = 60) -> None:
    """Writes frames `[F, H, W, 1, 3 or 4]`, uint8 or float in [-1, 1], atomically as a video in H.264.

    Players need even sides and 4:2:0 colours: a last row or column is repeated, and colours change a little at edges.

    Args:
      ms: milliseconds for which each frame is shown.

    Raises:
      UserError: PyAV is not installed, the shape or dtype is wrong, there are no frames, or the time is not positive.
    """
    if not can_write_mp4():
        raise UserError('MP4 files are written by PyAV, which is not installed: pip install "jaxgen[video]".')
    import av

    frames = np.asarray(frames)
    if frames.ndim != 4 or len(frames) == 0 or ms < 1:
        raise UserError(f"An MP4 is made of frames [F, H, W, C] of at least 1 ms, not {frames.shape} of {ms} ms.")
    pictures = to_rgb(frames)
    sides = [(0, size % 2) for size in pictures.shape[1:3]]
    pictures = np.pad(pictures, ((0, 0), *sides, (0, 0)), mode="edge")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fractions.Fraction(1000, ms), options={"crf": "12"})
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode())
    write_bytes(path, buffer.getvalue())


def _grey_where_possible(rgb: np.ndarray) -> np.ndarray:
    """Drops the last axis if the three channels are equal: this takes a third of the bytes and is exact in a GIF."""
    grey = rgb[..., 0]
    return grey if (rgb == grey[..., None]).all() else rgb
