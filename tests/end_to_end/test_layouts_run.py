"""Layouts of a user's own data: a SPADE and a segmenter by the shipped configs, trained, evaluated, and sampled."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny
from PIL import Image

from jaxgen.colours import class_colours
from jaxgen.data.legend import legend_text

pytestmark = pytest.mark.slow
CLASSES = 12
COMMON = [
    "--config.data.resolution=(8,12)", "--config.train.batch_size=8", "--config.train.log_every_images=8",
    "--config.train.total_images=16", "--config.train.checkpoint_every_images=8", "--config.evaluate.num=8",
    "--config.train.sample_every_images=0", "--config.evaluate.batch_size=8", "--config.train.tensorboard=False",
]  # fmt: skip
SPADE = [
    "--config=configs/spade_camvid.py", "--config.method.generator.widths=(8,)", "--config.method.generator.hidden=4",
    "--config.method.discriminator.scales=1", "--config.method.discriminator.network.layers=1",
    "--config.method.discriminator.network.width=4", "--config.method.encoder.widths=(4,)",
]  # fmt: skip
SEGMENTER = [
    "--config=configs/segmenter_camvid.py", "--config.method.network.channels=8",
    "--config.method.network.channel_multipliers=(1,)", "--config.method.network.norm_groups=4",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An archive of noise with maps of classes, and a painted layout with its legend."""
    folder, chance, arrays = tmp_path_factory.mktemp("layouts"), np.random.default_rng(0), {}
    for split in ("train", "test"):
        arrays[f"{split}_images"] = chance.integers(0, 256, (16, 8, 12, 3), np.uint8)
        arrays[f"{split}_labels"] = chance.integers(0, CLASSES, (16, 8, 12), np.uint8)
    np.savez(folder / "data.npz", **arrays)
    Image.fromarray(class_colours(CLASSES)[arrays["test_labels"][0]]).save(folder / "map.png")
    Image.fromarray(arrays["test_images"][1]).save(folder / "style.png")
    (folder / "legend.txt").write_text(legend_text(class_colours(CLASSES)))
    return folder


def test_a_spade_of_a_users_layouts(folder):
    workdir, source = folder / "spade", f"--config.data.source=npz:{folder / 'data.npz'}"
    assert tiny.call(*SPADE, *COMMON, source, f"--workdir={workdir}") == 0
    numbers = json.loads((workdir / "metrics.json").read_text())
    assert numbers["conditional_diversity"]["value"] >= 0
    names = {path.name for path in (workdir / "samples").iterdir()}
    assert {"panel_layouts.png", "panel_interpolation.png", "panel_styles.png"} <= names

    def images(name, *words):
        out = folder / name
        common = [f"--workdir={workdir}", "--mode=sample", f"--mask={folder / 'map.png'}", "--num=2"]
        assert tiny.call(*common, f"--legend={folder / 'legend.txt'}", f"--out={out}", *words) == 0
        assert {path.stem for path in (out / "images").iterdir()} == {"map_1", "map_2"}
        return np.load(out / "samples.npz")["images"]

    drawn = images("drawn")
    assert drawn.shape == (2, 8, 12, 3)
    styled = images("styled", f"--image={folder / 'style.png'}")
    np.testing.assert_array_equal(styled[0], styled[1])


@pytest.mark.nightly
def test_a_segmenter_of_a_users_pictures(folder):
    workdir, source = folder / "segmenter", f"--config.data.source=npz:{folder / 'data.npz'}"
    assert tiny.call(*SEGMENTER, *COMMON, source, f"--workdir={workdir}") == 0
    numbers = json.loads((workdir / "metrics.json").read_text())
    assert 0 <= numbers["mean_iou"]["value"] <= 1 and 0 <= numbers["accuracy"]["value"] <= 1
    out = folder / "masks"
    words = ["--mode=sample", f"--image={folder / 'style.png'}", "--num=1", f"--out={out}"]
    assert tiny.call(f"--workdir={workdir}", *words) == 0
    assert np.asarray(Image.open(out / "masks" / "style.png")).max() < CLASSES - 1


def test_a_class_that_the_data_have_and_the_model_has_not_is_one_sentence(folder, capsys):
    words = [*SPADE, *COMMON, f"--config.data.source=npz:{folder / 'data.npz'}", "--config.method.generator.classes=5"]
    assert tiny.call(*words, "--config.method.discriminator.network.classes=5", f"--workdir={folder / 'none'}") == 2
    said = capsys.readouterr().err
    assert "mask" in said and "[0, 5)" in said and "Traceback" not in said
    assert not (folder / "none").exists()
