"""Several draws under each condition stand side by side, at any size that the network takes; or it is said why not."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from PIL import Image
from tiny_methods import ddpm_config

from jaxgen import sizes
from jaxgen.command import modes
from jaxgen.config import section
from jaxgen.data.transforms import prepare, to_float
from jaxgen.editing.sized import at_size
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.networks.unet import UNet
from jaxgen.runs.setup import make_corruptions, make_method, open_split
from jaxgen.sampling.generator import Generator
from jaxgen.sampling.restore import TrainedModel

CELL, SCALE = 49, 6  # pixels of a cell of a picture of 8x8 images with its line, and of an image's pixel


def holes():
    config = ddpm_config(dropout=0.0)
    config.method.name = "palette"
    config.data.corruptions.condition = section(name="hole", form="centre", share=0.5)
    return config


def colours():
    """One task of two leaves nothing of the picture known; it is of RGB images."""
    config = ddpm_config(dropout=0.0, out_channels=3)
    config.method.name = "palette"
    config.data.update(source="shapes", channels=3)
    config.data.rename.object_mask = "mask"
    tasks = section(colour=section(name="grey"), hole=section(name="hole", form="centre"))
    config.data.corruptions.condition = section(name="one_of", tasks=tasks)
    return config


def plain():
    return ddpm_config(dropout=0.0)


@functools.cache
def trained(make):
    """A model that has not learned, whose every parameter has a say, in the place of a run's."""
    config = make()
    method = make_method(config)
    images = to_float(open_split(config, "train").take(range(4)))
    batch = prepare({"image": images["image"]}, jax.random.key(0), corruptions=make_corruptions(config))
    params, memory = jax.jit(lambda key: method.init(key, batch, 0, {}, {}, {}))(jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    random = np.random.default_rng(0)
    params = jax.tree.unflatten(tree, [x + 0.1 * random.normal(size=x.shape).astype(np.float32) for x in leaves])
    shape = (8, 8, config.data.channels)
    return TrainedModel(Generator(method, config, 2), Model(params, memory), 0, 0, {"image": (shape, "uint8")})


@pytest.fixture
def sample(tmp_path, monkeypatch, capsys):
    """Samples from a model by the command line: returns the images, or the one sentence with nothing written."""

    def call(make, *words):
        monkeypatch.setattr(modes, "_trained", lambda config, flags: trained(make))
        out, config = tmp_path / "out", tiny.write_config(tmp_path / "config")
        status = tiny.call(f"--config={config}", f"--workdir={tmp_path}", "--mode=sample", f"--out={out}", *words)
        if status:
            assert status == 2 and not out.exists()
            return tiny.Result(status, *capsys.readouterr()).complaint
        return np.load(out / "samples.npz")["images"]

    return call


def hole_of(height, width):
    mask = np.zeros((height, width), np.uint8)
    mask[2:6, 1:5] = 255
    return mask


@pytest.fixture
def files(tmp_path):
    """Two grey pictures and their masks, and pictures and masks of other kinds."""
    chance = np.random.default_rng(0)
    made = {name: chance.integers(0, 256, (8, 8)) for name in ("a.png", "b.png")}
    made |= {"mask.png": hole_of(8, 8), "white.png": np.full((8, 8), 255), "black.png": np.zeros((8, 8))}
    made |= {"large.png": chance.integers(0, 256, (12, 20)), "large_mask.png": hole_of(12, 20)}
    made |= {"colour.png": chance.integers(0, 256, (8, 8, 3))}
    for name, array in made.items():
        Image.fromarray(array.astype(np.uint8)).save(tmp_path / name)
    return tmp_path


def cells(path):
    """The images of a picture of lines, `[lines, columns, 8, 8, 3]`."""
    picture = np.asarray(Image.open(path).convert("RGB"))
    lines, columns = (picture.shape[0] - 1) // CELL, (picture.shape[1] - 1) // CELL
    framed = picture[1:, 1:].reshape(lines, CELL, columns, CELL, 3).swapaxes(1, 2)
    return framed[:, :, : CELL - 1 : SCALE, : CELL - 1 : SCALE]


@pytest.mark.nightly
def test_draws_of_a_picture_stand_beside_it_and_differ_in_the_hole_alone(sample, files):
    given = [f"--image={files / 'a.png'}", f"--mask={files / 'mask.png'}"]
    drawn = sample(holes, *given, "--num=1", "--draws=3")
    photo, hole = np.asarray(Image.open(files / "a.png"))[..., None], hole_of(8, 8) == 255
    assert len(drawn) == 3 and (drawn[:, ~hole] == photo[~hole]).all()
    assert all((drawn[i][hole] != drawn[j][hole]).mean() > 0.5 for i, j in ((0, 1), (0, 2), (1, 2)))
    assert {path.name for path in (files / "out" / "images").iterdir()} == {"a_1.png", "a_2.png", "a_3.png"}
    (line,) = cells(files / "out" / "panel_draws.png")
    shown = [photo, hole_of(8, 8)[..., None], *drawn]
    np.testing.assert_array_equal(line, np.stack([np.repeat(image, 3, axis=-1) for image in shown]))
    np.testing.assert_array_equal(sample(holes, *given, "--num=1")[0], drawn[0])  # the first is that of plain sampling


@pytest.mark.slow
def test_draws_of_held_out_data_have_the_truth_beside_them(sample, files):
    drawn = sample(holes, "--num=2", "--draws=2")
    truth = open_split(holes(), "test").take(range(2))["image"]
    found = cells(files / "out" / "panel_draws.png")
    hole = np.zeros((8, 8), bool)
    hole[2:6, 2:6] = True
    for i in range(2):  # what is read, the mask, two draws, the truth
        read, mask, first, second, last = found[i, ..., :1]
        np.testing.assert_array_equal(read, np.where(hole[..., None], 128, truth[i]))
        np.testing.assert_array_equal(mask[..., 0], np.where(hole, 255, 0))
        np.testing.assert_array_equal([first, second], drawn[[i, i + 2]])
        np.testing.assert_array_equal(last, truth[i])


@pytest.mark.slow
def test_a_picture_without_a_mask_is_drawn_as_a_whole_and_a_grey_one_has_equal_channels(sample, files, caplog):
    with caplog.at_level("INFO"):
        drawn = sample(colours, f"--image={files / 'a.png'}", "--num=1", "--draws=2")
    assert "no --mask: the whole image is drawn" in caplog.messages
    assert "image: a.png; grey, so that red, green and blue are equal" in caplog.messages
    photo = np.asarray(Image.open(files / "a.png"))[..., None]
    assert (drawn != photo).any(-1).mean() > 0.9
    (line,) = cells(files / "out" / "panel_draws.png")
    np.testing.assert_array_equal(line[0], np.repeat(photo, 3, axis=-1))
    assert (line[1] == 255).all()


@pytest.mark.slow
def test_a_picture_of_another_size_is_drawn_at_a_size_that_the_network_takes(sample, files):
    given = [f"--image={files / 'large.png'}", f"--mask={files / 'large_mask.png'}", "--num=1"]
    drawn = sample(holes, *given, "--size=12x20")
    photo, hole = np.asarray(Image.open(files / "large.png"))[..., None], hole_of(12, 20) == 255
    assert drawn.shape == (1, 12, 20, 1)
    np.testing.assert_array_equal(drawn[0][~hole], photo[~hole])
    assert (drawn[0][hole] != photo[hole]).mean() > 0.5
    assert sample(holes, *given).shape == (1, 8, 8, 1)


def test_a_network_keeps_its_weights_and_its_places_of_attention_at_another_size():
    network = UNet(out_channels=1, channels=8, channel_multipliers=(1, 2), blocks=1, attention_resolutions=(4,),
                   norm_groups=4)  # fmt: skip
    kept = network.levels_kept(8, 8)
    assert kept.attention_levels == (1,) and kept.levels_kept(32, 32) is kept

    def shapes(module, side):
        made = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, side, side, 1)), jnp.zeros(1))
        return jax.tree.map(jnp.shape, made)

    assert shapes(network, 8) == shapes(kept, 8) == shapes(kept, 16) != shapes(network, 16)


def test_the_learned_size_is_the_model_itself():
    assert at_size(trained(holes), (8, 8), 4) is trained(holes)


def test_a_size_that_the_network_does_not_take_names_the_nearest():
    deep = ddpm_config(channel_multipliers=(1, 1, 1))
    made = TrainedModel(Generator(make_method(deep), deep, 2), Model({}, {}), 0, 0)
    with pytest.raises(UserError, match="--size=18x8: this model's sides are multiples of 4 pixels; .* is 16x8"):
        at_size(made, (18, 8), 1)


@pytest.mark.parametrize(
    ("make", "words", "said"),
    [
        (plain, ["--draws=2"], "--draws is for a model that reads a condition, which this one does not: give --num."),
        (holes, ["--draws=0"], "--draws=0: give 1, or how many images are drawn under each condition."),
        (holes, ["--image={}/a.png"], "give --mask=<file> too, white where it is to be drawn; or --degrade"),
        (holes, ["--mask={}/mask.png"], "give --image=<file or folder> too."),
        (holes, ["--image={}/a.png", "--mask={}/black.png"], "black.png is a mask without white: nothing would be"),
        (holes, ["--image={}/a.png", "--mask={}/white.png"], "white.png is a mask without black: nothing of the image"),
        (holes, ["--image={}/a.png", "--mask={}/large_mask.png"], "the mask of image 0 has 20x12 pixels, and the"),
        (holes, ["--image={}/colour.png", "--mask={}/mask.png"], "colour.png is RGB, and this model reads grey"),
        (holes, ["--size=12"], "--size=12 is no size: give <height>x<width> in pixels, such as --size=96x128."),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_one_sentence_with_nothing_written(sample, files, make, words, said):
    assert said in sample(make, *(word.format(files) for word in words))


def test_a_size_that_needs_too_much_memory_is_told_before_it_is_drawn(sample, files, monkeypatch):
    monkeypatch.setattr(sizes, "memory_bytes", lambda: 1_000_000)
    told = sample(holes, f"--image={files / 'large.png'}", f"--mask={files / 'large_mask.png'}", "--size=256x256")
    assert "--size=256x256, 1 at a time, would take" in told and "give a smaller --size" in told


def test_pictures_and_draws_are_counted_out(sample, files):
    (files / "photos").mkdir()
    for name in ("a.png", "b.png"):
        (files / "photos" / name).write_bytes((files / name).read_bytes())
    told = sample(holes, f"--image={files / 'photos'}", f"--mask={files / 'mask.png'}", "--num=3", "--draws=2")
    assert "--draws=2 with --num=3: give --num as a multiple of the 2 files, so that each is drawn as often." in told
