"""A run that is trained, published and sampled from the folder and from the hub's cache draws the same bytes."""

from __future__ import annotations

import pytest
import running
import standin_hub
import tiny
from tiny_methods import gan_config


@pytest.mark.slow
def test_the_folder_and_the_cache_of_the_hub_draw_what_the_run_draws(tmp_path, monkeypatch, caplog):
    pytest.importorskip("huggingface_hub")
    running.run(gan_config(), tmp_path / "run", 16)
    out = tmp_path / "out"
    assert tiny.call(f"--workdir={tmp_path / 'run'}", "--mode=publish", "--licence=cc0-1.0", f"--out={out}") == 0
    standin_hub.use(monkeypatch, tmp_path / "cache")
    standin_hub.cached(tmp_path / "cache", "me/digits-gan", out)
    drawn = {}
    for name, place in {"run": tmp_path / "run", "folder": out, "hub": "hf:me/digits-gan"}.items():
        to = tmp_path / f"from_{name}"
        assert tiny.call(f"--workdir={place}", "--mode=sample", "--num=5", "--seed=3", f"--out={to}") == 0
        drawn[name] = {file.name: file.read_bytes() for file in to.iterdir()}
    assert len(drawn["run"]) >= 2 and drawn["run"] == drawn["folder"] == drawn["hub"]
    assert standin_hub.COMMIT in caplog.text
