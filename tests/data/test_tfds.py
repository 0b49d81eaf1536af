"""Sets prepared by TensorFlow Datasets, with a builder of our own and without TensorFlow."""

from __future__ import annotations

import json
import pathlib
import pickle
import shutil
import sys

import numpy as np
import pytest

tfds = pytest.importorskip("tensorflow_datasets")

from jaxgen.data import open_source  # noqa: E402
from jaxgen.data.sources import tfds as room  # noqa: E402
from jaxgen.errors import UserError  # noqa: E402

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 6, 8, 3), dtype=np.uint8)


class TinyPictures(tfds.core.GeneratorBasedBuilder):
    """Twelve pictures of two classes."""

    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = None

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(6, 8, 3)),
                "label": tfds.features.ClassLabel(names=["ant", "bee"]),
                "title": tfds.features.Text(),
                "box": tfds.features.Tensor(shape=(4,), dtype=np.float64),
                "points": tfds.features.Sequence(np.int64),
            }
        )
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(range(9)), "test": self._generate_examples(range(9, 12))}

    def _generate_examples(self, numbers):
        from PIL import Image

        for i in numbers:
            yield (
                i,
                {
                    "image": Image.fromarray(PIXELS[i]),
                    "label": i % 2,
                    "title": f"picture {i}",
                    "box": [0.0, 0.5, 1.0, i],
                    "points": list(range(i)),
                },
            )


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("tfds"))
    TinyPictures(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def number(example):
    return int(example["title"].split()[-1])


@pytest.mark.parametrize("limit", [room.MEMORY_LIMIT, 0])
def test_what_was_prepared_comes_back_without_tensorflow(root, monkeypatch, limit):
    monkeypatch.setattr(room, "MEMORY_LIMIT", limit)
    source = open_source("tfds:tiny_pictures", "train", (6, 8), 3, 2, root=root)
    assert len(source) == 9 and (source.arrays is None) == (limit == 0)
    assert source.class_names == ("ant", "bee") and source.num_classes == 2
    assert sorted(number(source[i]) for i in range(9)) == list(range(9))
    for i in range(9):
        example = source[i]
        assert set(example) == {"image", "label", "title", "box"}
        assert (example["image"] == PIXELS[number(example)]).all()
        assert example["label"] == number(example) % 2 and example["label"].dtype == np.int32
        assert example["box"].dtype == np.float32 and example["box"][3] == number(example)
    assert (source.take([3, 1])["image"][1] == source[1]["image"]).all()
    assert source.notes == ("features passed over: points",)
    assert "tensorflow" not in sys.modules


def test_split_expressions_and_resizing(root):
    parts = [open_source("tfds:tiny_pictures", split, 4, 3, root=root) for split in ("train[:5]", "train[5:]+test")]
    titles = [set(part.arrays["title"]) for part in parts]
    assert len(titles[0]) == 5 and len(titles[1]) == 7 and not titles[0] & titles[1]
    assert parts[0][0]["image"].shape == (4, 4, 3)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("tfds:tiny_pictures", "val", 6, 3), "no split 'val'.*train, test"),
        (("tfds:tiny_pictures", "train[", 6, 3), "no split"),
        (("tfds:tiny_pictures", "train", 6, 1), "config.data.channels=3"),
        (("tfds:tiny_pictures", "train", 6, 3, 1), r"outside \[0, 1\)"),
        (("tfds:mnist", "train", 28, 1), "not prepared in .*download_and_prepare"),
        (("tfds:no_such_set", "train", 28, 1), "not prepared"),
    ],
)
def test_refusals(root, arguments, message):
    with pytest.raises(UserError, match=message):
        open_source(*arguments, root=root)


def prepared(root, tmp_path) -> pathlib.Path:
    """A copy of the set, to be tampered with; the folder with its files."""
    shutil.copytree(root, tmp_path / "tfds")
    return next((tmp_path / "tfds").rglob("features.json")).parent


@pytest.mark.parametrize("legacy", [False, True])
def test_no_code_is_imported_that_the_files_name(root, tmp_path, monkeypatch, legacy):
    folder = prepared(root, tmp_path)
    (tmp_path / "stranger.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    features = json.loads((folder / "features.json").read_text())
    if legacy:
        features = {"type": "stranger.Feature", "content": {}}
    else:
        features["featuresDict"]["features"]["title"]["pythonClassName"] = "stranger.Feature"
    (folder / "features.json").write_text(json.dumps(features))
    with pytest.raises(UserError, match=r"features\.json: \w+='stranger\.Feature' leads to code"):
        open_source("tfds:tiny_pictures", "train", 6, 3, root=str(tmp_path / "tfds"))
    assert "stranger" not in sys.modules and not (tmp_path / "ran").exists()


def test_no_other_folder_is_read(root, tmp_path):
    folder = prepared(root, tmp_path)
    told = json.loads((folder / "dataset_info.json").read_text())
    told["splits"][0]["filepathTemplate"] = "../../elsewhere/{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    (folder / "dataset_info.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match=r"dataset_info\.json: filepathTemplate='\.\./\.\./elsewhere.*' leads to"):
        open_source("tfds:tiny_pictures", "train", 6, 3, root=str(tmp_path / "tfds"))


def test_only_the_formats_that_are_meant_are_decoded(root):
    builder = room._builder("tfds:tiny_pictures", "tiny_pictures", root)
    image = pickle.loads(pickle.dumps(builder.info.features))["image"]
    with pytest.raises(UserError, match="An image of 'tfds:tiny_pictures' cannot be read .* its content is PostScript"):
        image.decode_example_np(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n")


def test_values_that_examples_do_not_hold_are_refused():
    assert room._plain("é".encode(), "x") == "é" and room._plain(np.int64(7), "x").dtype == np.int32
    with pytest.raises(UserError, match="x is not text in UTF-8"):
        room._plain(b"\xff", "x")
    with pytest.raises(UserError, match="x reaches from 5000000000 .* more than int32 holds"):
        room._plain(np.int64(5_000_000_000), "x")
