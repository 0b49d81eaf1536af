"""The notebooks are whole, name what there is, and run in small sizes."""

import ast
import functools
import json
import pathlib
import re

import pytest

import jaxgen
from notebooks.run import code, execute, read, shortened, tagged

ROOT = pathlib.Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SLOW = "diffusion"  # CI runs this one, the night all others
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@functools.cache
def _defined(file: pathlib.Path) -> set[str]:
    """The names that a module has at its top level."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def _missing(tree: ast.Module) -> list[str]:
    """What a program takes from jaxgen and is not there."""
    wrong = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jaxgen":
            place = ROOT.joinpath(*node.module.split("."))
            file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
            known = _defined(file) if file.exists() else set()
            submodules = {path.stem for path in place.glob("*")} if place.is_dir() else set()
            wrong += [f"{node.module}.{a.name}" for a in node.names if a.name not in known | submodules]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "jg":
            wrong += [] if node.attr in jaxgen.__all__ else [f"jg.{node.attr}"]
    return wrong


@each
def test_it_is_a_notebook_without_outputs(path):
    notebook = read(path)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5) and notebook["metadata"]["kernelspec"]
    cells = notebook["cells"]
    names = [cell["id"] for cell in cells]
    assert len(set(names)) == len(names) and all(re.fullmatch(r"[\w-]{1,64}", name) for name in names)
    for cell in cells:
        assert cell["cell_type"] in ("markdown", "code") and "".join(cell["source"]).strip()
        assert cell["cell_type"] == "markdown" or (cell["outputs"] == [] and cell["execution_count"] is None)
    assert len(json.dumps(notebook)) < 100_000


@each
def test_it_installs_once_and_has_one_cell_of_sizes(path):
    notebook = read(path)
    (install,) = tagged(notebook, "install")
    assert "%pip install" in "".join(install["source"]) and "".join(notebook["cells"][0]["source"]).startswith("# ")
    assert sum("%" in line[:1] or "    %" in line for cell in notebook["cells"] for line in cell["source"]) == 1
    (sizes,) = tagged(notebook, "parameters")
    given = {node.id for node in ast.walk(ast.parse("".join(sizes["source"]))) if isinstance(node, ast.Name)}
    assert sizes["metadata"]["short"].keys() == given


@each
def test_each_of_its_ideas_ends_with_a_question(path):
    text = "\n".join("".join(cell["source"]) for cell in read(path)["cells"] if cell["cell_type"] == "markdown")
    ideas = re.split(r"^## \d ", text, flags=re.M)[1:]
    assert len(ideas) == 5 and all(idea.count("**A question to you.**") == 1 for idea in ideas)
    assert text.count("https://arxiv.org/abs/") >= 2


@each
def test_all_that_it_takes_of_jaxgen_is_there(path):
    program = ast.parse("\n".join(code(read(path))))
    assert not _missing(program)


@each
def test_the_page_and_the_readme_lead_to_it(path):
    assert f"(../notebooks/{path.name})" in (ROOT / "docs" / "notebooks.md").read_text()
    assert "(docs/notebooks.md)" in (ROOT / "README.md").read_text()


def test_what_is_not_there_is_found():
    program = "from jaxgen.arrays import Array, Nothing\nfrom jaxgen.nowhere import a\nimport jaxgen as jg\njg.Nobody"
    assert _missing(ast.parse(program)) == ["jaxgen.arrays.Nothing", "jaxgen.nowhere.a", "jg.Nobody"]


def _marked(path: pathlib.Path):
    return pytest.param(path, id=path.stem, marks=pytest.mark.slow if path.stem == SLOW else pytest.mark.nightly)


@pytest.mark.parametrize("path", [_marked(path) for path in NOTEBOOKS])
def test_it_runs_in_small_sizes(path, monkeypatch):
    monkeypatch.chdir(path.parent)  # as a kernel does
    execute(shortened(read(path)), path.name)
