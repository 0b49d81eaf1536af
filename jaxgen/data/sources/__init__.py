"""Holds the sources that jaxgen has, one class each, and the one function that opens any."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from jaxgen.data.images import check_channels
from jaxgen.data.source import Request, Source, check_labels
from jaxgen.data.subwords.base import SubwordTokenizer
from jaxgen.data.word_tokenizer import WordTokenizer
from jaxgen.data.wrappers.renamed import Renamed
from jaxgen.errors import UserError, nearest
from jaxgen.registry import find, named, names
from jaxgen.renamed import unknown_name

KEY = "config.data.source"


def open_source(
    source: str,
    split: str,
    resolution: int | tuple[int, int],
    channels: int,
    num_classes: int = 0,
    root: str | None = None,
    rename: Mapping[str, str] = MappingProxyType({}),
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Source:
    """Opens one split of a data source.

    Args:
      source: the name of a class in this room and, after a colon, its argument: "digits", "shapes", "caption_shapes",
        "tfds:<name>", "folder:<path>", "pairs:<path>", "image:<file>", "npz:<path>", "gaussians:<world>",
        "captions:<folder:path, pairs:path or npz:path>", "sets:<labelled source>"; or any other class by
        "package.module:Class" or "package.module:Class:<argument>" (`jaxgen.data.source` shows one).
      split: a split's name; which there are is each source's to say (its module's docstring).
      resolution: height and width of every image, or one number for both.
      channels: 1 grey, 3 RGB, 4 RGBA. Files with another number are refused, never converted.
      num_classes: labels must lie in [0, num_classes); 0 asks for no labels.
      root: TFDS's data directory; for folders and npz files, what a relative path is relative to.
      rename: `{new name of an entry: old name}` (`jaxgen.data.wrappers.renamed`).
      options: options of the source's own (`Source.options`); those that are left out have their defaults.

    Raises:
      UserError: an unknown source, option or split, an empty set, a file or label that does not fit.
    """
    cls, argument = _class_of(source)
    size = _check_resolution(resolution)
    check_channels(channels)
    if num_classes < 0:
        raise UserError(f"config.data.num_classes is {num_classes}; it must be 0 or more.")
    own = _checked_options(cls, source, options)
    request = Request(source, argument, split, size, channels, num_classes, root, dict(rename), own)
    of_others = "label" in {*rename, *rename.values()}  # the source's own labels are not those that are asked for
    opened = cls(dataclasses.replace(request, num_classes=0) if of_others and not cls.renames else request)
    if len(opened) == 0:
        raise UserError(f"Split {split!r} of {source!r} is empty; choose another split or add examples.")
    opened = Renamed(request, opened) if rename and not cls.renames else opened
    _check_example(opened)
    return opened


def tokenizer_of(source: str, root: str | None = None) -> WordTokenizer | SubwordTokenizer | None:
    """Returns the tokenizer of a source's captions without opening the source; None where it has none.

    Raises:
      UserError: the source is unknown, or its vocabulary is missing.
    """
    cls, argument = _class_of(source)
    beside: Callable[[str, str | None], WordTokenizer | SubwordTokenizer] | None = getattr(cls, "tokenizer_of", None)
    return beside(argument, root) if beside else getattr(cls, "tokenizer", None)


def own_size(source: str, root: str | None = None) -> tuple[int, int] | None:
    """Returns the height and width of the pictures of a source in their files; None where it says nothing of them.

    Raises:
      UserError: the source is unknown, or its file cannot be read.
    """
    cls, argument = _class_of(source)
    own: Callable[[str, str | None], tuple[int, int]] | None = getattr(cls, "own_size", None)
    return own(argument, root) if own else None


def is_source(text: str) -> bool:
    """Returns whether a text begins as a source does: with a name of this room, or with `package.module:Class`."""
    return named("source", re.split("[:/]", text)[0]) or bool(re.match(r"[\w.]+:[A-Za-z_]\w*([:/]|$)", text))


def check_source(source: str) -> None:
    """Checks that a text names a source, with an argument where it takes one; nothing is opened.

    Raises:
      UserError: as `open_source` would.
    """
    _class_of(source)


def _class_of(source: str) -> tuple[type[Source], str]:
    """Returns the class that a text names, and its argument."""
    name, colon, argument = source.partition(":")
    if not named("source", name):
        if not colon or not _may_be_module(name):
            raise unknown_name(KEY, name, names("source"))
        attribute, colon, argument = argument.partition(":")
        name = f"{name}:{attribute}"
    cls: type[Source] = find("source", name, KEY)
    if cls.takes and not argument:
        raise UserError(f"The data source {source!r} lacks its argument; write '{name}:{cls.takes}'.")
    if colon and cls.takes == "":
        raise UserError(f"The data source {source!r} takes no argument; write {name!r}.")
    return cls, argument


def _may_be_module(name: str) -> bool:
    """Returns whether `name` may be a module: a dotted one, or a whole one that Python finds; nothing is imported."""
    return "." in name or (name.isidentifier() and importlib.util.find_spec(name) is not None)


def _checked_options(cls: type[Source], source: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all options of a source: those that are given, and the defaults of the others."""
    for key, value in options.items():
        here = f"config.data.options.{key}"
        if not cls.options:
            raise UserError(f"{here}: the data source {source!r} takes no options; leave it out.")
        if key not in cls.options:
            raise UserError(f"{here}: the data source {source!r} has no such option; {nearest(key, cls.options)}")
        known = cls.options[key]
        kinds = (tuple, list) if isinstance(known, tuple) else (type(known),)
        if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(known, bool):
            raise UserError(f"{here} must be of type {type(known).__name__}, such as {known!r}, not {value!r}.")
    return {**cls.options, **options}


def _check_resolution(resolution: int | tuple[int, int]) -> tuple[int, int]:
    size = (resolution, resolution) if isinstance(resolution, int) else tuple(resolution)
    if len(size) != 2 or any(not isinstance(side, int) or side < 1 for side in size):
        raise UserError(
            f"config.data.resolution is {resolution!r}; it must be a positive whole number or (height, width)."
        )
    return size


def _check_example(source: Source) -> None:
    """Raises UserError unless the first example is what was asked for; a source of one's own may give anything."""
    request, example = source.request, source[0]
    if not isinstance(example, dict):
        raise UserError(f"An example of {source.name!r} must be a dict with an 'image', not {type(example).__name__}.")
    if "image" not in example:
        raise UserError(
            f"An example of {source.name!r} has no 'image', only {', '.join(map(str, example))}; "
            "name the entry that is the image in config.data.rename.image."
        )
    image = np.asarray(example["image"])
    wanted = (*request.resolution, request.channels)
    if image.dtype not in (np.uint8, np.float32) or image.shape != wanted:
        raise UserError(
            f"The images of {source.name!r} are {image.dtype} {image.shape}, where config.data.resolution and channels "
            f"ask for uint8 {wanted}."
        )
    if "label" in example or "mask" not in example:  # a mask's classes are those of its pixels
        check_labels(source.name, np.atleast_1d(example["label"]) if "label" in example else None, request.num_classes)
