"""Hints of a user's folder: what they show, where they are written, and what is refused before anything is."""

from __future__ import annotations

import json
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxgen.data.corruptions import Edges
from jaxgen.data.hints import Contours, main, make_hints
from jaxgen.data.sources import open_source
from jaxgen.errors import UserError

SOFT = Contours("soft")
SIZE = 12


def picture(seed, channels=3, size=(SIZE, SIZE)):
    shape = (*size, 3) if channels == 3 else size
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def photos(tmp_path):
    """Four pictures in two classes."""
    for i in range(4):
        save(tmp_path / "photos" / ("bus", "car")[i % 2] / f"{i}.png", picture(i))
    return tmp_path / "photos"


def files(folder):
    return sorted(os.fspath(path.relative_to(folder)) for path in folder.rglob("*"))


def opened(source):
    return open_source(source, "all", SIZE, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_edges_and_their_strength_are_what_the_corruption_gives_in_training(channels):
    image = picture(0, channels).reshape(SIZE, SIZE, channels)
    image = np.kron(image[:4, :4], np.ones((3, 3, 1), np.uint8))  # larger areas, so that edges are at some places only
    for kind, threshold in (("soft", 0.0), ("edges", 0.1)):
        wanted = Edges(threshold)(jax.random.key(0), jnp.asarray(image / 127.5 - 1, jnp.float32)).picture[..., 0]
        assert np.abs(Contours(kind)(image) / 127.5 - 1 - wanted).max() <= 1.01 / 127.5


def test_a_folder_keeps_its_classes_and_its_captions(photos):
    before = opened(f"folder:{photos}")
    (photos / "captions.jsonl").write_text("".join(
        json.dumps({"file": f"{('bus', 'car')[i % 2]}/{i}.png", "caption": f"number {i}"}) + "\n" for i in range(4)
    ))  # fmt: skip
    assert make_hints(photos, SOFT) == 4
    after = opened(f"folder:{photos}")
    assert len(after) == 4 and after.class_names == before.class_names == ("bus", "car")
    for i in range(4):
        one, other = before[i], after[i]
        np.testing.assert_array_equal(one["image"], other["image"])
        assert one["label"] == other["label"]
        np.testing.assert_array_equal(other["hint"][..., 0], SOFT(one["image"]))
    assert after[0]["caption"] == "number 0"


def test_a_table_that_is_there_gains_a_column_and_loses_nothing(photos):
    lines = [{"file_name": f"bus/{i}.png", "text": f"ein Bus, größer {i}", "pose": [0.5, i]} for i in (0, 2)]
    (photos / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert make_hints(photos, SOFT) == 2
    found = [json.loads(line) for line in (photos / "metadata.jsonl").read_text().splitlines()]
    assert found == [{**line, "conditioning_image_file_name": f"hint/{line['file_name']}"} for line in lines]
    assert make_hints(photos, Contours("edges"), "sketch") == 2
    example = opened(f"folder:{photos}")[0]
    np.testing.assert_array_equal(example["sketch"][..., 0], Contours("edges")(example["image"]))
    np.testing.assert_array_equal(example["hint"][..., 0], SOFT(example["image"]))


def test_splits_keep_their_examples(tmp_path):
    for i in range(4):
        save(tmp_path / ("train", "test")[i % 2] / f"{i}.png", picture(i))
    assert make_hints(tmp_path, SOFT) == 4
    example = open_source(f"folder:{tmp_path}", "test", SIZE, 3)[1]
    np.testing.assert_array_equal(example["image"], picture(3))
    np.testing.assert_array_equal(example["hint"][..., 0], SOFT(picture(3)))


def test_pairs_gain_a_folder(tmp_path):
    for i in range(2):
        save(tmp_path / "train" / "image" / f"{i}.png", picture(i))
        save(tmp_path / "train" / "style" / f"{i}.png", picture(10 + i))
    assert make_hints(tmp_path, SOFT) == 2
    example = open_source(f"pairs:{tmp_path}", "train", SIZE, 3)[1]
    assert set(example) == {"image", "style", "hint"} and not list(tmp_path.rglob("*.jsonl"))
    np.testing.assert_array_equal(example["hint"][..., 0], SOFT(picture(1)))


def test_hints_that_are_given_are_named_and_stay_as_they_are(photos):
    for i in range(4):
        save(photos / "depth" / ("bus", "car")[i % 2] / f"{i}.bmp", picture(20 + i, 1))
    assert make_hints(photos, None, "depth") == 4
    np.testing.assert_array_equal(opened(f"folder:{photos}")[0]["depth"][..., 0], picture(20, 1))


def test_the_command_makes_the_hint_of_one_picture(photos, tmp_path, capsys):
    assert main([os.fspath(photos / "bus" / "0.png"), "--kind=soft", f"--out={tmp_path / 'hint.png'}"]) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "hint.png")), SOFT(picture(0)))
    assert main([os.fspath(photos), "--kind=edges", "--threshold=0.3"]) == 0
    assert "4 hints" in capsys.readouterr().out
    np.testing.assert_array_equal(
        np.asarray(Image.open(photos / "hint" / "car" / "1.png")), Contours("edges", threshold=0.3)(picture(1))
    )


def _truncated(photos):
    data = (photos / "bus" / "0.png").read_bytes()
    (photos / "bus" / "0.png").write_bytes(data[: len(data) // 2])


def _copied(photos):
    shutil.copytree(photos / "bus", photos / "hint" / "bus")


BAD = {
    "a damaged picture": (_truncated, ["--kind=soft"], "0.png"),
    "two of one name": (lambda p: save(p / "bus" / "0.bmp", picture(9)), ["--kind=soft"], "one name up to the ending"),
    "hints that are there": (_copied, ["--kind=soft"], "--kind=given"),
    "one that is missing": (_copied, ["--kind=given"], r"car/1.png .* has no hint"),
    "a text as an entry": (None, ["--kind=soft", "--entry=caption"], "no hint"),
    "a path as an entry": (None, ["--kind=soft", "--entry=../x"], "letters, digits"),
    "an option of another kind": (None, ["--kind=soft", "--sigma=2"], "for --kind=canny"),
    "thresholds in disorder": (None, ["--low=0.3", "--high=0.2"], "0 <= low <= high"),
    "no number": (None, ["--low=few"], "give a number"),
    "a kind that there is not": (None, ["--kind=lines"], "invalid choice"),
    "a folder for one picture": (None, ["--kind=soft", "--out=hint.png"], "is a folder"),
    "a made hint that is given": (None, ["--kind=given", "--out=hint.png"], "makes none"),
    "an ambiguous folder": (lambda p: save(p / "train" / "5.png", picture(5)), ["--kind=soft"], "two ways"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_is_one_sentence_and_writes_nothing(case, photos, capsys, monkeypatch):
    import re

    change, words, told = BAD[case]
    if change:
        change(photos)
    monkeypatch.chdir(photos)
    before = files(photos)
    assert main([".", *words]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert re.search(told, said), said
    assert files(photos) == before


def test_a_given_hint_of_another_size_is_refused_by_name(photos):
    for i in range(4):
        save(photos / "depth" / ("bus", "car")[i % 2] / f"{i}.png", picture(i, 1, (SIZE, SIZE + (i == 3))))
    with pytest.raises(UserError, match=r"depth/car/3.png.* has 13x12 pixels, and its picture 3.png 12x12"):
        make_hints(photos, None, "depth")
    assert not list(photos.rglob("*.jsonl"))


def test_a_column_is_not_written_twice(photos):
    make_hints(photos, SOFT)
    shutil.rmtree(photos / "hint")
    with pytest.raises(UserError, match="has a column 'conditioning_image_file_name' already"):
        make_hints(photos, SOFT)
    assert not (photos / "hint").exists()
