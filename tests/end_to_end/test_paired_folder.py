"""A run on a messy folder of pairs, from the command line: trained, gone on with, scored, and given pictures."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tiny
from PIL import Image

RNG = np.random.default_rng(0)
CONFIG = """
from jaxgen.config import section
from tiny_methods import tiny_config


def get_config():
    config = tiny_config("Translator")
    config.data.update(source="pairs:photos", root="{top}", resolution=8, channels=3)
    config.data.update(flip=True, crop=1)
    config.optimizer.learning_rate = 0.03
    config.train.update(batch_size=8, total_images=1600, log_every_images=400)
    config.evaluate.update(num=2, batch_size=8)
    return config
"""


def red(grey):
    """What a picture stands for: its grey in red, and its negative in blue."""
    return np.stack([grey, np.zeros_like(grey), 255 - grey], axis=-1)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Pairs of several endings and sizes among other files, and a config."""
    top = tmp_path_factory.mktemp("pairs")
    for i in range(16):
        split, size = "train" if i < 12 else "test", 8 * (1 + i % 2)
        grey = np.kron(RNG.integers(0, 256, (8, 8), dtype=np.uint8), np.ones((size // 8, size // 8), np.uint8))
        for name, pixels, ending in (("image", red(grey), ".bmp"), ("condition", grey, (".png", ".tif")[i % 2])):
            (top / f"photos/{split}/{name}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(top / f"photos/{split}/{name}/{i}{ending}")
    (top / "photos/train/Thumbs.db").write_bytes(b"x")
    (top / "pairs.py").write_text(CONFIG.replace("{top}", str(top)))
    return top


@pytest.fixture(scope="module")
def run(place):
    assert tiny.call(f"--config={place / 'pairs.py'}", f"--workdir={place / 'run'}") == 0
    return place / "run"


@pytest.mark.slow
def test_it_learns_what_a_picture_stands_for_and_goes_on(place, run, tmp_path, caplog):
    before = json.loads((run / "metrics.json").read_text())["error"]["value"]
    shutil.copytree(run, tmp_path / "run")
    total = "--config.train.total_images=2400"
    assert tiny.call(f"--config={place / 'pairs.py'}", f"--workdir={tmp_path / 'run'}", total) == 0
    after = json.loads((tmp_path / "run/metrics.json").read_text())["error"]["value"]
    assert after < before < 0.2
    assert "split train: 12 examples; condition uint8 [8, 8, 1]; 1 file passed over: .db" in caplog.text
    assert "resuming at step 200" in caplog.text


@pytest.mark.slow
def test_a_user_s_picture_is_translated(run, tmp_path):
    grey = np.repeat(np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8), 2, axis=0).repeat(2, axis=1)
    Image.fromarray(grey).save(tmp_path / "mine.png")
    arguments = ["--mode=sample", f"--workdir={run}", "--trust=tiny_methods", f"--image={tmp_path / 'mine.png'}"]
    assert tiny.call(*arguments, "--num=1", f"--out={tmp_path / 'out'}") == 0
    drawn = np.load(tmp_path / "out/samples.npz")["images"][0].astype(int)
    assert np.abs(drawn - red(grey[::2, ::2]).astype(int)).mean() < 40


@pytest.mark.slow
def test_samples_are_of_held_out_pictures(place, run, tmp_path):
    arguments = ["--mode=sample", f"--workdir={run}", "--trust=tiny_methods"]
    assert tiny.call(*arguments, "--num=4", f"--out={tmp_path}") == 0
    drawn = np.load(tmp_path / "samples.npz")["images"].astype(int)
    files = [place / f"photos/test/image/{i}.bmp" for i in range(12, 16)]
    held = [np.asarray(Image.open(file).resize((8, 8))).astype(int) for file in files]
    assert np.abs(drawn - held).mean() < 40 < np.abs(drawn - held[::-1]).mean()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["--config.data.source=pairs:nowhere"], "nowhere: there is no such file or folder"),
        (["--config.data.source=pairs:photos:left"], "are no halves"),
        (["--config.data.rename.hint=condition"], "reads the entry 'condition' of a batch that has hint, image"),
        (["--config.data.eval_split=val"], "'pairs:photos' has no split 'val'; it has test, train"),
    ],
)
def test_a_mistake_is_a_sentence_before_anything_is_written(place, capsys, change, told):
    assert tiny.call(f"--config={place / 'pairs.py'}", f"--workdir={place / 'other'}", *change) == 2
    assert told in tiny.Result(2, *capsys.readouterr()).complaint
    assert not (place / "other").exists()
