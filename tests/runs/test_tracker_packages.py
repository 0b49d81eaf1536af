"""The packages of Weights & Biases and of MLflow, offline: what was written is read back by their own readers."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import struct
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

from jaxgen.config import defaults
from jaxgen.errors import UserError
from jaxgen.runs import history
from jaxgen.runs.trackers.opened import Trackers, show_scores

pytestmark = pytest.mark.slow  # importing them alone takes seconds; CI installs neither


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)


def config(name: str, **train: Any):
    made = defaults()
    made.train.update(tensorboard=False, trackers=(name,), **{"total_images": 64, **train})
    made.data.captions = tuple(f"a photo of number {i}, and {'more ' * 20}" for i in range(100))
    made.optimizer.learning_rate = 0.5
    return made


def show(workdir, made, steps, resume_step=0):
    log = history.MetricsLog(workdir, Trackers(made, workdir), resume_step=resume_step)
    for step in steps:
        log.write(step, 64 * step, 0.1 * step, {"g/loss": float(step), "g/rate@1": float("nan") if step == 2 else 0.5})
    log.flush()
    return log


def begin_and_die(workdir, name):
    """Shows steps 1 to 4, and is killed."""
    show(pathlib.Path(workdir), config(name), [1, 2, 3, 4]).write(4, 256, 1.0, {"last": 0.0})
    if name == "wandb":
        time.sleep(2)  # its own process writes what it was sent, all but the newest line
    os.kill(os.getpid(), signal.SIGKILL)


def killed_and_resumed(workdir, name):
    """A process is killed after step 4; the run goes on from step 2 to step 5, longer; then come the scores."""
    done = process(f"begin_and_die({os.fspath(workdir)!r}, {name!r})")
    assert done.returncode == -signal.SIGKILL, done.stderr
    longer = config(name, total_images=128)
    log = show(workdir, longer, [3, 4, 5], resume_step=2)
    log.image("samples", 256, np.linspace(-1, 1, 48, dtype=np.float32).reshape(4, 4, 3))
    log.close()
    show_scores(longer, workdir, 5, 320, {"fid": 7.0})


def process(code):
    here = pathlib.Path(__file__)
    path = os.pathsep.join([os.fspath(here.parent), os.fspath(here.parents[2]), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", f"from {here.stem} import *; {code}"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )


# ------------------------------------------------------------------ Weights & Biases


def records(workdir: pathlib.Path) -> list[Any]:
    """The records in the files of offline runs, the run that began first at the front.

    A file has 7 bytes and then the format of LevelDB's log: blocks of 32 KiB, in them parts of records, each after
    4 bytes of checksum, 2 of length and 1 that says whether it is whole (1) or a first, middle or last part (2, 3, 4).
    """
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for path in sorted(workdir.glob("wandb/offline-run-*/*.wandb")):
        data, at, record = path.read_bytes(), 7, b""
        while at + 7 <= len(data):
            if 2**15 - at % 2**15 < 7:  # no header fits into the rest of the block
                at += 2**15 - at % 2**15
                continue
            size, kind = struct.unpack_from("<HB", data, at + 4)
            record, at = record + data[at + 7 : at + 7 + size], at + 7 + size
            if kind in (1, 4):
                found.append(Record.FromString(record))
                record = b""
    return found


def values_of(items: Any) -> dict[str, Any]:
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def test_wandb_keeps_one_run_with_its_config_and_each_number_once(tmp_path):
    pytest.importorskip("wandb")
    killed_and_resumed(tmp_path / "run", "wandb")
    found = records(tmp_path / "run")
    runs = [record.run for record in found if record.WhichOneof("record_type") == "run"]
    (known,) = {(run.run_id, run.project, run.display_name) for run in runs}
    stored = json.loads((tmp_path / "run" / "trackers.json").read_text())["wandb"]["known"]
    assert known == (stored["id"], "jaxgen", "run") and stored["project"] == "jaxgen"
    told = [values_of(run.config.update) for run in runs]
    assert told[0]["optimizer"]["learning_rate"] == 0.5 and told[0]["train"]["total_images"] == 64
    assert told[-1]["train"]["total_images"] == 128
    rows = [values_of(r.history.item) for r in found if r.WhichOneof("record_type") == "history"]
    assert [(row["images"], row["g/loss"]) for row in rows if "g/loss" in row] == [(64 * i, i) for i in range(1, 6)]
    assert [(row["images"], row["evaluate/fid"]) for row in rows if "evaluate/fid" in row] == [(320, 7.0)]
    (picture,) = [row for row in rows if any(key.startswith("samples") for key in row)]
    assert picture["images"] == 256
    axes = {r.metric.name or r.metric.glob_name: r.metric.step_metric for r in found if r.HasField("metric")}
    assert axes["*"] == "images"


def test_wandb_without_a_login_ends_the_command(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    for name, value in {"WANDB_MODE": "online", "HOME": tmp_path, "NETRC": tmp_path / "netrc"}.items():
        monkeypatch.setenv(name, os.fspath(value))
    done = process(f"show(pathlib.Path({os.fspath(tmp_path / 'run')!r}), config('wandb'), [])")
    assert "UserError: the tracker 'wandb' cannot begin: UsageError: " in done.stderr and "login" in done.stderr


# ------------------------------------------------------------------ MLflow


def test_mlflow_keeps_one_run_with_its_config_and_each_number_once(tmp_path):
    mlflow = pytest.importorskip("mlflow")
    killed_and_resumed(tmp_path / "run", "mlflow")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'run/mlflow/mlflow.db'}")
    experiment = client.get_experiment_by_name("jaxgen")
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    points = {
        name: [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, name)] for name in run.data.metrics
    }
    assert sorted(points) == ["evaluate/fid", "g/loss", "g/rate_1"] and points["evaluate/fid"] == [(320, 7.0)]
    assert sorted(points["g/loss"]) == [(64 * i, i) for i in range(1, 6)]
    assert [step for step, value in points["g/rate_1"] if np.isnan(value)] == [128]
    params = run.data.params
    assert (params["optimizer.learning_rate"], params["train.total_images"]) == ("0.5", "64")
    assert params["data.captions"].endswith("characters: see config.json)")
    assert run.data.tags["config.train.total_images"] == "128"
    kept = pathlib.Path(client.download_artifacts(run.info.run_id, "config.json", os.fspath(tmp_path)))
    assert len(json.loads(kept.read_text())["data"]["captions"]) == 100
    (picture,) = [f for f in client.list_artifacts(run.info.run_id, "images") if f.path.endswith("png")]
    assert "samples" in picture.path and "256" in picture.path
    assert (tmp_path / "run" / "mlflow" / "artifacts").is_dir()


def test_mlflow_without_its_server_ends_the_command_or_is_left_out(tmp_path, monkeypatch, caplog):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="'mlflow' cannot begin: MlflowException: "):
        show(tmp_path / "run", config("mlflow"), [])
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    show(tmp_path / "run", config("mlflow"), [1]).close()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    show(tmp_path / "run", config("mlflow"), [2], resume_step=1).close()
    assert "the tracker 'mlflow' failed and is left out until the next start: MlflowException" in caplog.text
