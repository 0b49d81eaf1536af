"""Trackers: each shows the history of `metrics.jsonl`, all of it and once, whatever was killed, lost or named later."""

from __future__ import annotations

import json
import math
from typing import ClassVar

import numpy as np
import pytest
from running import run
from tiny_methods import tiny_config

from jaxgen import files
from jaxgen.config import defaults
from jaxgen.errors import UserError
from jaxgen.runs import history
from jaxgen.runs.trackers import base
from jaxgen.runs.trackers.opened import Trackers, check_trackers, show_scores

MINE = "test_trackers:Diary"


class Diary(base.Tracker):
    """A tracker that writes what it is shown to a file beside the run's folder, and breaks when it is told to."""

    breaks: ClassVar[str] = ""  # the method that raises

    def begin(self, start):
        self._file = start.workdir.parent / f"{start.workdir.name}.diary"
        known = dict(start.known) or {"number": str(len(self.read("begin")))}
        self._add("begin", known)
        return known

    def scalars(self, images, values):
        self._add("scalars", images, values)

    def image(self, name, images, picture):
        assert picture.dtype == np.uint8 and picture.shape[-1] == 3
        self._add("image", name, images)

    def flush(self):
        self._add("flush")

    def close(self):
        self._add("close")

    def _add(self, call, *what):
        if self.breaks == call:
            raise ConnectionError("no route to the server\nand more")
        with self._file.open("a") as file:
            file.write(json.dumps([call, *what]) + "\n")

    def read(self, call):
        lines = [json.loads(line) for line in self._file.read_text().splitlines()] if self._file.exists() else []
        return [line[1:] for line in lines if line[0] == call]


@pytest.fixture(autouse=True)
def whole(monkeypatch):
    monkeypatch.setattr(Diary, "breaks", "")


def diary(workdir, call="scalars"):
    one = Diary()
    one._file = workdir.parent / f"{workdir.name}.diary"
    return one.read(call)


def config(*trackers):
    made = defaults()
    made.train.update(tensorboard=False, trackers=trackers)
    return made


def fill(workdir, steps, *trackers, resume_step=0):
    log = history.MetricsLog(workdir, Trackers(config(*(trackers or (MINE,))), workdir), resume_step=resume_step)
    for step in steps:
        log.write(step, 64 * step, 0.1 * step, {"g/loss": float(step)})
    return log


def lines(workdir):
    own = ("step", "images", "seconds")
    rows = files.read_metrics(workdir / "metrics.jsonl")
    return [[row["images"], {k: v for k, v in row.items() if k not in own}] for row in rows]


# ------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("trackers", "said"),
    [
        (("wandbb",), r"config\.train\.trackers='wandbb' is unknown; did you mean 'wandb'\?"),
        (("comet",), r"config\.train\.trackers='comet' is unknown; known are: mlflow, wandb\."),
        ((3,), r"must be names, such as \('wandb',\), of which 3 is none"),
        ((MINE, MINE), "names 'test_trackers:Diary' twice"),
        (("tensorboard",), r"a key of its own, config\.train\.tensorboard"),
        (("json:JSONDecoder",), "is not a Tracker"),
    ],
)
def test_a_wrong_name_is_one_sentence(trackers, said):
    with pytest.raises(UserError, match=said):
        check_trackers(config(*trackers))


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_named_before_anything_is_written(name, tmp_path, monkeypatch):
    monkeypatch.setattr(base.importlib.util, "find_spec", lambda _: None)
    made = tiny_config("Plain")
    made.train.trackers = (name,)
    with pytest.raises(UserError, match=rf'needs the package {name}, .*pip install "jaxgen\[{name}\]"'):
        run(made, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


# ------------------------------------------------------------------ one history, and all of it


def test_the_loop_shows_each_line_and_a_resumed_run_goes_on(tmp_path):
    made = tiny_config("Plain")
    made.train.trackers = (MINE,)
    run(made, tmp_path / "run", images=32)
    run(made, tmp_path / "run", images=64)
    assert [images for images, _ in lines(tmp_path / "run")] == [16, 32, 48, 64]
    assert diary(tmp_path / "run") == lines(tmp_path / "run")
    assert diary(tmp_path / "run", "begin") == [[{"number": "0"}]] * 2 and len(diary(tmp_path / "run", "close")) == 2


def test_what_a_killed_run_does_again_is_not_shown_again(tmp_path):
    fill(tmp_path / "run", [10, 20, 30, 40, 50])  # a kill: it is never closed
    fill(tmp_path / "run", [30, 40], resume_step=20)  # and again, earlier than before
    fill(tmp_path / "run", [30, 40, 50, 60], resume_step=20).close()
    assert diary(tmp_path / "run") == lines(tmp_path / "run") and len(lines(tmp_path / "run")) == 6


def test_numbers_of_one_moment_that_a_kill_cut_off_are_shown_later(tmp_path):
    log = fill(tmp_path / "run", [10, 20])
    log.image("samples", 640, np.zeros((4, 4, 1)))
    log = fill(tmp_path / "run", [20], resume_step=10)  # an evaluation follows, which the killed run did not reach
    log.write(20, 1280, 9.0, {"evaluate/fid": 3.0})
    log.image("samples", 640, np.zeros((4, 4, 1)))
    log.image("samples", 1280, np.zeros((4, 4, 3), np.uint8))
    log.close()
    log.close()
    assert diary(tmp_path / "run")[2:] == [[1280, {"evaluate/fid": 3.0}]]
    assert diary(tmp_path / "run", "image") == [["samples", 640], ["samples", 1280]]


def test_a_tracker_that_is_named_later_is_shown_what_was(tmp_path):
    history.MetricsLog(tmp_path / "run").close()
    log = history.MetricsLog(tmp_path / "run")
    log.write(10, 640, 1.0, {"g/loss": math.nan})
    log.close()
    fill(tmp_path / "run", [20], resume_step=10).close()
    (images, values), after = diary(tmp_path / "run")
    assert images == 640 and math.isnan(values["g/loss"]) and after == [1280, {"g/loss": 20.0}]
    history.MetricsLog(tmp_path / "run", resume_step=20).write(30, 1920, 3.0, {"g/loss": 30.0})  # left out for once
    fill(tmp_path / "run", [40], resume_step=30).close()
    assert [images for images, _ in diary(tmp_path / "run")] == [640, 1280, 1920, 2560]


@pytest.mark.parametrize("breaks", ["scalars", "flush", "close", "image"])
def test_a_tracker_that_fails_is_left_out_and_catches_up(breaks, tmp_path, monkeypatch, caplog):
    log = fill(tmp_path / "run", [10])
    monkeypatch.setattr(Diary, "breaks", breaks)
    log.image("samples", 640, np.zeros((4, 4, 1)))
    log.write(20, 1280, 2.0, {"g/loss": 20.0})
    log.flush()
    log.close()
    assert "failed and is left out until the next start: ConnectionError: no route to the server" in caplog.text
    (event,) = files.read_json(tmp_path / "run" / "run.json")["events"]
    assert event["event"] == "tracker failed" and MINE in event["detail"] and "and more" not in event["detail"]
    monkeypatch.setattr(Diary, "breaks", "")
    fill(tmp_path / "run", [30], resume_step=20).close()
    assert diary(tmp_path / "run") == lines(tmp_path / "run") and len(lines(tmp_path / "run")) == 3


def test_a_tracker_that_cannot_begin_ends_the_first_start_and_no_later_one(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(Diary, "breaks", "begin")
    with pytest.raises(UserError, match="'test_trackers:Diary' cannot begin: ConnectionError: no route to the server"):
        fill(tmp_path / "run", [])
    monkeypatch.setattr(Diary, "breaks", "")
    fill(tmp_path / "run", [10]).close()
    monkeypatch.setattr(Diary, "breaks", "begin")
    fill(tmp_path / "run", [20], resume_step=10).close()
    assert "left out until the next start" in caplog.text
    monkeypatch.setattr(Diary, "breaks", "")
    fill(tmp_path / "run", [30], resume_step=20).close()
    assert diary(tmp_path / "run") == lines(tmp_path / "run") and len(lines(tmp_path / "run")) == 3


def test_a_run_that_starts_again_is_a_new_one(tmp_path):
    fill(tmp_path / "run", [10, 20])
    fill(tmp_path / "run", [10]).close()
    assert diary(tmp_path / "run", "begin") == [[{"number": "0"}], [{"number": "1"}]]
    assert [images for images, _ in diary(tmp_path / "run")] == [640, 1280, 640]


def test_the_scores_at_the_end_are_shown_once(tmp_path):
    fill(tmp_path / "run", [10]).close()
    for _ in range(2):
        show_scores(config(MINE), tmp_path / "run", 10, 640, {"fid": 2.0})
    assert diary(tmp_path / "run") == [[640, {"g/loss": 10.0}], [640, {"evaluate/fid": 2.0}]]


def test_a_damaged_record_is_one_sentence(tmp_path):
    fill(tmp_path / "run", [10]).close()
    (tmp_path / "run" / "trackers.json").write_text('{"test_trackers:Diary": {"known": 3}}')
    with pytest.raises(UserError, match=r"trackers\.json"):
        fill(tmp_path / "run", [20], resume_step=10)
