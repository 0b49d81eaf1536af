"""`digits` has the 1,797 handwritten digits of scikit-learn, 8x8, in ten classes; `moving_digits` are videos of them.

They are the test set of the UCI "Optical Recognition of Handwritten Digits" data. Values 0..16 become
round(v * 255 / 16).
Splits: `train` (1,297) and `test` (500); 50 of the test digits come from each class, picked by a permutation with
a fixed seed. Other resolutions than 8 are reached by the same Lanczos resize as image folders.

`moving_digits` shows one of them on black, half as wide as the picture's shorter side, on its way from one of nine
places evenly along a straight line, by `SHORTEST` to `LONGEST` of a side (as `moving_shapes`). "the digit three at the
top left" says where it is in the first frame. Splits: `train` 60,000 and `test` 2,000 scenes, each of digits of its own
split. `config.data.options.frames` is the number of frames, 8 by default.
"""

from __future__ import annotations

import importlib.util
import pathlib
import types

import numpy as np
import scipy.ndimage

from jaxgen.data.images import from_array
from jaxgen.data.source import Example, Request, Source, check_labels, check_split
from jaxgen.data.sources import shapes
from jaxgen.data.sources.moving_shapes import way
from jaxgen.data.word_tokenizer import WordTokenizer
from jaxgen.errors import UserError

TEST_PER_CLASS = 50
FILE = "datasets/data/digits.csv.gz"  # in scikit-learn, which takes half a second to import
SCENES = {"train": (0, 60_000), "test": (60_000, 2_000)}  # first scene, number of scenes
FIRST_ROW = 4_000_000  # of the random numbers of `shapes`; no other source has them
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LENGTH = 8
TOKENIZER = WordTokenizer(
    ("the", "digit", "at", *WORDS, "top", "bottom", "left", "right", "centre"), LENGTH, strict=True
)


class Digits(Source):
    """Gives scikit-learn's handwritten digits, 8x8. An example has `image` uint8 [H, W, 1] and `label` int32 []."""

    takes = ""
    class_names = tuple(str(digit) for digit in range(10))

    def __init__(self, request: Request):
        super().__init__(request)
        check_split(self.name, self.split, ("train", "test"))
        chosen, images, labels = of_split(self.split)
        check_labels(self.name, np.arange(10), request.num_classes)
        named = zip(chosen, images, strict=True)
        stacked = [from_array(image, request.resolution, request.channels, f"Digit {i}") for i, image in named]
        self.num_classes = request.num_classes or 10
        self.arrays = {"image": np.stack(stacked), "label": labels}


class MovingDigits(Source):
    """Shows digits on their way.

    An example has `video` uint8 [F, H, W, C], `image`, its first frame, `track` float32 [F, 2], where the middle of the
    digit's square is in each frame as shares of the width and the height, `label` int32 [], `attributes` int32 [2], the
    digit and the position in the first frame, `caption`, and `tokens` int32 [LENGTH].

    Raises:
      UserError: for an unknown split, channels that are neither 1 nor 3, or fewer than two frames.
    """

    takes = ""
    class_names = tuple(str(digit) for digit in range(10))
    tokenizer = TOKENIZER
    options = types.MappingProxyType({"frames": 8})

    def __init__(self, request: Request):
        super().__init__(request)
        check_split(self.name, self.split, tuple(SCENES))
        if request.channels not in (1, 3):
            raise UserError(
                f"moving_digits are grey or RGB, not of {request.channels} channels; set config.data.channels=1 or 3."
            )
        check_labels(self.name, np.arange(10), request.num_classes)
        self.num_classes = request.num_classes or 10
        self.frames = int(request.options.get("frames", self.options["frames"]))
        if self.frames < 2:
            raise UserError(f"config.data.options.frames is {self.frames}; a video has at least 2.")
        self.notes = (*self.notes, "each image is the first frame of its video")
        self._resolution, self._channels = request.resolution, request.channels
        self._first, self._length = SCENES[self.split]
        _, self._digits, self._labels = of_split(self.split)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Example:
        if not 0 <= index < self._length:
            raise IndexError(f"scene {index} of {self._length}")
        draws = shapes._draws(FIRST_ROW + self._first + index)
        chosen = int(draws[0] * len(self._digits))
        label, position = self._labels[chosen], int(draws[1] * len(shapes.NAMES["position"]))
        track = way(position, draws, self.frames)
        frames = [_placed(self._digits[chosen], self._resolution, centre) for centre in track]
        video = np.repeat(np.stack(frames)[..., None], self._channels, axis=-1)
        sentence = f"the digit {WORDS[label]} at the {shapes.NAMES['position'][position]}"
        return {
            "video": video,
            "image": video[0],
            "track": track.astype(np.float32),
            "label": label,
            "attributes": np.array([label, position], np.int32),
            "caption": np.str_(sentence),
            "tokens": TOKENIZER([sentence])[0],
        }


def _placed(digit: np.ndarray, resolution: tuple[int, int], centre: np.ndarray) -> np.ndarray:
    """Returns a digit [8, 8] on black [H, W], uint8, half as wide as the shorter side, its middle at shares (x, y)."""
    height, width = resolution
    scale = 16 / min(height, width)  # the digit's pixels beside one of the picture
    x, y = ((np.arange(n) + 0.5 - share * n) * scale + 3.5 for n, share in zip((width, height), centre, strict=True))
    places = np.meshgrid(y, x, indexing="ij")
    values = scipy.ndimage.map_coordinates(digit.astype(np.float32), places, order=1, mode="grid-constant")
    return np.round(values).astype(np.uint8)


def of_split(split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns scikit-learn's numbers of a split's digits, the digits uint8 `[N, 8, 8]`, and labels int32 `[N]`."""
    values, labels = _read()
    chosen = split_indices(labels.astype(np.int32))[split]
    images = np.round(values[chosen].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return chosen, images, labels[chosen].astype(np.int32)


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
