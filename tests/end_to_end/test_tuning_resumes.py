"""A stopped tuning run ends as one that was not, to the bit, with each kind of graft that `test_tuning` lacks."""

from __future__ import annotations

import pytest
import running
import tiny_finetune
import tiny_pipeline

from jaxgen.config import section
from jaxgen.runs.comparison import compare

GRAFTS = {
    "dreambooth": {"all": {"name": "leaves"}, "text_too": {"name": "leaves", "group": "text"}},
    "custom diffusion and a new block": {
        "block": {"name": "leaves", "where": "middle_attention/.*self_attention", "fresh": True},
        "kv": {"name": "leaves", "where": r"cross_attention/(key|value)/"},
        "token": {"name": "token_rows", "word": "<toy>", "initial": "cat", "count": 2},
    },
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    place = tmp_path_factory.mktemp("resumes")
    tiny_pipeline.write(place / "base")
    tiny_finetune.write_pictures(place / "few", captions=False)
    tiny_finetune.write_pictures(place / "class")
    return place


@pytest.mark.nightly
@pytest.mark.parametrize("which", GRAFTS)
def test_a_stopped_run_ends_as_one_that_was_not(which, base, tmp_path):
    config = tiny_finetune.finetune_config(base / "base", base / "few")
    grafts = {name: section(**graft) for name, graft in GRAFTS[which].items()}
    config.method = section(name="tuned", grafts=section(**grafts), prior_weight=0.5)
    config.data.captions = ("a {}",) if "token" in grafts else ("a dog",)
    config.data.extra.prior = section(source=f"folder:{base / 'class'}", split="all")
    running.run(config, tmp_path / "straight", 16)
    for images in (8, 16):
        state = running.run(config, tmp_path / "parts", images)
    assert set(state.params) == set(grafts) and int(state.step) == 4
    assert compare(tmp_path / "straight", tmp_path / "parts") == []
