"""`digits` has the 1,797 handwritten digits of scikit-learn, 8x8, in ten classes.

The test set of the UCI "Optical Recognition of Handwritten Digits" data. Values 0..16 become round(v * 255 / 16).
Splits: `train` (1,297) and `test` (500); 50 of the test digits come from each class, picked by a permutation with
a fixed seed. Other resolutions than 8 are reached by the same Lanczos resize as image folders.
"""

from __future__ import annotations

import importlib.util
import pathlib

import numpy as np

from jaxgen.data.images import from_array
from jaxgen.data.source import Request, Source, check_labels, check_split

TEST_PER_CLASS = 50
FILE = "datasets/data/digits.csv.gz"  # in scikit-learn, which takes half a second to import


class Digits(Source):
    """Gives scikit-learn's handwritten digits, 8x8. An example has `image` uint8 [H, W, 1] and `label` int32 []."""

    takes = ""
    class_names = tuple(str(digit) for digit in range(10))

    def __init__(self, request: Request):
        super().__init__(request)
        check_split(self.name, self.split, ("train", "test"))
        values, labels = _read()
        images = np.round(values.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
        labels = labels.astype(np.int32)
        chosen = split_indices(labels)[self.split]
        check_labels(self.name, labels, request.num_classes)
        stacked = [from_array(images[i], request.resolution, request.channels, f"Digit {i}") for i in chosen]
        self.num_classes = request.num_classes or 10
        self.arrays = {"image": np.stack(stacked), "label": labels[chosen]}


def _read() -> tuple[np.ndarray, np.ndarray]:
    """Returns values `[1797, 64]` and labels `[1797]`, as `sklearn.datasets.load_digits` gives them."""
    found = importlib.util.find_spec("sklearn")
    folders = found.submodule_search_locations if found else None
    path = pathlib.Path(folders[0], FILE) if folders else None
    if path is not None and path.exists():
        table = np.loadtxt(path, delimiter=",")
        return table[:, :-1], table[:, -1]
    from sklearn.datasets import load_digits  # a version that keeps the file elsewhere

    return load_digits(return_X_y=True)


def split_indices(labels: np.ndarray) -> dict[str, np.ndarray]:
    """`{"train": indices, "test": indices}` into scikit-learn's order; TEST_PER_CLASS of each class are test."""
    # Raw 64-bit draws: numpy promises their stream for ever, that of `permutation` it does not.
    order = np.argsort(np.random.Philox(key=1797).random_raw(len(labels)), kind="stable")
    test = np.concatenate([order[labels[order] == digit][:TEST_PER_CLASS] for digit in range(10)])
    return {"train": np.setdiff1d(np.arange(len(labels)), test), "test": np.sort(test)}
