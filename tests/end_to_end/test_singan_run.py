"""SinGAN from the command line: a picture of its own ratio, trained across its scales, resumed, measured and used."""

from __future__ import annotations

import json
import os

import jax
import numpy as np
import pytest
import tiny
from PIL import Image
from running import run

from jaxgen.config.files import load_config
from jaxgen.editing.single_image.__main__ import main as use
from jaxgen.runs.comparison import compare

LEAN = [
    *(f"--config.method.{name}.{key}={value}" for name in ("generator", "discriminator")
      for key, value in (("layers", 2), ("width", 3), ("least_width", 3))),
    "--config.method.coarsest=7", "--config.method.double_every=1", "--config.data.resolution=(0,16)",
    "--config.train.log_every_images=2", "--config.train.checkpoint_every_images=0", "--config.train.tensorboard=False",
    "--config.evaluate.num=4", "--config.evaluate.batch_size=4",
    "--config.evaluate.metrics=({'name': 'single_image_frechet', 'block': 4},)",
]  # fmt: skip


def train(place, name, *more):
    words = ["--config=configs/singan_image.py:2x4", f"--config.data.source=image:{place / 'wide.png'}", *LEAN]
    return tiny.call(*tiny.replaced(words, f"--workdir={place / name}", *more))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a picture, `wide.png`, and a run of it, `run`."""
    folder = tmp_path_factory.mktemp("singan")
    levels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(levels).save(folder / "wide.png")
    assert train(folder, "run") == 0
    return folder


@pytest.mark.slow
def test_a_run_that_is_stopped_within_a_scale_and_resumed_is_the_same_to_the_bit(place):
    for images in (2, 6, 8):  # within the first scale, and within the second
        assert train(place, "stopped", f"--config.train.total_images={images}") == 0
    found = compare(place / "run", place / "stopped")
    assert not found, found


@pytest.mark.slow
def test_it_is_measured_sampled_at_any_size_and_used(place, capsys):
    numbers = json.loads((place / "run/metrics.json").read_text())
    assert numbers["single_image_frechet_filters"]["noise"] > 0
    assert {"reconstruction_rmse", "reconstruction_rmse_0", "reconstruction_rmse_1"} <= set(numbers)
    assert (place / "run/samples/panel_starts.png").exists()
    words = [f"--workdir={place / 'run'}", "--mode=sample", "--num=3", "--size=9x30", f"--out={place / 'd'}"]
    assert tiny.call(*words) == 0
    assert np.load(place / "d/samples.npz")["images"].shape == (3, 9, 30, 3)
    given = [f"--workdir={place / 'run'}", f"--out={place / 'used'}"]
    assert use(["super_resolution", "--factor=2", *given]) == 0
    assert use(["style", f"--image={place / 'wide.png'}", *given]) == 0
    assert sorted(os.listdir(place / "used/images")) == ["picture_2x.png", "wide_scale_1.png"]


@pytest.mark.slow
def test_what_is_no_run_of_one_picture_is_refused(place, capsys):
    assert train(place, "early", "--config.train.total_images=3", "--config.evaluate.at_end=False") == 0
    capsys.readouterr()
    assert use(["samples", f"--workdir={place / 'early'}", f"--out={place / 'none'}"]) == 2
    assert "has begun 1 of the 2 scales" in capsys.readouterr().err
    assert train(place, "many", "--config.data.source=digits", "--config.data.resolution=8") == 2
    assert train(place, "small", "--config.data.resolution=(0,8)") == 2
    assert "too small for its scales" in capsys.readouterr().err
    assert not (place / "none").exists() and not (place / "small" / "checkpoints").exists()


@pytest.mark.slow
def test_one_and_eight_devices_learn_the_same(place, tmp_path):
    def trained(devices):
        config, _ = load_config(tiny.ROOT / "configs" / "singan_image.py", "2x16")
        net = {"layers": 2, "width": 3, "least_width": 3}
        config.method.generator.update(net)
        config.method.discriminator.update(net)
        config.method.update(coarsest=7, double_every=1)
        config.data.update(source=f"image:{place / 'wide.png'}", resolution=(12, 16))
        config.train.update(batch_size=8, total_images=32, checkpoint_every_images=0, tensorboard=False)
        config.mesh.data = devices
        config.optimizer.update(name="sgd", learning_rate=0.01)  # Adam makes steps of rounding where a slope is 0
        for key in {"b1", "b2"} & {*config.optimizer}:
            del config.optimizer[key]
        return run(config, tmp_path / str(devices)).params

    one, eight = trained(1), trained(8)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), one, eight)
