"""A run's folder may be anybody's: what its files name is never imported, called or written into a page unasked."""

from __future__ import annotations

import json
import os
import pathlib
import re
import sys

import pytest
import tiny
from tiny_methods import ddpm_config

from jaxgen import registry
from jaxgen.config import from_json, section
from jaxgen.config.trust import check_names, foreign
from jaxgen.editing.__main__ import main as editing
from jaxgen.errors import UserError
from jaxgen.runs.optim import optimizers
from jaxgen.runs.workdir import open_workdir, stored_config
from jaxgen.sampling.latents import main as latents

# A module that leaves a file where it is imported, and another where its function is called.
PAYLOAD = """
import pathlib
import re
import flax.linen as nn

HERE = pathlib.Path(__file__).parent
(HERE / "imported").touch()

def run(command):
    (HERE / "called").touch()

class Blur(nn.Module):
    pass
"""
# Where a name may stand in a stored config, as a function of the name.
PLACES = {
    "method.name": lambda name: {"method": {"name": name, "command": "x"}},
    "method.network.name": lambda name: {"method": {"name": "ddpm", "network": {"name": name, "command": "x"}}},
    "method.network": lambda name: {"method": {"name": "ddpm", "network": name}},
    "method.schedule.name": lambda name: {"method": {"name": "ddpm", "schedule": {"name": name}}},
    "method.deep.deeper.name": lambda name: {"method": {"deep": {"deeper": {"name": name}}}},
    "sampler.name": lambda name: {"sampler": {"name": name, "args": "x"}},
    "guidance.name": lambda name: {"guidance": {"name": name}},
    "guidance.network.name": lambda name: {"guidance": {"name": "classifier", "network": {"name": name}}},
    "guidance.parts.name": lambda name: {"guidance": {"name": "composed", "parts": [{"name": "x"}, {"name": name}]}},
    "data.source": lambda name: {"data": {"source": name}},
    "data.source (argument)": lambda name: {"data": {"source": f"{name}:touch x"}},
    "data.source (captions)": lambda name: {"data": {"source": f"captions:{name}"}},
    "data.extra": lambda name: {"data": {"extra": {"b": {"source": name, "split": "train"}}}},
    "evaluate.metrics": lambda name: {"evaluate": {"metrics": ["frechet", name]}},
    "evaluate.metrics (section)": lambda name: {"evaluate": {"metrics": [{"name": "kid", "network": name}]}},
    "evaluate.network": lambda name: {"evaluate": {"network": name}},
    "evaluate.network (section)": lambda name: {"evaluate": {"network": {"name": name}}},
    "optimizer.name": lambda name: {"optimizer": {"name": name}},
    "optimizers": lambda name: {"optimizers": {"denoiser": {"name": name}}},
}
MODES = {
    "sample": ["--mode=sample", "--out={out}"],
    "evaluate": ["--mode=evaluate"],
    "quiz": ["--mode=evaluate", "--quiz"],
    "plan": ["--mode=plan", "--topology=cpu:1"],
    "profile": ["--mode=profile"],
}


@pytest.fixture
def payload(tmp_path, monkeypatch) -> pathlib.Path:
    """The folder of the module `stranger`, which Python can import."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "stranger.py").write_text(PAYLOAD)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    yield folder
    sys.modules.pop("stranger", None)


@pytest.fixture
def run(tmp_path) -> pathlib.Path:
    """The folder of a run with a good config."""
    folder = tmp_path / "run"
    open_workdir(folder, ddpm_config(), training=True)
    return folder


def tamper(run: pathlib.Path, change: dict) -> None:
    """Writes other values into the stored config, as whoever sent the folder might have."""
    stored = json.loads((run / "config.json").read_text())
    for name, entries in change.items():
        stored[name] = {**stored[name], **entries}
    (run / "config.json").write_text(json.dumps(stored))


def all_files(folder: pathlib.Path) -> set[str]:
    return {os.fspath(path.relative_to(folder)) for path in folder.rglob("*") if "__pycache__" not in path.parts}


@pytest.mark.parametrize("place", PLACES)
def test_a_stored_config_names_no_code_of_others(place, run, payload):
    tamper(run, PLACES[place]("stranger:run"))
    before = all_files(run.parent)
    with pytest.raises(UserError, match=r"package 'stranger'.*--trust=stranger\.$") as caught:
        stored_config(run)
    assert place.partition(" ")[0] in str(caught.value) and "\n" not in str(caught.value)
    assert "stranger" not in sys.modules and all_files(run.parent) == before


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("place", ["method.network.name", "sampler.name", "data.source", "evaluate.network"])
def test_no_mode_runs_it(mode, place, run, payload, capsys):
    tamper(run, PLACES[place]("stranger:run"))
    before = all_files(run.parent)
    words = [word.format(out=run.parent / "out") for word in MODES[mode]]
    assert tiny.call(f"--workdir={run}", *words) == 2
    assert "--trust=stranger" in tiny.Result(2, *capsys.readouterr()).complaint
    assert "stranger" not in sys.modules and all_files(run.parent) == before


@pytest.mark.parametrize(
    ("command", "words"), [(editing, ["--workdir={run}", "--out={out}"]), (latents, ["{run}", "{out}/l.npz"])]
)
def test_no_other_command_runs_it(command, words, run, payload, capsys):
    tamper(run, PLACES["method.network.name"]("stranger:run"))
    before = all_files(run.parent)
    assert command([word.format(run=run, out=run.parent / "out") for word in words]) == 2
    assert "--trust=stranger" in tiny.Result(2, *capsys.readouterr()).complaint
    assert "stranger" not in sys.modules and all_files(run.parent) == before


@pytest.mark.parametrize(
    "name", ["os:system", "subprocess:run", "posix:system", "builtins:exec", "this:d", "xml.dom:Node", "optax:adam"]
)
def test_what_python_has_is_not_called(name, run):
    tamper(run, PLACES["method.network.name"](name))
    with pytest.raises(UserError, match="would run code of the package"):
        stored_config(run)


@pytest.mark.parametrize("name", ["jaxgen.files:write_bytes", "jaxgen.host:os", "jaxgen.command.run:main", "jaxgen:x"])
def test_of_jaxgen_itself_only_the_rooms_are_meant(name, run):
    tamper(run, PLACES["method.network.name"](name))
    with pytest.raises(UserError, match=r"is no class that a config may name; correct the file\."):
        stored_config(run, trust=("jaxgen",))


@pytest.mark.parametrize(
    "name", [".stranger:run", "stranger:run()", "./stranger:run", "stranger:", ":run", "stranger.run", "stranger run"]
)
def test_what_is_no_name_is_not_imported_either(name, payload):
    with pytest.raises(UserError):
        registry.find("network", name, "x")
    assert "stranger" not in sys.modules and all_files(payload) == {"stranger.py"}


def test_a_short_name_of_a_room_is_not_taken_for_a_module_beside_it(run, payload, monkeypatch):
    """`unet:UNet` is a network; as a sampler Python would import a module `unet`, where there is one."""
    assert foreign("unet:UNet") is None
    (payload / "unet.py").write_text(PAYLOAD)
    monkeypatch.syspath_prepend(payload)
    tamper(run, PLACES["sampler.name"]("unet:run"))
    with pytest.raises(UserError, match="--trust=unet"):
        stored_config(run)
    assert all_files(payload) == {"stranger.py", "unet.py"}


@pytest.mark.parametrize("name", ["stranger:run", "stranger:HERE", "stranger:pathlib"])
def test_the_type_is_checked_before_a_call_where_the_package_is_trusted(name, run, payload, capsys):
    tamper(run, PLACES["method.network.name"](name))
    assert tiny.call(f"--workdir={run}", "--mode=plan", "--topology=cpu:1", "--trust=stranger", f"--out={run}") == 2
    assert f"{name!r} is not a Module" in capsys.readouterr().err
    assert (payload / "imported").exists() and not (payload / "called").exists()


def test_trust_is_of_the_package_that_was_named(run, payload):
    tamper(run, PLACES["method.network.name"]("stranger:Blur"))
    assert stored_config(run, trust=("stranger",)).method.network.name == "stranger:Blur"
    for other in ("strange", "stranger.inner", "os", ""):
        with pytest.raises(UserError, match="--trust=stranger"):
            stored_config(run, trust=(other,))


def test_trust_of_a_package_covers_its_modules_and_not_the_other_way_round():
    config = section(method=section(network="lab.nets.deep:Net"))
    check_names(config, "f", ("lab",))
    check_names(config, "f", ("lab.nets",))
    with pytest.raises(UserError, match="--trust=lab"):
        check_names(config, "f", ("lab.nets.deep.er",))


def test_the_command_lines_own_names_are_trusted(run, payload, capsys):
    """An override names the module, whereupon it is looked into, and what is found is of another type."""
    words = [f"--workdir={run}", "--mode=plan", "--topology=cpu:1", f"--out={run}"]
    assert tiny.call(*words, "--config.method.network.name=stranger:run") == 2
    assert "'stranger:run' is not a Module" in capsys.readouterr().err
    assert not (payload / "called").exists()


def test_trust_is_for_stored_configs_only(tmp_path, run, capsys):
    config = tiny.write_config(tmp_path)
    words = [f"--workdir={run}", "--mode=sample", f"--out={tmp_path}", "--trust=stranger"]
    assert tiny.call(f"--config={config}", *words) == 2
    assert "--trust has no use beside --config" in tiny.Result(2, *capsys.readouterr()).complaint


def test_beside_a_config_of_ones_own_the_stored_one_is_only_compared(run, payload):
    config = stored_config(run)
    tamper(run, PLACES["method.network.name"]("stranger:run"))
    (run / "checkpoints" / "1").mkdir(parents=True)
    with pytest.raises(UserError, match="was begun with another config: config.method.network.*stranger:run"):
        open_workdir(run, config, training=True)
    assert "stranger" not in sys.modules


def test_a_run_is_still_entered_by_the_config_that_names_the_package(run, payload):
    tamper(run, PLACES["method.network.name"]("stranger:Blur"))
    (run / "checkpoints" / "1").mkdir(parents=True)
    own = from_json((run / "config.json").read_text())
    assert open_workdir(run, own, training=True)[1] == {}


def test_good_configs_pass(run):
    sources = ("digits", "folder:photos", "folder:gs://bucket/x", "tfds:horses/big:1.0.0", "captions:folder:photos")
    others = ("gs://bucket/x", "npz:/data/x.npz", "autoencoder_kl:Encoder", "jaxgen.networks.unet:UNet")
    for text in (*sources, *others):
        assert foreign(text) is None, text
    tamper(run, {"init_from": {"lpips": "lpips:vgg", "judge": "classifier:digits"}})
    assert stored_config(run).init_from.lpips == "lpips:vgg"


def test_no_file_says_whom_a_process_connects_to(run):
    tamper(run, {"distributed": {"coordinator": "elsewhere.example:1", "num_processes": 2, "process_id": 1}})
    assert stored_config(run).distributed.coordinator == ""


def test_json_that_makes_no_config_is_one_sentence(run):
    for text in ("[" * 100_000, '{"a.b": 1}', "\x00"):
        (run / "config.json").write_text(text)
        with pytest.raises(UserError, match="config.json is not"):
            stored_config(run)


def test_a_config_that_is_a_pipe_is_not_waited_for(run, capsys):
    (run / "config.json").unlink()
    os.mkfifo(run / "config.json")
    for command, words in {editing: [f"--workdir={run}", "--out=out"], tiny.call: [f"--workdir={run}"]}.items():
        status = command(words) if command is editing else tiny.call(*words, "--mode=sample", "--out=out")
        assert status == 2
        assert "is a pipe (FIFO), not a file" in tiny.Result(2, *capsys.readouterr()).complaint


def test_a_byte_order_mark_before_a_config_is_no_part_of_it(run):
    before = stored_config(run).to_dict()
    (run / "config.json").write_bytes(b"\xef\xbb\xbf" + (run / "config.json").read_bytes())
    assert stored_config(run).to_dict() == before


SECTIONS = ("method", "data", "data.extra", "train", "optimizer", "optimizers", "sampler", "init_from", "evaluate")


@pytest.mark.parametrize("key", SECTIONS)
@pytest.mark.parametrize("value", [None, 3, "ddpm", [1]], ids=repr)
def test_a_stored_section_that_is_none_is_named(key, value, run, capsys):
    stored = json.loads((run / "config.json").read_text())
    first, _, second = key.partition(".")
    stored[first] = {**stored[first], second: value} if second else value
    (run / "config.json").write_text(json.dumps(stored))
    for command in (editing, lambda words: tiny.call(*words, "--mode=evaluate")):
        words = [f"--workdir={run}", f"--out={run}"]
        assert command(words if command is editing else words[:1]) == 2
        told = tiny.Result(2, *capsys.readouterr()).complaint
        assert f"config.json: config.{key} must be a section with keys" in told


@pytest.mark.parametrize("value", [5, {"name": "x"}, ["x"], True], ids=repr)
@pytest.mark.parametrize("group", ["denoiser", "pretrained"])
def test_a_source_of_weights_is_a_text(group, value, run, capsys):
    tamper(run, {"init_from": {group: value}})
    assert editing([f"--workdir={run}", f"--out={run}"]) == 2
    told = tiny.Result(2, *capsys.readouterr()).complaint
    assert f"config.init_from.{group} must be a text, such as the workdir of a run, not" in told


@pytest.mark.parametrize("name", ["os:system", "adamw.__init__", "__loader__", "apply_updates", "optax.adam", 3])
def test_an_optimiser_is_one_of_optax(name):
    config = ddpm_config()
    config.optimizer.name = name
    with pytest.raises(UserError, match="is unknown"):
        optimizers(config, ("denoiser",))


@pytest.mark.parametrize(
    ("kind", "name"), [("method", "check_loaded"), ("schedule", "uniform_timesteps"), ("guidance", "linear")]
)
def test_a_function_beside_a_contract_is_no_class_of_the_kind(kind, name):
    with pytest.raises(UserError, match=f"x={name!r} is (unknown|not a)"):
        registry.find(kind, name, "x")


def test_code_is_made_of_names_in_known_places_only():
    """Elsewhere nothing is imported by a computed name, evaluated or unpickled."""
    pattern = r"import_module\(|__import__\(|exec_module\(|(?<![\w.])(eval|exec)\(|pickle|allow_pickle=True"
    found = set()
    for path in (tiny.ROOT / "jaxgen").rglob("*.py"):
        # comments on `savez` speak of an array called "allow_pickle"
        if re.search(pattern, re.sub(r'allow_pickle=False|"allow_pickle"', "", path.read_text())):
            found.add(os.fspath(path.relative_to(tiny.ROOT / "jaxgen")))
    importers = {"__init__.py", "registry.py", "config/files.py"}
    # which speak of pickles, to refuse them
    words = {"files/arrays.py", "files/hub.py", "metrics/statistics.py", "interop/diffusers_files.py"} | {
        f"interop/adapters/{x}.py" for x in ("learned_embeds", "lora")
    }
    # The first one's unpickler knows tensors alone; the second writes the bytes of tensors' pickles, and reads none;
    # the third's knows tensors and records of their names.
    files = {"interop/torch_file.py", "interop/torch_writer.py", "interop/stylegan/published_file.py"}
    assert found == importers | words | files
