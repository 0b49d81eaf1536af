"""`npz:<path>` has images and what belongs to them in one numpy archive, held in memory.

Keys: `images` (or `image`), [N, H, W] or [N, H, W, C], and optionally `labels` (or `label`), [N] or a map of
[N, H, W], which becomes `mask`; every other array of N rows passes through under its own name (`masks` and
`captions` without their s). A `video`, [N, F, H, W, C], is of uint8 or floats as images are; in a file without images
each image is the first frame. With splits in the file each key is prefixed,
`train_images`, `train_labels`, `test_images`, ... Without, the splits are `all`, and `train` and `test`: nine
tenths and one tenth by a hash of the index. Arrays of another length belong to no example and are left out, which is
told; `class_names` (texts) gives the classes their names.

Images are uint8, or floats in [0, 1], [-1, 1] or 0..255 (`jaxgen.data.image_arrays`); anything else is refused.
As uint8 means an image in jaxgen, other integers than uint8 [N, H, W, C] and [N, F, H, W, C] become int32, and floats
float32; values that these do not hold are refused. Bytes are texts in UTF-8.
A file `<path>.tokenizer.json` beside the archive holds the tokenizer that made its `tokens`, which
`jaxgen.sampling.latents` writes, so that a model that learns from the archive can be given texts.
Images of another size are cropped and resized as in folders, unless the file has other arrays of the same
height and width (masks): those it refuses, since no one resize is right for both.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from jaxgen.data.folders.layout import SPLIT_LIKE
from jaxgen.data.image_arrays import Range, check_layout, range_of
from jaxgen.data.images import MODES, from_array
from jaxgen.data.plain import plain
from jaxgen.data.source import Request, Source, check_labels, check_split, hash_split, locate
from jaxgen.data.word_tokenizer import WordTokenizer
from jaxgen.errors import UserError
from jaxgen.files import read_text
from jaxgen.files.arrays import Archive, texts

SYNONYMS = {"images": "image", "labels": "label", "masks": "mask", "captions": "caption", "videos": "video"}
TOKENIZER = ".tokenizer.json"  # what the name of a tokenizer's file ends with, after the archive's
PER_IMAGE = ("label", "mask", "caption", "video")  # arrays that are not left out where their length is another


class NPZ(Source):
    """Gives the images in an archive.

    An example has `image` uint8 [H, W, C], `label` int32 [], and other arrays as they are.

    Attributes:
      tokenizer: what made the archive's `tokens`; None where no file beside the archive says it.
    """

    takes = "<path>"

    def __init__(self, request: Request):
        super().__init__(request)
        name, split = self.name, self.split
        with Archive(locate(request.argument, request.root), "config.data.source") as archive:
            content, strange = archive.read_all(), archive.others
        framed = _with_first_frames(name, content)
        prefix, prefixes = _prefix(name, content, split)
        found, arrays, told = _images_of(name, content, prefix, prefixes, request.channels)
        count = len(arrays["image"])
        arrays, left = _of_images(name, arrays, count)
        hashed = ""
        if not prefixes and split != "all":
            kept = np.array([hash_split(str(i)) == split for i in range(count)], bool)
            hashed = f"{int(kept.sum()):,} of {count:,} images, split by a hash of their numbers"
            arrays = {key: values[kept] for key, values in arrays.items()}
        images = _fitted(request, found.levels(arrays.pop("image")), arrays)
        if "video" in arrays:
            arrays["video"] = found.levels(arrays["video"])
        arrays = {key: plain(values, f"{key!r} of {name!r}", image_axes=4) for key, values in arrays.items()}
        labels = arrays.get("label")
        if labels is not None and labels.ndim == 3:
            arrays["mask"] = arrays.pop("label")
        labels = _checked_labels(request, labels)
        highest = int(labels.max()) + 1 if labels is not None and labels.size else 0
        self.num_classes = request.num_classes or highest
        self.class_names = _class_names(name, content, self.num_classes)
        self.arrays = {"image": images, **arrays}
        self.tokenizer = self.tokenizer_of(request.argument, request.root) if "tokens" in arrays else None
        left = [*left, *told, *strange]
        passed = f"{len(left)} {'array' if len(left) == 1 else 'arrays'} passed over: {', '.join(left)}" if left else ""
        self.notes = tuple(filter(None, (hashed, found.told, framed, passed)))

    @staticmethod
    def tokenizer_of(argument: str, root: str | None = None) -> WordTokenizer | None:
        """Returns the tokenizer that made an archive's tokens, from the file beside it; None without one."""
        archive = locate(argument, root)
        path = archive.parent / f"{archive.name}{TOKENIZER}"
        return WordTokenizer.from_json(read_text(path), str(path)) if path.exists() else None


def _prefix(name: str, content: Mapping[str, np.ndarray], split: str) -> tuple[str, list[str]]:
    """Returns what the keys of the split begin with, and the names of the splits, [] where the file has none."""
    stems = {key.removesuffix("s") for key in content}
    prefixes = sorted(stem.removesuffix("_image") for stem in stems if stem.endswith("_image"))
    if "image" in stems and set(prefixes) & SPLIT_LIKE:
        raise UserError(f"{name!r} has 'images' beside '{prefixes[0]}_images'; name a split in each key, or in none.")
    if prefixes and "image" not in stems:  # beside the images, a mean_image is any other array
        check_split(name, split, prefixes)
        return f"{split}_", prefixes
    if "image" not in stems:
        raise UserError(f"{name!r} has no array 'images' or '<split>_images'; it has {', '.join(content) or 'none'}.")
    check_split(name, split, ("all", "train", "test"))
    return "", []


def _images_of(
    name: str, content: Mapping[str, np.ndarray], prefix: str, prefixes: list[str], channels: int
) -> tuple[Range, dict[str, np.ndarray], list[str]]:
    """Returns the range of the images, the split's arrays by the names that examples use, and the keys of no split."""
    own: dict[str, np.ndarray] = {}
    for key in content:
        if key.startswith(prefix) and key != "class_names":
            short = SYNONYMS.get(key[len(prefix) :], key[len(prefix) :])
            if short in own:
                raise UserError(f"{name!r} has both {prefix}{short!r} and {prefix + short + 's'!r}; keep one of them.")
            own[short] = content[key]
    check_layout(name, own["image"].shape, channels)
    # One range for the whole file: a split without a negative value is still of [-1, 1] if another has one.
    keys = [f"{p}_{word}" for p in prefixes for word in ("image", "images")] if prefixes else ["image", "images"]
    keys += [key for key in content if _names_video(key)]
    images = [content[key] for key in keys if key in content]
    starts = tuple(f"{p}_" for p in prefixes)
    told = [key for key in content if starts and not key.startswith(starts) and key != "class_names"]
    found = range_of(name, images)
    own["image"] = own["image"][..., None] if own["image"].ndim == 3 else own["image"]
    return found, own, told


def _names_video(key: str) -> bool:
    return key.removesuffix("s").split("_")[-1] == "video"


def _with_first_frames(name: str, content: dict[str, np.ndarray]) -> str:
    """Adds the first frame of each video as an image where a file has no images; returns what is to be told of it."""
    told = ""
    for key in [key for key in content if _names_video(key)]:
        video, stem = content[key], key.removesuffix("s").removesuffix("video")
        if video.ndim != 5 or video.shape[-1] not in MODES or 0 in video.shape[1:]:
            raise UserError(f"{key!r} of {name!r} has shape {list(video.shape)}; [N, F, H, W, C] is needed.")
        if not {f"{stem}image", f"{stem}images"} & content.keys():
            content[f"{stem}images"], told = video[:, 0], "each image is the first frame of its video"
    return told


def _of_images(name: str, arrays: Mapping[str, np.ndarray], count: int) -> tuple[dict[str, np.ndarray], list[str]]:
    """Returns the arrays that have a row for each image, and the names of the others."""
    fit = {key: values for key, values in arrays.items() if values.ndim and len(values) == count}
    for key in PER_IMAGE:
        if key in arrays and key not in fit:
            found = f"{len(arrays[key])} {key}s" if arrays[key].ndim else f"a single {key}"
            raise UserError(f"{name!r} has {count} images but {found}; there must be as many.")
    caption = fit.get("caption")
    if caption is not None and (caption.dtype.kind not in "SU" or caption.ndim != 1):
        raise UserError(
            f"The captions of {name!r} are {caption.dtype} of shape {list(caption.shape)}; one text for each image, "
            "[N], is needed."
        )
    return fit, [f"{key} {list(values.shape)}" for key, values in arrays.items() if key not in fit]


def _class_names(name: str, content: Mapping[str, np.ndarray], classes: int) -> tuple[str, ...]:
    """Returns the names of the classes, () where the file has none. Raises a UserError for fewer than classes."""
    if "class_names" not in content:
        return ()
    found = tuple(str(word) for word in texts(np.ravel(content["class_names"]), f"'class_names' of {name!r}"))
    if classes and len(found) < classes:
        raise UserError(f"{name!r} has {len(found)} class_names for {classes} classes; there must be as many.")
    return found


def _fitted(request: Request, images: np.ndarray, others: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns uint8 [N, H, W, C] at the resolution that is asked for."""
    resolution, channels = request.resolution, request.channels
    shape = images.shape[1:3]
    same_size = [key for key, x in others.items() if shape == (x.shape[2:4] if x.ndim == 5 else x.shape[1:3])]
    if images.shape[1:3] != resolution and same_size:
        raise UserError(
            f"{request.source!r} holds {images.shape[1]}x{images.shape[2]} images and {same_size[0]!r} of the same "
            f"size, which cannot be resized alike; set config.data.resolution to {images.shape[1:3]} or resize the "
            "file."
        )
    if images.shape[1:3] == resolution:
        return images
    where = f"of {request.source!r}"
    resized = [from_array(x, resolution, channels, f"Image {i} {where}") for i, x in enumerate(images)]
    return np.stack(resized) if resized else np.empty((0, *resolution, channels), np.uint8)


def _checked_labels(request: Request, labels: np.ndarray | None) -> np.ndarray | None:
    """Returns labels [N], of maps [N, H, W] the one of each map's worst pixel; UserError where they do not fit."""
    if labels is not None and (labels.ndim not in (1, 3) or labels.dtype != np.int32):
        raise UserError(
            f"The labels of {request.source!r} are {labels.dtype} of shape {labels.shape}; whole numbers [N] or "
            "[N, H, W] are needed."
        )
    if labels is not None and labels.ndim == 1 and labels.size and labels.min() < 0:
        raise UserError(
            f"Example {int(labels.argmin())} of {request.source!r} has label {int(labels.min())}; labels count from 0, "
            "correct them."
        )
    if labels is not None and labels.ndim == 3 and labels.size:
        lowest, highest = labels.min((1, 2)), labels.max((1, 2))
        labels = np.where(lowest < 0, lowest, highest)
    check_labels(request.source, labels, request.num_classes)
    return labels
