"""A run becomes a folder from which others sample; what cannot become one is refused by a sentence."""

from __future__ import annotations

import json
import logging
import pathlib

import jax
import numpy as np
import pytest
import running
import standin_hub
import tiny
import yaml
from ml_collections import ConfigDict
from safetensors.numpy import load_file
from standin_hub import COMMIT
from tiny_methods import ddpm_config, gan_config, tiny_config

from jaxgen.command.flags import Flags
from jaxgen.command.publish import publish_run
from jaxgen.config import section, to_json
from jaxgen.data.word_tokenizer import WordTokenizer
from jaxgen.errors import UserError
from jaxgen.files.hub import hub_folder
from jaxgen.methods.base import Model
from jaxgen.runs.hub.pins import pin
from jaxgen.runs.hub.published_run import PublishedRecord, write_weights
from jaxgen.runs.loaded_groups import load_group
from jaxgen.runs.setup import make_method
from jaxgen.runs.tuning.words import own_tokenizer
from jaxgen.runs.workdir import open_workdir, stored_config
from jaxgen.sampling.generator import Generator
from jaxgen.sampling.publishing.card import paper_of, pipeline_tag, public_command
from jaxgen.sampling.publishing.portable import check_portable, portable_config, write_tokenizer
from jaxgen.sampling.restore import TrainedModel, restore

STEP = 7
NUMBERS = {
    "frechet_digits": {
        "value": 0.123456789, "n": 1000, "floor": 0.0625, "excess": 0.5, "reference": "digits/test (500)",
    },
    "curve@0.5": {"value": 3.25, "n": 10},
    "_meta": {"step": STEP, "images": 56, "headline": "frechet_digits"},
}  # fmt: skip
COMMAND = "python main.py --config=/home/me/configs/gan_digits.py --workdir=/home/me/w --config.data.root=/home/me/data"


def table_config():
    config = tiny_config("Table", rows=40)
    config.data.num_classes = 10
    config.train.total_images = 16
    return config


def row_config(table: str):
    config = table_config()
    config.method.name = "tiny_methods:OneRow"
    config.init_from.table = table
    return config


def published(workdir: pathlib.Path, out: pathlib.Path) -> tuple[TrainedModel, TrainedModel]:
    """The model of a run, and that of the folder that it is published as."""
    own = restore(stored_config(workdir, ["tiny_methods"]), workdir)
    flags = Flags(mode="publish", workdir=str(workdir), out=str(out), licence="mit", num=4)
    assert publish_run(flags, own) == 0
    return own, restore(stored_config(out, ["tiny_methods"]), out)


def equal(one: TrainedModel, two: TrainedModel) -> bool:
    same = running.differing((one.model.params, one.model.memory), (two.model.params, two.model.memory)) == []
    return same and (one.step, one.images, one.example) == (two.step, two.images, two.example)


def test_groups_that_were_given_and_memory_come_back_without_the_run_that_gave_them(tmp_path):
    running.run(table_config(), tmp_path / "table")
    running.run(row_config(str(tmp_path / "table")), tmp_path / "row")
    own, found = published(tmp_path / "row", tmp_path / "out")
    assert equal(own, found) and jax.tree.structure(own.model) == jax.tree.structure(found.model)
    assert set(load_file(tmp_path / "out" / "model.safetensors")) == {
        "params/row/value", "params/table/rows", "memory/table/updates",
    }  # fmt: skip
    assert not json.loads((tmp_path / "out" / "config.json").read_text())["init_from"]
    params, memory, origin = load_group(str(tmp_path / "out"), "table")
    there = load_group(str(tmp_path / "table"), "table")
    assert running.differing((params, memory), there[:2]) == [] and origin["sha256"] == there[2]["sha256"]
    with pytest.raises(UserError, match="is a published run, whose optimiser's state is not there"):
        open_workdir(tmp_path / "out", row_config(""), training=True)
    with pytest.raises(UserError, match="published run, which has step 2 only"):
        restore(stored_config(tmp_path / "out", ["tiny_methods"]), tmp_path / "out", "best")
    assert all(equal(found, other) for other in published(tmp_path / "out", tmp_path / "twice"))


def test_weights_that_are_not_the_configs_are_refused(tmp_path):
    folder, config = tmp_path / "out", table_config()
    folder.mkdir()
    record = PublishedRecord(2, 16, 0, {"image": ((8, 8, 8, 1), "uint8"), "label": ((8,), "int32")})
    write_weights(
        folder,
        record,
        {"table": {"rows": np.zeros((40, 64), np.float32)}},
        {"table": {"updates": np.zeros((), np.float32)}},
    )
    (folder / "config.json").write_text(to_json(config))
    _refuses_other_weights(folder)


def _refuses_other_weights(folder: pathlib.Path) -> None:
    config = stored_config(folder, ["tiny_methods"])
    config.method.rows = 41
    with pytest.raises(
        UserError, match=r"needs 'params/table/rows' as float32\[41, 64\], and there is float32\[40, 64\]"
    ):
        restore(config, folder)
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-2] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(UserError, match="model.safetensors is damaged .*its checksum differs.*fetch it again"):
        restore(stored_config(folder, ["tiny_methods"]), folder)


@pytest.fixture(scope="module", name="untrained")
def _untrained(tmp_path_factory):
    """A GAN as it begins, with the files that its run would have: a command, and numbers of its step."""
    workdir, config = tmp_path_factory.mktemp("run") / "my_gan", gan_config()
    workdir.mkdir()
    (workdir / "config.json").write_text(to_json(config))
    record = {"command": COMMAND, "method": "gan", "summary": "A GAN", "events": ["secret"], "parameters": {"g": 3}}
    (workdir / "run.json").write_text(json.dumps(record))
    (workdir / "metrics.json").write_text(json.dumps(NUMBERS))
    generator = Generator(make_method(config), config)
    batch = {"image": np.zeros((8, 8, 8, 1), np.float32)}
    params, memory = jax.jit(lambda key: generator.method.init(key, batch, 0, {}, {}, {}))(jax.random.key(0))
    example = {"image": ((8, 8, 1), "uint8")}
    return workdir, TrainedModel(generator, Model(params, memory), STEP, 56, example)


def test_what_is_sent_is_what_was_written_and_the_card_has_the_numbers(untrained, tmp_path, monkeypatch, caplog):
    pytest.importorskip("huggingface_hub")
    workdir, trained = untrained
    out = tmp_path / "out"
    flags = Flags(
        mode="publish", workdir=str(workdir), out=str(out), licence="mit", num=4, push_to="hf:me/digits-gan@v1"
    )
    with standin_hub.serving() as hub, caplog.at_level(logging.INFO, "jaxgen"):
        standin_hub.use(monkeypatch, tmp_path / "cache", hub.address)
        assert publish_run(flags, trained) == 0
    files = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert hub.sent == files
    assert {name.rpartition(".")[2] for name in files} == {"json", "safetensors", "png", "md"}
    assert b"/home/me" not in b"".join(files.values()) and b"secret" not in b"".join(files.values())
    assert json.loads(files["metrics.json"]) == NUMBERS
    card = files["README.md"].decode()
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "mit" and front["library_name"] == "jaxgen" and "gan" in front["tags"]
    assert front["pipeline_tag"] == "unconditional-image-generation"
    row = next(line for line in card.splitlines() if line.startswith("| frechet_digits"))
    value, n, floor, excess, reference = [cell.strip() for cell in row.split("|")[2:7]]
    entry = NUMBERS["frechet_digits"]
    assert [float(value), float(n.replace(",", ""))] == [pytest.approx(entry["value"], rel=1e-5), entry["n"]]
    assert [float(floor), float(excess), reference] == [entry["floor"], entry["excess"], entry["reference"]]
    assert "curve@" not in card and "python main.py --workdir=hf:me/digits-gan@v1 --mode=sample" in card
    assert "--config=configs/gan_digits.py --workdir=runs/digits-gan" in card
    assert f"sent: {hub.address}/me/digits-gan/commit/{COMMIT}" in caplog.text


def test_numbers_of_another_step_are_left_out(untrained, tmp_path):
    workdir, trained = untrained
    (workdir / "metrics.json").write_text(json.dumps(NUMBERS | {"_meta": {"step": STEP + 1}}))
    flags = Flags(mode="publish", workdir=str(workdir), out=str(tmp_path / "out"), licence="mit", num=4)
    assert publish_run(flags, trained) == 0
    assert not (tmp_path / "out" / "metrics.json").exists()
    assert "were not evaluated" in (tmp_path / "out" / "README.md").read_text()


REFUSED = {
    "no licence": (["--out={out}"], "--licence is needed in --mode=publish"),
    "a licence of words": (["--out={out}", "--licence=My Licence"], "no identifier of the hub"),
    "no out": (["--licence=mit"], "--out is needed in --mode=publish"),
    "out with files": (["--licence=mit", "--out={run}"], "has files already"),
    "a name": (["--licence=mit", "--out={out}", "--push_to=hf:name"], "--push_to=hf:name: a repository of the hub"),
    "a step": (["--licence=mit", "--out={out}", "--checkpoint=5"], "has no checkpoint of step 5"),
    "private": (["--licence=mit", "--out={out}", "--private"], "--private has no use without --push_to"),
    "a base": (["--licence=mit", "--out={out}", "--config.init_from.pretrained=x"], "a folder that others lack"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_run_is_not_published_by_halves(case, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(to_json(ddpm_config()))
    words, said = REFUSED[case]
    words = [word.format(out=tmp_path / "out", run=tmp_path / "run") for word in words]
    assert tiny.call("--mode=publish", f"--workdir={tmp_path / 'run'}", *words) == 2
    assert said in tiny.Result(2, *capsys.readouterr()).complaint
    assert not (tmp_path / "out").exists()


FROM_HUB = {
    "train": (["--config={config}"], "--mode=train writes into the workdir"),
    "evaluate": (["--mode=evaluate"], "--mode=evaluate writes into the workdir"),
    "a flag": (["--mode=sample", "--out={out}", "--nmu=3"], "--nmu does not exist"),
    "no out": (["--mode=sample"], "--out is needed"),
}


@pytest.mark.parametrize("case", FROM_HUB)
def test_nothing_is_fetched_before_the_flags_are_right(case, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("jaxgen.files.paths.hub_folder", lambda *a: pytest.fail("it was fetched"))
    words, said = FROM_HUB[case]
    words = [word.format(out=tmp_path / "out", config="configs/ddpm_digits.py") for word in words]
    assert tiny.call("--workdir=hf:me/model", *words) == 2
    assert said in tiny.Result(2, *capsys.readouterr()).complaint


def test_a_run_from_the_hub_keeps_the_commit_that_it_began_with(tmp_path, monkeypatch):
    pytest.importorskip("huggingface_hub")
    files = tmp_path / "files"
    files.mkdir()
    (files / "model.safetensors").write_bytes(b"x")
    standin_hub.use(monkeypatch, tmp_path / "cache")
    standin_hub.cached(tmp_path / "cache", "me/model", files)
    asked = {"a": "hf:me/model#b", "b": "autoencoder_kl:hf:me/model", "c": "hf:me/model@main", "d": "classifier:digits"}
    config = gan_config()
    config.init_from.update(asked)
    pin(config, tmp_path / "run")
    kept = {"a": f"hf:me/model@{COMMIT}#b", "b": f"autoencoder_kl:hf:me/model@{COMMIT}"}
    assert dict(config.init_from) == {**asked, **kept}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(to_json(config))
    later = "f" * 40
    standin_hub.cached(tmp_path / "cache", "me/model", files, later)
    standin_hub.use(monkeypatch, tmp_path / "cache")
    assert hub_folder("hf:me/model", "x").name == later
    again = gan_config()
    again.init_from.update(asked)
    pin(again, tmp_path / "run")
    assert dict(again.init_from) == dict(config.init_from)


def test_a_vocabulary_goes_with_the_folder(tmp_path):
    words = WordTokenizer(["red", "cat"], 5)
    (tmp_path / "photos.vocabulary.json").write_text(words.to_json())
    config = gan_config()
    config.data.update(source=f"captions:folder:{tmp_path / 'photos'}", root="")
    out = tmp_path / "out"
    assert write_tokenizer(config, out) == ["tokenizer/words.json"]
    made = portable_config(config, tokenizer=True)
    assert made.data.source == "captions:folder:photos" and made.data.tokenizer == "tokenizer"
    (out / "config.json").write_text(to_json(made))
    (out / "checkpoint.json").write_text("{}")
    (tmp_path / "photos.vocabulary.json").unlink()
    assert own_tokenizer(stored_config(out)) == words


def test_a_config_without_the_users_folders():
    config = ddpm_config()
    config.data.update(source="folder:/home/me/photos", root="/home/me", extra=section(b=section(source="npz:~/x.npz")))
    config.evaluate.weights = "/opt/inception.pth"
    config.init_from.update(denoiser="runs/other", classifier="classifier:digits")
    made = portable_config(config, tokenizer=False)
    assert (made.data.source, made.data.root, made.data.extra.b.source) == ("folder:photos", "", "npz:x.npz")
    assert made.evaluate.weights == "inception.pth" and not len(made.init_from) and made.method == config.method
    for source in ("folder:gs://bucket/x", "tfds:mnist", "digits", "sets:digits", "npz:data/x.npz"):
        config.data.source = source
        assert portable_config(config, tokenizer=False).data.source == source
    config.init_from.pretrained = "hf:me/base@main"
    check_portable(config, "run")
    assert dict(portable_config(config, tokenizer=False).init_from) == {"pretrained": "hf:me/base@main"}


def test_commands_papers_and_tasks_of_the_card():
    config = ConfigDict(ddpm_config().to_dict())
    assert pipeline_tag(make_method(config)) == "unconditional-image-generation"
    assert "Ho et al. 2020" in paper_of(f"python main.py --config={tiny.ROOT / 'configs' / 'ddpm_digits.py'}")
    assert paper_of("python main.py --config=gone.py") == "" == paper_of("python 'main.py")
    assert public_command(COMMAND, "x").split()[2:] == [
        "--config=configs/gan_digits.py", "--workdir=runs/x", "--config.data.root=data",
    ]  # fmt: skip
