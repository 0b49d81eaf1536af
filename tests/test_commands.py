"""Every command answers a path or a word that it cannot use by one sentence, and leaves nothing behind."""

from __future__ import annotations

import os
import pathlib

import pytest
import tiny
import tiny_methods

from jaxgen.command.run import main as main_command
from jaxgen.data.hints import main as hints
from jaxgen.data.sources.captions import main as captions
from jaxgen.editing.__main__ import main as editing
from jaxgen.errors import UserError
from jaxgen.evaluation.export_classifier import main as export
from jaxgen.metrics.command import main as metrics
from jaxgen.report.__main__ import main as report
from jaxgen.report.quiz import main as quiz
from jaxgen.runs.loaded_groups import load_group
from jaxgen.runs.setup import open_split
from jaxgen.sampling.latents import main as latents

CONFIG = f"--config={tiny.ROOT / 'configs' / 'ddpm_digits.py'}"


def command(words: list[str]) -> int:
    return main_command(words)


# Each command, and the words that name a path; {path} stands for it.
PATHS = {
    "train": (command, [CONFIG, "--workdir={path}"]),
    "sample": (command, ["--mode=sample", "--workdir={path}", "--out={good}"]),
    "sample --out": (command, ["--mode=sample", "--workdir={run}", "--out={path}"]),
    "sample --prompts": (command, ["--mode=sample", "--workdir={run}", "--out={good}", "--prompts={path}"]),
    "sample --like": (command, ["--mode=sample", "--workdir={run}", "--out={good}", "--like={path}"]),
    "evaluate": (command, ["--mode=evaluate", "--workdir={path}"]),
    "plan": (command, [CONFIG, "--mode=plan", "--topology=cpu:1", "--out={path}"]),
    "profile": (command, [CONFIG, "--mode=profile", "--out={path}"]),
    "--config": (command, ["--config={path}", "--workdir={good}"]),
    "data.source": (command, [CONFIG, "--workdir={good}", "--config.data.source=folder:{path}"]),
    "init_from": (command, [CONFIG, "--workdir={good}", "--config.init_from.denoiser={path}"]),
    "weights": (command, [CONFIG, "--workdir={good}", "--config.evaluate.network=inception",
                          "--config.evaluate.weights={path}"]),
    "editing": (editing, ["--workdir={path}", "--out={good}"]),
    "editing --out": (editing, ["--workdir={run}", "--out={path}"]),
    "report": (report, ["{path}"]),
    "quiz": (quiz, ["{path}"]),
    "latents": (latents, ["{path}", "{good}.npz"]),
    "export": (export, ["{path}"]),
    "metrics": (metrics, ["{path}", "digits/test", "--metrics=ssim"]),
    "metrics B": (metrics, ["digits/test", "{path}", "--metrics=ssim"]),
    "metrics --weights": (metrics, ["digits/test", "digits/test", "--weights={path}"]),
    "metrics --json": (metrics, ["digits/test", "digits/test", "--json={path}"]),
    "captions": (captions, ["folder:{path}"]),
    "hints": (hints, ["{path}", "--kind=soft"]),
    "hints --out": (hints, ["{run}/config.json", "--kind=soft", "--out={path}"]),
}  # fmt: skip
WRITTEN = {"sample --out", "plan", "profile", "editing --out", "metrics --json"}  # these need not exist


@pytest.fixture
def answer(tmp_path, capsys, monkeypatch):
    """The sentence of a command for a path; nothing new may lie in the folder after it."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    from jaxgen.config import to_json

    (run / "config.json").write_text(to_json(tiny_methods.ddpm_config()))

    def call(case: str, path: str) -> str:
        main, words = PATHS[case]
        before = sorted(map(os.fspath, tmp_path.rglob("*")))
        status = main([word.format(path=path, run=run, good=tmp_path / "good") for word in words])
        result = tiny.Result(status, *capsys.readouterr())
        assert status == 2, result
        assert sorted(map(os.fspath, tmp_path.rglob("*"))) == before
        return result.complaint

    return call


@pytest.mark.parametrize("case", PATHS)
def test_a_store_without_its_driver(case, answer):
    said = answer(case, "s3://bucket/x")
    assert "s3fs" in said and "pip install" in said


@pytest.mark.parametrize("case", PATHS)
def test_a_store_that_is_not_read(case, answer):
    assert "http://" in answer(case, "http://example.org/x")


@pytest.mark.parametrize("case", PATHS)
def test_a_name_that_is_not_utf_8(case, answer):
    assert "UTF-8" in answer(case, os.fsdecode(b"/tmp/\xff\xfe"))


@pytest.mark.parametrize("case", sorted(PATHS.keys() - {"train"} - WRITTEN))
def test_a_path_that_is_not_there(case, answer, tmp_path):
    assert "missing" in answer(case, os.fspath(tmp_path / "missing.py"))


@pytest.mark.parametrize("case", PATHS)
def test_a_pipe(case, answer, tmp_path):
    """It would be waited for without an end."""
    os.mkfifo(tmp_path / "pipe.npz")
    assert "pipe.npz" in answer(case, os.fspath(tmp_path / "pipe.npz"))


@pytest.mark.parametrize("case", sorted(PATHS.keys() - {"sample --prompts", "--config", "quiz", "metrics --json"}))
def test_a_file_in_place_of_a_folder(case, answer, tmp_path):
    (tmp_path / "file").write_text("x")
    assert os.fspath(tmp_path / "file") in answer(case, os.fspath(tmp_path / "file"))


@pytest.mark.parametrize("case", ["sample --prompts", "sample --like", "--config", "quiz", "metrics --json"])
def test_a_folder_in_place_of_a_file(case, answer, tmp_path):
    (tmp_path / "folder").mkdir()
    assert os.fspath(tmp_path / "folder") in answer(case, os.fspath(tmp_path / "folder"))


@pytest.mark.parametrize("case", ["train", "sample", "report", "quiz", "metrics", "latents", "export", "editing"])
def test_an_empty_path(case, answer):
    assert "empty" in answer(case, "")


@pytest.mark.parametrize("prompt", [os.fsdecode(b"a \xff cat"), "\ud800"])
def test_a_prompt_that_is_no_text(prompt, answer, capsys):
    assert main_command(["--mode=sample", "--workdir=run", "--out=out", f"--prompt={prompt}"]) == 2
    assert "UTF-8" in tiny.Result(2, *capsys.readouterr()).complaint


def test_the_home_folder(tmp_path, monkeypatch):
    """`~` means the user's home at every entry: the sentences name the whole path."""
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"{tmp_path}/lost.*is not the workdir|'~/lost'"):
        load_group("~/lost", "denoiser")
    config = tiny_methods.tiny_config("Plain")
    config.data.source = "folder:~/photos"
    with pytest.raises(UserError, match=f"{tmp_path}/photos"):
        open_split(config, "train")
    assert not pathlib.Path("~").exists()


@pytest.mark.parametrize("case", ["plan", "report", "sample"])
def test_the_home_folder_on_the_command_line(case, answer, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    (tmp_path / "file").write_text("x")
    assert f"{tmp_path}/file" in answer(case, "~/file")
