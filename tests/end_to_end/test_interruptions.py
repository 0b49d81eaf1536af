"""Killed or stopped at any moment, the same command ends as if nothing had happened."""

from __future__ import annotations

import json
import pathlib
import shutil
import signal

import pytest
import tiny

from jaxgen.runs import comparison, rehearsal
from jaxgen.runs.workdir import alone_in

# Saves follow each other without a break, so that kills fall into them; most are made between two lines of the log.
LENGTHS = [
    "--config.train.total_images=896",
    "--config.train.log_every_images=160",
    "--config.train.checkpoint_every_images=64",
    "--config.train.sample_every_images=0",
]


def train_command(config: pathlib.Path, workdir: pathlib.Path) -> list[str]:
    """Without an evaluation at the end, which changes no state."""
    return tiny.command(f"--config={config}", f"--workdir={workdir}", "--config.evaluate.at_end=False", *LENGTHS)


@pytest.fixture(scope="module")
def straight(config, tmp_path_factory) -> pathlib.Path:
    """The run that nothing happens to."""
    top = tmp_path_factory.mktemp("straight")
    command = train_command(config, top / "run")
    rehearsal.run_once(command, tiny.environment(devices=2), top / "log.txt")
    return top / "run"


def check_kills(config, straight, tmp_path, kills):
    workdir = tmp_path / "killed"
    command = train_command(config, workdir)
    done = rehearsal.kill_and_resume(
        command, tiny.environment(devices=2), tmp_path / "log.txt", workdir, kills, longest=0.5, seed=kills
    )
    assert len(done) == kills
    assert any(kill.partial for kill in done), "no kill fell into a save"
    assert comparison.compare(straight, workdir) == []


@pytest.mark.nightly
def test_two_kills(config, straight, tmp_path):
    check_kills(config, straight, tmp_path, 2)


@pytest.mark.slow
def test_six_kills(config, straight, tmp_path):
    check_kills(config, straight, tmp_path, 6)


def test_the_comparison_sees_a_difference(trained, tmp_path):
    other = pathlib.Path(shutil.copytree(trained, tmp_path / "other"))
    assert comparison.compare(trained, other) == []
    found = comparison.checkpoint(trained)
    assert {name.split("/")[0] for name in found} >= {"params", "ema", "opt_state", "counters", "meta"}
    name = next(name for name in found if name.startswith("params/"))
    changed = {**found, name: found[name] * 1.0000002}
    assert comparison.differing(found, changed) == [name]
    assert comparison.differing(found, {n: v for n, v in found.items() if n != "meta/data"}) == ["meta/data"]
    lines = (other / "metrics.jsonl").read_text().splitlines(keepends=True)
    (other / "metrics.jsonl").write_text("".join([*lines, lines[-1]]))
    assert len(comparison.compare(trained, other)) == 2
    (other / "checkpoints" / "301.orbax-checkpoint-tmp").mkdir()
    assert len(comparison.compare(trained, other)) == 3


@pytest.mark.slow
def test_sigterm_saves_and_exits_with_zero(config, straight, tmp_path):
    workdir, log = tmp_path / "stopped", tmp_path / "log.txt"
    command = train_command(config, workdir)
    environment = tiny.environment(devices=2)
    for _ in range(2):
        status, left = rehearsal.interrupt(command, environment, log, workdir, "moment", 0.3, number=signal.SIGTERM)
        assert status == 0
        assert left.partial == 0 and left.step > 0 and left.step * tiny.BATCH >= left.images
    assert left.step * tiny.BATCH < 896, "the run was over before it was stopped"
    assert log.read_text().count("the same command resumes the run") == 2 and "Traceback" not in log.read_text()
    assert "stopped" in (workdir / "run.json").read_text()
    rehearsal.run_once(command, environment, log)
    assert comparison.differing(comparison.checkpoint(straight), comparison.checkpoint(workdir)) == []
    assert comparison.history(straight) == comparison.history(workdir)


@pytest.mark.slow
def test_the_second_writes_nothing_while_the_first_trains(run, config, capsys):
    """Neither with the same command nor with another config; the modes that only use the run go on."""
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with alone_in(run):
        for more in ([], ["--config.train.total_images=512"], ["--config.seed=7"]):
            assert tiny.call(f"--config={config}", f"--workdir={run}", *more) == 2
            assert "is in use by process" in capsys.readouterr().err
        now = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.suffix != ".lock"}
        assert now == before
        out = run.parent / "out"
        assert tiny.call(f"--workdir={run}", "--mode=sample", "--num=2", f"--out={out}") == 0
        assert tiny.call(f"--workdir={run}", "--mode=evaluate") == 0
        assert sum(path.suffix == ".lock" for path in run.iterdir()) == 2
    assert not list(run.glob("*.lock"))


@pytest.mark.nightly
def test_scores_that_cannot_be_stored_are_printed_all_the_same(run, capsys, monkeypatch):
    from jaxgen.evaluation import record

    def refuse(path, value):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(record, "write_json", refuse)
    assert tiny.call(f"--workdir={run}", "--mode=evaluate") == 2
    said = capsys.readouterr()
    assert all("value" in entry for entry in json.loads(said.out).values()) and "{}" not in said.out
    assert said.err.splitlines()[-1].startswith(f"jaxgen: the scores above could not be stored in {run}: the disk is")


def test_sigterm_outside_the_loop(config, tmp_path):
    """Before there is anything to save, it is an orderly end too."""
    workdir = tmp_path / "run"
    command = train_command(config, workdir)
    argv = [command[0], "-c", PROBE, *command[1:]]
    result = tiny.spawn(argv=argv, devices=2)
    assert result.status == 0 and "Traceback" not in result.err
    assert not comparison.finished_steps(workdir)


# Sends the signal to itself when the trainer is about to be made.
PROBE = """
import os, runpy, signal, sys
import jaxgen.train.loop as loop
loop.Trainer = lambda *args, **options: os.kill(os.getpid(), signal.SIGTERM)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("number", "inside", "status"), [("SIGTERM", "compile", 0), ("SIGINT", "train", 130)])
def test_a_stop_does_not_wait_for_the_compiler(config, tmp_path, number, inside, status):
    """Neither while the trainer is being made, nor in its loop; `spawn` gives the process 300 seconds."""
    workdir = tmp_path / "run"
    command = train_command(config, workdir)
    argv = [command[0], "-c", COMPILES.format(number=number, inside=inside), *command[1:]]
    result = tiny.spawn(argv=argv, devices=1)
    assert result.status == status and "Traceback" not in result.err, result.err
    assert "the same command resumes the run" in result.err
    assert comparison.finished_steps(workdir) == ([0] if inside == "train" else [])
    assert not list(workdir.glob("*.lock"))


# Compiles for 1000 seconds, and sends the signal to itself when that begins, or when the loop has begun.
COMPILES = """
import os, runpy, signal, sys, threading, time, types
import jaxgen.train.loop as loop
ahead, train = loop.compile_ahead, loop.Trainer._train
def send():
    os.kill(os.getpid(), signal.{number})
def compile():
    if "{inside}" == "compile":
        send()
    time.sleep(1000)
def begin(*args):
    if "{inside}" == "train":
        threading.Timer(0.3, send).start()
    return train(*args)
loop.compile_ahead = lambda lowered: ahead([types.SimpleNamespace(compile=compile)])
loop.Trainer._train = begin
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
