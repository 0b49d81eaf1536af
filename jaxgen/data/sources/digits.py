"""`digits`: the 1,797 handwritten digits of scikit-learn, 8x8, in ten classes.

The test set of the UCI "Optical Recognition of Handwritten Digits" data. Values 0..16 become round(v * 255 / 16).
Splits: `train` (1,297) and `test` (500); 50 of the test digits come from each class, picked by a permutation with
a fixed seed. Other resolutions than 8 are reached by the same Lanczos resize as image folders.
"""

from __future__ import annotations

import numpy as np

from jaxgen.data.images import from_array
from jaxgen.data.source import Source, check_labels, check_split

TEST_PER_CLASS = 50


def open_split(
    name: str, argument: str, split: str, resolution: tuple[int, int], channels: int, num_classes: int,
    root: str | None,
) -> Source:
    """See `jaxgen.data.open_source`. Examples: `image` uint8 [H, W, 1], `label` int32 []."""
    from sklearn.datasets import load_digits

    check_split(name, split, ("train", "test"))
    values, labels = load_digits(return_X_y=True)
    images = np.round(values.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    labels = labels.astype(np.int32)
    chosen = split_indices(labels)[split]
    check_labels(name, labels, num_classes)
    stacked = np.stack([from_array(images[i], resolution, channels, f"Digit {i}") for i in chosen])
    return Source(
        name,
        split,
        num_classes=num_classes or 10,
        class_names=[str(digit) for digit in range(10)],
        arrays={"image": stacked, "label": labels[chosen]},
    )


def split_indices(labels: np.ndarray) -> dict[str, np.ndarray]:
    """`{"train": indices, "test": indices}` into scikit-learn's order; TEST_PER_CLASS of each class are test."""
    # Raw 64-bit draws: numpy promises their stream for ever, that of `permutation` it does not.
    order = np.argsort(np.random.Philox(key=1797).random_raw(len(labels)), kind="stable")
    test = np.concatenate([order[labels[order] == digit][:TEST_PER_CLASS] for digit in range(10)])
    return {"train": np.setdiff1d(np.arange(len(labels)), test), "test": np.sort(test)}
