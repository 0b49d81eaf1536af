"""--input, --image, --mask, --hint and --strength: a user's pictures reach the model, or one sentence says why not."""

from __future__ import annotations

import functools
import io

import jax
import numpy as np
import pytest
import tiny
from etils import epath
from PIL import Image
from tiny_methods import ddpm_config, tiny_config

from jaxgen.command import modes
from jaxgen.config import section
from jaxgen.config.files import load_config
from jaxgen.data.images import decode_mask
from jaxgen.data.transforms import prepare, to_float
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.runs.setup import make_corruptions, make_method, open_split
from jaxgen.sampling.generator import Generator
from jaxgen.sampling.inputs import read_inputs
from jaxgen.sampling.restore import TrainedModel
from jaxgen.sampling.slots import Slot, slots_of


def hinted():
    """Reads a picture and a mask, that its data make of images."""
    config = tiny_config("Restorer")
    config.data.corruptions.condition = section(name="hole", form="centre", share=0.5)
    return config


def gan():
    return load_config(tiny.ROOT / "configs" / "cgan_digits.py")[0]


@functools.cache
def trained(make):
    """An untrained model in the place of a run's."""
    config = make()
    method = make_method(config)
    if make is gan:
        return TrainedModel(Generator(method, config), Model({}, {}), 0, 0)
    images = to_float(open_split(config, "train").take(range(8)))
    batch = prepare({"image": images["image"]}, jax.random.key(0), corruptions=make_corruptions(config))
    params, memory = method.init(jax.random.key(0), batch, 0, {}, {}, {})
    return TrainedModel(Generator(method, config), Model(params, memory), 0, 0, {"image": ((8, 8, 1), "uint8")})


@pytest.fixture
def sample(tmp_path, monkeypatch, capsys):
    """Samples from a model by the command line: returns the images, or the one sentence with nothing written."""

    def call(make, *words):
        monkeypatch.setattr(modes, "_trained", lambda config, flags: trained(make))
        out = tmp_path / "out"
        config = tiny.write_config(tmp_path / "config")
        status = tiny.call(f"--config={config}", f"--workdir={tmp_path}", "--mode=sample", f"--out={out}", *words)
        if status:
            assert status == 2 and not out.exists()
            return tiny.Result(status, *capsys.readouterr()).complaint
        return np.load(out / "samples.npz")["images"]

    return call


@pytest.fixture
def files(tmp_path):
    """Three grey pictures and masks of 8x8 pixels, and pictures of other kinds."""
    chance = np.random.default_rng(0)
    made = {f"{kind}/{name}.png": chance.integers(0, 256, (8, 8)) for kind in ("photos", "masks") for name in "abc"}
    made = {name: 255 * (x > 128) if name.startswith("masks") else x for name, x in made.items()}
    made |= {"wide.png": chance.integers(0, 256, (24, 32)), "colour.png": chance.integers(0, 256, (8, 8, 3))}
    for name, array in made.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(array.astype(np.uint8)).save(tmp_path / name)
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    (tmp_path / "empty").mkdir()
    Image.fromarray(np.full((8, 8), 100, np.uint8)).save(tmp_path / "black.png")
    np.save(tmp_path / "none.npy", np.zeros((0, 8, 8, 1), np.float32))
    np.save(tmp_path / "noise.npy", chance.normal(size=(3, 8, 8, 1)).astype(np.float32))
    np.save(tmp_path / "wide.npy", chance.normal(size=(3, 24, 32, 1)).astype(np.float32))
    (tmp_path / "broken.png").write_bytes((tmp_path / "wide.png").read_bytes()[:90])
    return tmp_path


def pixels(folder, kind):
    return np.stack([np.asarray(Image.open(folder / kind / f"{name}.png")) for name in "abc"])[..., None]


def test_a_folder_of_three_pictures_gives_three_named_outputs(sample, files):
    drawn = sample(ddpm_config, f"--image={files / 'photos'}", "--strength=0")
    np.testing.assert_array_equal(drawn, pixels(files, "photos"))
    assert sorted(p.name for p in (files / "out" / "images").iterdir()) == ["a.png", "b.png", "c.png"]
    np.testing.assert_array_equal(Image.open(files / "out" / "images" / "b.png"), drawn[1, ..., 0])
    beside = np.asarray(Image.open(files / "out" / "panel_inputs.png"))  # two cells of 48 pixels, input and output
    assert beside.shape == (3 * 49 + 1, 2 * 49 + 1)
    np.testing.assert_array_equal(beside[1:49:6, 1:49:6], drawn[0, ..., 0])
    np.testing.assert_array_equal(beside[1:49:6, 50:98:6], drawn[0, ..., 0])


@pytest.mark.slow
def test_full_strength_is_plain_sampling(sample, files):
    np.testing.assert_array_equal(
        sample(ddpm_config, f"--image={files / 'photos'}", "--strength=1"), sample(ddpm_config, "--num=3")
    )


def test_what_each_mask_keeps_is_off_by_no_level_and_images_do_not_see_their_neighbours(sample, files):
    words = [f"--image={files / 'photos'}", f"--mask={files / 'masks'}", "--num=4"]
    drawn, photos, masks = sample(ddpm_config, *words), pixels(files, "photos"), pixels(files, "masks")
    np.testing.assert_array_equal(np.where(masks == 255, 0, drawn[:3]), np.where(masks == 255, 0, photos))
    assert (drawn[:3] != photos)[masks == 255].mean() > 0.7
    assert {p.stem for p in (files / "out" / "images").iterdir()} == {"a_1", "b_1", "c_1", "a_2"}
    Image.fromarray(255 - photos[0, ..., 0]).save(files / "photos" / "a.png")
    other = sample(ddpm_config, *words)
    assert (other[0] != drawn[0]).any()
    np.testing.assert_array_equal(other[1:3], drawn[1:3])


def test_a_model_s_own_conditions_are_read_by_their_names(sample, files):
    """Restorer gives what is known back: a grey picture where its mask is black."""
    drawn = sample(hinted, f"--image={files / 'photos'}", f"--mask={files / 'masks'}")
    photos, known = pixels(files, "photos"), pixels(files, "masks") == 0
    np.testing.assert_array_equal(drawn[known], photos[known])
    for words in (["--input=condition=", "--input=mask="], ["--input=", "--input=mask="]):
        named = [f"{word}{files / kind}" for word, kind in zip(words, ("photos", "masks"), strict=True)]
        np.testing.assert_array_equal(sample(hinted, *named), drawn)


def test_a_clean_picture_becomes_what_the_model_reads_of_it(sample, files):
    """The hole is in the centre; panel_inputs.png has the picture, what is known of it, the mask and the output."""
    drawn, photos = sample(hinted, f"--image={files / 'photos'}", "--degrade"), pixels(files, "photos")
    known = np.ones((8, 8), bool)
    known[2:6, 2:6] = False
    np.testing.assert_array_equal(drawn[:, known], photos[:, known])
    assert (drawn[:, ~known] != photos[:, ~known]).mean() > 0.7
    beside = np.asarray(Image.open(files / "out" / "panel_inputs.png"))
    assert beside.shape == (3 * 49 + 1, 4 * 49 + 1)
    read, mask = (beside[1:49:6, 49 * i + 1 : 49 * i + 49 : 6] for i in (1, 2))
    np.testing.assert_array_equal(read, np.where(known, photos[0, ..., 0], 128))  # 0 of [-1, 1] is between two levels
    np.testing.assert_array_equal(mask, np.where(known, 0, 255))


def free_form():
    config = hinted()
    config.data.corruptions.condition = section(name="hole", form="free_form")
    return config


@pytest.mark.slow
def test_held_out_pictures_in_files_give_the_images_of_held_out_data(sample, files):
    """What is random in a corruption is drawn from the seed and the image's number in both."""
    for name, image in zip("abc", open_split(hinted(), "test").take(range(3))["image"], strict=True):
        Image.fromarray(image[..., 0]).save(files / "photos" / f"{name}.png")
    drawn = sample(free_form, f"--image={files / 'photos'}", "--degrade", "--seed=5")
    np.testing.assert_array_equal(drawn, sample(free_form, "--num=3", "--seed=5"))
    assert (drawn != sample(free_form, f"--image={files / 'photos'}", "--degrade", "--seed=6")).any()


@pytest.mark.nightly
def test_image_i_begins_with_row_i_of_the_noise(sample, files):
    noise = np.load(files / "noise.npy")
    drawn = sample(ddpm_config, f"--noise={files / 'noise.npy'}", "--num=3")
    assert (drawn[0] != drawn[1]).mean() > 0.7
    np.save(files / "turned.npy", noise[::-1].transpose(0, 3, 1, 2))  # in the layout of diffusers, with one channel
    turned = sample(ddpm_config, f"--noise={files / 'turned.npy'}", "--num=3", "--seed=9")
    np.testing.assert_array_equal(turned, drawn[::-1])
    edited = sample(ddpm_config, f"--image={files / 'photos'}", "--strength=1", f"--noise={files / 'noise.npy'}")
    np.testing.assert_array_equal(edited, drawn)


def test_what_is_cropped_and_what_is_only_resized_are_counted_apart(tmp_path, caplog):
    sizes = {"a": (8, 8), "b": (32, 24), "c": (16, 16), "d": (24, 24)}
    files = [epath.Path(tmp_path / f"{name}.png") for name in sizes]
    for file, size in zip(files, sizes.values(), strict=True):
        Image.new("L", size).save(file)
    with caplog.at_level("INFO"):
        read_inputs({"image": files}, {"image": Slot("image", (8, 8, 1))}, 4)
    said = "1 is cropped in the centre and resized to 8x8; 2 are resized to 8x8"
    assert caplog.messages == [f"image: 4 files, from a.png to d.png; {said}"]


def test_another_size_is_cropped_in_the_centre_and_resized(sample, files, caplog):
    with caplog.at_level("INFO"):
        drawn = sample(ddpm_config, f"--image={files / 'wide.png'}", "--strength=0")
    assert "image: wide.png; it is cropped in the centre and resized to 8x8" in caplog.messages
    wanted = Image.open(files / "wide.png").crop((4, 0, 28, 24)).resize((8, 8), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(drawn[0, ..., 0], wanted)


@pytest.mark.parametrize(
    ("make", "words", "said"),
    [
        (ddpm_config, ["--image={}/none.png"], "none.png: there is no such file"),
        (ddpm_config, ["--image={}/empty"], "is a folder without a picture"),
        (ddpm_config, ["--image={}/broken.png"], "broken.png is damaged"),
        (ddpm_config, ["--image={}/colour.png"], "colour.png is RGB, and this model reads grey; convert it to grey."),
        (ddpm_config, ["--image={}/wide.png", "--mask={}/masks/a.png"], "has 8x8 pixels, and the image 32x24"),
        (ddpm_config, ["--image={}/photos/a.png", "--mask={}/colour.png"], "colour.png is coloured"),
        (ddpm_config, ["--image={}/photos", "--mask={}/masks/a.png", "--mask={}/masks/b.png"], "--image 3, --mask 2"),
        (ddpm_config, ["--image={}/photos/a.png", "--mask={}/black.png"], "black.png is a mask without white"),
        (hinted, ["--image={}/photos/a.png", "--mask={}/black.png"], "nothing would be drawn; paint white"),
        (ddpm_config, ["--image={}/wide.png", "--strength=2"], "--strength=2 is no share from 0 to 1"),
        (ddpm_config, ["--image={}/wide.png", "--strength=nan"], "--strength=nan is no share"),
        (ddpm_config, ["--image={}/wide.png", "--strength=half"], "--strength=half is no number"),
        (ddpm_config, ["--strength=0.5"], "give --image"),
        (ddpm_config, ["--degrade"], "--degrade is for a clean picture: give --image"),
        (ddpm_config, ["--degrade", "--image={}/photos"], "this model reads nothing that its data make of images"),
        (hinted, ["--degrade", "--image={}/photos", "--mask={}/masks"], "from --image alone: leave mask out"),
        (hinted, ["--degrade", "--image={}/photos", "--strength=0.5"], "not for one that --degrade changes"),
        (ddpm_config, ["--noise={}/wide.npy"], "holds float32 (3, 24, 32, 1), but noise for these images is floats"),
        (ddpm_config, ["--noise={}/none.npy"], "none.npy holds noise for no image; make it for 64."),
        (ddpm_config, ["--degrade=5"], "--degrade=5: this flag is a switch and takes no value; see --help."),
        (ddpm_config, ["--noise={}/noise.npy", "--num=5"], "holds noise for 3 images, but 5 are asked for"),
        (gan, ["--noise={}/noise.npy"], "does not begin with noise of its images' shape, as only diffusion models do"),
        (ddpm_config, ["--negative_prompt=a circle"], "--negative_prompt was given, but this model is not conditional"),
        (ddpm_config, ["--mask={}/masks/a.png"], "give --image"),
        (ddpm_config, ["--hint={}/wide.png"], "--hint was given, but this model has no use for it: it"),
        (ddpm_config, ["--input=depth={}/wide.png"], "--input=depth was given, but this model has no use for it"),
        (ddpm_config, ["--input={}/wide.png", "--image={}/wide.png"], "give the same picture"),
        (gan, ["--image={}/wide.png"], "it reads no picture as a condition, only label"),
        (gan, ["--input=label={}/wide.png"], "not read from a picture; give --labels"),
        (hinted, ["--hint={}/wide.png"], "it reads condition and mask"),
        (hinted, ["--input=conditon={}/wide.png"], "did you mean 'condition'?"),
        (hinted, ["--image={}/wide.png", "--strength=0.5"], "reads the image as its condition"),
        (hinted, ["--image={}/wide.png", "--mask={}/masks/a.png"], "has 8x8 pixels, and the image 32x24"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_one_sentence_with_nothing_written(sample, files, make, words, said):
    assert said in sample(make, *(word.format(files) for word in words))


def test_an_image_does_not_take_the_place_of_its_input(sample, files):
    folder = files / "out" / "images"
    folder.mkdir(parents=True)
    before = (files / "photos" / "a.png").read_bytes()
    (folder / "a.png").write_bytes(before)
    with pytest.raises(AssertionError):  # the folder is there
        sample(ddpm_config, f"--image={folder / 'a.png'}")
    assert [p.name for p in (files / "out").iterdir()] == ["images"] and (folder / "a.png").read_bytes() == before


def encoded(image, **options):
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def test_a_mask_of_classes_is_its_indices_or_levels_and_is_not_mixed():
    classes = np.array([[0, 7, 2, 3]] * 4, np.uint8)
    palette = Image.fromarray(classes, "L").convert("P")
    palette.putdata(classes.ravel())
    palette.putpalette([200, 3, 9] * 8)
    for image in (Image.fromarray(classes), palette):
        np.testing.assert_array_equal(decode_mask(encoded(image), (4, 4), "m", classes=True), classes)
    larger = decode_mask(encoded(Image.fromarray(classes)), (6, 6), "m", classes=True)
    assert larger.dtype == np.int32 and set(larger.ravel()) == {0, 7, 2, 3}
    both = Image.fromarray(classes > 1)
    np.testing.assert_array_equal(decode_mask(encoded(both), (4, 4), "m", classes=True), classes > 1)
    np.testing.assert_array_equal(decode_mask(encoded(both), (4, 4), "m"), 255 * (classes > 1))
    np.testing.assert_array_equal(decode_mask(encoded(both.convert("RGBA")), (4, 4), "m"), 255 * (classes > 1))


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (Image.fromarray(np.full((4, 4), 900, np.uint16)), "more than 8 bits"),
        (Image.new("LA", (4, 4), (9, 100)), "partly transparent"),
        (Image.new("RGB", (4, 4), (9, 9, 10)), "coloured"),
    ],
)
def test_what_is_no_mask_is_refused(image, said):
    with pytest.raises(UserError, match=f"m.png .*{said}"):
        decode_mask(encoded(image), (4, 4), "m.png")


def test_a_mask_that_data_bring_holds_classes():
    made, example = trained(hinted), {"mask": ((8, 8), "int32"), "condition": ((4, 4, 3), "uint8")}
    assert slots_of(made)["mask"].kind == "mask" and slots_of(made)["condition"].shape == (8, 8, 1)
    plain = Generator(made.generator.method, tiny_config("Restorer"))
    assert slots_of(TrainedModel(plain, made.model, 0, 0, example)) == {
        "condition": Slot("condition", (4, 4, 3)), "mask": Slot("mask", (8, 8), "classes"),
    }  # fmt: skip


@pytest.mark.parametrize("mode", ["train", "evaluate"])
def test_other_modes_have_no_use_for_pictures(mode, tmp_path, capsys):
    assert tiny.call(f"--workdir={tmp_path}", f"--mode={mode}", "--image=a.png") == 2
    assert "--image has no use in" in capsys.readouterr().err
