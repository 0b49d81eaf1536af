"""Every command on the pages, in the docstrings of configs and in the claims can be given as it stands.

Each is parsed, with its flags, the config that it names and all overrides, and nothing is run: most take minutes, or
need weights, data or a GPU. `.ci/run` and the slow tests run the README's two commands and a tiny run of each family.
A word such as DIR, PHOTOS or runs/name stands for a path of the reader's own, `...` for flags that a page leaves out.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib.util
import json
import pathlib
import re
import runpy
import shlex
import sys
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxgen.command import parse as parsing
from jaxgen.command.flags import Flags
from jaxgen.config import check
from jaxgen.config.files import load_config
from jaxgen.errors import UserError
from jaxgen.files import paths
from jaxgen.files.hub import hub_name
from jaxgen.report.images import save_png

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES += [ROOT / folder / "README.md" for folder in ("studies", "benchmarks", "results")]
COMMAND = re.compile(r"(?:[A-Z_]+=\S+ )*(python (?:main\.py|-m (?:jaxgen|studies|benchmarks)[\w.]*)(?: .*)?)$")
LEFT_OUT = "..."  # stands for flags that a page has given before
FILES = re.compile(r"--(?:image|mask|hint|prompts|legend|input)=(?:\w+=)?([^=]+)$")


class Parsed(BaseException):
    """Ends a command behind its parser; no command catches it."""


def commands(text: str) -> Iterator[str]:
    """Yields the commands of a page: those in lines of code, with what continues them, and those within a sentence."""
    short: dict[str, str] = {}
    for line in re.sub(r"\s*\\\n\s*", " ", text).split("\n"):
        short |= dict(re.findall(r'(?:^|\s)([A-Z])="([^"]*)"', line))
        code = [line.strip()] if re.match(r"    |python|\$[A-Z]\b", line) else []
        for part in [*code, *re.findall(r"`([^`]+)`", line)]:
            for name, value in short.items():
                part = re.sub(rf"\${name}\b", value, part)
            for piece in re.split(r"\s*(?:&&|;)\s*", part):
                if found := COMMAND.match(re.sub(r" {3,}[^-.].*", "", piece)):  # behind a gap, what it does
                    yield found[1]


def of_configs() -> Iterator[str]:
    """Yields the commands in the docstrings of the configs."""
    for path in sorted((ROOT / "configs").glob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        lines = re.sub(r"\n\s+(?=--)", " ", text).split("\n")
        for line in lines:
            if found := re.search(r"python (?:main\.py|-m (?:jaxgen|studies|benchmarks)).*", line):
                words = r"\s(?:then|to|makes|writes)\b"  # of the sentence in which it stands
                yield re.split(rf";|, (?!\w*=)|(?<!\.)\. |\s\(|(?<!\.)\.$|{words}", found[0])[0].strip()


def of_claims() -> Iterator[str]:
    for path in sorted((ROOT / "results").rglob("*.json")):
        yield json.loads(path.read_text())["command"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of the reader's own, where pictures are, and whose runs have the config of their name."""

    def stored(workdir: object, trust: object = ()) -> ConfigDict:
        file = ROOT / "configs" / f"{pathlib.PurePath(str(workdir)).name}.py"
        return load_config(str(file if file.exists() else ROOT / "configs" / "ddpm_digits.py"))[0]

    parsers = {name: getattr(argparse.ArgumentParser, name) for name in ("parse_args", "parse_known_args")}
    inside: list[str] = []  # `parse_args` calls `parse_known_args`, and refuses what that one has left over

    def ending(name):
        def parse(self, words=None, *args, **options):
            words = sys.argv[1:] if words is None else list(words)
            inside.append(name)
            for action in self._actions if LEFT_OUT in words else ():
                action.required = False
            try:
                found = parsers[name](self, [word for word in words if word != LEFT_OUT], *args, **options)
            finally:
                inside.pop()
            if inside:
                return found
            raise Parsed

        return parse

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parsing, "stored_config", stored)
    monkeypatch.setattr(paths, "hub_folder", lambda text, named_by: hub_name(text, named_by) and tmp_path)
    for name in parsers:
        monkeypatch.setattr(argparse.ArgumentParser, name, ending(name))
    return tmp_path


def take(command: str, place: pathlib.Path) -> None:
    """Parses a command. Raises an error where it cannot be given."""
    words = shlex.split(command, comments=True)
    if words[1] == "-m" and re.fullmatch(r"[a-z]*", "".join(words[3:4])) and len(words) < 5:  # a sentence names it
        assert importlib.util.find_spec(words[2]), command
        return
    if words[1] != "main.py" and words[2] != "jaxgen":
        _take_module(words[2], words[3:])
        return
    words = words[3 if words[1] == "-m" else 2 :]
    words = [
        word for word in words if not word.startswith("--like=") and word != LEFT_OUT
    ]  # no such picture is at hand
    for word in words:
        if word.startswith("--workdir="):
            (place / word.partition("=")[2]).mkdir(parents=True, exist_ok=True)
        if found := FILES.match(word):
            _put(place / found[1])
    own = re.compile(r"^--config=my_\w+\.py$")  # a config that the reader writes
    words = [own.sub("--config=configs/ddpm_digits.py", word) for word in words]
    words = [re.sub(r"^--config=(?=configs/)", f"--config={ROOT}/", word) for word in words]
    config, flags = parsing.parse(words)
    if config is not None and flags.mode == "train":
        if config.data.source.startswith("image:"):
            config.data.resolution = 64  # a 0 in it is the ratio of the picture
        check(config)


def _put(path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix in (".txt", ".json"):
        path.write_text("a red circle\n")
    else:
        folder = not path.suffix
        save_png(path / "a.png" if folder else path, np.zeros((8, 8, 3), np.uint8))


def _take_module(module: str, words: list[str]) -> None:
    before = sys.argv
    sys.argv = [module, *words]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # that the module has been imported before
            runpy.run_module(module, run_name="__main__", alter_sys=False)
    except Parsed:
        return
    except SystemExit as end:
        if end.code == 0:  # --help
            return
        raise UserError(f"the command ended with {end.code}") from end
    finally:
        sys.argv = before
    raise UserError("the command has no parser")


def refused(found: list[str], place: pathlib.Path) -> list[str]:
    """Returns those of the commands that cannot be given, with what is wrong."""
    wrong = []
    for command in dict.fromkeys(found):
        try:
            take(command, place)
        except UserError as error:
            wrong.append(f"{command}\n    {error}")
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_commands_of_a_page_can_be_given(page, place):
    wrong = refused(list(commands(page.read_text())), place)
    assert not wrong, "\n".join(wrong)


def test_the_commands_of_the_configs_can_be_given(place):
    found = list(of_configs())
    wrong = refused(found, place)
    assert len(found) > 100 and not wrong, "\n".join(wrong)


def test_a_flag_that_a_config_speaks_of_exists():
    """Also in a sentence without its command. A text that names other commands may have their flags."""
    known = {field.name for field in dataclasses.fields(Flags)} | {"config"}
    for path in sorted((ROOT / "configs").glob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text())) or ""
        unknown = set() if "python -m" in text else set(re.findall(r"--([a-z]\w*)", text)) - known
        assert not unknown, f"{path.name} speaks of {', '.join(sorted(unknown))}"


def test_the_commands_of_the_claims_can_be_given(place):
    wrong = refused([command for command in of_claims() if not command.startswith("pytest")], place)
    assert not wrong, "\n".join(wrong)


def test_what_cannot_be_given_is_found(place):
    assert sum(len(list(commands(page.read_text()))) for page in PAGES) > 400
    for wrong in (
        "python main.py --config=configs/ddpm_digits.py --workdri=W",
        "python main.py --config=configs/ddpm_digits.py --workdir=W --config.train.batchsize=3",
        "python main.py --config=configs/no_such.py --workdir=W",
        "python main.py --workdir=W --mode=sampel",
        "python -m jaxgen.metrics A B --metrix=fid",
        "python -m studies.gan_table --output=DIR",
    ):
        assert refused([wrong], place), wrong
