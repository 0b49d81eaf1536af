"""Decodes and fits single images on the host; errors name the file."""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from jaxgen.errors import UserError

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
WORDS = {"1": "black and white", "L": "grey", "LA": "grey with alpha", "P": "a palette image", "RGB": "RGB",
         "RGBA": "RGB with alpha", "CMYK": "CMYK"}
# The formats that are opened, by a file's content. The imaging library knows many more, and starts other programs for
# some of them: Ghostscript for PostScript.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
# How files begin that are often taken for images, to say what they are.
SIGNS = {b"%!": "PostScript", b"\xc5\xd0\xd3\xc6": "PostScript", b"%PDF": "PDF", b"<svg": "SVG", b"<?xml": "XML",
         b"<!DOCTYPE": "HTML", b"<html": "HTML", b"8BPS": "Photoshop's", b"\x00\x00\x01\x00": "an icon's"}  # fmt: skip
_DAMAGED = (OSError, EOFError, SyntaxError, ValueError, IndexError, struct.error, Image.DecompressionBombError)


def check_channels(channels: int) -> None:
    """Raises UserError unless `channels` is 1 (grey), 3 (RGB) or 4 (RGBA)."""
    if channels not in MODES:
        raise UserError(f"Images have 1, 3 or 4 channels, but config.data.channels is {channels!r}.")


def check_mode(image: Image.Image, channels: int, where: str) -> None:
    """Raises UserError unless the image's own mode is the one of `channels`, at eight bits.

    Nothing is converted silently: a grey file among colour ones is more often a mistake than meant.
    """
    # Pillow reads a 16-bit RGB file into mode RGB; only the decoder's raw mode tells.
    if image.mode.startswith("I") or image.mode == "F" or ";16" in str(getattr(image, "tile", "")):
        raise UserError(f"{where} has more than 8 bits a channel; save it as an 8-bit {MODES[channels]} file.")
    if image.mode == MODES[channels]:
        return
    own = next((count for count, mode in MODES.items() if mode == image.mode), None)
    suggestion = f"convert it to {WORDS[MODES[channels]]}"
    if own is not None:
        suggestion += f", or set config.data.channels={own} if every image is like it"
    raise UserError(
        f"{where} is {WORDS.get(image.mode, image.mode)} where config.data.channels={channels} wants "
        f"{WORDS[MODES[channels]]}; {suggestion}."
    )


def open_image(data: bytes | BinaryIO, where: str, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """The image in `data`, its header read and its pixels not yet; every image of the project is opened here.

    Args:
      where: what the image is called in messages.
      formats: those of `FORMATS` that are meant; the content tells, not the name.

    Raises:
      UserError: for anything else, for a damaged header, and for more pixels than the imaging library takes for safe.
    """
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    try:
        return Image.open(file, formats=formats)
    except UnidentifiedImageError as error:
        kinds = " or ".join(filter(None, [", ".join(formats[:-1]), formats[-1]]))
        raise UserError(
            f"{where} cannot be read as an image, since {_told(file)}; make it {kinds}, or remove it."
        ) from error
    except Image.DecompressionBombError as error:
        raise UserError(f"{where} has too many pixels to be opened ({_brief(error)}); shrink or remove it.") from error
    except _DAMAGED as error:
        raise UserError(
            f"{where} cannot be read as an image ({_brief(error)}); repair or remove it."
        ) from error


def load_image(data: bytes, where: str, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """Returns an image as `open_image` does, with its pixels; of an animation, it reads the last frame."""
    image = open_image(data, where, formats)
    try:
        image.seek(getattr(image, "n_frames", 1) - 1)
        image.load()
    except _DAMAGED as error:
        raise UserError(f"{where} is damaged ({_brief(error)}); repair or remove it.") from error
    return image


def _told(file: BinaryIO) -> str:
    """What a file's first bytes say that it is."""
    file.seek(0)
    start = file.read(64).lstrip()
    found = next((kind for sign, kind in SIGNS.items() if start.lower().startswith(sign.lower())), None)
    return f"its content is {found}" if found else "its content is of no known kind" if start else "it is empty"


def decode(data: bytes, resolution: tuple[int, int], channels: int, where: str) -> np.ndarray:
    """Decodes an encoded image to uint8 [H, W, C] at `resolution`, upright by its EXIF note.

    Raises UserError naming `where` for a truncated or foreign file, another number of channels, or 16 bits.
    """
    image = open_image(data, where)
    check_mode(image, channels, where)
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
    except _DAMAGED as error:
        raise UserError(f"{where} is damaged ({_brief(error)}); repair or remove it.") from error
    return fit(image, resolution)


def from_array(array: np.ndarray, resolution: tuple[int, int], channels: int, where: str) -> np.ndarray:
    """Turns uint8 [H, W] or [H, W, C] into uint8 [H, W, C] at `resolution`; a UserError names `where` otherwise."""
    array = array[..., None] if array.ndim == 2 else array
    if array.dtype != np.uint8 or array.ndim != 3:
        raise UserError(f"{where} is {array.dtype} of shape {array.shape}, where uint8 [H, W, C] is needed.")
    if array.shape[-1] != channels:
        raise UserError(
            f"{where} has {array.shape[-1]} channel(s), but config.data.channels is {channels}; "
            f"set config.data.channels={array.shape[-1]}."
        )
    if array.shape[:2] == resolution:
        return np.ascontiguousarray(array)
    return fit(Image.fromarray(array[..., 0] if channels == 1 else array), resolution)


def fit(image: Image.Image, resolution: tuple[int, int]) -> np.ndarray:
    """Crops the centre to the aspect of `resolution` [H, W] and resizes it, antialiased, to uint8 [H, W, C]."""
    height, width = resolution
    if image.size != (width, height):
        scale = min(image.width / width, image.height / height)
        crop_width, crop_height = max(1, round(width * scale)), max(1, round(height * scale))
        left, top = (image.width - crop_width) // 2, (image.height - crop_height) // 2
        image = image.crop((left, top, left + crop_width, top + crop_height))
        # Pillow widens its filters when it shrinks, so nothing is skipped.
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    array = np.asarray(image)
    return np.array(array[..., None] if array.ndim == 2 else array)


def _brief(error: Exception) -> str:
    return str(error).split("<")[0].strip().rstrip(".") or type(error).__name__
