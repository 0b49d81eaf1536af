"""Opens every picture of the project, by its content, and only of the formats that are meant.

The imaging library knows many more formats, and starts other programs for some of them: Ghostscript for PostScript.
"""

from __future__ import annotations

import io
import logging
import struct
import warnings
from typing import BinaryIO

from etils import epath
from PIL import Image, UnidentifiedImageError, features

from jaxgen.errors import UserError, os_refusal
from jaxgen.files.paths import regular_file

log = logging.getLogger("jaxgen")

# The formats that are opened, and the endings that their files have.
ENDINGS = {
    "PNG": (".png", ".apng"), "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"), "WEBP": (".webp",), "BMP": (".bmp",),
    "GIF": (".gif",), "TIFF": (".tif", ".tiff"), "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    **({"AVIF": (".avif",)} if features.check("avif") else {}),
}  # fmt: skip
FORMATS = tuple(ENDINGS)
SUFFIXES = tuple(suffix for suffixes in ENDINGS.values() for suffix in suffixes)
# How files begin that are often taken for images, to say what they are.
SIGNS = {b"%!": "PostScript", b"\xc5\xd0\xd3\xc6": "PostScript", b"%PDF": "PDF", b"<svg": "SVG", b"<?xml": "XML",
         b"<!DOCTYPE": "HTML", b"<html": "HTML", b"8BPS": "Photoshop's", b"\x00\x00\x01\x00": "an icon's"}  # fmt: skip
# What the imaging library raises for files that are damaged.
# It warns of pictures above its limit of pixels, and refuses those above twice the limit; so is done here.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
DAMAGED = (OSError, EOFError, SyntaxError, ValueError, IndexError, struct.error, Image.DecompressionBombError)


def open_image(data: bytes | BinaryIO, where: str, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """Returns the image in `data`, with its header read and its pixels not yet.

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
        raise UserError(f"{where} has too many pixels to be opened ({brief(error)}); shrink or remove it.") from error
    except DAMAGED as error:
        raise UserError(f"{where} cannot be read as an image ({brief(error)}); repair or remove it.") from error


def load_image(data: bytes, where: str, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """Returns an image as `open_image` does, with its pixels; of an animation, it reads the last frame."""
    image = open_image(data, where, formats)
    try:
        image.seek(getattr(image, "n_frames", 1) - 1)
        image.load()
    except DAMAGED as error:
        raise UserError(f"{where} is damaged ({brief(error)}); repair or remove it.") from error
    return image


def _told(file: BinaryIO) -> str:
    """Returns what a file's first bytes say that it is."""
    file.seek(0)
    start = file.read(64).lstrip()
    found = next((kind for sign, kind in SIGNS.items() if start.lower().startswith(sign.lower())), None)
    return f"its content is {found}" if found else "its content is of no known kind" if start else "it is empty"


def read_picture(path: epath.PathLike, formats: tuple[str, ...] = FORMATS) -> tuple[bytes, Image.Image]:
    """Returns the bytes and the image of a file, as `load_image` does; a pipe or a device is refused."""
    data = regular_file(path, "the picture").read_bytes()
    return data, load_image(data, str(path), formats)


def picture_files(path: epath.Path, named_by: str) -> tuple[epath.Path, ...]:
    """Returns the file of a path, or the pictures that lie directly in its folder, in the order of their names.

    Args:
      path: a file or a folder, from `user_path`.
      named_by: the flag that gives it, for messages.

    Raises:
      UserError: there is nothing, no plain file, or a folder without a picture.
    """
    try:
        if not path.is_dir():
            return (regular_file(path, named_by),)
        names = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"{named_by}={path}: {os_refusal(error)}") from error
    found = [name for name in names if name.lower().endswith(SUFFIXES)]
    if not found:
        raise UserError(f"{named_by}={path} is a folder without a picture; a picture ends in {', '.join(SUFFIXES)}.")
    if len(found) < len(names):
        log.info("%s: %d pictures of %s; %d other entries are not read", named_by, len(found), path,
                 len(names) - len(found))  # fmt: skip
    return tuple(path / name for name in found)


def brief(error: Exception) -> str:
    """Returns the imaging library's message without the names of its objects."""
    return str(error).split("<")[0].strip().rstrip(".") or type(error).__name__
