"""The race of GANs: whose time it counts, when it stops, and what its table says."""

from __future__ import annotations

import os
import sys
import time

import pytest

from jaxgen.config import check
from jaxgen.config.files import load_config
from studies import gan_race, harness


def test_the_time_of_the_cpu_is_that_of_the_process():
    begun = time.process_time(), gan_race.cpu_seconds(os.getpid())
    while time.process_time() < begun[0] + 0.2:
        pass
    assert gan_race.cpu_seconds(os.getpid()) - begun[1] == pytest.approx(0.2, abs=0.05)


def test_a_run_is_stopped_when_its_time_is_over_and_not_begun_again(tmp_path, monkeypatch):
    busy = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\nwhile True: pass"
    monkeypatch.setattr(harness, "command", lambda *_: [sys.executable, "-c", busy])
    used = gan_race.train("progan_shapes:from_start", (), tmp_path / "run", 0.3)
    assert 0.3 <= used < 5
    monkeypatch.setattr(harness, "command", None)
    assert gan_race.train("progan_shapes:from_start", (), tmp_path / "run", 0.3) == used


@pytest.mark.parametrize("name", gan_race.ROWS)
def test_every_row_is_a_config_of_the_same_data(name):
    config, overrides = gan_race.ROWS[name]
    file, _, plan = config.partition(":")
    config, _ = load_config(harness.config_path(file), *([plan] if plan else []))
    for setting in overrides:
        key, _, value = setting.removeprefix("data.").partition("=")
        config.data[key] = type(config.data[key])(value)
    check(config)
    assert (config.data.source, config.data.resolution, config.data.channels) == ("caption_shapes", 32, 3)
    assert not config.data.num_classes


def test_the_table_has_a_line_for_each_row(tmp_path):
    rows, numbers = harness.Rows(None, num=10), {"frechet": 0.5, "excess": 0.25, "precision": 0.125, "recall": 1.0}
    for name in ("ProGAN", "DCGAN"):
        rows.add({"row": name, "cpu_seconds": 1800, "images_seen": 64, "floor": 0.01, "noise": 6.0, **numbers})
    lines = gan_race.table(rows).splitlines()
    assert lines[0] == "real 0.01, noise 6, n = 10"
    assert [line.split(" | ")[0] for line in lines[4:]] == ["| DCGAN", "| ProGAN"]
    assert lines[-1] == "| ProGAN | 1800 | 64 | 0.5 | 0.25 | 0.125 | 1 |"
