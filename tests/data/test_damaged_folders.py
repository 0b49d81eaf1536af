"""Folders of pairs and of tables with random damage: each opens, or is refused in one sentence."""

from __future__ import annotations

import json
import os
import random
import shutil

import numpy as np
import pytest
from PIL import Image

from jaxgen.data import open_source
from jaxgen.errors import UserError

VALUES = ["0.png", "../a.png", "", None, 3, -1, 2.5, [1, 2], [[1], [2, 3]], {"x": 1}, True, "x" * 300, "é\u2028", "\0"]
WORDS = ["file_name", "text", "label", "hint", "hint_file_name", "mask_file_name", "caption", "image", "pose", "", "a"]
ROWS = [{"file_name": f"{i}.png", "text": f"a {i}", "label": i, "hint": f"h/{i}.png", "pose": [1, i]} for i in range(3)]
CASES = 60  # all of the first 1,500 have been tried
KINDS = ["cut", "bits", "picture", "remove", "rename", "link", "copy", "value", "value", "value", "fifo"]


def picture(path, chance):
    size = chance.choice([(8, 8), (8, 8), (8, 16), (7, 9), (1, 1)])
    mode = chance.choice(["RGB", "RGB", "RGB", "L", "RGBA", "1", "P", "I;16"])
    pixels = np.random.default_rng(chance.randrange(99)).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = Image.fromarray(pixels) if mode != "I;16" else Image.new("I;16", size[::-1], 7)
    (image.convert(mode) if mode not in ("RGB", "I;16") else image).save(path)


def sound(top):
    """Pairs with splits, side by side, and a table of each sort of column; all sound."""
    for name in ("pairs/train/image", "pairs/train/condition", "pairs/train/mask", "table/h", "sides/train"):
        (top / name).mkdir(parents=True)
    for i in range(3):
        for entry in ("image", "condition"):
            Image.new("RGB", (8, 8), (i, 9, 9)).save(top / f"pairs/train/{entry}/{i}.png")
        Image.new("L", (8, 8), i).save(top / f"pairs/train/mask/{i}.png")
        Image.new("RGB", (16, 8), (i, 9, 9)).save(top / f"sides/train/{i}.png")
        Image.new("RGB", (8, 8), (i, 9, 9)).save(top / f"table/{i}.png")
        Image.new("L", (8, 8), i).save(top / f"table/h/{i}.png")
    (top / "table/metadata.jsonl").write_text("\n".join(map(json.dumps, ROWS)))


def spoil(top, chance):
    """Changes one file, name or value."""
    table, kind = top / "table/metadata.jsonl", chance.choice(KINDS)
    files = sorted(path for path in top.rglob("*") if path.is_file())
    path = chance.choice([*files, *[file for file in files if file == table] * 8])
    data = path.read_bytes()
    if kind == "value":
        rows = [dict(row) for row in ROWS]
        for _ in range(chance.randrange(1, 4)):
            row = chance.choice(rows)
            row[chance.choice(WORDS)] = chance.choice(VALUES)
            if chance.random() < 0.3:
                row.pop(chance.choice(sorted(row)))
        table.unlink(missing_ok=True)
        table.write_text("\n".join(map(json.dumps, rows)))
    elif kind == "cut":
        path.write_bytes(data[: chance.randrange(len(data) + 1)])
    elif kind == "bits" and data:
        place = chance.randrange(len(data))
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :])
    elif kind == "picture" and path.suffix == ".png":
        picture(path, chance)
    elif kind == "copy":
        shutil.copy(path, path.with_name(chance.choice(["0.webp", "é.png", "x y.png", "Thumbs.db", "9.png"])))
    elif kind == "rename":
        os.rename(path, path.with_name(chance.choice(["a.png", "0.jpg", "metadata.jsonl", "captions.jsonl", "0.txt"])))
    else:
        path.unlink()
        if kind == "link":
            path.symlink_to(chance.choice(["nowhere", "..", "/etc/hostname", "0.png"]))
        elif kind == "fifo":
            os.mkfifo(path)


@pytest.mark.parametrize("part", range(2))
def test_damage_ends_in_a_sentence_or_in_examples(tmp_path, part):
    sound(tmp_path / "sound")
    opened = {"pairs:{}/pairs": "train", "folder:{}/table": "all", "pairs:{}/sides:left": "train"}
    opened["image:{}/table/0.png"] = "any"
    for name, split in opened.items():
        assert len(open_source(name.format(tmp_path / "sound"), split, 8, 3))
    ends = {"refused": 0, "read": 0}
    for number in range(part, CASES, 2):
        chance, top = random.Random(number), tmp_path / str(number)
        shutil.copytree(tmp_path / "sound", top)
        for _ in range(chance.randrange(1, 3)):
            spoil(top, chance)
        for name, split in opened.items():
            try:
                source = open_source(name.format(top), split, 8, 3, chance.choice([0, 0, 0, 3]))
                row = source.take([0, len(source) - 1])
                assert all(len(values) == 2 for values in row.values()) and source.summary()
                ends["read"] += 1
            except UserError as error:
                assert "\n" not in str(error) and str(error).endswith("."), error
                ends["refused"] += 1
            except Exception as error:
                raise AssertionError(f"case {number}, {name}: {error!r}") from error
        shutil.rmtree(top)
    assert min(ends.values()) > 15, ends
