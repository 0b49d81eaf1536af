"""One run from the command line: what it leaves, how it goes on, what it refuses."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import tiny
from PIL import Image

from jaxgen.config import from_json
from jaxgen.files import read_metrics
from jaxgen.runs import comparison


def steps(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def test_files_of_a_finished_run(trained):
    assert steps(trained) == [4, 8]
    assert from_json((trained / "config.json").read_text()).train.total_images == 256
    rows = read_metrics(trained / "metrics.jsonl")
    assert [row["images"] for row in rows] == [64, 128, 192, 256]
    assert all(np.isfinite(row["denoise/loss"]) for row in rows)
    for images in (128, 256):
        with Image.open(trained / "samples" / f"step_{images:010d}.png") as picture:
            assert min(picture.size) >= 8 * 8  # 64 images
    with Image.open(trained / "samples" / "trajectory.gif") as movie:
        assert movie.n_frames == 5  # the noise and four steps
    page = (trained / "report.html").read_text()
    assert page.startswith("<!doctype html>") and "frechet_digits" in page
    assert not re.search(r"""(?:src|href)=["']?(?:https?:|//|[\w./]+\.(?:png|gif|js|css))""", page), "loads something"


def test_numbers_name_what_they_are_of(trained):
    numbers = json.loads((trained / "metrics.json").read_text())
    assert numbers.pop("_meta") == {"step": 8, "images": 256, "headline": "frechet_digits"}
    assert {"denoising_loss", "frechet_digits", "share_of_near_copies"} <= set(numbers)
    for entry in numbers.values():
        assert entry["n"] in (64, 500) and "digits/test (500)" in entry["reference"]
        assert "floor" in entry and np.isfinite(entry["value"])
    assert numbers["frechet_digits"]["floor"] < numbers["frechet_digits"]["noise"]


def test_the_same_command_again_trains_nothing(config, run, caplog):
    before = (run / "metrics.jsonl").read_bytes(), (run / "metrics.json").read_bytes(), steps(run)
    assert tiny.call(f"--config={config}", f"--workdir={run}") == 0
    assert before == ((run / "metrics.jsonl").read_bytes(), (run / "metrics.json").read_bytes(), steps(run))
    assert "finished at 256 images" in caplog.text


def test_evaluate_prints_one_line_of_json(run, capsys):
    (run / "metrics.json").unlink()
    assert tiny.call("--mode=evaluate", f"--workdir={run}", "--config.evaluate.num=32") == 0  # the stored config's
    assert json.loads(capsys.readouterr().out)["frechet_digits"]["n"] == 32
    assert tiny.call("--mode=evaluate", f"--workdir={run}") == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    stored = json.loads((run / "metrics.json").read_text())
    assert stored.pop("_meta")["step"] == 8
    assert json.loads(out) == stored


@pytest.mark.slow
def test_a_longer_run_goes_on(config, run, caplog):
    first = (run / "metrics.jsonl").read_text()
    arguments = ["--config.train.total_images=320", "--config.train.log_every_images=32", "--config.mesh.data=4"]
    assert tiny.call(f"--config={config}", f"--workdir={run}", *arguments) == 0
    rows = read_metrics(run / "metrics.jsonl")
    assert [row["images"] for row in rows] == [64, 128, 192, 256, 288, 320]
    assert (run / "metrics.jsonl").read_text().startswith(first)
    assert steps(run)[-1] == 10
    assert json.loads((run / "metrics.json").read_text())["_meta"]["images"] == 320
    events = json.dumps(json.loads((run / "run.json").read_text())["events"])
    for key in ("train.total_images", "train.log_every_images", "mesh.data"):
        assert f"config.{key} changes from" in caplog.text
        assert f"config.{key}: " in events
    assert from_json((run / "config.json").read_text()).train.total_images == 320


REFUSED = {
    "method.network.channels": 16,
    "method.prediction_type": "epsilon",
    "data.source": "shapes",
    "data.split": "test",
    "optimizer.learning_rate": 0.01,
    "optimizer.name": "sgd",
    "seed": 1,
    "train.batch_size": 16,
    "train.ema_decay": 0.5,
    "sampler.steps": 5,
}


@pytest.mark.parametrize("key", REFUSED)
def test_another_experiment_is_refused(key, config, trained, capsys):
    before = (trained / "config.json").read_bytes()
    assert tiny.call(f"--config={config}", f"--workdir={trained}", f"--config.{key}={REFUSED[key]}") == 2
    said = tiny.Result(2, *capsys.readouterr()).complaint
    assert f"config.{key} was" in said
    assert (trained / "config.json").read_bytes() == before


def test_every_refused_key_is_named(config, trained, capsys):
    arguments = [f"--config.{key}={value}" for key, value in REFUSED.items()]
    assert tiny.call(f"--config={config}", f"--workdir={trained}", *arguments) == 2
    said = tiny.Result(2, *capsys.readouterr()).complaint
    assert [key for key in REFUSED if f"config.{key} was" not in said] == []


def test_sampling_may_use_another_sampler(config, trained, tmp_path, caplog):
    arguments = [f"--config={config}", f"--workdir={trained}", "--mode=sample", "--num=2", f"--out={tmp_path}"]
    assert tiny.call(*arguments, "--config.sampler.steps=3") == 0
    assert "config.sampler.steps is 3 here and was 4 in training" in caplog.text
    with Image.open(tmp_path / "trajectory.gif") as movie:
        assert movie.n_frames == 4
    assert tiny.call(*arguments, "--config.method.network.channels=16") == 2


def test_a_damaged_checkpoint_falls_back(config, run, caplog):
    for path in (run / "checkpoints" / "8").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:3])
    assert tiny.call(f"--config={config}", f"--workdir={run}") == 0
    assert "falling back from checkpoint 8 to 4" in caplog.text
    assert steps(run) == [4, 8] and (run / "damaged" / "8").exists()
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")] == [2, 4, 6, 8]


@pytest.mark.nightly
def test_a_first_attempt_that_failed_binds_nobody(config, tmp_path, capsys):
    command = [f"--config={config}", f"--workdir={tmp_path / 'run'}", "--config.train.total_images=32"]
    assert tiny.call(*command, "--config.data.source=digitz") == 2
    assert tiny.call(*command, "--config.evaluate.at_end=False") == 0
    assert from_json((tmp_path / "run" / "config.json").read_text()).data.source == "digits"


@pytest.mark.slow
def test_warm_start(config, trained, tmp_path):
    """A run that begins from another's averaged weights and learns nothing keeps them."""
    lengths = ["--config.train.total_images=32", "--config.train.ema_decay=0.0", "--config.evaluate.at_end=False"]
    still = ["--config.optimizer.learning_rate=0.0", f"--config.init_from.denoiser={trained}"]
    assert tiny.call(f"--config={config}", f"--workdir={tmp_path / 'run'}", *lengths, *still) == 0
    origin = comparison.checkpoint(trained)
    found = comparison.checkpoint(tmp_path / "run")
    names = [name.removeprefix("ema/") for name in origin if name.startswith("ema/")]
    assert names
    for name in names:
        np.testing.assert_array_equal(found[f"params/{name}"], origin[f"ema/{name}"])
    assert found["meta/origins"]["denoiser"]["step"] == 8


@pytest.mark.slow
def test_a_relative_workdir(config, tmp_path):
    """Orbax wants absolute paths; people do not."""
    argv = [*tiny.command(f"--config={config}"), "--workdir=here/run", "--config.train.total_images=32"]
    code = f"import os, runpy, sys; os.chdir({str(tmp_path)!r}); sys.argv = sys.argv[1:]; "
    result = tiny.spawn(argv=[argv[0], "-c", code + "runpy.run_path(sys.argv[0], run_name='__main__')", *argv[1:]])
    assert result.status == 0, result.err
    assert steps(tmp_path / "here" / "run") == [1]
    out = tmp_path / "out"
    assert tiny.call("--mode=sample", f"--workdir={tmp_path / 'here' / 'run'}", "--num=3", f"--out={out}") == 0
    assert np.load(out / "samples.npz")["images"].shape == (3, 8, 8, 1)
