"""Loads config files, such as those in `configs/`, and lists them."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import sys
from collections.abc import Sequence

from ml_collections import ConfigDict

from jaxgen.errors import UserError, nearest
from jaxgen.files import user_path


def load_config(path: str | os.PathLike[str], *arguments: object) -> tuple[ConfigDict, str]:
    """Returns a config file's config and the first line of its docstring.

    The file may import others of its folder by the folder's name (`from configs import gan_digits`); the current
    folder does not matter.

    Args:
      path: the file.
      arguments: the arguments of the file's `get_config`.

    Raises:
      UserError: the file does not exist, or running it raises an error.
    """
    path = pathlib.Path(user_path(path, "--config"))
    if path.suffix != ".py" or not path.is_file():
        folders = {path.parent, pathlib.Path("configs")} - {pathlib.Path()}
        near = nearest(str(path), [str(file) for folder in folders for file in folder.glob("[!_]*.py")])
        raise UserError(f"--config={path}: there is no such config file; {near}")
    spec = importlib.util.spec_from_file_location(f"jaxgen_config_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # Python has a loader for every file that ends in .py
    module = importlib.util.module_from_spec(spec)
    above, before = os.fspath(path.resolve().parent.parent), sys.dont_write_bytecode
    try:
        sys.path.insert(0, above)
        sys.dont_write_bytecode = True  # a command that is refused leaves nothing beside the user's file
        spec.loader.exec_module(module)
        config = module.get_config(*arguments)
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise UserError(f"{path} cannot be loaded: {type(error).__name__}: {lines[-1]}") from error
    finally:
        sys.path.remove(above)
        sys.dont_write_bytecode = before
    if not isinstance(config, ConfigDict):
        raise UserError(f"{path}: get_config() returns no ConfigDict; start it from jaxgen.config.defaults().")
    return config, summary(module.__doc__)


def summary(docstring: str | None) -> str:
    """Returns a docstring's first line without its full stop."""
    return (docstring or "").strip().split("\n")[0].rstrip(".")


def first_sentence(docstring: str | None) -> str:
    """Returns a docstring's first sentence in one line, without its full stop."""
    paragraph = " ".join((docstring or "").strip().split("\n\n")[0].split())
    return re.split(r"(?<!Eq)(?<!et al)(?<!e\.g)(?<!i\.e)\.\s+(?=[A-Z`])", paragraph)[0].rstrip(".")


def listing(folder: str | os.PathLike[str]) -> str:
    """Returns one line for each config of a folder, with its path, method, data and summary.

    Raises:
      UserError: there are no configs.
    """
    rows = []
    for path in sorted(pathlib.Path(folder).glob("[!_]*.py")):
        config, line = load_config(path)
        rows.append((str(path), config.method.name, config.data.source, line))
    if not rows:
        raise UserError(
            f"There are no configs in the folder {os.fspath(folder)!r}: --list shows the folder 'configs' in the "
            "current folder, so run it where jaxgen's configs are, or name a kind, such as --list=sampler."
        )
    return columns(rows)


def columns(rows: Sequence[tuple[str, ...]]) -> str:
    """Returns rows of one length as lines, where each column is as wide as its widest entry."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(c.ljust(w) for c, w in zip(row[:-1], widths, strict=True)), row[-1]]).rstrip() for row in rows
    )
