"""Which way imports point, and what importing costs."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "jaxgen").rglob("*.py"))
# Which rooms a room may import, beside the ground floor.
ALLOWED = {
    "geometry": set(),
    "networks": {"geometry"},
    "diffusion": set(),
    "adversarial": set(),
    "variational": set(),
    "data": {"geometry"},
    "config": set(),
    "conditions": {"networks"},
    "codecs": {"networks", "variational"},
    "methods": {"networks", "diffusion", "adversarial", "variational", "geometry", "conditions", "codecs"},
    "interop": {"networks", "diffusion", "data"},
    "metrics": {"networks", "data", "interop"},
    "report": {"metrics"},
    "parallel": {"methods"},
    "runs": {"adversarial", "config", "data", "interop", "methods", "metrics", "parallel", "report"},
    "sampling": {"config", "data", "geometry", "interop", "methods", "parallel", "report", "runs"},
    "train": {"config", "data", "methods", "parallel", "report", "runs", "sampling"},
    "evaluation": {"config", "data", "methods", "metrics", "report", "runs", "sampling"},
    "editing": {"adversarial", "data", "diffusion", "methods", "metrics", "networks", "report", "runs", "sampling"},
    "demo": {"config", "diffusion", "editing", "evaluation", "methods", "report", "runs", "sampling"},
    "planning": {"config", "data", "methods", "parallel", "runs", "sampling", "train"},
}
# The command line may import every room, and nothing imports it but `main.py` and `python -m jaxgen`.
ROOF = {"command", "__main__"}
# The ground floor: the modules that lie directly in `jaxgen/`, and the room of files, which they use too.
GROUND = {path.stem for path in (ROOT / "jaxgen").glob("*.py")} - ROOF - {"__init__"} | {"files"}


def imported(path: pathlib.Path) -> set[str]:
    """Modules that a file imports, anywhere in it; `from a import b` counts as a and a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if parts[0] == "jaxgen" and len(parts) > 1 else ""


def packages() -> set[str]:
    return {path.parent.name for path in (ROOT / "jaxgen").glob("*/__init__.py")}


def test_every_room_has_its_row_in_the_matrix():
    assert len(FILES) > 40
    assert packages() == set(ALLOWED) | {"command", "files"}


def test_the_matrix_has_no_circle():
    left = {room: set(allowed) for room, allowed in ALLOWED.items()}
    while left:
        free = {room for room, allowed in left.items() if not allowed & left.keys()}
        assert free, f"these rooms may import each other in a circle: {sorted(left)}"
        left = {room: allowed for room, allowed in left.items() if room not in free}


@pytest.mark.parametrize("room", sorted(ALLOWED))
def test_a_room_imports_only_the_rooms_that_the_matrix_allows(room):
    seen = set()
    for path in (ROOT / "jaxgen" / room).rglob("*.py"):
        rooms = {room_of(name) for name in imported(path)} - {"", "__version__", room}
        wrong = rooms - ALLOWED[room] - GROUND
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"
        seen |= rooms
    unused = ALLOWED[room] - seen
    assert not unused, f"the matrix allows {room} to import {sorted(unused)}, which it does not need"


@pytest.mark.parametrize("name", sorted(GROUND))
def test_the_ground_floor_imports_no_room(name):
    module = ROOT / "jaxgen" / f"{name}.py"
    files = [module] if module.exists() else (ROOT / "jaxgen" / name).rglob("*.py")
    rooms = {room_of(module) for file in files for module in imported(file)}
    assert not rooms & (set(ALLOWED) | ROOF)


@pytest.mark.parametrize("room", sorted([*ALLOWED, "files"]))
def test_the_first_line_of_a_room_says_what_it_holds(room):
    first = (ast.get_docstring(ast.parse((ROOT / "jaxgen" / room / "__init__.py").read_text())) or "").split("\n")[0]
    assert len(first.split()) >= 5, f"jaxgen/{room}/__init__.py begins with {first!r}"


@pytest.mark.parametrize("folder", sorted({path.parent for path in FILES}), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_room_is_larger_than_a_reader_can_survey(folder):
    files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    lines = sum(len(path.read_text().splitlines()) for path in files)
    assert len(files) <= 15, f"{folder.relative_to(ROOT)} holds {len(files)} files; give one of its ideas a subroom"
    assert lines <= 3000, f"{folder.relative_to(ROOT)} holds {lines} lines; give one of its ideas a subroom"


def test_the_arrows_of_the_readme_are_those_of_the_matrix():
    line = re.search(r"Arrows point one way: `([^`]+)`", " ".join((ROOT / "README.md").read_text().split()))[1]
    steps = [set(re.findall(r"\w+", step)) - {"line", "command"} for step in line.split("->")]
    order = {room: i for i, step in enumerate(steps) for room in step}
    assert set(order) == set(ALLOWED), "the line names every room once"
    for room, allowed in ALLOWED.items():
        for other in allowed:
            assert order[other] > order[room], f"README: {room} imports {other}, which does not stand behind it"


def test_the_public_names_stand_where_the_package_looks_for_them():
    """Without importing them; `tests/test_public_names.py` does."""
    import jaxgen

    for module, names in jaxgen._PUBLIC.items():
        place = ROOT.joinpath(*module.split("."))
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        assert file.exists(), f"jaxgen/__init__.py looks in {module} for {names}, and there is no such module"
        found = {name for node in ast.parse(file.read_text()).body if (name := getattr(node, "name", None))}
        assert {*names} <= found, f"jaxgen/__init__.py: {module} does not define {sorted({*names} - found)}"


def test_nothing_imports_the_command_line_but_main():
    for path in FILES:
        for name in imported(path):
            wrong = ("main", "tests", "configs", "studies", "benchmarks")
            assert name.split(".")[0] not in wrong, f"{path} imports {name}"
            above = path.parent.name == "command" or path.parent.name == "jaxgen" and path.stem == "__main__"
            assert room_of(name) not in ROOF or above, f"{path} imports {name}"
    assert "jaxgen.command.run" in imported(ROOT / "main.py")


def test_tests_import_no_study_and_no_benchmark():
    for path in sorted((ROOT / "tests").rglob("*.py")):
        names = {name.split(".")[0] for name in imported(path)}
        assert not names & {"studies", "benchmarks"}, f"{path} imports from a script"
        assert not re.search(r"ROOT / .(studies|benchmarks)", path.read_text()) or path.name == "test_imports.py", path


def brought_by_the_tests() -> set[str]:
    """The distributions that `pip install .[test]` brings, in normal form, and jaxgen itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    waiting = [Requirement(line) for line in project["dependencies"] + project["optional-dependencies"]["test"]]
    found = set()
    while waiting:
        asked = waiting.pop()
        for extra in {"", *asked.extras} - {extra for name, extra in found if name == canonicalize_name(asked.name)}:
            found.add((canonicalize_name(asked.name), extra))
            try:
                needed = [Requirement(line) for line in importlib.metadata.requires(asked.name) or []]
            except importlib.metadata.PackageNotFoundError:  # it is for another system, or optional
                continue
            waiting += [r for r in needed if r.marker is None or r.marker.evaluate({"extra": extra})]
    return {name for name, _ in found} | {"jaxgen"}


def test_without_the_extra_for_parity_all_test_files_can_be_imported():
    """A test file outside tests/parity imports, at its top, what `pip install .[test]` brings and no more."""
    here, origin = brought_by_the_tests(), importlib.metadata.packages_distributions()
    assert "scikit-learn" in here and "scikit-image" not in here
    foreign = set()
    for path in (ROOT / "tests").rglob("*.py"):
        if "parity" in path.parts:
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                for top in {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names):
                    owners = {canonicalize_name(owner) for owner in origin.get(top, ())}
                    if owners and not owners & here:
                        foreign.add(f"{path.relative_to(ROOT)} imports {top}")
    assert not foreign


def test_every_test_of_the_folder_for_parity_is_marked():
    """The slow tests are collected without this folder, so one without the mark would never run."""
    files = sorted((ROOT / "tests" / "parity").glob("test_*.py"))
    assert files and not [f.name for f in files if "\npytestmark = pytest.mark.parity\n" not in f.read_text()]


@pytest.mark.parametrize("module", ["jaxgen", "jaxgen.config", "jaxgen.command.run", "jaxgen.entry_point"])
def test_a_command_line_error_does_not_wait_for_jax(module):
    heavy = ("jax", "flax", "optax", "orbax", "grain", "tensorflow", "torch", "sklearn", "matplotlib")
    code = f"import sys, {module}; print(*(m for m in {heavy} if m in sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
