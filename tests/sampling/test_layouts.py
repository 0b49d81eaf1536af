"""--mask and --legend for models of layouts: what a user painted reaches the model, or one sentence says why not.

The model here paints class k as the level 20 k, and adds 20 levels where its optional picture is white.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from PIL import Image
from tiny_methods import Plain, tiny_config

from jaxgen.colours import class_colours
from jaxgen.command import modes
from jaxgen.methods.base import Model
from jaxgen.sampling.generator import Generator
from jaxgen.sampling.restore import TrainedModel

CLASSES = 5
LAYOUT = np.array([[0] * 8] * 4 + [[2] * 4 + [4] * 4] * 4)


@dataclasses.dataclass(frozen=True)
class Painter(Plain):
    conditions = ("mask",)
    optional = ("image",)
    limits = {"mask": CLASSES}

    def sample(self, model, keys, batch):
        levels = 20.0 * batch["mask"][..., None] / 127.5 - 1
        return levels + (batch["image"] + 1) * 20 / 255 if "image" in batch else levels + jnp.zeros(())


@pytest.fixture
def sample(tmp_path, monkeypatch, capsys):
    """Samples by the command line: returns the images, or the one sentence with nothing written."""
    config = tiny_config("Plain")
    example = {"image": ((8, 8, 1), "uint8"), "mask": ((8, 8), "int32")}
    trained = TrainedModel(Generator(Painter(), config), Model({}, {}), 0, 0, example)
    monkeypatch.setattr(modes, "_trained", lambda config, flags: trained)

    def call(*words):
        words = [word.format(tmp_path) for word in words]
        own = tiny.write_config(tmp_path / "config")
        status = tiny.call(f"--config={own}", f"--workdir={tmp_path}", "--mode=sample", f"--out={tmp_path}/out", *words)
        if status:
            assert status == 2 and not (tmp_path / "out").exists()
            return tiny.Result(status, *capsys.readouterr()).complaint
        return np.load(tmp_path / "out" / "samples.npz")["images"][..., 0]

    return call


@pytest.fixture(autouse=True)
def files(tmp_path):
    """A layout as numbers and as colours, a folder of two, legends, and a picture of another size."""
    colours = np.array([(9, 9, 200), (0, 0, 0), (128, 64, 128), (1, 2, 3), (250, 3, 1)], np.uint8)
    (tmp_path / "maps").mkdir()
    for path, array in {
        "numbers.png": LAYOUT, "painted.png": colours[LAYOUT], "high.png": LAYOUT + 1, "odd.png": colours[LAYOUT] // 2,
        "maps/a.png": LAYOUT, "maps/b.png": LAYOUT[::-1], "white.png": np.full((16, 8), 255),
    }.items():  # fmt: skip
        Image.fromarray(array.astype(np.uint8)).save(tmp_path / path)
    (tmp_path / "legend.txt").write_text("9,9,200 0 sky\n#804080 2 road\n#fa0301 4 car\n")
    (tmp_path / "beyond.txt").write_text("#804080 5 road\n")


def test_numbers_and_colours_of_one_layout_give_one_image(sample, tmp_path):
    drawn = sample("--mask={}/numbers.png", "--num=1")
    np.testing.assert_array_equal(drawn[0], 20 * LAYOUT)
    np.testing.assert_array_equal(sample("--mask={}/painted.png", "--legend={}/legend.txt", "--num=1"), drawn)
    np.testing.assert_array_equal(Image.open(tmp_path / "out" / "images" / "painted.png"), drawn[0])
    panel = np.asarray(Image.open(tmp_path / "out" / "panel_inputs.png"))[1:49:6, 1:49:6]
    np.testing.assert_array_equal(panel, class_colours(CLASSES)[LAYOUT])
    # the panel and its legend are a layout and a legend for the next call
    Image.fromarray(panel).save(tmp_path / "again.png")
    np.testing.assert_array_equal(sample("--mask={}/again.png", "--legend={}/out/legend.txt", "--num=1"), drawn)


def test_a_folder_of_layouts_and_a_picture_of_another_size(sample, tmp_path):
    drawn = sample("--mask={}/maps", "--image={}/white.png", "--num=2")
    np.testing.assert_array_equal(drawn[0], 20 * LAYOUT + 20)
    np.testing.assert_array_equal(drawn[1], drawn[0, ::-1])
    assert {path.stem for path in (tmp_path / "out" / "images").iterdir()} == {"a", "b"}
    sample("--mask={}/numbers.png", "--image={}/white.png", "--num=1")
    assert (tmp_path / "out" / "images" / "numbers.png").exists()  # named after the layout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--mask={}/painted.png"], "painted.png is coloured, and its classes are to be numbers: give --legend="),
        (["--mask={}/high.png"], "high.png has the number 5, and the classes of this model are 0 to 4"),
        (["--mask={}/odd.png", "--legend={}/legend.txt"], "does not know, such as #040464 in row 0, column 0"),
        (["--mask={}/painted.png", "--legend={}/beyond.txt"], "has class 5, and this model knows 0 to 4"),
        (["--mask={}/painted.png", "--legend={}/none.txt"], "none.txt"),
        (["--legend={}/legend.txt"], "give --mask=<file> too"),
        (["--image={}/white.png", "--legend={}/legend.txt"], "no such picture is given: give --mask=<file> too"),
        (["--hint={}/white.png"], "this model has no use for it: it reads mask and image"),
    ],
)
def test_what_cannot_be_read_is_refused(sample, words, said):
    assert said in sample(*words, "--num=1")
