"""`python -m jaxgen.metrics A B`: what it reads, what it says, what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from jaxgen.data import open_source
from jaxgen.errors import UserError
from jaxgen.metrics import command, sets
from jaxgen.metrics.distributions.frechet import frechet_distance
from jaxgen.metrics.networks.base import FeatureNetwork, Features
from jaxgen.metrics.networks.digits import Digits

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr("jaxgen.host.use_cpu_cores", lambda: None)
    monkeypatch.setattr("jaxgen.host.use_compilation_cache", lambda: None)


@pytest.fixture(scope="module", name="digits")
def _digits():
    return {split: open_source("digits", split, 8, 1).arrays["image"] for split in ("train", "test")}


def write(folder, images):
    for number, image in enumerate(images):
        path = folder / f"{'ab'[number % 2]}" / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(path)
    return folder


def call(capsys, *arguments):
    status = command.main([str(a) for a in arguments])
    said = capsys.readouterr()
    return status, said.out, said.err


def numbers(capsys, *arguments):
    status, out, err = call(capsys, *arguments)
    assert status == 0, err
    assert out.count("\n") == 1
    return json.loads(out)


def refused(capsys, *arguments):
    status, out, err = call(capsys, *arguments)
    assert status == 2 and out == "" and "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("jaxgen: ")]
    assert len(lines) == 1, err
    return lines[0]


def test_folders_archives_and_sources_are_one_set(tmp_path, digits, capsys):
    images = digits["train"][:60]
    write(tmp_path / "folder", images)
    for key, array in (("image", images), ("arr_0", images), ("samples", images[..., 0])):
        np.savez_compressed(tmp_path / f"{key}.npz", **{"label": np.zeros(60)}, **{key: array})
    np.savez(tmp_path / "images.npz", images=images)
    wanted = frechet_distance(Digits()(images).features, Digits()(digits["test"]).features)
    for name in ("folder", "image.npz", "arr_0.npz", "samples.npz", "images.npz"):
        arguments = (tmp_path / name, "digits/test", "--network=digits", "--metrics=frechet")
        found = numbers(capsys, *arguments)["frechet_digits"]
        assert found["value"] == pytest.approx(wanted, rel=1e-6), name
        assert (found["n"], found["reference"], found["digest"]) == (60, "digits/test (500)", Digits().digest)


def test_numbers_do_not_depend_on_the_batch(tmp_path, digits, capsys):
    arguments = (write(tmp_path, digits["train"][:45]), "digits/test", "--network=digits", "--recompute")
    first, second = (numbers(capsys, *arguments, f"--batch={size}") for size in (7, 100))
    assert list(first) == ["frechet_digits", "kid_digits", "precision_digits", "recall_digits"]
    for name, entry in first.items():
        assert entry["value"] == pytest.approx(second[name]["value"], rel=1e-6, abs=1e-6)


def test_the_reference_is_looked_at_once(tmp_path, digits, capsys, monkeypatch):
    folder = write(tmp_path / "a", digits["train"][:20])
    looks = []
    look = Digits.see
    monkeypatch.setattr(Digits, "see", lambda network, x, batch: looks.append(len(x)) or look(network, x, batch))
    arguments = (folder, "digits/test", "--network=digits", "--metrics=frechet,recall")
    first = numbers(capsys, *arguments)
    assert sum(looks) == 520
    assert numbers(capsys, *arguments) == first and sum(looks) == 540
    assert numbers(capsys, *arguments, "--recompute") == first and sum(looks) == 1060
    cached = next((sets.epath.Path(command.reference.folder())).iterdir())
    cached.write_bytes(cached.read_bytes()[:99])
    assert "damaged" in refused(capsys, *arguments)
    assert numbers(capsys, *arguments, "--recompute") == first


def test_a_floor_is_further_real_images(digits, capsys):
    found = numbers(capsys, "digits/train", "digits/test", "--network=digits", "--num=100", "--floor=digits/train",
                    "--metrics=frechet")["frechet_digits"]  # fmt: skip
    assert found["floor"] == found["value"] and (found["n"], found["floor_n"], found["reference_n"]) == (100, 100, 100)


def test_pairs_in_the_order_of_their_names(tmp_path, capsys):
    images = RNG.integers(0, 200, (9, 16, 16, 3), np.uint8)
    a, b = write(tmp_path / "a", images), write(tmp_path / "b", images + np.uint8(10))
    found = numbers(capsys, a, b, "--metrics=psnr,ssim,l1,l2", "--batch=4", f"--json={tmp_path / 'out.json'}")
    assert found == json.loads((tmp_path / "out.json").read_text())
    assert found["l1"]["value"] == pytest.approx(10) and found["l2"]["value"] == pytest.approx(10)
    assert found["psnr"]["value"] == pytest.approx(20 * np.log10(25.5)) and found["psnr"]["better"] == "higher"
    assert 0.8 < found["ssim"]["value"] < 1 and found["ssim"]["n"] == 9
    same = numbers(capsys, a, a, "--metrics=psnr,l2")
    assert same["psnr"]["value"] is None and "9 of 9 pairs are equal" in same["psnr"]["note"]
    assert same["l2"]["value"] == 0


def test_distances_of_pairs_in_features(digits, capsys, tmp_path):
    np.savez(tmp_path / "a.npz", images=digits["train"][:40])
    np.savez(tmp_path / "b.npz", images=digits["train"][40:80])
    found = numbers(capsys, tmp_path / "a.npz", tmp_path / "b.npz", "--metrics=feature_l2", "--network=digits")
    a, b = Digits()(digits["train"][:40]).features, Digits()(digits["train"][40:80]).features
    assert found["feature_l2"]["value"] == pytest.approx(np.linalg.norm(a - b, axis=1).mean(), rel=1e-6)
    assert found["feature_l2"]["network"] == "digits"


class Positions(FeatureNetwork):
    """The pixels themselves as spatial features."""

    name, digest, gives = "positions", "0", frozenset({"moments", "features", "maps"})

    def __call__(self, images, batch=100):
        return Features(images.reshape(len(images), -1).astype(np.float64))

    def maps(self, images, batch=100):
        return images.astype(np.float64)


def test_single_images_are_compared_by_their_positions(tmp_path, capsys):
    images = RNG.integers(0, 200, (4, 12, 12, 3), np.uint8)
    np.savez(tmp_path / "a.npz", images=images)
    np.savez(tmp_path / "b.npz", images=images[:, ::-1] + np.uint8(10))  # mirrored: the law of the pixels, moved by 10
    arguments = (tmp_path / "a.npz", tmp_path / "b.npz", "--metrics=sifid", f"--network={__name__}:Positions")
    found = numbers(capsys, *arguments, "--batch=3")["sifid"]
    assert found["value"] == pytest.approx(3 * 10**2, rel=1e-6) and found["network"] == "positions"


def test_spread_evenly_and_resized(tmp_path, digits, capsys):
    np.savez(tmp_path / "a.npz", images=digits["train"][:101])
    found = sets.open_set(str(tmp_path / "a.npz"), num=11)
    np.testing.assert_array_equal(np.concatenate(list(found.batches(4))), digits["train"][:101:10])
    large = write(tmp_path / "large", np.repeat(np.repeat(digits["train"][:30], 2, 1), 2, 2))
    assert sets.open_set(str(large)).shape == (16, 16, 1)
    entry = numbers(capsys, large, "digits/test", "--resolution=8", "--network=digits", "--metrics=frechet")
    assert entry["frechet_digits"]["n"] == 30
    assert sets.open_set("shapes/test", (16, 16), num=5).shape == (16, 16, 3)
    # a source without a size of its own takes that of the set beside it
    rows = np.repeat(digits["train"][:4], 3, -1)
    np.savez(tmp_path / "rgb.npz", arr_0=rows, arr_1=np.arange(4))
    assert "l1" in numbers(capsys, tmp_path / "rgb.npz", "shapes/test", "--num=4", "--metrics=l1")


class AnySize(FeatureNetwork):
    """Stands where Inception does: mean and standard deviation of the pixels, of any size."""

    name, resize, digest = "any", "whole", "0"

    def __call__(self, images, batch=100):
        flat = images.reshape(len(images), -1).astype(np.float64)
        return Features(np.stack([flat.mean(1), flat.std(1)], 1))

    def see_sizes(self, images, batch=100):
        return Features(np.concatenate([self(x[None]).features for x in images]))


def test_images_of_several_sizes(tmp_path, capsys):
    for number, side in enumerate((8, 9, 8, 12, 9)):
        Image.fromarray(RNG.integers(0, 256, (side, 8, 3), np.uint8)).save(tmp_path / f"{number}.png")
    found = sets.open_set(str(tmp_path))
    assert found.shape is None and [x.shape[0] for batch in found.batches(2) for x in batch] == [8, 9, 8, 12, 9]
    assert "differ in size" in refused(capsys, tmp_path, tmp_path, "--network=digits", "--metrics=frechet")
    assert "several sizes" in refused(capsys, tmp_path, tmp_path, "--metrics=psnr")

    own = f"--network={__name__}:AnySize"
    found = numbers(capsys, tmp_path, tmp_path, "--metrics=frechet", own)
    assert found["frechet_any"]["value"] == pytest.approx(0, abs=1e-6)


def test_turned_images_are_turned_and_keep_their_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter
    array = RNG.integers(0, 256, (8, 12, 3), np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png", exif=exif)
    found = sets.open_set(str(tmp_path))
    assert found.shape == (12, 8, 3)
    np.testing.assert_array_equal(next(found.batches(1))[0], np.rot90(array, -1))


def damaged(path, kind):
    grey = RNG.integers(0, 256, (8, 8), np.uint8)
    if kind == "text":
        path.write_text("no image")
    elif kind == "cut":
        Image.fromarray(RNG.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:-60])
    elif kind == "grey":
        Image.fromarray(grey).save(path)
    elif kind == "16":
        Image.fromarray(grey.astype(np.uint16) * 257).save(path)
    else:
        Image.fromarray(RNG.integers(0, 256, (8, 8, 4), np.uint8)).save(path)


WRONG = {
    "text": "cannot be read", "cut": "damaged", "grey": "is grey where --channels=3", "16": "8 bit", "alpha": "alpha",
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_one_wrong_file_is_named_and_nothing_is_written(tmp_path, capsys, kind):
    for name, count in (("good", 7), ("bad", 6)):
        write(tmp_path / name, RNG.integers(0, 256, (count, 8, 8, 3), np.uint8))
    damaged(tmp_path / "bad" / "b" / "wrong.png", kind)
    for pair in (("good", "bad"), ("bad", "good")):
        out = f"--json={tmp_path / 'out.json'}"
        said = refused(capsys, *(tmp_path / name for name in pair), "--metrics=l1", "--pairs=order", out)
        assert "wrong.png" in said and WRONG[kind] in said
    assert not (tmp_path / "out.json").exists()


def test_a_folder_of_grey_images_alone_is_fine(tmp_path):
    assert sets.open_set(str(write(tmp_path, RNG.integers(0, 256, (3, 8, 8, 1), np.uint8)))).shape == (8, 8, 1)


def test_archives_in_fortran_order_hold_the_same_images(tmp_path):
    images = RNG.integers(0, 256, (5, 8, 6, 3), np.uint8)
    np.savez(tmp_path / "a.npz", images=np.asfortranarray(images))
    assert (np.concatenate(list(sets.open_set(str(tmp_path / "a.npz")).batches(2))) == images).all()


def test_archives_that_hold_no_images(tmp_path):
    path = tmp_path / "a.npz"
    for arrays, word in (
        ({"mu": np.zeros(3)}, "has no array image"),
        ({"images": np.zeros((2, 8, 8, 3))}, "float64"),
        ({"images": np.zeros((2, 8, 8, 4), np.uint8)}, "4 channels"),
        ({"images": np.zeros((8, 8), np.uint8)}, "uint8"),
        ({"images": np.zeros((0, 8, 8, 3), np.uint8)}, "uint8"),
        ({"images": np.zeros((2, 3, 8, 8), np.uint8)}, r"is \[N, C, H, W\]; save images.transpose\(0, 2, 3, 1\)"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(UserError, match=rf"a\.npz.*{word}|{word}.*a\.npz"):
            sets.open_set(str(path))
    np.savez(path, images=RNG.integers(0, 256, (50, 8, 8, 3), np.uint8))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    with pytest.raises(UserError, match="cannot be read as an .npz archive"):
        list(sets.open_set(str(path)).batches(10))
    path.write_bytes(data[:500])
    with pytest.raises(UserError, match="cannot be read as an .npz archive"):
        sets.open_set(str(path))


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["nowhere", "digits/test"], "nowhere"),
        (["digits/test", "digits/tset"], "did you mean 'test'"),
        (["digits/test", "digits/test", "--metrics=fdi"], "did you mean 'fid'"),
        (["digits/test", "digits/test", "--metrics=,"], "empty"),
        (["digits/test", "digits/test", "--num=501"], "501"),
        (["digits/test", "digits/test", "--num=-1"], "--num"),
        (["digits/test", "digits/test", "--batch=0"], "--batch"),
        (["digits/test", "digits/test", "--resolution=8x8x8"], "--resolution"),
        (["digits/test", "digits/train", "--metrics=l1"], "in pairs"),
        (["digits/test", "digits/test", "--metrics=ssim"], "11x11"),
        (["digits/test", "digits/test", "--metrics=clip_score"], "captions"),
        (["digits/test", "digits/test", "--metrics=label_accuracy"], "--mode=evaluate"),
        (["digits/test", "digits/test", "--metrics=memorisation"], "--mode=evaluate"),
        (["digits/test", "digits/test", "--metrics=digits"], "--network='digits'"),
        (["digits/test", "digits/test", "--metrics=fid", "--network=digits"], "'frechet'"),
        (["digits/test", "digits/test", "--metrics=sifid", "--network=digits"], "spatial features"),
        (["digits/test", "digits/test", "--metrics=inception_score", "--network=clip"], "class probabilities"),
        (["digits/test", "digits/test", "--network=digitz"], "did you mean 'digits'"),
        (["digits/test", "digits/test", "--metrics=set_metric"], "'set_metric' is unknown; known are"),
        (["digits/test", "digits/test", "--network=fashion"], "'fashion' sees images of shape"),
        (["digits/test", "digits/test", "--network=digits", "--weights=x"], "takes no weights"),
        (["digits/test", "digits/test", "--weights=/nowhere.pth"], "nowhere.pth"),
        (["tfds:no_such_set/test", "digits/test"], "no_such_set"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(capsys, arguments, word):
    assert word in refused(capsys, *arguments)


class Words(FeatureNetwork):
    """Stands where CLIP does: images and texts that are alike are those of equal brightness."""

    name, digest = "clip", "0"

    def __init__(self, weights):
        pass

    def __call__(self, images, batch=64):
        light = images.mean(axis=(1, 2, 3)) / 255
        return Features(np.stack([light, 1 - light], 1))

    def embed_texts(self, texts, batch=64):
        return np.array([[1.0, 0.0] if text == "light" else [0.0, 1.0] for text in texts])


def test_captions_are_held_against_their_images(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("jaxgen.metrics.pairs.clip_score.Clip", Words)
    write(tmp_path, np.stack([np.full((8, 8, 3), v, np.uint8) for v in (255, 0, 255, 0)]))
    lines = [{"file": f"{'ab'[i % 2]}/{i:05d}.png", "caption": ("light", "dark")[i % 2]} for i in range(4)]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = numbers(capsys, tmp_path, tmp_path, "--metrics=clip_score", "--batch=3")["clip_score"]
    assert (found["value"], found["n"], found["network"]) == (pytest.approx(100), 4, "clip")
    lines[0]["caption"] = "dark"
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = numbers(capsys, tmp_path, tmp_path, "--metrics=clip_score", "--scale=2.5")["clip_score"]
    assert found["value"] == pytest.approx(2.5 * 3 / 4) and "2.5 max(cos, 0)" in found["note"]


def test_an_empty_folder(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    assert "no images" in refused(capsys, tmp_path / "empty", "digits/test")
    assert "neither a folder" in refused(capsys, tmp_path / "notes.txt", "digits/test")


def test_a_set_without_a_name_is_refused(tmp_path, digits, capsys):
    images = write(tmp_path / "a", digits["test"][:4])
    assert refused(capsys, "", images, "--metrics=l1").startswith("jaxgen: A is empty; name a folder")
    assert refused(capsys, images, " ", "--metrics=l1").startswith("jaxgen: B is empty; name a folder")


def test_numbers_do_not_replace_the_images_that_they_are_about(tmp_path, digits, capsys):
    path = tmp_path / "a.npz"
    np.savez(path, images=digits["test"][:4])
    before = path.read_bytes()
    link = tmp_path / "link.npz"
    link.symlink_to(path)
    for target in (path, link):
        told = refused(capsys, path, "digits/test", "--metrics=l1", f"--json={target}")
        assert "is one of the sets, and would replace it" in told
    assert path.read_bytes() == before


def test_a_folder_of_samples_is_compared_by_its_file(tmp_path, digits, capsys):
    write(tmp_path / "drawn", digits["test"][:4])
    np.savez(tmp_path / "drawn" / "samples.npz", image=digits["test"][:4])
    said = refused(capsys, tmp_path / "drawn", "digits/test", "--metrics=frechet", "--network=digits")
    assert "--mode=sample wrote" in said and "samples.npz" in said


def test_grey_and_colour_are_not_compared(tmp_path, capsys):
    write(tmp_path / "grey", RNG.integers(0, 255, (4, 8, 8, 1), np.uint8))
    write(tmp_path / "colour", RNG.integers(0, 255, (4, 8, 8, 3), np.uint8))
    said = refused(capsys, tmp_path / "grey", tmp_path / "colour", "--metrics=frechet", "--network=filters")
    assert "grey is grey and" in said and "is RGB" in said
