"""A run's folder: entered again with the same config, refused with another, lengths fixed at the beginning."""

from __future__ import annotations

import json
import os

import pytest
from ml_collections import ConfigDict
from tiny_methods import tiny_config

from jaxgen.config import from_json
from jaxgen.errors import UserError, os_refusal
from jaxgen.runs.workdir import open_workdir


def enter(workdir, **changes):
    """`open_workdir` for training with a config so changed."""
    config = tiny_config("Plain")
    config.update_from_flattened_dict(changes)
    return open_workdir(workdir, config, training=True)


def begun(workdir, **changes):
    """A folder in which something was trained with a config so changed."""
    enter(workdir, **changes)
    (workdir / "checkpoints" / "3").mkdir(parents=True)
    return workdir


def test_a_new_folder_is_made_and_keeps_the_config(tmp_path):
    workdir = tmp_path / "a" / "b"
    config, changed = enter(workdir)
    assert changed == {} and from_json((workdir / "config.json").read_text()).to_dict() == config.to_dict()
    assert os.listdir(workdir) == ["config.json"]


def test_before_anything_was_trained_any_config_will_do(tmp_path):
    enter(tmp_path)
    assert enter(tmp_path, seed=3)[1] == {}
    assert from_json((tmp_path / "config.json").read_text()).seed == 3


def test_what_may_change_is_taken_over_and_reported(tmp_path):
    begun(tmp_path)
    assert enter(tmp_path)[1] == {}
    changed = {"train.total_images": (64, 128), "train.keep_last": (2, 5), "evaluate.num": (1000, 10)}
    config, found = enter(tmp_path, **{k: new for k, (_, new) in changed.items()})
    assert found == changed and config.train.total_images == 128


def test_a_run_that_an_older_version_began_goes_on(tmp_path):
    begun(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    del stored["guidance"], stored["data"]["crop"], stored["train"]["keep_best"], stored["train"]["ema_decay"]
    del stored["optimizer"]["clip_weights"], stored["evaluate"]["num"], stored["mesh"]["fsdp"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    config, changed = enter(tmp_path, **{"train.ema_decay": 0.999})  # the default, so that of the run as it was begun
    assert changed == {} and set(config.train) == set(tiny_config("Plain").train)
    with pytest.raises(UserError, match=r"config\.train\.ema_decay was 0\.999 and is 0\.9"):
        enter(tmp_path)


def test_what_may_not_change_is_refused_with_every_key_named(tmp_path):
    begun(tmp_path)
    text = (tmp_path / "config.json").read_text()
    with pytest.raises(UserError) as error:
        enter(tmp_path, **{"seed": 1, "train.batch_size": 4, "train.total_images": 99, "optimizer.clip_norm": 0.5})
    for part in ("seed was 0 and is 1", "train.batch_size was 8 and is 4", "optimizer.clip_norm was 0.0 and is 0.5"):
        assert f"config.{part}" in str(error.value)
    assert "total_images" not in str(error.value) and (tmp_path / "config.json").read_text() == text


def test_a_decay_ends_where_the_run_was_to_end_when_it_began(tmp_path):
    begun(tmp_path, **{"optimizer.decay": "cosine"})
    config, changed = enter(tmp_path, **{"optimizer.decay": "cosine", "train.total_images": 128})
    assert config.optimizer.decay_images == 64 and list(changed) == ["train.total_images"]
    with pytest.raises(UserError, match="decay_images was 64 and is 128"):
        enter(tmp_path, **{"optimizer.decay": "cosine", "optimizer.decay_images": 128})


def test_the_decay_of_one_group_is_fixed_too(tmp_path):
    for images in (64, 128):
        config = tiny_config("TwoPlayers")
        config.optimizers = ConfigDict({"discriminator": {"decay": "linear"}, "generator": {"b1": 0.5}})
        config.train.total_images = images
        config, _ = open_workdir(tmp_path, config, training=True)
        assert config.optimizers.discriminator.decay_images == 64 and "decay_images" not in config.optimizers.generator
        assert config.optimizer.decay_images == 0
        (tmp_path / "checkpoints" / "3").mkdir(parents=True, exist_ok=True)


def test_using_a_model_may_change_how_it_is_sampled_and_writes_nothing(tmp_path):
    begun(tmp_path)
    text = (tmp_path / "config.json").read_text()
    config = tiny_config("Plain")
    config.sampler = ConfigDict({"name": "ddim", "steps": 3})
    config, changed = open_workdir(tmp_path, config, training=False)
    assert set(changed) >= {"sampler.name", "sampler.steps"} and (tmp_path / "config.json").read_text() == text
    with pytest.raises(UserError, match=r"config\.sampler\.name was None and is 'ddim'"):
        open_workdir(tmp_path, config, training=True)


def test_a_folder_that_holds_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no run that can be used \(it has no config\.json\); train first"):
        open_workdir(tmp_path, tiny_config("Plain"), training=False)
    begun(tmp_path)
    (tmp_path / "config.json").unlink()
    for training in (True, False):
        with pytest.raises(UserError, match=r"it has no config\.json\); restore it, or use another workdir"):
            open_workdir(tmp_path, tiny_config("Plain"), training=training)


@pytest.mark.parametrize("text", ['{"seed": 1', "[1, 2]", '{"seed": 1}', ""])
def test_a_broken_config_is_refused(tmp_path, text):
    begun(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json is not"):
        enter(tmp_path)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match=r"--workdir=.*a file; choose another folder"):
            enter(path)


def test_an_operating_systems_refusal_names_the_file_and_the_mend(tmp_path):
    with pytest.raises(OSError) as seen:
        (tmp_path / "none" / "x").write_bytes(b"")
    assert "none/x" in os_refusal(seen.value)
    assert "free some space" in os_refusal(OSError(28, "No space left on device", "/a/b"))
