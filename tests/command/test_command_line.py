"""The command line before a run begins: help, the list, overrides, and what it does not import."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import types
import warnings

import pytest
import tiny

from jaxgen.command import flags, modes
from jaxgen.command import run as command
from jaxgen.command.parse import parse
from jaxgen.config import defaults, differences, from_json, section, to_json
from jaxgen.config import files as config_files
from jaxgen.errors import UserError
from jaxgen.registry import classes

HEAVY = ("jax", "flax", "optax", "orbax", "grain", "tensorflow_datasets", "sklearn", "numpy", "PIL")

# Runs the command line and then says, on stderr, which of the slow packages that took.
PROBE = f"""
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    code = end.code
print("imported:", *[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
sys.exit(code)
"""


def probe(*arguments: str) -> tuple[tiny.Result, str]:
    """What a command left, and the slow packages it imported."""
    result = tiny.spawn(argv=[sys.executable, "-c", PROBE, *tiny.command(*arguments)[1:]])
    text, _, imported = result.err.rpartition("imported:")
    return tiny.Result(result.status, result.out, text), imported.strip()


def test_help():
    result, imported = probe("--help")
    assert result.status == 0 and result.err == "" and imported == ""
    for flag in ("--config", "--workdir", "--mode", "--num", "--seed", "--out", "--labels", "list"):
        assert flag in result.out
    assert "python main.py --config=" in result.out


def test_list_names_every_config():
    result, imported = probe("--list")
    assert result.status == 0 and result.err == "" and imported == ""
    lines = result.out.splitlines()
    files = sorted((tiny.ROOT / "configs").glob("[!_]*.py"))
    assert len(lines) == len(files)
    for line, file in zip(lines, files, strict=True):
        config, summary = config_files.load_config(file)
        assert [config.method.name, config.data.source] == line.split()[1:3]
        assert line.split()[0] == f"configs/{file.name}"
        assert summary and line.endswith(summary)


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ("--config.train.batch_sise=8", "'batch_size'"),
        ("--config.train.batch_size=0", "config.train.batch_size"),
        ("--config.train.batch_size=many", "config.train.batch_size"),
        ("--config.train.accumulate=3", "config.train.accumulate"),
        ("--config.trian.batch_size=8", "trian"),
        ("--config.seed=-1", "config.seed"),
        ("--config.evaluate.num=1", "config.evaluate.num"),
        ("--config.mesh.data=-1", "config.mesh.data"),
        ("--config.data.resolution=0", "config.data.resolution"),
        ("--wrokdir=x", "'workdir'"),
        ("--mode=trian", "'train'"),
        ("--mode=sample", "--out"),
        ("junk", "'junk'"),
    ],
)
def test_config_errors_come_before_jax(argument, named, tmp_path):
    config = tiny.write_config(tmp_path)
    result, imported = probe(f"--config={config}", f"--workdir={tmp_path / 'run'}", argument)
    assert result.status == 2 and imported == ""
    assert result.err.count("\n") == 1 and named in result.complaint
    assert not (tmp_path / "run").exists()


@pytest.fixture
def seen(monkeypatch):
    """What the command line hands to training, which is not done."""
    found = []
    monkeypatch.setattr(command, "run", lambda config, flags: found.append((config, flags)) or 0)
    return found


def test_overrides(seen, tmp_path):
    path = tiny.write_config(tmp_path)
    overrides = {
        "seed": 7,
        "train.batch_size": 16,
        "train.total_images": 999,
        "train.ema_decay": 0.5,
        "data.resolution": 16,
        "data.source": "shapes",
        "sampler.name": "ddpm",
        "sampler.steps": 3,
        "mesh.data": 2,
        "init_from.denoiser": "runs/other",
        "method.network.channels": 12,
        "method.network.channel_multipliers": (1, 2),
        "evaluate.metrics": (),
    }
    assert tiny.call(f"--config={path}", "--workdir=w", *[f"--config.{k}={v}" for k, v in overrides.items()]) == 0
    ((config, flags),) = seen
    plain, _ = config_files.load_config(path)
    changed = differences(plain, config)
    assert {k: tuple(new) if isinstance(new, list) else new for k, (_, new) in changed.items()} == overrides
    assert flags.workdir == "w" and flags.mode == "train" and flags.summary == "A tiny DDPM on 8x8 digits"
    assert flags.command.startswith("python main.py --config=") and "--config.seed=7" in flags.command


def test_overrides_may_add_sections(seen, tmp_path):
    path = tiny.write_config(tmp_path)
    overrides = {
        "guidance.name": "universal",
        "guidance.scale": 0.5,
        "guidance.network.name": "classifier",
        "guidance.network.widths": (12, 16),
        "optimizers.denoiser.learning_rate": 3e-4,
        "data.extra.b.source": "shapes",
        "data.extra.b.split": "val",
        "data.corruptions.condition.name": "low_resolution",
        "data.corruptions.condition.factor": 2,
        "method.parts.picture.name": "image",
        "method.grafts.lora.name": "low_rank",
    }
    assert tiny.call(f"--config={path}", "--workdir=w", *[f"--config.{k}={v}" for k, v in overrides.items()]) == 0
    ((config, _),) = seen
    changed = differences(config_files.load_config(path)[0], config)
    assert {k: tuple(new) if isinstance(new, list) else new for k, (_, new) in changed.items()} == overrides


@pytest.mark.parametrize("form", [["--config", "{}"], ["-config={}"], ["--config={}"]])
def test_forms_of_the_config_flag(form, seen, tmp_path):
    path = tiny.write_config(tmp_path)
    assert tiny.call(*[word.format(path) for word in form], "--workdir=w") == 0
    ((config, flags),) = seen
    assert config.method.name == "ddpm" and flags.summary


def test_commands_do_not_remember_each_other(seen, tmp_path):
    path = tiny.write_config(tmp_path)
    tiny.call(f"--config={path}", "--workdir=w", "--config.seed=7", "--mode=sample", "--out=x", "--labels=1,2")
    tiny.call(f"--config={path}", "--workdir=v")
    assert [config.seed for config, _ in seen] == [7, 0]
    assert [flags.labels for _, flags in seen] == [(1, 2), None]


def test_list_of_a_kind_names_every_class_with_its_first_line(capsys):
    assert tiny.call("--list=sampler") == 0
    lines = capsys.readouterr().out.splitlines()
    found = classes("sampler")
    assert [line.split()[0] for line in lines] == list(found) and "dpmpp_2m" in found
    for line, cls in zip(lines, found.values(), strict=True):
        assert line.endswith(config_files.first_sentence(cls.__doc__)) and len(line.split()) > 3


def test_list_of_an_unknown_kind_proposes_the_nearest(capsys):
    assert tiny.call("--list=sapmler") == 2
    assert "did you mean 'sampler'?" in tiny.Result(2, *capsys.readouterr()).complaint


def test_broken_config_in_the_list(tmp_path):
    (tmp_path / "good.py").write_text((tiny.write_config(tmp_path / "elsewhere")).read_text())
    (tmp_path / "bad.py").write_text("import no_such_thing\n")
    with pytest.raises(UserError, match="bad.py.*no_such_thing"):
        config_files.listing(tmp_path)
    (tmp_path / "bad.py").unlink()
    assert "A tiny DDPM" in config_files.listing(tmp_path)
    with pytest.raises(UserError, match="no configs"):
        config_files.listing(tmp_path / "nothing")


@pytest.mark.parametrize("mode, said", [("train", "the same command resumes the run"), ("plan", "begins again")])
def test_ctrl_c_says_what_the_same_command_does(mode, said, monkeypatch, tmp_path, capsys):
    def stopped(config, flags):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run", stopped)
    words = ["--topology=cpu:1"] if mode == "plan" else [f"--workdir={tmp_path / 'run'}"]
    assert command.main([f"--config={tiny.ROOT / 'configs/ddpm_digits.py'}", f"--mode={mode}", *words]) == 130
    assert said in capsys.readouterr().err


def test_unexpected_errors_keep_their_traceback(monkeypatch, tmp_path):
    def broken(config, flags):
        raise RuntimeError("a bug")

    monkeypatch.setattr(command, "run", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        tiny.call(f"--config={tiny.write_config(tmp_path)}", "--workdir=w")


@pytest.mark.parametrize("text", ["No space left on device", "Disk quota exceeded"])
def test_full_disk_inside_another_error(text, monkeypatch, tmp_path, capsys):
    def full(config, flags):
        try:
            raise ValueError(f"RESOURCE_EXHAUSTED: writing a/b: {text}")
        except ValueError as error:
            raise RuntimeError("saving failed") from error

    monkeypatch.setattr(command, "run", full)
    assert tiny.call(f"--config={tiny.write_config(tmp_path)}", "--workdir=w") == 2
    assert "disk" in tiny.Result(2, *capsys.readouterr()).complaint


@pytest.mark.parametrize(("word", "wanted"), [("(8,12)", (8, 12)), ("[8,12]", [8, 12]), ("12", 12)])
def test_the_resolution_may_become_a_pair_or_a_number(word, wanted, seen, tmp_path):
    tiny.call(f"--config={tiny.write_config(tmp_path)}", "--workdir=w", f"--config.data.resolution={word}")
    assert seen[0][0].data.resolution == wanted


def test_json_brings_configs_back():
    config = defaults()
    config.data.resolution = (8, 16)
    config.sampler.name = "ddim"
    again = from_json(to_json(config))
    assert differences(config, again) == {} and again.data.resolution == (8, 16)
    assert json.loads(to_json(again)) == json.loads(to_json(config))


def test_a_config_may_take_an_argument(seen, tmp_path):
    path = tmp_path / "sized.py"
    text = tiny.write_config(tmp_path).read_text()
    path.write_text(text.replace("get_config():", "get_config(size):").replace("resolution=8", "resolution=int(size)"))
    assert tiny.call(f"--config={path}:16", "--workdir=w") == 0
    ((config, _),) = seen
    assert config.data.resolution == 16


def test_the_stored_config_takes_overrides(seen, tmp_path):
    config, _ = config_files.load_config(tiny.write_config(tmp_path))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(to_json(config))
    words = [f"--workdir={tmp_path / 'run'}", "--config.sampler.steps=10", "--config.guidance.network.name=classifier"]
    assert tiny.call(*words, "--mode=sample", "--out=x") == 0
    ((found, _),) = seen
    assert found.sampler.steps == 10 and found.guidance.network.name == "classifier"
    assert differences(config, found).keys() == {"sampler.steps", "guidance.network.name"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--mode=train", "--num=64"], "--num has no use in --mode=train; it is for --mode=sample, --mode=eval"),
        (["--mode=train", "--quiz"], "--quiz has no use in --mode=train; it is for --mode=evaluate"),
        (["--mode=evaluate", "--labels=1"], "--labels has no use in --mode=evaluate; it is for --mode=sample"),
        (["--mode=sample", "--out=x", "--find_batch"], "it is for --mode=plan"),
        (["--mode=evaluate", "--num=3"], "--num has no use in --mode=evaluate without --quiz"),
        (["--mode=evaluate", "--seed=3"], "--seed has no use in --mode=evaluate without --quiz"),
        (["--mode=profile", "--prompt=a"], "--prompt has no use"),
        (["--mode=plan"], "--topology is needed in --mode=plan"),
        (["--mode=sample"], "--out is needed in --mode=sample"),
        (["--mode=sample", "--out=x", "--config.seed.low=1"], "seed.low"),
    ],
)
def test_flags_that_do_not_go_with_the_mode(arguments, words, tmp_path, capsys):
    config = tiny.write_config(tmp_path)
    assert tiny.call(f"--config={config}", f"--workdir={tmp_path / 'run'}", *arguments) == 2
    assert words in tiny.Result(2, *capsys.readouterr()).complaint


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (["--out=a", "--out=b"], "--out"),
        (["--out=a", "--out", "a"], "--out"),
        (["--num=3", "--seed=1", "--num=3"], "--num"),
        (["--degrade", "--degrade"], "--degrade"),
        (["--config.seed=1", "--config.seed=2"], "--config.seed"),
        (["--config.data.flip", "--noconfig.data.flip"], "--config.data.flip"),
        (["--config=other.py"], "--config"),
    ],
)
def test_a_flag_that_is_given_twice_is_refused_since_one_value_would_be_lost(arguments, flag, seen, tmp_path, capsys):
    start = [f"--config={tiny.write_config(tmp_path)}", f"--workdir={tmp_path / 'run'}", "--mode=sample"]
    assert tiny.call(*start, *arguments) == 2
    assert tiny.Result(2, *capsys.readouterr()).complaint == f"jaxgen: {flag} is given twice; give it once."
    assert not seen and not (tmp_path / "run").exists()
    assert tiny.call(*start, "--out=x", "--prompt=a", "--prompt=a", "--config.seed=1", "--config.data.flip") == 0


def test_overrides_without_a_config_say_what_is_missing(tmp_path, capsys):
    for words in (["--mode=sample", "--out=x"], []):
        assert tiny.call(f"--workdir={tmp_path}", "--config.sampler.steps=10", *words) == 2
        assert "--config" in tiny.Result(2, *capsys.readouterr()).complaint


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        (types.SimpleNamespace(evaluations=7), ["sampler mine: 7 network evaluations an image"]),
        (types.SimpleNamespace(), []),
        (None, []),
    ],
)
def test_a_sampler_may_not_know_its_evaluations(sampler, said, caplog):
    trained = types.SimpleNamespace(generator=types.SimpleNamespace(method=types.SimpleNamespace(sampler=sampler)))
    caplog.set_level("INFO", "jaxgen")
    modes._tell_sampler(section(sampler=section(name="mine")), trained)
    assert caplog.messages == said


def test_every_flag_is_in_the_help_with_its_modes(capsys):
    assert tiny.call("--help") == 0
    text = capsys.readouterr().out
    for name, _, use in flags.table():
        line = next(line for line in text.splitlines() if re.match(rf"  --{name}\b", line))
        assert all(mode in line for mode in use.modes) or "every mode" in line
        assert use.help in text
    assert modes.MODES.keys() == set(flags.MODES)


def test_the_package_is_a_program_too(tmp_path):
    """Outside a checkout, where there are no configs."""
    config = tiny.write_config(tmp_path)
    words = [sys.executable, "-m", "jaxgen", f"--config={config.name}", "--workdir=run", "--mode=smaple"]
    for arguments, said in ((words, "'sample'"), ([*words[:3], "--list"], "no configs")):
        done = subprocess.run(arguments, cwd=tmp_path, env=tiny.environment(), capture_output=True, text=True)
        assert said in tiny.Result(done.returncode, done.stdout, done.stderr).complaint and done.returncode == 2
    done = subprocess.run([*words[:3], "--help"], cwd=tmp_path, env=tiny.environment(), capture_output=True, text=True)
    assert done.returncode == 0 and "python -m jaxgen --config=" in done.stdout


def test_reading_a_config_needs_no_way_of_importing_that_python_gives_up():
    """The loader of ml_collections calls `load_module()`, which warns on Python 3.11 and is to be removed."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)
        config, _ = parse(["--config=configs/ddpm_digits.py", "--workdir=run", "--config.seed=3"])
    assert config.seed == 3


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("--flagfile=x", "the flag --flagfile does not exist"),
        ("--undefok=wrokdir", "the flag --undefok does not exist"),
        ("--config.trian.batch_size=8", "config.trian does not exist; did you mean 'train'?"),
        ("--config.method.netwrok.channels=8", "config.method.netwrok does not exist; did you mean 'network'?"),
        ("--config.seed.low=1", "config.seed=0 is no section"),
        ("--config.method.network=decodr", "config.method.network.name='decodr' is unknown"),
        ("--config.data.extra=5", "--config.data.extra=5: config.data.extra is a section; give its"),
        ("--config.data.extra={'a/b': {'source': 'digits'}}", "config.data.extra has an entry called 'a/b'"),
        ("--config.data.corruptions={'': {'name': 'grey'}}", "config.data.corruptions has an entry called ''; a name"),
    ],
)
def test_a_flag_or_section_that_is_not_there(word, said, tmp_path, capsys):
    config = tiny.write_config(tmp_path)
    assert tiny.call(f"--config={config}", f"--workdir={tmp_path / 'run'}", word) == 2
    assert said in tiny.Result(2, *capsys.readouterr()).complaint
    assert not (tmp_path / "run").exists()


def test_a_section_may_be_given_by_its_name_alone(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setitem(modes.MODES, "train", lambda config, flags: seen.append(config) or 0)
    words = [f"--config={tiny.write_config(tmp_path)}", f"--workdir={tmp_path / 'run'}"]
    assert tiny.call(*words, "--config.sampler=heun", "--config.method.network=dit") == 0
    assert seen[0].sampler.to_dict() == {"name": "heun"} and seen[0].method.network.to_dict() == {"name": "dit"}


def test_optimisers_are_listed(capsys):
    assert tiny.call("--list=optimizer") == 0
    assert {"adam", "adamw", "sgd"} <= set(capsys.readouterr().out.split())


@pytest.mark.parametrize("kind", ["method", "sampler", "metric", "network"])
def test_a_summary_is_a_whole_sentence(kind):
    for name, cls in classes(kind).items():
        text = config_files.first_sentence(cls.__doc__)
        assert text and " ".join(cls.__doc__.split()).startswith(text) and "\n" not in text, name
        rest = " ".join(cls.__doc__.split())[len(text) :]
        assert not rest or rest[0] == "." or "\n\n" in cls.__doc__, (name, text)
