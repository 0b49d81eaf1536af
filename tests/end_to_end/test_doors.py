"""Every door: its run is killed, stopped and resumed to the same bits, and sampled with a user's pictures, on one
device and on eight."""

from __future__ import annotations

import functools
import pathlib
import signal

import numpy as np
import pytest
import running
import tiny
from ml_collections import ConfigDict
from tiny_doors import DOORS, IMAGES, prepared

from jaxgen.runs import comparison

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """`run(door, devices)`: the config, a folder with the pictures, and the state at the end of a whole run in it."""

    @functools.cache
    def made(door: str) -> tuple[ConfigDict, pathlib.Path]:
        folder = tmp_path_factory.mktemp(door)
        return prepared(door, folder), folder

    @functools.cache
    def trained(door: str, devices: int):
        config, folder = made(door)
        config = ConfigDict(config.to_dict(), type_safe=False)
        config.mesh.data = devices
        return config, folder, running.run(config, folder / f"run_{devices}")

    return trained


# Each end costs the tracing of two more runs, and a kill a start of Python too: one half of the doors are killed, the
# other half are stopped, and the first is both, on a mesh and on one device.
ENDS = [("corruption", 1, "killed"), ("corruption", 8, "stopped")]
ENDS += [(name, 8, "stopped" if number % 2 else "killed") for number, name in enumerate(DOORS)]
# these take longest to compile, and have the layers and losses of others
LONG = ("pretrained", "text", "pairs", "cyclegan", "layouts", "styles")


def by_door(cases):
    """Cases that begin with a door, those of long ones for the night."""
    rows = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*row, marks=[pytest.mark.nightly] * (row[0] in LONG)) for row in rows]


@pytest.mark.parametrize(("door", "devices", "end"), by_door(ENDS))
def test_a_run_that_was_killed_or_stopped_ends_with_the_same_bits(run, door, devices, end, tmp_path):
    config, _, whole = run(door, devices)
    assert whole.step == IMAGES // 8
    if end == "killed":
        assert running.run_until_killed(config, tmp_path) == -signal.SIGKILL
        saved = comparison.finished_steps(tmp_path)
        assert saved and max(saved) < whole.step
    else:
        stopped = running.run(config, tmp_path, IMAGES - 16)
        assert stopped.step == whole.step - 2 and running.differing(stopped, whole)
    assert running.differing(running.run(config, tmp_path), whole) == []


@pytest.mark.parametrize("door", by_door(DOORS))
def test_devices_change_rounding_only(run, door):
    one, eight = run(door, 1)[2], run(door, 8)[2]
    assert running.largest_difference(one.params, eight.params) < 2e-3  # of learning rates of 1e-3, eight steps


@pytest.mark.parametrize("door", by_door(name for name, door in DOORS.items() if door.draws))
def test_it_is_sampled_with_a_file_and_with_a_folder(run, door, tmp_path):
    _, folder, _ = run(door, 8)
    workdir = folder / "run_8"

    def images(name: str, pictures: pathlib.Path, devices: int) -> np.ndarray:
        words = [word.format(pictures, here=folder) for word in DOORS[door].words]
        common = [f"--workdir={workdir}", "--mode=sample", "--trust=tiny_methods", "--trust=tiny_games"]
        out = tmp_path / f"{name}_{devices}"
        sizes = (f"--config.evaluate.batch_size={devices}", f"--config.mesh.data={devices}")
        assert tiny.call(*common, *sizes, f"--out={out}", *words) == 0
        named = {path.stem for path in (out / "images").iterdir()}
        assert named == ({"a", "b", "c"} if pictures.is_dir() else {pictures.stem})
        return np.load(out / "samples.npz")["images"].astype(int)

    one, eight = (images("folder", folder / "photos", devices) for devices in (1, 8))
    single = images("file", folder / "photos" / "a.png", 8)
    assert len(one) == len(eight) == 3 and len(single) == 1
    np.testing.assert_array_equal(single[0], eight[0])
    assert (eight[0] != eight[1]).any()
    assert np.abs(one - eight).max() <= 2
    picture = tmp_path / "file_8" / "images" / "a.png"
    files = [word.format(folder / "photos" / "a.png", here=folder) for word in DOORS[door].words if "{" in word]
    trust = ["--trust=tiny_methods", "--trust=tiny_games"]
    like = [f"--workdir={workdir}", "--mode=sample", f"--like={picture}", f"--out={tmp_path / 'like'}"]
    assert tiny.call(*like, *trust, *files) == 0
    assert (tmp_path / "like" / "images" / "a.png").read_bytes() == picture.read_bytes()
