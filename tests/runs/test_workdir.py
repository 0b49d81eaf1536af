"""A run's folder: entered again with the same config, refused with another, lengths fixed at the beginning."""

from __future__ import annotations

import json
import os

import pytest
from etils import epath
from ml_collections import ConfigDict
from tiny_methods import tiny_config

from jaxgen.config import from_json
from jaxgen.errors import UserError, os_refusal
from jaxgen.runs.workdir import keep_history, open_workdir, stored_config


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


def test_the_end_of_a_decay_and_a_warm_up_may_be_changed_in_every_group(tmp_path):
    begun(tmp_path, **{"optimizer.decay": "cosine"})
    assert from_json((tmp_path / "config.json").read_text()).optimizer.decay_images == 0  # stored as it was written
    config = tiny_config("Plain")
    config.optimizer.update(decay="cosine", decay_images=96, warmup_images=8)
    config.optimizers = ConfigDict({"net": {"decay_images": 128, "warmup_images": 16}})
    _, changed = open_workdir(tmp_path, config, training=True)
    assert changed == {
        "optimizer.decay_images": (0, 96),
        "optimizer.warmup_images": (0, 8),
        "optimizers.net.decay_images": (None, 128),
        "optimizers.net.warmup_images": (None, 16),
    }
    config.optimizers.net.learning_rate = 0.5
    with pytest.raises(UserError, match=r"config: config\.optimizers\.net\.learning_rate was None and is 0\.5\."):
        open_workdir(tmp_path, config, training=True)


def begun_by_an_older_version(tmp_path):
    """A run of 64 images, in whose config each decay that was to end with the run has this number."""
    config = tiny_config("TwoPlayers")
    config.optimizers = ConfigDict({"discriminator": {"decay": "linear"}, "generator": {"b1": 0.5}})
    open_workdir(tmp_path, config, training=True)
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    stored = json.loads((tmp_path / "config.json").read_text())
    stored["optimizers"]["discriminator"]["decay_images"] = 64
    (tmp_path / "config.json").write_text(json.dumps(stored))
    return config


@pytest.mark.parametrize("from_file", [True, False])
def test_a_decay_that_an_older_version_ended_with_the_run_follows_its_new_length(tmp_path, from_file, caplog):
    given = begun_by_an_older_version(tmp_path)
    for images, lines in ((64, 0), (128, 1)):
        stored = stored_config(tmp_path, ["tiny_methods"])
        config = ConfigDict(given.to_dict(), type_safe=False) if from_file else stored
        config.train.total_images = images
        caplog.clear()
        with caplog.at_level("INFO", "jaxgen"):
            config, changed = open_workdir(tmp_path, config, training=True)
        assert list(changed) == (["train.total_images"] if images == 128 else [])
        assert not config.optimizers.discriminator.get("decay_images")
        assert len(caplog.messages) == lines
    assert caplog.messages == [
        "config.optimizers.discriminator.decay_images was 64, the length of the run; the decay is understood to end "
        "with the run, now at 128 images"
    ]


def test_a_number_that_the_user_gives_is_the_end_of_the_decay(tmp_path, caplog):
    config = begun_by_an_older_version(tmp_path)
    config.optimizers.discriminator.decay_images = 64
    config.train.total_images = 128
    with caplog.at_level("INFO", "jaxgen"):
        config, changed = open_workdir(tmp_path, config, training=True)
    assert config.optimizers.discriminator.decay_images == 64 and list(changed) == ["train.total_images"]
    assert caplog.messages == []


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


def contents(folder) -> dict:
    """Everything below a folder: what links lead to, and the bytes of files."""
    return {
        path: os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("name", ["checkpoints", "samples", "tensorboard", "config.json", "metrics.jsonl", "run.json"])
@pytest.mark.parametrize("kind", ["link", "wrong kind"])
def test_a_place_of_the_run_that_cannot_be_used_is_refused_and_nothing_is_written(tmp_path, name, kind):
    enter(tmp_path)
    place = tmp_path / name
    place.unlink(missing_ok=True)
    if kind == "link":
        place.symlink_to(tmp_path / "gone")
    elif "." in name:
        place.mkdir()
    else:
        place.write_text("")
    before = contents(tmp_path)
    words = "is a link to .*gone, where there is nothing" if kind == "link" else "and a run keeps (a file|a folder)"
    for changes in ({}, {"seed": 3}):
        with pytest.raises(UserError, match=f"{name} .*{words}"):
            enter(tmp_path, **changes)
        assert contents(tmp_path) == before


def test_a_folder_of_the_run_may_be_a_link(tmp_path):
    (tmp_path / "large disk").mkdir()
    for name in ("checkpoints", "samples"):
        (tmp_path / name).symlink_to(tmp_path / "large disk")
    enter(tmp_path)
    assert (tmp_path / "config.json").exists()


def history(workdir, images: int) -> None:
    (workdir / "metrics.jsonl").write_text(json.dumps({"step": images // 8, "images": images, "seconds": 1.0}) + "\n")


@pytest.mark.parametrize("emptied", [True, False])
def test_a_run_whose_checkpoints_are_gone_is_not_begun_anew(tmp_path, emptied):
    enter(tmp_path, **{"train.checkpoint_every_images": 16})
    history(tmp_path, 40)
    if emptied:
        (tmp_path / "checkpoints").mkdir()
    before = contents(tmp_path)
    for changes in ({}, {"seed": 3}):
        with pytest.raises(UserError, match="history of a run up to 40 images, and no checkpoint of it; restore"):
            enter(tmp_path, **changes)
        assert contents(tmp_path) == before


@pytest.mark.parametrize(("every", "images"), [(16, 24), (0, 40)])
def test_a_run_that_was_killed_before_its_first_checkpoint_keeps_its_history(tmp_path, every, images):
    enter(tmp_path, **{"train.checkpoint_every_images": every})
    (tmp_path / "checkpoints").mkdir()
    for number in (1, 2):
        history(tmp_path, images + number)
        enter(tmp_path, **{"train.checkpoint_every_images": every})
        keep_history(epath.Path(tmp_path))
        assert f'"images": {images + number}' in (tmp_path / f"metrics.{number}.jsonl").read_text()
        assert not (tmp_path / "metrics.jsonl").exists()


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
