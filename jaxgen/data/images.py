"""Decodes and fits single images on the host; errors name the file."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from jaxgen.errors import UserError
from jaxgen.files.pictures import DAMAGED, brief, open_image

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
WORDS = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey with alpha",
    "P": "a palette image",
    "RGB": "RGB",
    "RGBA": "RGB with alpha",
    "CMYK": "CMYK",
    "transparent": "partly transparent",
}
ORIENTATION = 0x0112  # the EXIF tag


def check_channels(channels: int) -> None:
    """Raises UserError unless `channels` is 1 (grey), 3 (RGB) or 4 (RGBA)."""
    if channels not in MODES:
        raise UserError(f"Images have 1, 3 or 4 channels, but config.data.channels is {channels!r}.")


class ManyFrames(UserError):
    """This is the error for an animation, or a file of several pages, where one picture is needed."""


def check_mode(image: Image.Image, channels: int, where: str, reader: str = "") -> None:
    """Raises UserError unless the image is one picture, at eight bits, with the `channels` that are asked for.

    Nothing that loses something is converted: a grey file among colour ones is more often a mistake than meant.
    Palettes and black-and-white images become what they stand for, which is exact.

    Args:
      reader: what needs these channels, for messages, such as "this model"; by default `config.data.channels`.

    Raises:
      ManyFrames: for an animation. The photos of cameras that hold a second, smaller copy (MPO) are one picture.
    """
    _check_plain(image, MODES[channels], where)
    found = _meant_mode(image, channels)
    if found == MODES[channels]:
        return
    own = next((count for count, mode in MODES.items() if mode == found), None)
    suggestion = f"convert it to {WORDS[MODES[channels]]}"
    if reader:
        own_words = WORDS.get(found, found)
        raise UserError(f"{where} is {own_words}, and {reader} reads {WORDS[MODES[channels]]}; {suggestion}.")
    if own is not None:
        suggestion += f", or set config.data.channels={own} if every image is like it"
    elif found in ("transparent", "LA"):
        suggestion = "put it on a background, or convert it to RGBA and set config.data.channels=4 for all"
    raise UserError(
        f"{where} is {WORDS.get(found, found)} where config.data.channels={channels} wants "
        f"{WORDS[MODES[channels]]}; {suggestion}."
    )


def _check_plain(image: Image.Image, mode: str, where: str) -> None:
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise ManyFrames(f"{where} has {getattr(image, 'n_frames', 2)} frames; save the one that is meant.")
    if _is_deep(image):
        raise UserError(f"{where} has more than 8 bits a channel; save it as an 8-bit {WORDS.get(mode, mode)} file.")


def _is_deep(image: Image.Image) -> bool:
    """Returns whether the file has more than eight bits a channel; the imaging library cuts some to eight."""
    if image.mode.startswith("I") or image.mode == "F":
        return True
    tiles = getattr(image, "tile", ())
    if image.format == "PPM":  # their decoder is told the largest value
        return any(isinstance(entry, int) and entry > 255 for tile in tiles for entry in tile[3] or ())
    return image.format != "BMP" and ";16" in str(tiles)  # a BMP of 16 bits has five for each colour


def _meant_mode(image: Image.Image, channels: int) -> str:
    """Returns the mode in which the image's pixels are exactly what they are; "transparent" for a key colour."""
    clear = "transparency" in image.info
    if image.mode == "P":
        if clear:
            return "RGBA"
        return "L" if channels == 1 and _is_grey(image) else "RGB"
    if clear and image.mode in ("L", "RGB"):
        return "transparent"
    return "L" if image.mode == "1" else image.mode


def _is_grey(image: Image.Image) -> bool:
    """Returns whether all colours of a palette are grey."""
    colours = np.array(image.getpalette() or [], np.uint8).reshape(-1, 3)
    return bool((colours == colours[:, :1]).all())


def own_channels(image: Image.Image) -> int:
    """Returns how many channels an image's pixels have, alpha aside: 1 or 3."""
    grey = image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")
    return 1 if grey or image.mode == "P" and _is_grey(image) else 3


def upright_size(image: Image.Image, where: str) -> tuple[int, int]:
    """Returns (height, width) of an image as it is shown, turned by its EXIF note, which may stand behind the pixels.

    Raises:
      UserError: the file, which `where` names, is damaged.
    """
    try:  # the imaging library turns the size of a TIFF when it opens it
        turned = image.format != "TIFF" and image.getexif().get(ORIENTATION, 1) >= 5
    except DAMAGED as error:
        raise UserError(f"{where} is damaged ({brief(error)}); repair or remove it.") from error
    return image.size if turned else image.size[::-1]


def decode(data: bytes, resolution: tuple[int, int], channels: int, where: str, reader: str = "") -> np.ndarray:
    """Decodes an encoded image to uint8 [H, W, C] at `resolution`, as `load` and `fit` do."""
    return fit(load(data, channels, where, reader), resolution)


def load(data: bytes, channels: int, where: str, reader: str = "") -> Image.Image:
    """Returns an encoded image, upright by its EXIF note, in the mode of its channels.

    Raises UserError naming `where` for a truncated or foreign file, another number of channels, or 16 bits; `reader` is
    that of `check_mode`.
    """
    image = open_image(data, where)
    check_mode(image, channels, where, reader)
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
        if image.mode != MODES[channels]:
            image = image.convert(MODES[channels])  # a palette or black and white: exact
    except DAMAGED as error:
        raise UserError(f"{where} is damaged ({brief(error)}); repair or remove it.") from error
    return image


def decode_mask(
    data: bytes,
    resolution: tuple[int, int] | None,
    where: str,
    classes: bool = False,
    advice: str = "a mask is grey; convert it to grey",
) -> np.ndarray:
    """Decodes an encoded grey picture to int32 [H, W], its levels, cropped as `decode` does and resized without mixing.

    Args:
      resolution: the height and width; None leaves the picture at its size.
      classes: whether the file holds numbers of classes: then the values of a palette image are its indices, and those
        of a black-and-white one are 0 and 1.
      advice: what is said of a coloured picture.

    Raises:
      UserError: the file is damaged, coloured or partly transparent, or has more than 8 bits.
    """
    image = open_image(data, where)
    _check_plain(image, "grey", where)
    try:
        image.load()
        image = ImageOps.exif_transpose(image)
        if not (classes and image.mode in ("P", "1")):
            image = _as_grey(image, where, advice)
        elif image.mode == "1":
            image = image.convert("L").point(lambda level: level // 255)
    except DAMAGED as error:
        raise UserError(f"{where} is damaged ({brief(error)}); repair or remove it.") from error
    size = image.size[::-1] if resolution is None else resolution
    return fit(image, size, Image.Resampling.NEAREST)[..., 0].astype(np.int32)


def decode_colours(data: bytes, where: str) -> np.ndarray:
    """Decodes an encoded picture of painted classes to its colours, uint8 [H, W, 3], at its size.

    Raises:
      UserError: the file is damaged, partly transparent, or has more than 8 bits.
    """
    image = open_image(data, where)
    _check_plain(image, "RGB", where)
    try:
        image.load()
        pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGBA"))
    except DAMAGED as error:
        raise UserError(f"{where} is damaged ({brief(error)}); repair or remove it.") from error
    if (pixels[..., 3] != 255).any():
        raise UserError(f"{where} is partly transparent, and a colour is a class; put it on a background.")
    return pixels[..., :3]


def _as_grey(image: Image.Image, where: str, advice: str) -> Image.Image:
    """Returns an image of grey pixels, which may be stored in colours, as mode "L"."""
    pixels = np.asarray(image.convert("RGBA"))
    if (pixels[..., 3] != 255).any():
        raise UserError(f"{where} is partly transparent, and a mask is grey; put it on a background.")
    if (pixels[..., :2] != pixels[..., 1:3]).any():
        raise UserError(f"{where} is coloured, and {advice}.")
    return Image.fromarray(pixels[..., 0])


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


def fit(
    image: Image.Image, resolution: tuple[int, int], resampling: Image.Resampling = Image.Resampling.LANCZOS
) -> np.ndarray:
    """Crops the centre to the aspect of `resolution` [H, W] and resizes it, antialiased, to uint8 [H, W, C]."""
    height, width = resolution
    if image.size != (width, height):
        scale = min(image.width / width, image.height / height)
        crop_width, crop_height = max(1, round(width * scale)), max(1, round(height * scale))
        left, top = (image.width - crop_width) // 2, (image.height - crop_height) // 2
        image = image.crop((left, top, left + crop_width, top + crop_height))
        # Pillow widens its filters when it shrinks, so nothing is skipped.
        image = image.resize((width, height), resampling)
    array = np.asarray(image)
    return np.array(array[..., None] if array.ndim == 2 else array)
