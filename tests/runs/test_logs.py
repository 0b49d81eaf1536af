from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest

from jaxgen import files
from jaxgen.errors import UserError
from jaxgen.runs import logs


def fill(folder, steps, **options):
    log = logs.MetricsLog(folder, **{"tensorboard": False, **options})
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

    log = logs.MetricsLog(tmp_path, tensorboard=False)
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
    log = logs.MetricsLog(tmp_path, tensorboard=False)
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
    logs.MetricsLog(tmp_path, tensorboard=False, resume_step=25).close()
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
        logs.MetricsLog(tmp_path, tensorboard=False, resume_step=10)
    assert path.read_bytes() == before


def test_a_store_without_append_has_everything_after_flush_and_close(tmp_path, monkeypatch):
    fill(tmp_path, [0, 10, 20]).close()
    monkeypatch.setattr(logs, "is_remote", lambda _: True)
    log = fill(tmp_path, [20], resume_step=10)
    log.flush()
    assert steps(tmp_path) == [0, 10, 20]
    log.write(30, 1920, 3.0, {})
    assert steps(tmp_path) == [0, 10, 20]
    log.close()
    assert steps(tmp_path) == [0, 10, 20, 30]
    monkeypatch.setattr(logs, "REMOTE_SECONDS", 0.0)
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
    log = fill(tmp_path, [0, 10, 20], tensorboard=True)
    log.image("samples", 1280, np.zeros((4, 4, 1)))
    log.close()
    values, restarts = events(tmp_path)
    assert values == [("g/loss", 0), ("g/loss", 640), ("g/loss", 1280), ("samples", 1280)] and restarts == []
    fill(tmp_path, [20], tensorboard=True, resume_step=10).close()
    values, restarts = events(tmp_path)
    assert values[-1] == ("g/loss", 1280) and 640 < restarts[0] <= 1280


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_without_a_terminal_progress_is_a_line_every_ten_seconds():
    out, clock = io.StringIO(), Clock()
    progress = logs.Progress(10_000, 2_000, stream=out, clock=clock)
    for images in range(2_025, 7_001, 25):
        clock.now += 0.25  # 100 images a second
        progress.update(images, {"g/loss": 0.5})
    progress.close()
    lines = out.getvalue().splitlines()
    assert 4 <= len(lines) <= 6
    assert all(
        "of 10,000 images" in line and "100 images/s" in line and "g/loss 0.5" in line for line in lines[:4]
    )
    assert "3,000 of" in lines[0] and "left" in lines[0]


def test_progress_can_be_silent():
    out = io.StringIO()
    progress = logs.Progress(10, 0, enabled=False, stream=out)
    progress.update(10, {"a": 1.0})
    progress.note("words")
    progress.close()
    assert out.getvalue() == ""


def test_the_bar_counts_all_images_and_shows_scalars():
    out = io.StringIO()
    progress = logs.Progress(1000, 400, enabled=True, stream=out)
    progress.update(1000, {"loss": 0.125})
    progress.note("a line")
    progress.close()
    assert "100%" in out.getvalue() and "loss=0.125" in out.getvalue() and "a line\n" in out.getvalue()


def test_the_record_grows_and_stays_strict_json(tmp_path):
    logs.run_record(tmp_path, method="ddpm", parameters={"g": np.int64(7)}, odd=math.nan, folder=tmp_path)
    logs.add_event(tmp_path, "resumed", "at step 3")
    logs.run_record(tmp_path, method="vae")
    logs.add_event(tmp_path, "skipped", {"turn": "g"})
    record = strict((tmp_path / "run.json").read_text())
    assert record["method"] == "vae" and record["parameters"] == {"g": 7} and record["odd"] is None
    assert [(e["event"], e["detail"]) for e in record["events"]] == [
        ("resumed", "at step 3"),
        ("skipped", {"turn": "g"}),
    ]
    assert all(e["time"].endswith("+00:00") for e in record["events"])
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_what_json_cannot_hold_is_refused_and_the_record_kept(tmp_path):
    logs.run_record(tmp_path, method="ddpm")
    with pytest.raises(TypeError, match="object"):
        logs.run_record(tmp_path, thing=object())
    assert files.read_json(tmp_path / "run.json") == {"method": "ddpm"}


def test_versions_and_hardware_describe_this_process():
    import jax

    assert {"python", "jaxgen", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"} == set(
        logs.versions()
    )
    assert logs.versions()["jax"] == jax.__version__ and logs.versions()["numpy"] == np.__version__
    found = logs.hardware()
    assert found["devices"] == jax.device_count() and found["platform"] == jax.default_backend()
    assert found["cores"] >= 1 and found["cpu"]
