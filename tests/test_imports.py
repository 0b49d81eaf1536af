"""Which way imports point, and what importing costs."""

from __future__ import annotations

import ast
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / "jaxgen").rglob("*.py"))
ROOMS = {"data", "report", "interop", "editing", "train", "methods", "metrics", "networks", "diffusion", "adversarial",
         "variational"}

# what a room may not know of
FORBIDDEN = {
    "networks": ROOMS - {"networks"},
    "diffusion": ROOMS - {"diffusion"},
    "adversarial": ROOMS - {"adversarial"},
    "variational": ROOMS - {"variational"},
    "methods": {"train", "data", "report", "interop", "editing"},
    "metrics": {"methods", "train"},
    "data": {"methods", "train", "report", "interop", "editing", "networks", "diffusion", "adversarial"},
    "report": {"methods", "train", "interop", "editing", "networks", "diffusion", "adversarial"},
}


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


def test_the_files_are_found():
    assert len(FILES) > 40 and {room_of(name) for path in FILES for name in imported(path)} >= {"train", "methods"}


@pytest.mark.parametrize("room", sorted(FORBIDDEN))
def test_arrows_point_one_way(room):
    for path in (ROOT / "jaxgen" / room).rglob("*.py"):
        wrong = {name for name in imported(path) if room_of(name) in FORBIDDEN[room]}
        assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}"


def test_nothing_imports_the_command_line_but_main():
    for path in FILES:
        for name in imported(path):
            assert name.split(".")[0] not in ("main", "tests", "configs"), f"{path} imports {name}"
            assert room_of(name) != "cli", f"{path} imports {name}"
    assert "jaxgen.cli" in imported(ROOT / "main.py")


@pytest.mark.parametrize("module", ["jaxgen", "jaxgen.config", "jaxgen.cli", "jaxgen.commandline", "jaxgen.errors"])
def test_a_command_line_error_does_not_wait_for_jax(module):
    heavy = ("jax", "flax", "optax", "orbax", "grain", "tensorflow", "torch", "sklearn", "matplotlib")
    code = f"import sys, {module}; print(*(m for m in {heavy} if m in sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
