"""`npz:<path>` holds images, and what belongs to them, in one NumPy archive, which is kept in memory.

Keys: `images` (or `image`), [N, H, W] or [N, H, W, C], and optionally `labels` (or `label`), [N] or a map of
[N, H, W], which becomes `mask`; every other array of N rows passes through under its own name (`masks` and
`captions` without their s). With splits in the file each key is prefixed,
`train_images`, `train_labels`, `test_images`, ... Without, the splits are `all`, and `train` and `test`: nine
tenths and one tenth by a hash of the index. Arrays of another length belong to no example and are left out, but
`class_names` (strings) gives the classes their names.

Images are uint8, or floats in [0, 1] or, where any is negative, in [-1, 1]; anything else is refused, as is a NaN.
As uint8 means an image in jaxgen, other integers than uint8 [N, H, W, C] become int32, and floats float32.
Images of another size are cropped and resized as in folders, unless the file has other arrays of the same
height and width (masks): those it refuses, since no one resize is right for both.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping

import numpy as np
from etils import epath

from jaxgen.data.images import from_array
from jaxgen.data.source import Request, Source, check_labels, check_split, hash_split, locate
from jaxgen.errors import UserError

SYNONYMS = {"images": "image", "labels": "label", "masks": "mask", "captions": "caption"}


class NPZ(Source):
    """Gives the images in an archive.

    An example has `image` uint8 [H, W, C], `label` int32 [], and other arrays as they are.
    """

    takes = "<path>"

    def __init__(self, request: Request):
        super().__init__(request)
        name, split = self.name, self.split
        content = _read(locate(request.argument, request.root))
        arrays, signed = _arrays_of(name, content, split)
        count = len(arrays["image"])
        arrays = {key: values for key, values in arrays.items() if values.ndim and len(values) == count}
        if not any(key.endswith(("_image", "_images")) for key in content):
            kept = np.array([hash_split(str(i)) == split or split == "all" for i in range(count)], bool)
            arrays = {key: values[kept] for key, values in arrays.items()}
        images = _fitted(request, _images(name, arrays.pop("image"), signed), arrays)
        arrays = {key: _plain(values) for key, values in arrays.items()}
        labels = arrays.get("label")
        if labels is not None and labels.ndim == 3:
            arrays["mask"] = arrays.pop("label")
        labels = _checked_labels(request, labels)
        found = int(labels.max()) + 1 if labels is not None and labels.size else 0
        self.num_classes = request.num_classes or found
        self.class_names = tuple(str(word) for word in content.get("class_names", np.array([], str)).tolist())
        self.arrays = {"image": images, **arrays}


def _fitted(request: Request, images: np.ndarray, others: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns uint8 [N, H, W, C] at the resolution that is asked for."""
    resolution, channels = request.resolution, request.channels
    same_size = [key for key, values in others.items() if values.shape[1:3] == images.shape[1:3]]
    if images.shape[1:3] != resolution and same_size:
        raise UserError(
            f"{request.source!r} holds {images.shape[1]}x{images.shape[2]} images and {same_size[0]!r} of the same "
            f"size, which cannot be resized alike; set config.data.resolution to {images.shape[1:3]} or resize the "
            "file."
        )
    if images.shape[-1] != channels:
        raise UserError(
            f"The images of {request.source!r} have {images.shape[-1]} channel(s), but config.data.channels is "
            f"{channels}; set config.data.channels={images.shape[-1]}."
        )
    if images.shape[1:3] == resolution:
        return images
    where = f"of {request.source!r}"
    resized = [from_array(x, resolution, channels, f"Image {i} {where}") for i, x in enumerate(images)]
    return np.stack(resized) if resized else np.empty((0, *resolution, channels), np.uint8)


def _checked_labels(request: Request, labels: np.ndarray | None) -> np.ndarray | None:
    """Labels [N], of maps [N, H, W] the one of each map's worst pixel; UserError where they do not fit."""
    if labels is not None and (labels.ndim not in (1, 3) or labels.dtype != np.int32):
        raise UserError(
            f"The labels of {request.source!r} are {labels.dtype} of shape {labels.shape}; whole numbers [N] or "
            "[N, H, W] are needed."
        )
    if labels is not None and labels.ndim == 3 and labels.size:
        lowest, highest = labels.min((1, 2)), labels.max((1, 2))
        labels = np.where(lowest < 0, lowest, highest)
    check_labels(request.source, labels, request.num_classes)
    return labels


def _read(path: epath.Path) -> dict[str, np.ndarray]:
    if not path.exists():
        raise UserError(f"There is no file {str(path)!r} (config.data.source).")
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if isinstance(archive, Mapping):
                return dict(archive.items())
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{str(path)!r} cannot be read as an .npz archive of plain arrays ({str(error).rstrip('.')}); save it "
            "again with numpy.savez and no objects in it."
        ) from error
    raise UserError(f"{str(path)!r} is a single array; save it with numpy.savez(images=...).")


def _arrays_of(name: str, content: dict[str, np.ndarray], split: str) -> tuple[dict[str, np.ndarray], bool]:
    """The arrays of `split` under the names that examples use, and whether the file's images are signed."""
    stems = {key.removesuffix("s") for key in content}
    prefixes = sorted(stem.removesuffix("_image") for stem in stems if stem.endswith("_image"))
    image_keys = [key for key in content if key.removesuffix("s").endswith("image")]
    if prefixes:
        check_split(name, split, prefixes)
        prefix = split + "_"
    elif "image" in stems:
        check_split(name, split, ("all", "train", "test"))
        prefix = ""
    else:
        raise UserError(f"{name!r} has no array 'images' or '<split>_images'; it has {', '.join(content) or 'none'}.")
    # One scale for the whole file: a split without a negative value is still on [-1, 1] if another has one.
    signed = any(content[key].dtype.kind == "f" and content[key].size and np.nanmin(content[key]) < 0
                 for key in image_keys)
    own = {key[len(prefix):]: values for key, values in content.items() if key.startswith(prefix)}
    arrays = {SYNONYMS.get(key, key): values for key, values in own.items() if key != "class_names"}
    if "label" in arrays and len(arrays["label"]) != len(arrays["image"]):
        raise UserError(
            f"{name!r} has {len(arrays['image'])} images but {len(arrays['label'])} labels; there must be as many."
        )
    return arrays, signed


def _images(name: str, images: np.ndarray, signed: bool) -> np.ndarray:
    """Turns [N, H, W] or [N, H, W, C] in any accepted range into uint8 [N, H, W, C]."""
    images = images[..., None] if images.ndim == 3 else images
    if images.ndim != 4:
        raise UserError(f"The images of {name!r} have shape {images.shape}; [N, H, W] or [N, H, W, C] is needed.")
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise UserError(f"The images of {name!r} are {images.dtype}; save them as uint8, or as floats in [0, 1].")
    broken = np.flatnonzero(~np.isfinite(images).all(axis=(1, 2, 3)))
    if broken.size:
        raise UserError(f"Image {broken[0]} of {name!r} is not finite (NaN or infinity); repair or remove it.")
    low, high = (-1, 1) if signed else (0, 1)
    outside = np.flatnonzero(((images < low) | (images > high)).any(axis=(1, 2, 3)))
    if outside.size:
        raise UserError(
            f"Image {outside[0]} of {name!r} has values outside [{low}, {high}]; save the images as uint8, or as "
            "floats in [0, 1] or [-1, 1]."
        )
    scaled = (images.astype(np.float32) - low) * (255 / (high - low))
    return np.round(scaled).astype(np.uint8)


def _plain(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind in "biu" and not (values.dtype == np.uint8 and values.ndim == 4):
        return values.astype(np.int32)
    return values.astype(np.float32) if values.dtype.kind == "f" else values
