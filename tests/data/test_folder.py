"""Folders of images: what is found, what it is called, and what is refused."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from jaxgen.data import Loader, open_source
from jaxgen.data.sources import folder
from jaxgen.errors import UserError

RNG = np.random.default_rng(0)


def write(path, array=None, mode=None, size=8, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    if array is None:
        array = RNG.integers(0, 256, (size, size, 3), dtype=np.uint8)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)
    return array


def opened(path, split="all", resolution=8, channels=3, num_classes=0):
    return open_source(f"folder:{path}", split, resolution, channels, num_classes)


def test_images_come_back_in_the_order_of_their_names(tmp_path):
    arrays = {name: write(tmp_path / name) for name in ("b.png", "deep/er/a.PNG", "c.bmp")}
    write(tmp_path / ".hidden.png")
    (tmp_path / "notes.md").write_text("not an image")
    source = opened(tmp_path)
    assert source.files == ("b.png", "c.bmp", "deep/er/a.PNG")
    for index, name in enumerate(source.files):
        assert (source[index]["image"] == arrays[name]).all()
    assert "label" not in source[0] and source.num_classes == 0


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "webp"])
def test_other_formats(tmp_path, suffix):
    write(tmp_path / f"flat.{suffix}", np.full((8, 8, 3), 99, np.uint8))
    assert np.abs(opened(tmp_path)[0]["image"].astype(int) - 99).max() <= 2


def test_images_are_cropped_in_the_centre_and_resized(tmp_path):
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200
    write(tmp_path / "wide.png", wide)
    assert (opened(tmp_path, resolution=10)[0]["image"] == 200).all()
    # At its own aspect nothing is cut, and a checkerboard is averaged, not sampled.
    board = np.indices((32, 32)).sum(0)[..., None].repeat(3, -1).astype(np.uint8) % 2 * 255
    write(tmp_path / "wide.png", board)
    assert np.abs(opened(tmp_path, resolution=8)[0]["image"][1:-1, 1:-1].astype(int) - 127).max() <= 3
    assert opened(tmp_path, resolution=(8, 16))[0]["image"].shape == (8, 16, 3)


@pytest.mark.parametrize("limit", [None, 0])
def test_how_many_images_are_cropped_or_resized_is_told(tmp_path, monkeypatch, limit):
    """Five photos of five sizes, of which one is turned by its EXIF note, also where they do not fit in memory."""
    if limit is not None:
        monkeypatch.setattr(folder, "MEMORY_LIMIT", limit)
    for name, (height, width) in {"a": (8, 16), "b": (24, 48), "c": (4, 8), "d": (30, 31)}.items():
        write(tmp_path / f"{name}.png", RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[274] = 6
    write(tmp_path / "e.jpg", RNG.integers(0, 256, (16, 8, 3), dtype=np.uint8), exif=turned)
    told = opened(tmp_path, resolution=(8, 16)).summary()
    assert told.endswith("; 1 of 5 images cropped in the centre and resized to 16x8, 2 of 5 images resized to 16x8")
    (tmp_path / "b.png").unlink(), (tmp_path / "c.png").unlink(), (tmp_path / "d.png").unlink()
    assert "resized" not in opened(tmp_path, resolution=(8, 16)).summary()


def test_exif_orientation_is_followed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by half
    array = write(tmp_path / "turned.png", exif=exif)
    assert (opened(tmp_path)[0]["image"] == array[::-1, ::-1]).all()


def test_grey_and_transparent_folders(tmp_path):
    write(tmp_path / "grey" / "a.png", mode="L")
    write(tmp_path / "clear" / "a.png", mode="RGBA")
    assert opened(tmp_path / "grey", channels=1)[0]["image"].shape == (8, 8, 1)
    assert opened(tmp_path / "clear", channels=4)[0]["image"].shape == (8, 8, 4)


def test_class_folders_give_labels_in_the_order_of_their_names(tmp_path):
    for name in ("dog/1.png", "cat/2.png", "cat/deep/3.png", "ant/4.png"):
        write(tmp_path / name)
    source = opened(tmp_path, num_classes=3)
    assert source.class_names == ("ant", "cat", "dog")
    assert source.arrays["label"].tolist() == [0, 1, 1, 2] and source.arrays["label"].dtype == np.int32
    with pytest.raises(UserError, match="set it to 3"):
        opened(tmp_path, num_classes=2)


def test_split_folders_and_classes_numbered_over_all_of_them(tmp_path):
    for name in ("train/ant/1.png", "train/bee/2.png", "train/cat/3.png", "test/bee/4.png", "test/cat/5.png"):
        write(tmp_path / name)
    test = opened(tmp_path, "test", num_classes=3)
    assert len(test) == 2 and test.arrays["label"].tolist() == [1, 2]
    with pytest.raises(UserError, match="train, test"):
        opened(tmp_path, "all")
    with pytest.raises(UserError, match="no split 'val'"):
        opened(tmp_path, "val")


def test_hashed_splits_are_a_partition_that_new_files_do_not_move(tmp_path):
    for index in range(60):
        write(tmp_path / f"{index}.png", size=2)
    before = {split: set(opened(tmp_path, split).files) for split in ("train", "test", "all")}
    assert before["train"] | before["test"] == before["all"] and not before["train"] & before["test"]
    assert 1 <= len(before["test"]) <= 15
    for index in range(60, 70):
        write(tmp_path / f"{index}.png", size=2)
    assert all(before[split] <= set(opened(tmp_path, split).files) for split in before)


def test_captions_from_a_table_or_from_notes(tmp_path):
    for place in ("table", "notes"):
        for name in ("a.png", "sub/b.png"):
            write(tmp_path / place / name)
    lines = [{"file": "sub/b.png", "caption": "a bee"}, {"file": "a.png", "caption": "an ant"}]
    (tmp_path / "table/captions.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    (tmp_path / "notes/a.txt").write_text("an ant\n")
    (tmp_path / "notes/sub/b.txt").write_text("a bee")
    for place in ("table", "notes"):
        assert opened(tmp_path / place).arrays["caption"].tolist() == ["an ant", "a bee"]
    (tmp_path / "notes/sub/b.txt").unlink()
    with pytest.raises(UserError, match=r"b\.png' has no caption"):
        opened(tmp_path / "notes")
    (tmp_path / "table/captions.jsonl").write_text(json.dumps(lines[0]) + '\n{"file": 3}')
    with pytest.raises(UserError, match="captions.jsonl, line 2: 'file' is 3, where a text is needed"):
        opened(tmp_path / "table")


def sixteen_bit(colour):
    values = RNG.integers(0, 65536, (8, 8), dtype=np.uint16)
    if not colour:
        return Image.fromarray(values)
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes(48) for _ in range(8))
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
    return data + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    "mode, message",
    [
        ("L", "is grey .*channels=1"),
        ("RGBA", "alpha.*channels=4"),
        ("LA", "grey with alpha"),
        ("1", "is grey"),
        ("16", "8-bit"),
        ("16rgb", "8-bit"),
        ("text", "cannot be read as an image"),
        ("empty", "cannot be read as an image"),
    ],
)
def test_one_wrong_file_among_good_ones_is_named(tmp_path, monkeypatch, mode, message, streamed):
    if streamed:
        monkeypatch.setattr(folder, "MEMORY_LIMIT", 0)
    for index in range(5):
        write(tmp_path / f"good{index}.png")
    wrong = tmp_path / "wrong.png"
    if mode == "16":
        sixteen_bit(colour=False).save(wrong)
    elif mode == "16rgb":
        wrong.write_bytes(sixteen_bit(colour=True))
    elif mode in ("text", "empty"):
        wrong.write_text("no image" if mode == "text" else "")
    else:
        write(wrong, mode=mode)
    with pytest.raises(UserError, match=f"wrong.png.*{message}"):
        opened(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_a_truncated_file_is_named(tmp_path, suffix):
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, {"jpg": "jpeg"}.get(suffix, suffix))
    (tmp_path / f"cut.{suffix}").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(UserError, match=f"cut.{suffix}"):
        opened(tmp_path)


def test_a_streamed_folder_gives_the_same_examples(tmp_path, monkeypatch):
    for index in range(4):
        write(tmp_path / "class" / f"{index}.png")
    held = opened(tmp_path)
    monkeypatch.setattr(folder, "MEMORY_LIMIT", 0)
    streamed = opened(tmp_path)
    assert streamed.arrays is None and held.arrays is not None
    for index in range(4):
        assert (streamed[index]["image"] == held[index]["image"]).all()
    assert (streamed.take([2, 0])["image"] == held.arrays["image"][[2, 0]]).all()


def test_a_file_damaged_during_training_is_named(tmp_path, monkeypatch):
    for index in range(4):
        write(tmp_path / f"{index}.png", size=64)
    monkeypatch.setattr(folder, "MEMORY_LIMIT", 0)
    loader = Loader({"": opened(tmp_path)}, 4, seed=0)
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:3000])
    with pytest.raises(UserError, match=r"2\.png' is damaged"):
        next(loader)


def test_folders_that_will_not_do(tmp_path):
    with pytest.raises(UserError, match="config.data.source=.*nowhere: there is no such file or folder"):
        opened(tmp_path / "nowhere")
    with pytest.raises(UserError, match="empty"):
        opened(tmp_path)
    write(tmp_path / "a.png")
    with pytest.raises(UserError, match="no labels"):
        opened(tmp_path, num_classes=2)
