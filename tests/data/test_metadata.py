"""Folders with a `metadata.jsonl`, as Hugging Face's imagefolder has it, with all that tables of others may hold."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from jaxgen.data import open_source
from jaxgen.data.sources import captions, folder
from jaxgen.errors import UserError
from jaxgen.metrics.sets import open_set

RNG = np.random.default_rng(0)
MARK = "\ufeff".encode()


def put(top, *names, size=(8, 8), mode="RGB"):
    """Random pictures; returns their pixels by name."""
    found = {}
    for name in names:
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        found[name] = RNG.integers(0, 256, (*size, *((3,) if mode == "RGB" else ())), dtype=np.uint8)
        Image.fromarray(found[name]).save(path)
    return found


def table(top, *rows, end="\n", start=b"", name="metadata.jsonl"):
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    (top / name).parent.mkdir(parents=True, exist_ok=True)
    (top / name).write_bytes(start + (end.join(lines) + end).encode())


def opened(top, split="all", classes=0, **rename):
    return open_source(f"folder:{top}", split, 8, 3, classes, rename=rename)


def test_texts_numbers_labels_and_pictures_become_entries(tmp_path):
    made = put(tmp_path, "b.png", "a.png")
    hints = put(tmp_path, "hints/1.png", "hints/2.png", mode="L")
    table(
        tmp_path,
        {"file_name": "b.png", "text": "a bee", "conditioning_image_file_name": "hints/2.png", "label": 1,
         "pose": [0.5, 1], "age": 3, "sharp": True, "author": "x", "style_file_name": "a.png"},
        {"file_name": "a.png", "text": "an ant", "conditioning_image_file_name": "hints/1.png", "label": 0,
         "pose": [2, -0.25], "age": 4, "sharp": False, "author": "y", "style_file_name": "b.png"},
    )  # fmt: skip
    source = opened(tmp_path, classes=2)
    assert source.files == ("a.png", "b.png") and source.captions == ["an ant", "a bee"] and source.notes == ()
    assert source.num_classes == opened(tmp_path).num_classes == 2
    rows = source.take([0, 1])
    assert rows["caption"].tolist() == ["an ant", "a bee"] and rows["label"].tolist() == [0, 1]
    assert (rows["hint"][..., 0] == [hints["hints/1.png"], hints["hints/2.png"]]).all()
    assert (rows["style"] == [made["b.png"], made["a.png"]]).all() and (rows["image"] == rows["style"][::-1]).all()
    assert rows["pose"].dtype == np.float32 and rows["pose"].tolist() == [[2, -0.25], [0.5, 1]]
    assert rows["age"].tolist() == [4, 3] and rows["sharp"].tolist() == [0, 1] and rows["age"].dtype == np.int32
    assert rows["author"].tolist() == ["y", "x"]
    assert set(rows) == {"image", "caption", "hint", "style", "label", "pose", "age", "sharp", "author"}


def test_a_large_folder_gives_the_same(tmp_path, monkeypatch):
    put(tmp_path, "a.png", "b.png", "h/a.png", "h/b.png")
    table(tmp_path, *({"file_name": f"{n}.png", "text": n, "hint": f"h/{n}.png", "x": 1.5} for n in "ab"))
    held = opened(tmp_path)
    from jaxgen.data.folders import columns

    for module in (folder, columns):
        monkeypatch.setattr(module, "MEMORY_LIMIT", 0)
    streamed = pickle.loads(pickle.dumps(opened(tmp_path)))  # as reader processes need it
    assert streamed.arrays is None and held.arrays is not None
    for name, values in streamed.take([1, 0]).items():
        np.testing.assert_array_equal(values, held.arrays[name][[1, 0]])


def test_the_text_of_another_column_is_the_caption(tmp_path):
    put(tmp_path, "a.png", "edited/a.png")
    table(tmp_path, {"file_name": "a.png", "edit_prompt": "in red", "edited_image": "edited/a.png"})
    source = opened(tmp_path, caption="edit_prompt", image="edited_image", condition="image")
    assert source.arrays["caption"].tolist() == ["in red"] and set(source[0]) == {"image", "condition", "caption"}
    captions.main([f"folder:{tmp_path}", "--split=all", "--length=4", "--caption=edit_prompt"])
    told = open_source(f"captions:folder:{tmp_path}", "all", 8, 3, rename={"caption": "edit_prompt"})
    assert told[0]["tokens"].shape == (4,) and "unknown" not in told.summary()


@pytest.mark.parametrize(("start", "end"), [(MARK, "\r\n"), (b"", "\r\n"), (MARK, "\n\n")])
def test_tables_of_windows_editors(tmp_path, start, end):
    put(tmp_path, "sub/é.png", "b.png", "h/x.png")
    rows = [{"file_name": "sub\\é.png", "text": "one\u2028line", "hint": ".\\h\\x.png"},
            {"file_name": "./b.png", "text": "b", "hint": "h/x.png"}]  # fmt: skip
    table(tmp_path, *rows, start=start, end=end)
    assert opened(tmp_path).arrays["caption"].tolist() == ["b", "one\u2028line"]


def test_tables_of_splits_and_a_split_without_one(tmp_path):
    put(tmp_path, "train/images/1.png", "train/images/2.png", "train/seg/1.png", "train/seg/2.png", "test/9.png")
    table(
        tmp_path, {"file_name": "images/2.png", "text": "two", "seg_file_name": "seg/2.png"},
        {"file_name": "images/1.png", "text": "one", "seg_file_name": "seg/1.png"}, name="train/metadata.jsonl",
    )  # fmt: skip
    train, test = opened(tmp_path, "train"), opened(tmp_path, "test")
    assert train.arrays["caption"].tolist() == ["one", "two"] and "label" not in train[0]
    assert (train.arrays["seg"] != train.arrays["image"]).any() and set(test[0]) == {"image"}


def test_one_table_above_the_splits(tmp_path):
    made = put(tmp_path, "train/1.png", "test/1.png", "train/h1.png", "test/h1.png")
    table(tmp_path, *({"file_name": f"{s}/1.png", "text": s, "hint": f"{s}/h1.png"} for s in ("train", "test")))
    for split in ("train", "test"):
        source = opened(tmp_path, split)
        assert source.files == ("1.png",) and source.captions == [split] and not source.notes
        assert (source[0]["hint"] == made[f"{split}/h1.png"]).all()


def test_labels_that_are_texts_are_classes_numbered_over_all_splits(tmp_path):
    put(tmp_path, "train/1.png", "train/2.png", "test/3.png")
    labels = {"train/1.png": "dog", "train/2.png": "ant", "test/3.png": "cat"}
    table(tmp_path, *({"file_name": name, "label": label} for name, label in labels.items()))
    assert opened(tmp_path, "train", 3).arrays["label"].tolist() == [2, 0]
    test = opened(tmp_path, "test", 3)
    assert test.arrays["label"].tolist() == [1] and test.class_names == ("ant", "cat", "dog")
    with pytest.raises(UserError, match=r"outside \[0, 2\)"):
        opened(tmp_path, "train", 2)


def test_class_folders_mean_nothing_where_a_table_is(tmp_path):
    put(tmp_path, "cat/1.png", "dog/2.png")
    table(tmp_path, {"file_name": "cat/1.png", "text": "a"}, {"file_name": "dog/2.png", "text": "b"})
    assert "label" not in opened(tmp_path)[0]
    with pytest.raises(UserError, match="has no labels"):
        opened(tmp_path, classes=2)


def test_columns_that_hold_nothing_usable_are_told(tmp_path):
    put(tmp_path, "a.png", "b.png", "extra.png")
    table(
        tmp_path,
        {"file_name": "a.png", "text": "a", "objects": {"bbox": [1, 2]}, "sizes": [1], "note": None, "mixed": 1,
         "id": 2**40, "speed": float("nan"), "none": [], "": 1},
        {"file_name": "b.png", "text": "b", "objects": {"bbox": [3]}, "sizes": [1, 2], "note": "x", "mixed": "y",
         "id": 1, "speed": 1.0, "none": [], "": 2},
        {"file_name": "gone.png", "text": "c"},
    )  # fmt: skip
    source = opened(tmp_path)
    assert set(source[0]) == {"image", "caption"}
    told = source.summary()
    assert "1 lines of metadata.jsonl name no image: gone.png" in told
    assert "1 pictures that metadata.jsonl does not name passed over: extra.png" in told
    for column in ("objects (neither", "sizes (lists of several lengths)", "note (without a value in line 1)",
                   "mixed (neither", "id (larger numbers than 32 bits", "speed (values that are not",
                   "none (empty lists)", "'' (no name of an entry)"):  # fmt: skip
        assert column in told
    assert "8 columns of metadata.jsonl passed over" in told


GOOD = {"file_name": "a.png", "text": "an ant", "hint": "b.png"}


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([GOOD, GOOD], r"line 2 names a\.png, which .*line 1 does already; keep one line"),
        ([{"text": "x"}], r"metadata\.jsonl, line 1: the entry 'file_name' is missing"),
        ([{"file_name": 3}], "line 1: 'file_name' is 3, where a text is needed"),
        (["{'file_name': 'a.png'}"], "line 1 is not valid JSON"),
        (["[1, 2]"], "line 1: it holds"),
        ([{"file_name": "../a.png"}], r"names no image of its folder: it has \.\./a\.png"),
        ([{"file_name": "/etc/passwd"}], r"names no image of its folder: it has /etc/passwd"),
        ([{**GOOD, "hint": "../outside.png"}], r"hint='\.\./outside\.png' is no picture below"),
        ([{**GOOD, "hint": "/a.png"}], r"hint='/a\.png' is no picture below"),
        ([{**GOOD, "hint": "missing.png"}], r"hint='missing\.png' is no picture below"),
        ([{**GOOD, "hint_file_name": "b.png"}], "'hint_file_name' and another one are both 'hint'"),
        ([{**GOOD, "x_file_name": "notes.txt"}], r"x_file_name='notes\.txt' is no picture"),
        ([{**GOOD, "image": "b.png"}], "column 'image' and another one are both 'image'"),
        ([{**GOOD, "caption": "x"}], "column 'caption' and another one are both 'caption'"),
        ([GOOD, {"file_name": "b.png", "text": "b", "hint": None}], "line 2 gives no picture for 'hint'"),
        ([GOOD, {"file_name": "b.png", "hint": "a.png"}], "line 2 has no 'text', while others have"),
        ([GOOD, {"file_name": "b.png", "text": 3, "hint": "a.png"}], "line 2: 'text' is 3, where a text is needed"),
        ([{**GOOD, "label": 1.5}], "'label' is 1.5, where a number from 0 on, or always a text, is needed"),
        ([{**GOOD, "label": -1}], "'label' is -1, where a number from 0 on"),
        ([{**GOOD, "label": 2**40}], "where a number from 0 on"),
        ([{"file_name": ""}], "it has ''; file_name is"),
        ([], "empty: no metadata.jsonl below .* names an image; add lines"),
        ([{**GOOD, "hint": "sub/wide.png"}], r"wide\.png' has 16x8 pixels, and its image a\.png 8x8"),
    ],
)
def test_tables_that_do_not_fit(tmp_path, rows, told):
    top = tmp_path / "data"
    put(top, "a.png", "b.png")
    put(top, "sub/wide.png", size=(8, 16))
    put(tmp_path, "outside.png")
    (top / "notes.txt").write_text("x")
    table(top, *rows)
    with pytest.raises(UserError, match=told) as caught:
        opened(top)
    assert "\n" not in str(caught.value)


def test_two_tables_of_captions_and_an_empty_one(tmp_path):
    put(tmp_path, "train/a.png", "test/b.png")
    table(tmp_path, {"file_name": "a.png", "text": "x"}, name="train/metadata.jsonl")
    (tmp_path / "train/captions.jsonl").write_text(json.dumps({"file": "a.png", "caption": "y"}))
    with pytest.raises(UserError, match="has captions in train/metadata.jsonl and elsewhere"):
        opened(tmp_path, "train")
    (tmp_path / "train/metadata.jsonl").write_text("")
    with pytest.raises(UserError, match="Split 'train' of .* is empty"):
        opened(tmp_path, "train")


def test_masks_beside_images_hold_classes(tmp_path):
    put(tmp_path, "a.png")
    classes = RNG.integers(0, 4, (8, 8), dtype=np.uint8)
    Image.fromarray(classes).save(tmp_path / "m.png")
    table(tmp_path, {"file_name": "a.png", "mask_file_name": "m.png"})
    assert (opened(tmp_path, classes=4)[0]["mask"] == classes).all()
    with pytest.raises(UserError, match=r"m\.png' holds class 3, outside \[0, 3\)"):
        opened(tmp_path, classes=3)


def test_metrics_see_the_images_and_texts_of_a_table(tmp_path):
    made = put(tmp_path, "b.png", "a.png")
    put(tmp_path, "hints/a.png", "extra.png", mode="L")
    table(tmp_path, {"file_name": "b.png", "text": "b", "x": 1, "hint": "hints/a.png"},
          {"file_name": "a.png", "text": "a", "hint": "hints/a.png"})  # fmt: skip
    found = open_set(str(tmp_path), captioned=True)
    assert found.count == 2 and list(found.captions) == ["a", "b"]
    assert (np.stack(next(iter(found.batches(2)))) == [made["a.png"], made["b.png"]]).all()
    assert "1 pictures that metadata.jsonl does not name passed over: extra.png" in found.notes
    assert open_set(str(tmp_path)).captions is None
