"""`tfds:<name>`: a data set that TensorFlow Datasets has prepared, read without TensorFlow.

`<name>` may carry a config and a version, "cifar10", "horses/big:1.0.0"; `root` is TFDS's data directory, by default
TFDS's own. Splits are any TFDS split expression: "train", "train[:90%]", "train[50000:]+test". Nothing is ever
downloaded or prepared here. To prepare a set, once, in any environment:

    pip install tensorflow-cpu tensorflow-datasets importlib_resources
    python -c "import tensorflow_datasets as tfds
    tfds.builder('<name>', file_format='array_record').download_and_prepare()"

Where files were fetched by hand, `download_and_prepare` takes `download_config=tfds.download.DownloadConfig(
manual_dir=...)`; then give each set a `download_dir` of its own. TFDS keeps what it unpacks by file name alone, so
Fashion-MNIST prepared after MNIST, whose files have the same names, would hold MNIST's images.

Examples hold `image` (uint8, cropped in the centre to the right aspect and resized with Lanczos), `label` (int32) where
the set has one, and every other top-level feature of a fixed shape: texts as strings, integers as int32, reals as
float32. Features without a fixed shape cannot be stacked and are left out. A set that fits in memory is decoded
into it at once by threads; a larger one is read example by example.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from etils import epath

from jaxgen.data.images import from_array
from jaxgen.data.plain import plain
from jaxgen.data.source import MEMORY_LIMIT, Example, Examples, Request, Source, check_labels
from jaxgen.errors import UserError
from jaxgen.files import decode_text, read_json
from jaxgen.files.pictures import open_image

THREADS = 4  # decoding lets go of the interpreter only for a part of its time
CHUNK = 256


class TFDS(Source):
    """Reads a data set that TFDS has prepared; it is decoded when asked for, where it does not fit in memory."""

    takes = "<name>"

    def __init__(self, request: Request):
        super().__init__(request)
        builder = _builder(self.name, request.argument, request.root)
        self._records = _records(self.name, builder, self.split)
        features = builder.info.features
        self._check_image(features)
        label = features["label"] if "label" in features else None
        labelled = label is not None and label.shape == () and np.dtype(label.np_dtype).kind in "iu"
        found = getattr(label, "num_classes", None) or 0 if labelled else 0
        if request.num_classes:
            check_labels(self.name, np.arange(found) if labelled else None, request.num_classes)
        self.num_classes = request.num_classes or found
        self.class_names = tuple(getattr(label, "names", ())) if labelled else ()
        self._kept = tuple(
            key
            for key, feature in features.items()
            if key not in ("image", "label") and isinstance(feature.shape, tuple) and None not in feature.shape
        )
        self._kept += ("label",) if labelled else ()
        left = sorted(set(features) - {*self._kept, "image"})
        self.notes = (f"features passed over: {', '.join(left)}",) if left else ()
        height, width = request.resolution
        if len(self) and len(self) * height * width * request.channels <= MEMORY_LIMIT:
            self.arrays = _decode_all(self)
            check_labels(self.name, self.arrays.get("label"), request.num_classes)

    def _check_image(self, features: Any) -> None:
        if "image" not in features:
            raise UserError(f"{self.name!r} has no feature 'image'; it has {', '.join(sorted(features))}.")
        stored = features["image"].shape[-1]
        if stored not in (None, self.request.channels):
            raise UserError(
                f"The images of {self.name!r} have {stored} channel(s), but config.data.channels is "
                f"{self.request.channels}; set config.data.channels={stored}."
            )

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        if self.arrays is not None:
            return super().__getitem__(index)
        return self._example(index, self._records[index])

    def take(self, indices: Sequence[int]) -> Examples:
        if self.arrays is not None:
            return super().take(indices)
        # Reading records together is several times cheaper than one by one.
        indices = [int(i) for i in indices]
        pairs = zip(indices, self._records.__getitems__(indices), strict=True)
        examples = [self._example(index, record) for index, record in pairs]
        return {key: np.stack([example[key] for example in examples]) for key in examples[0]}

    def _example(self, index: int, record: dict[str, Any]) -> Example:
        where = f"Example {index} of {self.name!r} {self.split!r}"
        example = {"image": self._image(record, where)}
        for key in self._kept:
            example[key] = _plain(record[key], f"{key!r} of {where}")
        if "label" in example and self.num_classes and not 0 <= example["label"] < self.num_classes:
            raise UserError(
                f"{where} has label {example['label']}, outside [0, {self.num_classes}); set config.data.num_classes."
            )
        return example

    def _image(self, record: dict[str, Any], where: str) -> np.ndarray:
        return from_array(np.asarray(record["image"]), self.request.resolution, self.request.channels, where)


def _builder(name: str, argument: str, root: str | None) -> Any:
    try:
        from tensorflow_datasets.core import read_only_builder, registered
        from tensorflow_datasets.core.utils import error_utils
    except ImportError as error:
        raise UserError(
            f"Reading {name!r} needs TensorFlow Datasets; run 'pip install tensorflow-datasets importlib_resources'."
        ) from error
    try:
        # Only what is prepared on the disk: `tfds.data_source` would start a download. This is `builder_from_files`
        # in two parts, since the folder is looked into before the builder is made.
        with error_utils.reraise_with_context(registered.DatasetNotFoundError):
            folder = read_only_builder._find_builder_dir(argument, data_dir=root or None)
        if folder is None:
            raise registered.DatasetNotFoundError(argument)
        _check_files(epath.Path(folder))
        builder = read_only_builder.builder_from_directory(folder)
        _guard(builder.info.features, name)
        return builder
    except registered.DatasetNotFoundError as error:
        raise UserError(
            f"{name!r} is not prepared in {root or 'the default TFDS folder'}; run {_recipe(argument, root)} in any "
            "environment with TensorFlow ('pip install tensorflow-cpu tensorflow-datasets importlib_resources'), or "
            "set config.data.root."
        ) from error


def _check_files(folder: epath.Path) -> None:
    """Refuses a prepared set whose files ask for code that is not TFDS's own, or for files of another folder.

    TFDS imports the module of every class that `features.json` names, and joins what `dataset_info.json` says to the
    names of the files that it reads.

    Raises:
      UserError: naming the file and the entry.
    """
    for file, keys, good in (
        ("features.json", ("type", "pythonClassName", "python_class_name"), _of_tfds),
        ("dataset_info.json", ("name", "filepathTemplate", "filepath_template"), lambda text: "/" not in text),
    ):
        path = folder / file
        for key, text in _entries(read_json(path) if path.exists() else {}):
            if key in keys and not good(text):
                raise UserError(
                    f"{path}: {key}={text!r} leads to code or files that are not the data set's; prepare it again."
                )


def _of_tfds(name: str) -> bool:
    """Returns whether a feature's class is TFDS's own, or no class."""
    return "." not in name or name.startswith("tensorflow_datasets.core.features.")


def _entries(value: Any) -> Iterator[tuple[str, str]]:
    """Yields every `(key, text)` of a JSON value, but for those of statistics, where names may be paths within an
    example.
    """
    for key, inner in value.items() if isinstance(value, dict) else ((None, v) for v in value):
        if isinstance(inner, str) and key is not None:
            yield key, inner
        elif isinstance(inner, dict | list) and key not in ("schema", "statistics"):
            yield from _entries(inner)


def _guard(feature: Any, name: str) -> None:
    """Lets TFDS decode only images of the formats that are meant (`jaxgen.files.pictures`), nested ones too."""
    from tensorflow_datasets.core import features

    if isinstance(feature, features.Image):
        feature.decode_example_np = functools.partial(_decode_meant, feature, name)
    for inner in (*(feature.values() if hasattr(feature, "values") else ()), getattr(feature, "feature", None)):
        if isinstance(inner, features.FeatureConnector):
            _guard(inner, name)


def _decode_meant(feature: Any, name: str, data: bytes) -> np.ndarray:
    open_image(data, f"An image of {name!r}").close()
    return type(feature).decode_example_np(feature, data)


def _records(name: str, builder: Any, split: str) -> Any:
    try:
        return builder.as_data_source(split=split)
    except NotImplementedError as error:
        raise UserError(
            f"{name!r} is prepared in a format that only TensorFlow reads; prepare it again by running "
            f"{_recipe(builder.name, None)}."
        ) from error
    except ValueError as error:
        raise UserError(
            f"{name!r} has no split {split!r}; it has {', '.join(builder.info.splits)}, and "
            "expressions of these such as 'train[:90%]'."
        ) from error


def _recipe(argument: str, root: str | None) -> str:
    data_dir = f", data_dir='{root}'" if root else ""
    return (
        f"python -c \"import tensorflow_datasets as tfds; tfds.builder('{argument}', file_format='array_record'"
        f'{data_dir}).download_and_prepare()"'
    )


def _decode_all(source: TFDS) -> dict[str, np.ndarray]:
    chunks = [range(i, min(i + CHUNK, len(source))) for i in range(0, len(source), CHUNK)]
    with ThreadPoolExecutor(THREADS) as pool:
        parts = list(pool.map(source.take, chunks))
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, bytes):
        return np.str_(decode_text(value, where))
    return plain(np.asarray(value), where, image_axes=3)[()]
