"""`--mode=sample`: image i depends on the seed and on i, not on batches or devices."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import tiny
from PIL import Image

from jaxgen.report.images import grid


@pytest.fixture
def sample(tmp_path):
    """Samples of a finished run: the arrays of samples.npz."""
    count = 0

    def drawn(workdir, *arguments):
        nonlocal count
        count += 1
        out = tmp_path / str(count)
        assert tiny.call("--mode=sample", f"--workdir={workdir}", f"--out={out}", *arguments) == 0
        return dict(np.load(out / "samples.npz"))

    return drawn


def apart(a, b):
    """The greatest difference, in uint8 levels."""
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def test_files(trained, tmp_path):
    assert tiny.call("--mode=sample", f"--workdir={trained}", "--num=9", f"--out={tmp_path}") == 0
    assert {path.name for path in tmp_path.iterdir()} == {"samples.npz", "samples.png", "trajectory.gif"}
    arrays = np.load(tmp_path / "samples.npz")
    assert set(arrays) == {"images"}
    assert arrays["images"].dtype == np.uint8 and arrays["images"].shape == (9, 8, 8, 1)
    with Image.open(tmp_path / "samples.png") as picture:
        assert picture.size[0] * picture.size[1] >= 9 * 64


@pytest.mark.slow
def test_fewer_images_are_the_first_of_more(trained, sample):
    five, nine, again = (sample(trained, f"--num={num}", "--seed=3")["images"] for num in (5, 9, 9))
    np.testing.assert_array_equal(five, nine[:5])
    np.testing.assert_array_equal(nine, again)
    assert len({image.tobytes() for image in nine}) == 9
    assert apart(nine, sample(trained, "--num=9", "--seed=4")["images"]) > 20


@pytest.mark.nightly
def test_batch_size(config, trained, sample):
    whole = sample(trained, "--num=9", "--seed=3")["images"]
    noisy = ["--config.sampler.name=ddpm"]  # its steps' noise must not depend on the batch either
    of_noise = sample(trained, f"--config={config}", "--num=9", "--seed=3", *noisy)["images"]
    for size in (2, 5):
        arguments = [f"--config={config}", "--num=9", "--seed=3", f"--config.evaluate.batch_size={size}"]
        assert apart(sample(trained, *arguments)["images"], whole) <= 1
        assert apart(sample(trained, *arguments, *noisy)["images"], of_noise) <= 1


@pytest.mark.slow
def test_number_of_devices(trained, sample, tmp_path):
    here = sample(trained, "--num=9", "--seed=3")["images"]  # eight devices
    for devices in (1, 2):
        out = tmp_path / f"of_{devices}"
        command = ["--mode=sample", f"--workdir={trained}", "--num=9", "--seed=3", f"--out={out}"]
        assert tiny.spawn(*command, devices=devices).status == 0
        assert apart(np.load(out / "samples.npz")["images"], here) <= 1


def test_labels(labelled, sample):
    every = sample(labelled, "--num=12", "--seed=1")
    np.testing.assert_array_equal(every["labels"], [*range(10), 0, 1])
    chosen = sample(labelled, "--num=5", "--seed=1", "--labels=0,7")
    np.testing.assert_array_equal(chosen["labels"], [0, 7, 0, 7, 0])
    np.testing.assert_array_equal(chosen["images"][0], every["images"][0])  # the same key and the same label
    np.testing.assert_array_equal(sample(labelled, "--num=3", "--labels=3")["labels"], [3, 3, 3])


@pytest.mark.nightly
def test_runs_are_compared_at_equal_seeds(trained, labelled, sample, tmp_path):
    """The page has the images that `--mode=sample` draws of each run by that seed."""
    words = ["--mode=compare", f"--workdirs={trained},{labelled}", "--num=4", "--seed=3", f"--out={tmp_path}"]
    assert tiny.call(*words) == 0
    found = re.findall(r'<img src="data:image/png;base64,([^"]*)"', (tmp_path / "comparison.html").read_text())
    wanted = [grid(sample(run, "--num=4", "--seed=3")["images"]) for run in (trained, labelled)]
    for data, picture in zip(found, wanted, strict=True):
        with Image.open(io.BytesIO(base64.b64decode(data))) as shown:
            np.testing.assert_array_equal(np.asarray(shown.convert("RGB")), picture)


@pytest.mark.slow
def test_a_solver_that_needs_more_steps_is_one_sentence_on_several_devices(trained, tmp_path):
    ode = ["--config.sampler.name=ode", "--config.sampler.steps=1"]
    found = tiny.spawn("--mode=sample", f"--workdir={trained}", "--num=4", f"--out={tmp_path}", *ode, devices=2)
    assert found.status == 2 and "config.sampler.steps" in found.complaint and "4 of 4 images" in found.complaint
    assert not list(tmp_path.iterdir())
