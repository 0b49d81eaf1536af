"""Pictures with their partners: from folders of equal names, and from the halves of one picture."""

from __future__ import annotations

import os
import pickle
import unicodedata

import numpy as np
import pytest
from PIL import Image

from jaxgen.data import open_source
from jaxgen.data.folders import columns
from jaxgen.data.resolution import own_resolution
from jaxgen.data.sources import folder
from jaxgen.errors import UserError

RNG = np.random.default_rng(0)


def put(path, size=(8, 8), mode="RGB", array=None, **options):
    """Writes a picture of random pixels and returns them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    array = RNG.integers(0, 256, (*size, *channels), dtype=np.uint8) if array is None else array
    Image.fromarray(array).save(path, **options)
    return array


def cut(path):
    path.write_bytes(path.read_bytes()[:70])


def opened(top, split="train", choice="", channels=3, classes=0, resolution=8, **rename):
    return open_source(f"pairs:{top}{choice}", split, resolution, channels, classes, rename=rename)


@pytest.fixture
def photos(tmp_path):
    """Two splits, with grey conditions; `made` has the pixels."""
    names = ["train/{}/b.png", "train/{}/a.png", "train/{}/deep/c.png", "test/{}/d.png"]
    made = {name: (put(tmp_path / name.format("image")), put(tmp_path / name.format("condition"), mode="L"))
            for name in names}  # fmt: skip
    return tmp_path, made


@pytest.mark.parametrize("streamed", [False, True])
def test_pictures_of_one_name_are_one_example(photos, monkeypatch, streamed):
    top, made = photos
    monkeypatch.setattr(columns, "MEMORY_LIMIT", 0 if streamed else 1 << 30)
    source = opened(top)
    assert (source.arrays is None) == streamed and len(source) == 3
    assert source._inner.files == ("train/image/a.png", "train/image/b.png", "train/image/deep/c.png")
    rows = pickle.loads(pickle.dumps(source)).take([0, 1, 2])  # as reader processes need it
    for i, file in enumerate(source._inner.files):
        image, condition = made[file.replace("image", "{}")]
        assert (rows["image"][i] == image).all() and (rows["condition"][i, ..., 0] == condition).all()
    assert "3 examples; condition uint8 [8, 8, 1]" in source.summary()
    assert len(opened(top, "test")) == 1
    with pytest.raises(UserError, match="no split 'val'; it has test, train"):
        opened(top, "val")


def test_partners_may_differ_in_ending_and_size(tmp_path):
    put(tmp_path / "train/image/a.JPG", (40, 80), array=np.full((40, 80, 3), 60, np.uint8))
    put(tmp_path / "train/condition/a.webp", (20, 40), array=np.full((20, 40, 3), 200, np.uint8))
    name = unicodedata.normalize("NFD", "é")
    put(tmp_path / f"train/image/{name}.png")
    put(tmp_path / "train/condition/é.png")
    source = opened(tmp_path)
    assert len(source) == 2 and abs(int(source[0]["condition"].mean()) - 200) < 4


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("image", "there is no condition for the image B, and no image for the condition a, b; add"),
        ("condition", "there is no condition for the images a, b, and no image for the condition B; add"),
    ],
)
def test_a_picture_without_a_partner_is_named(photos, missing, told):
    top, _ = photos
    os.remove(top / f"train/{missing}/a.png")
    os.rename(top / f"train/{missing}/b.png", top / f"train/{missing}/B.png")
    with pytest.raises(UserError, match=f"split train: {told}"):
        opened(top)
    assert len(opened(top, "test")) == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: put(t / "train/image/a.webp"), "'train/image/a.png' and 'train/image/a.webp' have one name"),
        (lambda t: put(t / "train/image/a.png", mode="L"), "a.png' is grey where config.data.channels=3 wants RGB"),
        (lambda t: put(t / "train/condition/a.png", (8, 16), "L"), "a.png' has 16x8 pixels, and its image .* 8x8"),
        (lambda t: (t / "train/condition/a.png").write_bytes(b"GIF89a"), "condition/a.png' cannot be read"),
        (lambda t: cut(t / "train/condition/a.png"), r"condition/a\.png' is damaged"),
        (lambda t: put(t / "train/label/a.png"), "the folder 'label' beside 'image' cannot be an entry"),
        (lambda t: put(t / "train/a b/a.png"), "the folder 'a b' beside 'image' cannot be an entry"),
    ],
)
def test_what_does_not_belong_together_is_refused(photos, change, told):
    top, _ = photos
    change(top)
    with pytest.raises(UserError, match=told) as caught:
        opened(top)
    assert "\n" not in str(caught.value)


def test_a_colour_condition_among_grey_ones_is_named(photos):
    top, _ = photos
    put(top / "train/condition/b.png")
    with pytest.raises(
        UserError,
        match=r"b\.png' is RGB, and 'condition', by its first picture test/condition/d\.png, "
        "reads grey; convert it to grey",
    ):
        opened(top)


def test_stray_files_are_counted(photos):
    top, _ = photos
    put(top / "cover.png")
    put(top / "more/condition/x.png")
    (top / "train/image/a.xmp").write_text("x")
    os.mkfifo(top / "train/condition/pipe.png")
    (top / "train/image/.DS_Store").write_bytes(b"")
    told = opened(top).summary()
    assert "2 pictures that are in no folder of an entry passed over: cover.png, more/condition/x.png" in told
    assert "3 files passed over: 1 .xmp, 1 hidden, 1 pipe or device" in told


def test_captions_beside_the_images(photos):
    top, _ = photos
    for name in ("a", "b", "deep/c"):
        (top / f"train/image/{name}.txt").write_bytes("\ufeffa café\r\n".encode())
    assert opened(top).arrays["caption"].tolist() == ["a café"] * 3 and opened(top).captions[0] == "a café"
    os.remove(top / "train/image/a.txt")
    with pytest.raises(UserError, match="has no caption while others have"):
        opened(top)


def test_masks_hold_numbers_of_classes(tmp_path):
    classes = RNG.integers(0, 3, (8, 8), dtype=np.uint8)
    palette = Image.fromarray(classes).convert("P")
    palette.putdata(classes.ravel().tolist())
    palette.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    for split in ("train", "test"):
        put(tmp_path / f"{split}/image/a.png")
        (tmp_path / f"{split}/mask").mkdir()
        palette.save(tmp_path / f"{split}/mask/a.png")
    source = opened(tmp_path, classes=3)
    assert (source[0]["mask"] == classes).all() and source[0]["mask"].dtype == np.int32
    with pytest.raises(UserError, match=r"mask/a\.png' holds class 2, outside \[0, 2\)"):
        opened(tmp_path, classes=2)


def test_without_splits_a_pair_is_in_one_of_them(tmp_path):
    for i in range(40):
        put(tmp_path / f"image/{i}.png", (2, 2))
        put(tmp_path / f"condition/{i}.jpg", (2, 2))
    parts = [set(opened(tmp_path, split)._inner.files) for split in ("train", "test", "all")]
    assert parts[0] | parts[1] == parts[2] and not parts[0] & parts[1] and 0 < len(parts[1]) < 12
    assert "of 40 pairs, split by a hash of their names" in opened(tmp_path).summary()
    for i in range(1, 40):
        os.remove(tmp_path / f"image/{i}.png")
        os.remove(tmp_path / f"condition/{i}.jpg")
    empty = "test" if opened(tmp_path, "all")._inner.files == opened(tmp_path)._inner.files else "train"
    with pytest.raises(UserError, match=f"Split '{empty}' of .* is empty: its 1 pairs belong to other splits"):
        opened(tmp_path, empty)


def test_the_other_direction_has_the_other_channels(photos):
    top, made = photos
    source = opened(top, channels=1, image="condition", condition="image")
    image, condition = made["train/{}/a.png"]
    assert (source[0]["image"][..., 0] == condition).all() and (source[0]["condition"] == image).all()
    with pytest.raises(UserError, match="is grey where config.data.channels=3 wants RGB"):
        opened(top, channels=3, image="condition", condition="image")


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("half", ["left", "right"])
def test_halves_of_one_picture(tmp_path, monkeypatch, half, streamed):
    monkeypatch.setattr(folder, "MEMORY_LIMIT", 0 if streamed else 1 << 30)
    pixels = {name: put(tmp_path / name, (8, 16)) for name in ("train/1.png", "train/2.png", "val/3.png")}
    source = opened(tmp_path, choice=f":{half}")
    for i, name in enumerate(("train/1.png", "train/2.png")):
        left, right = pixels[name][:, :8], pixels[name][:, 8:]
        image, condition = (left, right) if half == "left" else (right, left)
        assert (source[i]["image"] == image).all() and (source.take([i])["condition"][0] == condition).all()
    other = {"left": "right", "right": "left"}[half]
    assert f"the {half} half is the image and the {other} one the condition, 8x8 pixels in 1.png" in source.summary()


def test_a_picture_that_is_no_pair_of_halves_is_named(tmp_path, monkeypatch):
    put(tmp_path / "train/1.png", (8, 16))
    put(tmp_path / "train/2.png", (8, 15))
    for limit in (0, 1 << 30):
        monkeypatch.setattr(folder, "MEMORY_LIMIT", limit)
        with pytest.raises(UserError, match=r"2\.png' is 15 pixels wide, which are no two halves"):
            opened(tmp_path, choice=":left")


def test_layouts_that_may_be_meant_otherwise(photos, tmp_path):
    top, _ = photos
    with pytest.raises(UserError, match="are no halves; write 'pairs:.*'"):
        opened(top, choice=":left")
    put(tmp_path / "halves/train/1.png", (8, 16))
    with pytest.raises(UserError, match="no folder 'image' .*'pairs:.*:left' or 'pairs:.*:right'"):
        opened(tmp_path / "halves")
    put(tmp_path / "lone/train/image/1.png")
    with pytest.raises(UserError, match="pictures in folders 'image' and none in one beside it"):
        opened(tmp_path / "lone")
    with pytest.raises(UserError, match="there is no such file or folder"):
        opened(tmp_path / "nowhere")


def test_a_side_of_zero_follows_from_the_one_picture(tmp_path):
    put(tmp_path / "wide.png", (40, 60))
    source = f"image:{tmp_path / 'wide.png'}"
    assert own_resolution(source, (0, 30)) == (20, 30) and own_resolution(source, (20, 0)) == (20, 30)
    assert own_resolution("image:wide.png", [0, 30], os.fspath(tmp_path)) == (20, 30)
    for given in (16, (0, "x"), (16, 24), (0, 0, 0)):
        assert own_resolution(source, given) == given  # the check of the config has a sentence for what is wrong
    for name, given, named in ((source, (0, 0), "the other is above 0"), ("digits", (0, 8), "has no size of its own")):
        with pytest.raises(UserError, match=named):
            own_resolution(name, given)


def test_one_picture_is_every_split(tmp_path):
    array = put(tmp_path / "cat.png", (12, 16))
    for split in ("train", "test", "whatever"):
        source = open_source(f"image:{tmp_path / 'cat.png'}", split, (12, 16), 3)
        assert len(source) == 1 and (source[0]["image"] == array).all() and not source.notes
    told = open_source(f"image:{tmp_path / 'cat.png'}", "train", (6, 8), 3).summary()
    assert told.endswith("1 example; 16x12 pixels, resized to 8x6")
    told = open_source(f"image:{tmp_path / 'cat.png'}", "train", 8, 3).summary()
    assert told.endswith("16x12 pixels, cropped in the centre and resized to 8x8")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda p: None, "there is no such file"),
        (lambda p: p.mkdir(), "is a folder; name a file"),
        (os.mkfifo, "pipe"),
        (lambda p: p.write_text("<svg"), "its content is SVG"),
        (lambda p: put(p, mode="L"), "is grey where config.data.channels=3"),
        (lambda p: put(p, save_all=True, append_images=[Image.new("RGB", (8, 8))]), "has 2 frames"),
    ],
)
def test_a_single_picture_that_will_not_do(tmp_path, make, told):
    make(tmp_path / "cat.png")
    with pytest.raises(UserError, match=told):
        open_source(f"image:{tmp_path / 'cat.png'}", "train", 8, 3)
