"""Opening sources; the digits; archives of arrays."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from jaxgen.data import Loader, open_source
from jaxgen.data.source import Arrays, locate
from jaxgen.data.sources import digits, is_source
from jaxgen.errors import UserError


def test_importing_the_room_imports_nothing_heavy():
    code = (
        "import sys, jaxgen.data; from jaxgen.data import Source, open_source, batches;"
        "print([m for m in ('jax', 'grain', 'tensorflow_datasets', 'sklearn', 'tensorflow') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("digit", "train", 8, 1), "did you mean 'digits'"),
        (("tfsd:mnist", "train", 28, 1), r"config\.data\.source='tfsd' is unknown; did you mean 'tfds'\?"),
        (("os:system", "train", 8, 1), r"config\.data\.source='os:system' is not a Source"),
        (("no.such:Cells", "train", 8, 1), r"config\.data\.source='no\.such:Cells' is unknown: there is no module"),
        (("folder", "train", 8, 1), "lacks its argument"),
        (("digits:x", "train", 8, 1), "takes no argument"),
        (("digits", "val", 8, 1), "train, test"),
        (("digits", "train", 0, 1), "resolution"),
        (("digits", "train", (8, 8, 1), 1), "resolution"),
        (("digits", "train", 8, 2), "1, 3 or 4 channels"),
        (("digits", "train", 8, 3), "config.data.channels=1"),
        (("digits", "train", 8, 1, 5), "num_classes to 10"),
        (("digits", "train", 8, 1, -1), "0 or more"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(UserError, match=message):
        open_source(*arguments)


CELLS = """
import numpy as np
from jaxgen.data import Source

class Cells(Source):
    def __len__(self):
        return {"train": 20, "empty": 0}[self.split]

    def __getitem__(self, index):
        value = index + len(self.request.argument)
        return {"image": np.full((*self.request.resolution, 1), value, np.uint8), "label": np.int32(index % 3)}

class Shelf(Source):
    takes = "<plate>"

    def __init__(self, request):
        super().__init__(request)
        self.arrays = {"image": np.zeros((5, 8, 8, 1), np.uint8)}

class Nothing(Source):
    pass

class Bare(Cells):
    takes = ""

    def __getitem__(self, index):
        return np.zeros((8, 8, 1), np.uint8)
"""


@pytest.fixture
def cells(tmp_path, monkeypatch):
    """The name of an importable module with the sources above."""
    (tmp_path / "strange_cells.py").write_text(CELLS)
    monkeypatch.syspath_prepend(tmp_path)
    yield "strange_cells"
    sys.modules.pop("strange_cells", None)


def test_a_source_of_ones_own_is_a_length_and_examples(cells):
    source = open_source(f"{cells}:Cells:plate7", "train", (6, 4), 1, 3)
    assert len(source) == 20 and source.num_classes == 3 and source.name == f"{cells}:Cells:plate7"
    taken = source.take([3, 5])
    assert taken["image"].shape == (2, 6, 4, 1) and taken["image"][:, 0, 0, 0].tolist() == [9, 11]
    assert taken["label"].tolist() == [0, 2]
    assert open_source(f"{cells}:cells", "train", 6, 1)[0]["image"].max() == 0, "an argument may be left out"
    assert len(open_source(f"{cells}:Shelf:a:b", "all", 8, 1)) == 5
    batch = next(Loader({"": source}, 4, seed=0, workers=1))
    assert batch["image"].shape == (4, 6, 4, 1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Shelf", {}, "lacks its argument; write 'strange_cells:Shelf:<plate>'"),
        ("Bare:x", {}, "takes no argument; write 'strange_cells:Bare'"),
        ("Nothing", {}, "'strange_cells:Nothing' gives no examples: fill its 'arrays', or write __len__"),
        ("Bare", {}, "must be a dict with an 'image', not ndarray"),
        ("Celsl", {}, "strange_cells defines no 'Celsl'; did you mean 'Cells'"),
        ("Cells", {"channels": 3}, r"are uint8 \(8, 8, 1\), where .* ask for uint8 \(8, 8, 3\)"),
        ("Cells", {"split": "empty"}, "is empty"),
        ("Shelf:x", {"num_classes": 2}, "has no labels, but config.data.num_classes is 2"),
    ],
)
def test_what_is_amiss_in_it_is_told(cells, name, options, message):
    with pytest.raises(UserError, match=message):
        open_source(**{"source": f"{cells}:{name}", "split": "train", "resolution": 8, "channels": 1, **options})


def test_what_begins_as_a_source_is_told_from_a_path(cells):
    for text in ("digits/test", "tfds:mnist/test", "folder:a/b", f"{cells}:Cells/train", "my.package:Cells:x/test"):
        assert is_source(text)
    for text in ("photos/test", "gs://digits/test", "a/digits", "/data/npz", "./folder/x"):
        assert not is_source(text)


def test_digits():
    train, test = (open_source("digits", split, 8, 1, 10) for split in ("train", "test"))
    assert (len(train), len(test)) == (1297, 500)
    assert np.bincount(test.arrays["label"]).tolist() == [50] * 10
    image = train[0]["image"]
    assert image.shape == (8, 8, 1) and image.dtype == np.uint8 and train[0]["label"].dtype == np.int32
    assert train.arrays["image"].max() == 255 and train.arrays["image"].min() == 0
    assert train.num_classes == 10 and train.class_names[3] == "3"


def test_digits_splits_are_a_partition_that_never_changes():
    from sklearn.datasets import load_digits

    pixels = load_digits().data
    values = np.concatenate([open_source("digits", split, 8, 1).arrays["image"] for split in ("train", "test")])
    assert sorted(map(bytes, values)) == sorted(map(bytes, np.round(pixels * 255 / 16).astype(np.uint8)))
    again = open_source("digits", "test", 8, 1).arrays["image"]
    assert (again == values[1297:]).all()


@pytest.mark.parametrize("file", [digits.FILE, "kept/elsewhere"])
def test_digits_are_those_of_scikit_learn_wherever_it_keeps_them(monkeypatch, file):
    from sklearn.datasets import load_digits

    monkeypatch.setattr(digits, "FILE", file)
    for found, wanted in zip(digits._read(), load_digits(return_X_y=True), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_digits_at_another_resolution():
    source = open_source("digits", "test", (16, 12), 1)
    assert source[0]["image"].shape == (16, 12, 1)
    plain = open_source("digits", "test", 8, 1)
    assert abs(source.arrays["image"].mean() / plain.arrays["image"].mean() - 1) < 0.35


def test_paths_are_relative_to_the_root_unless_they_are_whole(monkeypatch):
    monkeypatch.setattr("fsspec.get_filesystem_class", lambda store: None)  # as where the store's package is installed
    assert str(locate("cats", "/data")) == "/data/cats"
    assert str(locate("/cats", "/data")) == "/cats"
    assert str(locate("gs://bucket/cats", "/data")) == "gs://bucket/cats"
    assert str(locate("cats", "gs://bucket")) == "gs://bucket/cats"


# Archives of arrays.

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (40, 6, 6, 3), dtype=np.uint8)
LABELS = np.arange(40) % 4
WITH_NAN = np.where(np.arange(40)[:, None, None, None] == 17, np.nan, IMAGES / 255)


@pytest.fixture
def saved(tmp_path):
    def save(**arrays):
        np.savez(tmp_path / "data.npz", **arrays)
        return f"npz:{tmp_path / 'data.npz'}"

    return save


def test_npz_passes_everything_through(saved):
    source = open_source(
        saved(
            images=IMAGES,
            labels=LABELS,
            weight=np.linspace(0, 1, 40),
            mask=IMAGES[..., 0],
            mean=np.zeros(3),
            title=np.array([f"image {i}" for i in range(40)]),
            class_names=np.array(list("abcd")),
        ),
        "all",
        6,
        3,
        4,
    )
    assert len(source) == 40 and (source.arrays["image"] == IMAGES).all()
    example = source[7]
    assert example["label"] == 3 and example["label"].dtype == np.int32 and example["title"] == "image 7"
    assert example["weight"].dtype == np.float32
    # An integer map is a mask, not a picture.
    assert example["mask"].dtype == np.int32 and (example["mask"] == IMAGES[7, ..., 0]).all()
    assert set(example) == {"image", "label", "weight", "mask", "title"}
    assert source.class_names == ("a", "b", "c", "d") and source.num_classes == 4


def test_npz_maps_of_labels_are_masks(saved):
    maps = RNG.integers(0, 5, (40, 6, 6), dtype=np.uint8)
    source = open_source(saved(images=IMAGES, labels=maps), "all", 6, 3, 5)
    assert source.num_classes == 5 and "label" not in source[0]
    assert source[3]["mask"].dtype == np.int32 and (source.arrays["mask"] == maps).all()
    with pytest.raises(UserError, match=r"outside \[0, 4\)"):
        open_source(saved(images=IMAGES, labels=maps), "all", 6, 3, 4)


def test_npz_hashed_splits_are_a_partition(saved):
    many = np.arange(400, dtype=np.int64)
    images = np.zeros((400, 2, 2), np.uint8)
    name = saved(image=images, index=many)
    parts = [open_source(name, split, 2, 1).arrays["index"].tolist() for split in ("train", "test")]
    assert sorted(parts[0] + parts[1]) == many.tolist()
    assert 20 < len(parts[1]) < 60


def test_npz_prefixed_splits(saved):
    name = saved(train_images=IMAGES[:30], train_labels=LABELS[:30], test_images=IMAGES[30:], test_labels=LABELS[30:])
    assert (open_source(name, "test", 6, 3, 4).arrays["image"] == IMAGES[30:]).all()
    assert len(open_source(name, "train", 6, 3)) == 30
    with pytest.raises(UserError, match="test, train"):
        open_source(name, "all", 6, 3)


@pytest.mark.parametrize("low", [0.0, -1.0])
def test_npz_floats_of_either_range_give_the_levels_back(saved, low):
    floats = IMAGES / 255 * (1 - low) + low
    floats[0, 0, 0, 0], levels = low, IMAGES.copy()
    levels[0, 0, 0, 0] = 0
    source = open_source(saved(images=floats.astype(np.float32)), "all", 6, 3)
    assert (source.arrays["image"] == levels).all()


@pytest.mark.parametrize("error", [0, -1e-8, 1e-8, -5e-4, 5e-4])
@pytest.mark.parametrize(
    "scale, low, told", [(255, 0, "[0, 1]"), (127.5, -1, "[-1, 1]"), (1, 0, "0..255")], ids=["unit", "signed", "levels"]
)
def test_npz_ranges_have_a_tolerance_and_are_told(saved, scale, low, told, error):
    ramp = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    source = open_source(saved(images=ramp / scale + low + error), "all", 8, 1)
    assert (source.arrays["image"] == ramp).all()
    assert source.notes[0].startswith("float64 images from ") and source.notes[0].endswith(f"taken for {told}")


def test_npz_dark_images_and_arrays_of_no_example_are_told(saved):
    source = open_source(saved(images=IMAGES // 255, mean=np.zeros(3), train=np.float32(1)), "all", 6, 3)
    assert source.notes == (
        "uint8 images, whose highest value is 1 of 255", "2 arrays passed over: mean [3], train []",
    )  # fmt: skip
    assert "highest value is 1 of 255" in source.summary()


def test_npz_of_other_orders_holds_the_same(saved):
    weight = np.arange(40, dtype=">f8")
    name = saved(images=np.asfortranarray(IMAGES), labels=LABELS.astype(">i8"), weight=weight)
    source = open_source(name, "all", 6, 3)
    assert (source.arrays["image"] == IMAGES).all() and (source.arrays["label"] == LABELS).all()
    assert source.arrays["weight"].tolist() == list(range(40))


def test_npz_bytes_are_texts(saved):
    words = np.array(["é", "b"] * 20)
    source = open_source(saved(images=IMAGES, captions=np.char.encode(words, "utf-8")), "all", 6, 3)
    assert (source.arrays["caption"] == words).all()


def test_npz_negative_labels_are_refused_without_classes(saved):
    with pytest.raises(UserError, match="Example 0 of .* has label -1; labels count from 0"):
        open_source(saved(images=IMAGES, labels=LABELS - 1), "all", 6, 3)


def test_npz_of_splits_on_one_signed_scale(saved):
    name = saved(train_images=np.full((3, 2, 2), -1.0), test_images=np.zeros((3, 2, 2)))
    assert abs(open_source(name, "test", 2, 1).arrays["image"].mean() - 127.5) <= 0.5


def test_npz_resizes_like_a_folder(saved):
    grey = np.full((3, 8, 12), 77, np.uint8)
    assert (open_source(saved(images=grey), "all", 4, 1).arrays["image"] == 77).all()
    with pytest.raises(UserError, match="cannot be resized alike"):
        open_source(saved(images=grey, mask=grey), "all", 4, 1)


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"pictures": IMAGES}, "no array 'images'"),
        ({"images": IMAGES.astype(np.int64)}, "int64"),
        ({"images": IMAGES / 25.5}, r"floats from 0 to 10, which is none of \[0, 1\], \[-1, 1\] and 0..255; scale"),
        ({"images": IMAGES / 127.5 - 0.7}, r"floats from -0.7 to 1.3, which is none of"),
        ({"images": IMAGES / 255 - 0.5}, r"floats from -0.5 to 0.5, which is none of"),
        ({"images": (IMAGES / 127.5 - 1) * 2}, r"floats from -2 to 2, which is none of"),
        ({"images": IMAGES > 100}, "are bool"),
        ({"images": IMAGES.transpose(0, 3, 1, 2)}, r"\[40, 3, 6, 6\], which is \[N, C, H, W\]; save images.transpose"),
        ({"images": IMAGES.transpose(1, 2, 3, 0)}, r"which is \[H, W, C, N\]; save images.transpose\(3, 0, 1, 2\)"),
        ({"images": IMAGES[0]}, r"\[6, 6, 3\], which is one image \[H, W, C\]; save images\[None\]"),
        ({"images": IMAGES[..., [0, 0, 0, 0, 0]]}, r"5 channel.*grey \(1\), RGB \(3\) or RGBA"),
        ({"images": IMAGES[..., :0]}, "without a pixel"),
        ({"images": np.float64(3)}, "shape"),
        ({"images": IMAGES, "labels": np.arange(40) + 2**32}, "reaches from 4294967296 .* more than int32 holds"),
        ({"images": IMAGES, "labels": np.int64(3)}, "40 images but a single label"),
        ({"images": IMAGES, "labels": LABELS[:, None]}, r"\(40, 1\); whole numbers"),
        ({"images": IMAGES, "labels": LABELS, "captions": np.array(["x"] * 39)}, "40 images but 39 captions"),
        ({"images": IMAGES, "labels": LABELS, "weight": np.full(40, 1e300)}, "float32 cannot hold"),
        ({"images": IMAGES, "labels": LABELS, "wave": np.ones(40, complex)}, "complex128, which no example holds"),
        ({"images": IMAGES, "labels": LABELS, "class_names": np.array(["a", "b"])}, "2 class_names for 4 classes"),
        ({"images": IMAGES, "image": IMAGES}, "has both 'image' and 'images'"),
        ({"images": IMAGES, "train_images": IMAGES}, "'images' beside 'train_images'"),
        ({"images": IMAGES, "labels": LABELS, "title": np.array([b"\xe9"] * 40)}, "entry 0 is not text in UTF-8"),
        ({"images": IMAGES[0, 0]}, "shape"),
        ({"images": WITH_NAN}, "1 of 40 .*not finite .108 .*image 17"),
        ({"images": IMAGES[..., :1]}, "config.data.channels=1"),
        ({"images": IMAGES, "labels": LABELS + 1}, r"label 4, outside \[0, 4\)"),
        ({"images": IMAGES, "labels": LABELS - 1}, "label -1"),
        ({"images": IMAGES, "labels": LABELS[:9]}, "9 labels"),
        ({"images": IMAGES, "labels": LABELS / 2}, "whole numbers"),
        ({"images": IMAGES}, "no labels"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "empty"),
        ({"images": np.array([{}] * 3, object)}, "no objects"),
    ],
)
def test_npz_refusals(saved, arrays, message):
    with pytest.raises(UserError, match=message):
        open_source(saved(**arrays), "all", 6, 3, 4)


def test_npz_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match="config.data.source=.*none.npz: there is no such file"):
        open_source(f"npz:{tmp_path}/none.npz", "all", 6, 3)
    np.savez(tmp_path / "whole.npz", images=IMAGES)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:800])
    (tmp_path / "text.npz").write_text("not an archive")
    (tmp_path / "none.npz").write_bytes(b"")
    for name in ("cut", "text", "none"):
        with pytest.raises(UserError, match="cannot be read"):
            open_source(f"npz:{name}.npz", "all", 6, 3, root=str(tmp_path))
    np.save(tmp_path / "one.npy", IMAGES)
    with pytest.raises(UserError, match="single array"):
        open_source(f"npz:{tmp_path}/one.npy", "all", 6, 3)


def test_one_class_is_said_as_one():
    images = np.zeros((3, 8, 8, 1), np.uint8)
    source = Arrays({"image": images, "label": np.zeros(3, np.int32)})
    source.class_names = ("cat",)
    assert "3 examples in 1 class: cat" in source.summary()
    source.class_names = ("cat", "dog")
    assert "3 examples in 2 classes: cat, dog" in source.summary()
