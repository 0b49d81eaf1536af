"""`run.json`: what is known of a run, and what happened to it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from jaxgen import files
from jaxgen.runs import record


def strict(text):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_the_record_grows_and_stays_strict_json(tmp_path):
    record.run_record(tmp_path, method="ddpm", parameters={"g": np.int64(7)}, odd=math.nan, folder=tmp_path)
    record.add_event(tmp_path, "resumed", "at step 3")
    record.run_record(tmp_path, method="vae")
    record.add_event(tmp_path, "skipped", {"turn": "g"})
    found = strict((tmp_path / "run.json").read_text())
    assert found["method"] == "vae" and found["parameters"] == {"g": 7} and found["odd"] is None
    assert [(e["event"], e["detail"]) for e in found["events"]] == [
        ("resumed", "at step 3"),
        ("skipped", {"turn": "g"}),
    ]
    assert all(e["time"].endswith("+00:00") for e in found["events"])
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]


def test_what_json_cannot_hold_is_refused_and_the_record_kept(tmp_path):
    record.run_record(tmp_path, method="ddpm")
    with pytest.raises(TypeError, match="object"):
        record.run_record(tmp_path, thing=object())
    assert files.read_json(tmp_path / "run.json") == {"method": "ddpm"}


def test_versions_and_hardware_describe_this_process():
    import jax

    assert {"python", "jaxgen", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"} == set(record.versions())
    assert record.versions()["jax"] == jax.__version__ and record.versions()["numpy"] == np.__version__
    found = record.hardware()
    assert found["devices"] == jax.device_count() and found["platform"] == jax.default_backend()
    assert found["cores"] >= 1 and found["cpu"]
