"""A method that is built on a trained run: what it loads, what its checkpoints hold, and that it resumes."""

from __future__ import annotations

import json
import logging
import pathlib
import shutil

import numpy as np
import pytest
import running
from tiny_methods import ddpm_config

from jaxgen.config import section
from jaxgen.errors import UserError
from jaxgen.parallel.mesh import make_mesh
from jaxgen.runs.loaded_groups import load_groups
from jaxgen.runs.setup import make_method
from jaxgen.runs.workdir import open_workdir
from jaxgen.sampling.restore import restore


def size(folder: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def base_config():
    return ddpm_config(middle_attention=True)


def tuned_config(run, **graft):
    config = base_config()
    config.method = section(name="tuned", grafts=section(lora=section(name="low_rank", rank=1, **graft)))
    config.sampler = section()
    config.init_from.pretrained = str(run)
    config.optimizer.update(decay="constant", warmup_images=0, learning_rate=1e-2)
    return config


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("base") / "run"
    return workdir, running.run(base_config(), workdir, 32)


@pytest.mark.slow
def test_a_tuned_run_learns_its_grafts_alone_and_resumes_bit_for_bit(base, tmp_path):
    workdir, trained = base
    whole = running.run(tuned_config(workdir), tmp_path / "whole", 64)
    running.run(tuned_config(workdir), tmp_path / "parts", 32)
    assert not running.differing(running.run(tuned_config(workdir), tmp_path / "parts", 64), whole)
    assert whole.params.keys() == {"lora"} and whole.opt_state.keys() == {"lora"} and whole.ema.keys() == {"lora"}
    assert all(np.abs(part["b"]).max() > 0 for part in whole.params["lora"].values())
    arrays = [tmp_path / "whole" / "checkpoints" / "8" / item for item in ("params", "ema", "opt_state")]
    of_base = [workdir / "checkpoints" / "4" / item for item in ("params", "ema", "opt_state")]
    assert sum(map(size, arrays)) < sum(map(size, of_base)) / 2
    found = restore(tuned_config(workdir), tmp_path / "whole")
    np.testing.assert_array_equal(
        found.model.params["denoiser"]["conv_in"]["kernel"], trained.ema["denoiser"]["conv_in"]["kernel"]
    )
    assert found.generator.images(found.model, 0, 8).images.shape == (8, 8, 8, 1)


@pytest.mark.slow
def test_a_run_on_a_tuned_run_reads_what_that_one_was_given(base, tmp_path):
    workdir, _ = base
    running.run(tuned_config(workdir), tmp_path / "first", 32)
    again = tuned_config(tmp_path / "first")
    again.method.grafts = section(second=section(name="low_rank", rank=1))
    with pytest.raises(UserError, match="has no network of a group 'denoiser'"):
        running.run(again, tmp_path / "second", 32)


def test_sampler_and_guidance_may_be_others_than_the_runs(base):
    workdir, _ = base
    config = tuned_config(workdir)
    assert make_method(config).trained.sampler.steps == 3
    config.sampler = section(name="ddim", steps=7)
    assert make_method(config).trained.sampler.steps == 7


def test_what_is_no_trained_run_is_one_sentence_before_anything_is_written(base, tmp_path):
    workdir, _ = base
    (tmp_path / "empty").mkdir()
    wrong = {
        str(tmp_path / "empty"): "set config.init_from.pretrained to its workdir",
        "": "set config.init_from.pretrained to its workdir, not to nothing",
    }
    for source, told in wrong.items():
        with pytest.raises(UserError, match=told):
            running.run(tuned_config(source), tmp_path / "run", 32)
    config = tuned_config(workdir)
    config.data.resolution = 16
    with pytest.raises(UserError, match="was trained on images of 8x8x1, and this config has 16x16x1"):
        running.run(config, tmp_path / "run", 32)
    config = tuned_config(workdir)
    config.data.num_classes = 10
    with pytest.raises(UserError, match="was trained with config.data.num_classes=0, and this config has 10"):
        running.run(config, tmp_path / "run", 32)
    with pytest.raises(UserError, match="no linear layer's path"):
        running.run(tuned_config(workdir, where="nothing"), tmp_path / "run", 32)
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.nightly
def test_weights_that_have_changed_are_not_taken_for_those_of_the_beginning(base, tmp_path):
    other = tmp_path / "base"
    running.run(base_config(), other, 32)
    running.run(tuned_config(other), tmp_path / "run", 32)
    changed = base_config()
    changed.seed = 1
    shutil.rmtree(other)
    running.run(changed, other, 32)
    with pytest.raises(UserError, match="are not those that this run began with"):
        running.run(tuned_config(other), tmp_path / "run", 64)


def test_a_group_that_is_named_beside_a_whole_model_is_told(base, tmp_path, caplog):
    workdir, _ = base
    shutil.copytree(workdir, tmp_path / "other")
    config = tuned_config(workdir)
    config.init_from.denoiser = str(tmp_path / "other")
    caplog.set_level(logging.INFO, logger="jaxgen")
    origins = load_groups(config, make_mesh(1, 8), {}).origins
    assert origins["denoiser"]["source"] == str(tmp_path / "other")
    assert f"config.init_from.denoiser takes the place of this group of {workdir}" in caplog.text


@pytest.mark.parametrize("origins", ["none", {"denoiser": "there"}, {"denoiser": {"source": 3, "step": 0}}])
def test_origins_of_another_type_are_one_sentence(base, tmp_path, origins):
    workdir, _ = base
    shutil.copytree(workdir, tmp_path / "base")
    (step,) = (tmp_path / "base" / "checkpoints").iterdir()
    meta = json.loads((step / "meta" / "metadata").read_text())
    (step / "meta" / "metadata").write_text(json.dumps({**meta, "origins": origins}))
    with pytest.raises(UserError, match="cannot be read .*its record of where groups came from is damaged"):
        running.run(tuned_config(tmp_path / "base"), tmp_path / "run", 32)


def test_runs_that_are_built_on_each_other_are_refused(tmp_path):
    """Nothing makes such runs, but a folder may be anybody's."""
    names = [tmp_path / "one", tmp_path / "two"]
    for run, other in zip(names, reversed(names), strict=True):
        open_workdir(run, tuned_config(other), training=True)
    with pytest.raises(UserError, match="two is a run that is built on itself; name a trained run"):
        make_method(tuned_config(names[1]))
