"""The files beside the code say the same as the code: versions, commands, hooks and workflows."""

from __future__ import annotations

import itertools
import pathlib
import re
import shlex
import tomllib

import pytest
import yaml

import jaxgen

ROOT = pathlib.Path(__file__).resolve().parents[1]
YAML = [ROOT / "CITATION.cff", ROOT / ".pre-commit-config.yaml", ROOT / "mkdocs.yml"]
YAML += sorted((ROOT / ".github").rglob("*.yml"))


@pytest.mark.parametrize("file", YAML, ids=lambda path: path.name)
def test_it_is_yaml(file):
    assert isinstance(yaml.safe_load(file.read_text()), dict)


def test_one_version():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == jaxgen.__version__
    heads = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert next(head for head in heads if head[0].isdigit()) == jaxgen.__version__


def test_the_workflow_runs_what_a_change_must_pass():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert ".ci/run" in [step.get("run") for step in jobs["run"]["steps"]]
    asked = set(re.findall(r"find_python (3\.\d+)\)", (ROOT / ".ci" / "run").read_text()))
    given = next(step["with"]["python-version"] for step in jobs["run"]["steps"] if "python" in step.get("uses", ""))
    assert asked == set(given.split())


def test_every_mark_is_run_by_ci_or_each_night():
    """Of a test with any marks, one command at least runs it: a new mark without a command would hide its tests."""
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    nightly = yaml.safe_load((ROOT / ".github" / "workflows" / "nightly.yml").read_text())["jobs"]["run"]["steps"]
    commands = [*(ROOT / ".ci" / "run").read_text().splitlines(), *(step.get("run", "") for step in nightly)]
    words = [shlex.split(line, comments=True) for line in commands if line.startswith("pytest")]
    full = [line if "-m" in line else shlex.split(options["addopts"]) for line in words]
    chosen = [line[line.index("-m") + 1] for line in full]
    names = [mark.partition(":")[0] for mark in options["markers"]]
    assert len(names) == 3 and len(chosen) == 4
    for has in itertools.product((False, True), repeat=len(names)):
        marks = dict(zip(names, has, strict=True))
        assert any(eval(choice, {"__builtins__": {}}, marks) for choice in chosen), marks


def test_hooks_and_pages_name_files_that_are_there():
    hooks = [hook for repo in yaml.safe_load(YAML[1].read_text())["repos"] for hook in repo["hooks"]]
    text = (ROOT / "CONTRIBUTING.md").read_text()
    blocks = "\n".join(re.findall(r"```\n(.*?)```", text, re.S))
    words = [word for hook in hooks for word in shlex.split(hook["entry"])] + blocks.split()
    files = [word for word in words if word.startswith("tests/")]
    assert len(files) > 3 and all(list(ROOT.glob(file)) for file in files)


def _entries(nav):
    for item in nav.values() if isinstance(nav, dict) else nav:
        if isinstance(item, str):
            yield item
        else:
            yield from _entries(item)


def test_the_navigation_of_the_site_has_every_page_once():
    entries = sorted(_entries(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    assert entries == sorted([*pages, "index.md"])  # the home page is made from README.md


def test_every_picture_is_in_the_gallery():
    shown = re.findall(r"\]\(gallery/([^)]+)\)", (ROOT / "docs" / "gallery.md").read_text())
    assert sorted(shown) == sorted(file.name for file in (ROOT / "docs" / "gallery").iterdir())
