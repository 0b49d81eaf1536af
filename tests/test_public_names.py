"""The names that `import jaxgen as jg` shows: each is there, says what it is, and costs nothing before it is used."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
import tiny

import jaxgen as jg

MODULES = {path.stem for path in (tiny.ROOT / "jaxgen").iterdir()}


@pytest.mark.parametrize("name", jg.__all__)
def test_a_public_name_is_there_and_says_what_it_is(name):
    value = getattr(jg, name)
    said = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
    assert said and not said.startswith(f"{name}("), "a docstring of its own, not the one that dataclasses write"
    assert value.__name__ == name and value.__module__.startswith("jaxgen.")


@pytest.mark.parametrize("name", jg.__all__)
def test_a_public_name_is_no_module_of_the_package(name):
    """`import jaxgen.build` would otherwise put the module in the name's place."""
    assert name not in MODULES


def test_the_names_are_shown_before_they_are_used():
    code = "import sys, jaxgen as j; print({*j.__all__} <= {*dir(j)}, sorted({'jax', 'numpy'} & {*sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tiny.ROOT, env=tiny.environment(), capture_output=True, text=True
    )
    assert done.stdout.split("\n")[0] == "True []", done.stderr


def test_names_can_be_imported_and_others_are_refused():
    from jaxgen import DDIM, defaults

    assert DDIM is jg.DDIM and defaults() == jg.defaults()
    assert isinstance(jg.DDIM(steps=4), jg.Sampler)
    with pytest.raises(AttributeError, match="'DDDIM'.*jaxgen.__all__"):
        jg.DDDIM  # noqa: B018
    with pytest.raises(ImportError):
        from jaxgen import no_such_name  # noqa: F401


def test_metadata():
    assert jg.__version__ and jg.__all__ == sorted(set(jg.__all__))
