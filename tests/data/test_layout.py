"""How a folder of images is understood: classes or splits, what is passed over, and what is told about it."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image

from jaxgen.data import open_source
from jaxgen.data.folders.listing import walk
from jaxgen.data.sources import folder
from jaxgen.errors import UserError
from jaxgen.metrics.sets import open_set


def put(top, *names, **options):
    """A flat image of its own colour for each name; returns the colours."""
    colours = []
    for name in names:
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        colours.append(sum(name.encode()) % 251)
        array = np.full((8, 8, 3), colours[-1], np.uint8)
        Image.fromarray(array).save(path, {".jfif": "JPEG", ".jpe": "JPEG"}.get(path.suffix), **options)
    return colours


def opened(top, split="all", num_classes=0, channels=3, choice=""):
    return open_source(f"folder:{top}{choice}", split, 8, channels, num_classes)


def colours(source):
    return source.arrays["image"][:, 0, 0, 0].tolist()


@pytest.mark.parametrize("word", ["train", "test", "val", "validation", "Train", "training", "dev"])
@pytest.mark.parametrize("split", ["all", "train", "test"])
def test_a_class_folder_named_like_a_split_is_two_readings(tmp_path, word, split):
    put(tmp_path, "bus/1.png", "car/2.png", f"{word}/3.png")
    with pytest.raises(UserError) as caught:
        opened(tmp_path, split)
    told = str(caught.value)
    assert f"named like splits ({word}) beside bus, car" in told and "as 3 classes" in told and "\n" not in told
    assert f"'folder:{tmp_path}:classes'" in told and f"'folder:{tmp_path}:splits'" in told


def test_either_reading_can_be_chosen(tmp_path):
    bus, car, train = put(tmp_path, "bus/1.png", "car/2.png", "train/3.png")
    classes = opened(tmp_path, "all", 3, choice=":classes")
    assert classes.class_names == ("bus", "car", "train") and classes.arrays["label"].tolist() == [0, 1, 2]
    assert colours(classes) == [bus, car, train]
    splits = opened(tmp_path, "train", choice=":splits")
    assert colours(splits) == [train] and colours(opened(tmp_path, "car", choice=":splits")) == [car]
    with pytest.raises(UserError, match="no split 'all'.*bus, car, train"):
        opened(tmp_path, "all", choice=":splits")


def test_a_folder_whose_own_name_ends_like_a_choice_is_found(tmp_path):
    put(tmp_path / "photos:classes", "a/1.png")
    assert opened(tmp_path / "photos:classes").class_names == ("a",)


def test_a_split_that_is_named_beside_folders_that_are_none(tmp_path):
    put(tmp_path, "bus/1.png", "car/2.png")
    with pytest.raises(UserError, match=r"named like splits \(bus\) beside car"):
        opened(tmp_path, "bus")


def test_splits_below_class_folders_are_not_mixed(tmp_path):
    put(tmp_path, "cat/train/1.png", "cat/test/2.png", "dog/train/3.png")
    with pytest.raises(UserError, match=r"within its folders \(cat/test/2.png and 2 more\).*:classes'"):
        opened(tmp_path)
    assert len(opened(tmp_path, choice=":classes")) == 3


def test_images_above_class_folders_are_told_and_refused_where_labels_are_asked_for(tmp_path):
    put(tmp_path, "a.png", "cat/1.png", "dog/2.png")
    source = opened(tmp_path)
    assert len(source) == 3 and "label" not in source[0]
    assert "no classes, since a.png is above the folders cat, dog" in source.summary()
    with pytest.raises(UserError, match="num_classes is 2, but .* since a.png is above the folders cat, dog; move"):
        opened(tmp_path, num_classes=2)
    with pytest.raises(UserError, match="in no class folder, a.png"):
        opened(tmp_path, choice=":classes")


def test_images_above_one_splits_classes_are_told(tmp_path):
    put(tmp_path, "train/cat/1.png", "train/dog/2.png", "val/3.png", "stray.png")
    source = opened(tmp_path, "train")
    assert "no classes, since val/3.png is above the folders cat, dog" in source.summary()
    assert "1 above the folders of the splits passed over: stray.png" in source.summary()


def test_the_summary_says_what_was_found(tmp_path):
    put(tmp_path, "bus/1.png", "car/2.png", "car/3.png")
    for name in ("x.heic", "bus/y.HEIC", "z.svg"):
        (tmp_path / name).write_bytes(b"no matter what")
    (tmp_path / ".DS_Store").write_bytes(b"")
    told = opened(tmp_path).summary()
    assert told == (
        f"folder:{tmp_path}, split all: 3 examples in 2 classes: bus, car; 4 files passed over: 2 .heic, 1 .svg, "
        "1 hidden"
    )


@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".jfif", ".jpe", ".avif", ".gif", ".ppm", ".bmp"])
def test_every_format_of_the_imaging_library_that_is_meant_is_read(tmp_path, suffix):
    (wanted,) = put(tmp_path, f"a{suffix}")
    source = opened(tmp_path)
    assert abs(colours(source)[0] - wanted) <= 2 and source.notes == ()
    assert open_set(os.fspath(tmp_path)).count == 1


def test_an_empty_set_names_the_endings_found(tmp_path):
    for name in ("a.heic", "b.heic", "c.raw"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=r"is empty: there are no images .*; 3 files passed over: 2 \.heic, 1 \.raw"):
        opened(tmp_path)
    with pytest.raises(UserError, match=r"no images .*; 3 files passed over: 2 \.heic, 1 \.raw"):
        open_set(os.fspath(tmp_path))
    for name in ("a.heic", "b.heic", "c.raw"):
        (tmp_path / name).unlink()
    put(tmp_path, "0.png")
    with pytest.raises(UserError, match="Split 'test' .* is empty: all 1 images of the folder belong to other splits"):
        opened(tmp_path, "test")


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_animations_are_passed_over_and_counted(tmp_path, monkeypatch, suffix, streamed):
    if streamed:
        monkeypatch.setattr(folder, "MEMORY_LIMIT", 0)
    put(tmp_path, "cat/a.png", "dog/c.png")
    more = [Image.fromarray(np.full((8, 8, 3), 200, np.uint8))]
    put(tmp_path, f"cat/b{suffix}", save_all=True, append_images=more)
    source = opened(tmp_path)
    assert source.files == ("cat/a.png", "dog/c.png") and source.take([0, 1])["label"].tolist() == [0, 1]
    assert f"1 file passed over: with several frames (cat/b{suffix})" in source.notes
    with pytest.raises(UserError, match=rf"b{suffix}' has 2 frames"):
        open_set(os.fspath(tmp_path))


def test_palettes_are_read_exactly(tmp_path):
    colour = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).quantize(9)
    wanted = np.array(colour.getpalette()).reshape(-1, 3)[np.asarray(colour)]
    colour.save(tmp_path / "a.png")
    colour.save(tmp_path / "b.gif")
    for image in opened(tmp_path).arrays["image"]:
        assert (image == wanted).all()
    for batch in open_set(os.fspath(tmp_path)).batches(2):
        assert (batch == wanted).all()
    with pytest.raises(UserError, match=r"a\.png' is RGB where config.data.channels=1"):
        opened(tmp_path, channels=1)


def test_grey_palettes_and_black_and_white_are_grey(tmp_path):
    levels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
    Image.fromarray(levels).save(tmp_path / "a.gif")
    Image.fromarray(levels > 100).save(tmp_path / "b.png")
    images = opened(tmp_path, channels=1).arrays["image"][..., 0]
    assert (images[0] == levels).all() and (images[1] == (levels > 100) * 255).all()
    assert open_set(os.fspath(tmp_path)).channels == 1


@pytest.mark.parametrize("name", ["key.png", "palette.png"])
def test_transparent_colours_are_not_dropped(tmp_path, name):
    image = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    (image if name == "key.png" else image.quantize(8)).save(
        tmp_path / name, transparency=(0, 1, 2) if name == "key.png" else 0
    )
    with pytest.raises(UserError, match=f"{name}' is .* where config.data.channels=3 wants RGB; .*channels=4"):
        opened(tmp_path)
    with pytest.raises(UserError, match=f"{name}' has an alpha channel"):
        open_set(os.fspath(tmp_path))


def test_deep_and_shallow_files_of_colour(tmp_path):
    (tmp_path / "deep.ppm").write_bytes(b"P6 2 2 65535\n" + bytes(24))
    with pytest.raises(UserError, match="deep.ppm' has more than 8 bits"):
        opened(tmp_path)
    (tmp_path / "deep.ppm").write_bytes(b"P6 2 2 255\n" + bytes(12))
    assert opened(tmp_path).arrays["image"].max() == 0


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".avif"])
def test_metrics_see_the_size_of_turned_images(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(np.zeros((4, 8, 3), np.uint8)).save(tmp_path / f"a{suffix}", exif=exif)
    found = open_set(os.fspath(tmp_path))
    assert found.shape == (8, 4, 3) and next(found.batches(1)).shape == (1, 8, 4, 3)


def test_a_folder_is_walked_once_whatever_its_links_hold(tmp_path):
    put(tmp_path / "photos", "b/1.png", "c/2.png")
    put(tmp_path / "outside", "3.png")
    (tmp_path / "photos/a").symlink_to("b")  # sorts before what it leads to
    (tmp_path / "photos/b/up").symlink_to("..")
    (tmp_path / "photos/d").symlink_to("../outside")
    (tmp_path / "photos/b/self.png").symlink_to("self.png")
    (tmp_path / "photos/b/gone.png").symlink_to("nowhere.png")
    source = opened(tmp_path / "photos", num_classes=3)
    assert source.files == ("b/1.png", "c/2.png", "d/3.png") and source.class_names == ("b", "c", "d")
    assert "4 files passed over: 2 broken links (b/gone.png), 2 links to folders that are read (a)" in source.notes


def test_pipes_and_devices_among_images_are_counted(tmp_path):
    put(tmp_path, "a.png")
    os.mkfifo(tmp_path / "b.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    source = opened(tmp_path)
    assert source.files == ("a.png",) and source.notes == ("2 files passed over: pipes or devices (b.png)",)
    assert open_set(os.fspath(tmp_path)).count == 1


def test_names_that_are_no_text_are_read(tmp_path):
    put(tmp_path, "a.png")
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff.png")
    assert len(opened(tmp_path)) == 1 and len(walk(opened(tmp_path).base).images) == 1
    with pytest.raises(UserError, match="is empty"):  # its hash is one of the other split
        opened(tmp_path, "train")


def test_captions_beside_split_folders_are_read(tmp_path):
    put(tmp_path, "train/a.png", "test/b.png")
    lines = [{"file": "train/a.png", "caption": "an ant"}, {"file": "test/b.png", "caption": "a bee"}]
    table = tmp_path / "captions.jsonl"
    table.write_text("\n".join(map(json.dumps, lines)))
    assert opened(tmp_path, "train").arrays["caption"].tolist() == ["an ant"]
    assert opened(tmp_path, "test").arrays["caption"].tolist() == ["a bee"]
    (tmp_path / "train/captions.jsonl").write_text(json.dumps({"file": "a.png", "caption": "another"}))
    with pytest.raises(UserError, match="two tables of captions"):
        opened(tmp_path, "train")
    table.unlink()
    assert opened(tmp_path, "train").arrays["caption"].tolist() == ["another"]


@pytest.mark.parametrize(
    "lines, message",
    [
        ([("a.png", "x"), ("a.png", "y")], "Line 2 .*gives a.png a second caption"),
        ([("pics/a.png", "x")], "names no image of its folder: it has pics/a.png, .*such as a.png"),
        ([("a.png", "")], "a.png' has no caption while others have|has no caption"),
    ],
)
def test_tables_that_do_not_fit(tmp_path, lines, message):
    put(tmp_path, "a.png", "b.png")
    (tmp_path / "captions.jsonl").write_text("\n".join(json.dumps({"file": f, "caption": c}) for f, c in lines))
    with pytest.raises(UserError, match=message):
        opened(tmp_path)


def test_captions_of_images_that_are_not_there_are_told(tmp_path):
    put(tmp_path, "a.png")
    lines = [{"file": "a.png", "caption": "an ant"}, {"file": "gone.png", "caption": "nothing"}]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert opened(tmp_path).notes == ("1 captions name no image: gone.png",)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_of_macos_meet_their_captions(tmp_path, form):
    import unicodedata

    put(tmp_path, unicodedata.normalize(form, "é.png"))
    (tmp_path / "captions.jsonl").write_text(json.dumps({"file": "é.png", "caption": "an e"}))
    assert opened(tmp_path).arrays["caption"].tolist() == ["an e"]


MARK = "\ufeff".encode()


def test_captions_of_windows_editors(tmp_path):
    put(tmp_path, "a.png", "b.png")
    (tmp_path / "a.txt").write_bytes(MARK + "a caf\u00e9\r\n".encode())
    (tmp_path / "b.txt").write_bytes("line\u2028two".encode())
    assert opened(tmp_path).arrays["caption"].tolist() == ["a café", "line\u2028two"]
    (tmp_path / "b.txt").write_bytes("caf\u00e9".encode("latin-1"))
    with pytest.raises(UserError, match=r"b\.txt is not text in UTF-8: byte 3 .*save it as UTF-8"):
        opened(tmp_path)


def test_tables_of_windows_editors(tmp_path):
    put(tmp_path, "a.png", "b.png")
    lines = [{"file": "a.png", "caption": "one\u2028line"}, {"file": "b.png", "caption": "b"}]
    text = "\r\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\r\n"
    (tmp_path / "captions.jsonl").write_bytes(MARK + text.encode())
    assert opened(tmp_path).arrays["caption"].tolist() == ["one\u2028line", "b"]
    (tmp_path / "captions.jsonl").write_bytes(text.encode("utf-16"))
    with pytest.raises(UserError, match=r"captions.jsonl is not text in UTF-8: .*UTF-16"):
        opened(tmp_path)


def test_a_picture_past_the_limit_of_pixels_is_one_sentence(tmp_path, monkeypatch):
    put(tmp_path, "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8)
    with pytest.raises(UserError, match=r"a\.png' has too many pixels"):
        opened(tmp_path)
    with pytest.raises(UserError, match=r"a\.png' has too many pixels"):
        open_set(os.fspath(tmp_path))


def test_a_set_of_metrics_says_that_it_mixes_splits(tmp_path):
    put(tmp_path, "train/a.png", "test/b.png")
    found = open_set(os.fspath(tmp_path))
    assert found.count == 2
    assert found.notes == ("those of the folders test, train among them; name one of these for a split",)
    assert open_set(os.fspath(tmp_path / "train")).notes == ()


def test_a_split_by_hash_says_how_many_of_all_it_has(tmp_path):
    put(tmp_path, *(f"{i}.png" for i in range(30)))
    train = opened(tmp_path, "train")
    assert train.notes == (f"{len(train)} of 30 images, split by a hash of their names",) and 20 < len(train) < 30
    with pytest.raises(UserError, match="has no labels"):
        opened(tmp_path, "train", num_classes=2)
    np.savez(tmp_path / "a.npz", images=np.full((30, 8, 8), 255, np.uint8))
    held = open_source(f"npz:{tmp_path / 'a.npz'}", "test", 8, 1)
    assert held.notes == (f"{len(held)} of 30 images, split by a hash of their numbers",) and 0 < len(held) < 10
