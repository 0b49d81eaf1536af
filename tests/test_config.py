"""The shared keys: defaults pass, mistakes are named, JSON goes there and back, changes are found."""

from __future__ import annotations

import inspect
import json
import pathlib
import re
import sys

import pytest
from ml_collections import ConfigDict

from jaxgen.config import (
    DEFAULTS,
    check,
    defaults,
    differences,
    from_json,
    image_shape,
    may_change,
    schema,
    section,
    to_json,
)
from jaxgen.config.files import load_config
from jaxgen.errors import UserError

CONFIGS = sorted((pathlib.Path(__file__).parents[1] / "configs").glob("[!_]*.py"))


def good() -> ConfigDict:
    config = defaults()
    config.method.name = "ddpm"
    config.data.source = "digits"
    config.train.total_images = 1000
    return config


def test_a_config_with_the_least_passes():
    check(good())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_pass_and_say_what_they_are(path):
    config, line = load_config(path)
    check(config)
    assert 10 < len(line) < 110


WRONG = [
    ("train.batchsize", 8, r"config\.train\.batchsize does not exist; did you mean 'batch_size'\?"),
    ("trian", section(), r"config\.trian does not exist; did you mean 'train'\?"),
    ("data.zzz", 1, r"config\.data\.zzz does not exist; known are: .*source"),
    ("train", 3, r"config\.train must be a section with keys, not 3"),
    ("train.batch_size", 8.0, r"config\.train\.batch_size must be of type int, not 8\.0"),
    ("train.batch_size", True, r"config\.train\.batch_size must be of type int, not True"),
    ("train.batch_size", "8", r"config\.train\.batch_size must be of type int, not '8'"),
    ("train.ema_decay", "0.9", r"config\.train\.ema_decay must be of type float"),
    ("train.ema_decay", float("nan"), r"config\.train\.ema_decay must be of type float, not nan"),
    ("train.tensorboard", 1, r"config\.train\.tensorboard must be of type bool, not 1"),
    ("data.source", 3, r"config\.data\.source must be of type str, not 3"),
    ("data.resolution", (8, 8, 8), r"config\.data\.resolution must be a size in pixels or \(height, width\)"),
    ("data.resolution", 0, r"config\.data\.resolution must be"),
    ("evaluate.metrics", "digits", r"config\.evaluate\.metrics must be of type tuple, not 'digits'"),
    ("train.batch_size", 0, r"config\.train\.batch_size is 0; it must be at least 1"),
    ("train.total_images", 0, r"config\.train\.total_images is 0; it must be at least 1"),
    ("train.total_images", 2**32, r"config\.train\.total_images must be below 2\*\*32"),
    ("train.keep_last", 0, r"config\.train\.keep_last is 0"),
    ("train.sample_every_images", -1, r"config\.train\.sample_every_images is -1; it must be 0 \(never\) or more"),
    ("seed", -1, r"config\.seed is -1; it must be in \[0, 2\*\*32\)"),
    ("seed", 2**32, r"config\.seed is 4294967296"),
    ("train.ema_decay", 1.0, r"config\.train\.ema_decay is 1\.0; it must be in \[0, 1\)"),
    ("train.accumulate", 3, r"config\.train\.accumulate=3 does not divide config\.train\.batch_size=64"),
    ("data.source", "", r"config\.data\.source is empty; name a data set"),
    ("data.crop", -1, r"config\.data\.crop is -1"),
    ("mesh.data", -1, r"config\.mesh\.data is -1"),
    ("method.name", "", r"config\.method\.name is empty; name a method"),
    ("train.keep_best", 1, r"config\.train\.keep_best needs config\.train\.best_metric"),
    ("train.best_mode", "lowest", r"config\.train\.best_mode='lowest' is unknown; it is 'min' or 'max'"),
    ("data.extra.styles", "digits", r"config\.data\.extra\.styles must be a section with 'source' and 'split'"),
    ("data.extra.styles", section(source="digits", split="all", spilt="x"), r"no key 'spilt'|spilt"),
    ("data.extra.styles", section(source="digits"), r"config\.data\.extra\.styles must be a section"),
    ("optimizers.discriminator", 3, r"config\.optimizers\.discriminator must be a section with keys, not 3"),
    (
        "optimizers.discriminator",
        section(learning_rate="fast"),
        r"config\.optimizers\.discriminator\.learning_rate must be of type",
    ),
    ("optimizer.learning_rate", "fast", r"config\.optimizer\.learning_rate must be of type float, not 'fast'"),
]


@pytest.mark.parametrize(("key", "value", "message"), WRONG, ids=[f"{key}={value!r:.12}" for key, value, _ in WRONG])
def test_a_mistake_is_named_in_one_sentence(key, value, message):
    config = good()
    *path, last = key.split(".")
    inner = config
    for part in path:
        inner = inner[part]
    inner[last] = value
    with pytest.raises(UserError, match=message) as error:
        check(config)
    assert "\n" not in str(error.value)


def test_a_key_that_is_missing_is_named():
    config = good()
    del config.train["accumulate"]
    with pytest.raises(UserError, match=r"config\.train\.accumulate is missing; start the config from"):
        check(config)


def test_sections_that_factories_check_are_open():
    config = good()
    config.method.update(network=section(name="unet", anything=1))
    config.sampler.update(steps=3)
    config.optimizer.update(weight_decay=0.1)
    config.optimizers = section(discriminator=section(learning_rate=1, nesterov=True))
    config.init_from = section(unet="runs/a")
    config.data.extra = section(styles=section(source="digits", split="test"))
    check(config)


def test_an_int_may_stand_for_a_float_and_a_size_may_be_a_pair():
    config = good()
    config.train.ema_decay = 0
    config.data.resolution = (8, 12)
    config.data.channels = 1
    check(config)
    assert image_shape(config) == (8, 12, 1)
    config.data.resolution = 8
    assert image_shape(config) == (8, 8, 1)


def test_json_goes_there_and_back():
    config = good()
    config.method.update(network=section(name="unet", channel_multipliers=(1, 2), nested=((1, 2), (3,)), nothing=None))
    config.optimizer.learning_rate = 1 / 3
    again = from_json(to_json(config))
    assert again.to_dict() == config.to_dict() and differences(config, again) == {}
    assert again.method.network.nested == ((1, 2), (3,))
    check(again)
    assert to_json(again) == to_json(config) and json.loads(to_json(config))["seed"] == 0
    again.train.ema_decay = 0  # values may change type
    with pytest.raises(ValueError, match="JSON"):
        config.optimizer.learning_rate = float("inf")
        to_json(config)


def leaves(entries: dict, path: tuple[str, ...] = ()):
    for key, value in entries.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from leaves(value, (*path, key))


NEWER = [path for path in leaves(DEFAULTS) if path not in [("method",), ("data",), ("train",)]]


@pytest.mark.parametrize("path", NEWER, ids=".".join)
def test_a_config_from_before_a_key_was_there_has_its_default(path):
    config = good()
    stored = json.loads(to_json(config))
    inner = stored
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    again = from_json(json.dumps(stored))
    if path not in [("data", "source"), ("method", "name"), ("train", "total_images")]:  # no default fits
        check(again)
        assert differences(config, again) == {}
    assert set(leaves(again.to_dict())) == set(leaves(config.to_dict()))


@pytest.mark.parametrize("text", ["{}", "[]", "3", '{"train": {"batch_size": 3}}', '{"method": 1, "data": {}}'])
def test_json_that_is_no_config_of_a_run_is_not_made_one(text):
    again = from_json(text)
    plain = again.to_dict() if isinstance(again, ConfigDict) else again
    assert json.loads(json.dumps(plain)) == json.loads(text)


def test_defaults_are_new_each_time():
    one = defaults()
    one.train.batch_size, one.data.extra.a = 3, section(source="digits", split="test")
    assert defaults().train.batch_size == 64 and not len(defaults().data.extra)


def test_every_option_is_documented_on_its_own_line_or_the_line_above():
    lines = inspect.getsource(schema).split("DEFAULTS")[1].split("\n)\n")[0].splitlines()
    options = [i for i, line in enumerate(lines) if re.match(r" +\w+=(?!dict\($)", line)]
    assert len(options) > 50
    for i in options:
        assert "  # " in lines[i] or lines[i - 1].lstrip().startswith("# "), lines[i]


def test_differences_name_leaves_and_both_values():
    old, new = good(), good()
    new.train.total_images = 2000
    new.optimizers = section(discriminator=section(learning_rate=0.1))
    del new.method["name"]
    new.method.names = "ddpm"
    new.data.resolution = [32, 32]
    old.data.resolution = (32, 32)
    assert differences(old, new) == {
        "method.name": ("ddpm", None),
        "method.names": (None, "ddpm"),
        "optimizers.discriminator.learning_rate": (None, 0.1),
        "train.total_images": (1000, 2000),
    }
    assert differences(new, new) == {}


def test_only_lengths_cadences_and_places_may_change():
    for key in ("train.total_images", "train.keep_last", "mesh.data", "evaluate.num", "evaluate", "data.root"):
        assert may_change(key)
    for key in ("optimizer.decay_images", "optimizers.generator.decay_images", "optimizers.a.warmup_images"):
        assert may_change(key)
    for key in (
        "seed",
        "train.batch_size",
        "train.ema_decay",
        "method.network.channels",
        "data.source",
        "meshes",
        "train.total_images_",
        "optimizer.learning_rate",
        "optimizer.decay",
        "optimizers.generator.learning_rate",
        "optimizers.decay_images",
        "sampler.steps",
        "init_from.table",
    ):
        assert not may_change(key)
    assert may_change("sampler.steps", ("sampler",))


def test_a_config_file_may_begin_from_another_of_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my_experiments"
    folder.mkdir()
    base = "from jaxgen.config import defaults\n\n\ndef get_config():\n    return defaults()\n"
    (folder / "base.py").write_text(base)
    text = "def get_config():\n    config = base.get_config()\n    config.seed = 7\n    return config\n"
    (folder / "mine.py").write_text(f'"""Mine."""\n\nfrom my_experiments import base\n\n\n{text}')
    before = list(sys.path)
    config, line = load_config(folder / "mine.py")
    assert (config.seed, line) == (7, "Mine") and sys.path == before


def test_loading_leaves_nothing_beside_the_file(tmp_path, monkeypatch):
    """A command that is refused changes nothing, also where Python keeps what it compiles."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / "other.py").write_text("from jaxgen.config import defaults\n")
    file = tmp_path / "own.py"
    file.write_text(f"from {tmp_path.name} import other\n\n\ndef get_config():\n    return other.defaults()\n")
    load_config(file)
    assert sorted(tmp_path.iterdir()) == [tmp_path / "other.py", file] and not sys.dont_write_bytecode
