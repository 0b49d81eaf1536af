"""`metrics.jsonl` and TensorBoard: whole after a kill, one history after a resume, strict JSON."""

from __future__ import annotations

import json
import math
import os

import numpy as np
import pytest

from jaxgen import files
from jaxgen.config import defaults
from jaxgen.errors import UserError
from jaxgen.runs import history
from jaxgen.runs.trackers.opened import Trackers


def fill(folder, steps, **options):
    log = history.MetricsLog(folder, **options)
    for step in steps:
        log.write(step, 64 * step, 0.1 * step, {"g/loss": float(step)})
    return log


def steps(folder):
    return [row["step"] for row in files.read_metrics(folder / "metrics.jsonl")]


def strict(text):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_a_line_is_on_disk_when_write_returns(tmp_path):
    log = fill(tmp_path / "new", [0, 10])
    rows = [strict(line) for line in (tmp_path / "new/metrics.jsonl").read_text().splitlines()]
    assert rows[1] == {"step": 10, "images": 640, "seconds": 1.0, "g/loss": 10.0}
    log.close()
    log.close()


def test_numbers_of_every_kind_and_those_that_are_not_finite(tmp_path):
    import jax.numpy as jnp

    log = history.MetricsLog(tmp_path)
    values = {
        "a": np.float32(0.5),
        "b": jnp.asarray(2.0),
        "c": 3,
        "d": math.nan,
        "e": jnp.inf,
        "f": -math.inf,
    }
    log.write(1, np.int64(64), 0.25, values)
    log.close()
    row = strict((tmp_path / "metrics.jsonl").read_text())
    assert (row["a"], row["b"], row["c"]) == (0.5, 2.0, 3.0)
    assert row["d"] is row["e"] is row["f"] is None and row["nonfinite"] == ["d", "e", "f"]
    assert files.read_metrics(tmp_path / "metrics.jsonl")[0]["d"] is None


def test_names_of_the_file_itself_are_refused(tmp_path):
    log = history.MetricsLog(tmp_path)
    with pytest.raises(UserError, match="'seconds'"):
        log.write(1, 1, 1.0, {"seconds": 2.0})
    log.close()


def test_a_resumed_history_equals_one_that_was_never_broken(tmp_path):
    fill(tmp_path / "whole", range(0, 60, 10)).close()
    fill(tmp_path / "broken", range(0, 50, 10)).close()
    with open(tmp_path / "broken/metrics.jsonl", "a") as file:
        file.write('{"step": 50, "images": 32')  # the kill
    fill(tmp_path / "broken", [30, 40, 50], resume_step=20).close()
    assert (tmp_path / "broken/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()


def test_opening_alone_removes_later_lines(tmp_path):
    fill(tmp_path, range(0, 50, 10)).close()
    history.MetricsLog(tmp_path, resume_step=25).close()
    assert steps(tmp_path) == [0, 10, 20]


def test_a_last_line_without_its_newline_is_kept_when_it_is_whole(tmp_path):
    fill(tmp_path, [0, 10]).close()
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    fill(tmp_path, [20], resume_step=10).close()
    assert steps(tmp_path) == [0, 10, 20]


def test_a_damaged_middle_line_stops_the_resume_and_loses_nothing(tmp_path):
    path = tmp_path / "metrics.jsonl"
    fill(tmp_path, [0, 10, 20]).close()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"{half\n" + lines[2])
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2"):
        history.MetricsLog(tmp_path, resume_step=10)
    assert path.read_bytes() == before


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    with pytest.raises(UserError, match=r"metrics\.jsonl is a pipe \(FIFO\), not a file"):
        history.MetricsLog(tmp_path)


def test_a_store_without_append_has_everything_after_flush_and_close(tmp_path, monkeypatch):
    fill(tmp_path, [0, 10, 20]).close()
    monkeypatch.setattr(history, "is_remote", lambda _: True)
    log = fill(tmp_path, [20], resume_step=10)
    log.flush()
    assert steps(tmp_path) == [0, 10, 20]
    log.write(30, 1920, 3.0, {})
    assert steps(tmp_path) == [0, 10, 20]
    log.close()
    assert steps(tmp_path) == [0, 10, 20, 30]
    monkeypatch.setattr(history, "REMOTE_SECONDS", 0.0)
    fill(tmp_path, [40], resume_step=30)
    assert steps(tmp_path) == [0, 10, 20, 30, 40]


def events(folder):
    """(tag, step) of every value, and the steps from which earlier ones are hidden; the records are
    length-prefixed: 8 bytes of length, 4 of checksum, the message, 4 of checksum."""
    from tensorboardX.proto.event_pb2 import Event

    values, restarts = [], []
    for path in sorted((folder / "tensorboard").iterdir(), key=lambda p: p.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
            values += [(value.tag, event.step) for value in event.summary.value]
            restarts += [event.step] if event.HasField("session_log") else []
    return values, restarts


def test_tensorboard_counts_images_and_hides_the_broken_history(tmp_path):
    log = fill(tmp_path, [0, 10, 20], trackers=Trackers(defaults(), tmp_path))
    log.image("samples", 1280, np.zeros((4, 4, 1)))
    log.close()
    values, restarts = events(tmp_path)
    assert values == [("g/loss", 0), ("g/loss", 640), ("g/loss", 1280), ("samples", 1280)] and restarts == []
    fill(tmp_path, [20], trackers=Trackers(defaults(), tmp_path), resume_step=10).close()
    values, restarts = events(tmp_path)
    assert values[-1] == ("g/loss", 1280) and 640 < restarts[0] <= 1280
