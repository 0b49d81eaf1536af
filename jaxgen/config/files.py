"""The files in `configs/`: one loaded, one summarised, all of them listed."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import sys
from typing import Any

from ml_collections import ConfigDict

from jaxgen.errors import UserError, nearest


def load_config(path: str | os.PathLike[str], *arguments: Any) -> tuple[ConfigDict, str]:
    """A config file's config and the first line of its docstring.

    The file may import others of its folder by the folder's name (`from configs import gan_digits`), from anywhere.

    Args:
      arguments: what its `get_config` is called with.

    Raises:
      UserError: for a file that is not there, and for what its own Python raises.
    """
    path = pathlib.Path(path)
    if path.suffix != ".py" or not path.is_file():
        folders = {path.parent, pathlib.Path("configs")} - {pathlib.Path()}
        near = nearest(str(path), [str(file) for folder in folders for file in folder.glob("[!_]*.py")])
        raise UserError(f"--config={path}: there is no such config file; {near}")
    spec = importlib.util.spec_from_file_location(f"jaxgen_config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    above = os.fspath(path.resolve().parent.parent)
    try:
        sys.path.insert(0, above)
        spec.loader.exec_module(module)
        config = module.get_config(*arguments)
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise UserError(f"{path} cannot be loaded: {type(error).__name__}: {lines[-1]}") from error
    finally:
        sys.path.remove(above)
    if not isinstance(config, ConfigDict):
        raise UserError(f"{path}: get_config() gives no ConfigDict; start it from jaxgen.config.defaults().")
    return config, summary(module.__doc__)


def summary(docstring: str | None) -> str:
    """A docstring's first line, without the full stop."""
    return (docstring or "").strip().split("\n")[0].rstrip(".")


def listing(folder: str | os.PathLike[str]) -> str:
    """Every config of a folder, a line each: its path, method, data and summary.

    Raises:
      UserError: where there are none.
    """
    rows = []
    for path in sorted(pathlib.Path(folder).glob("[!_]*.py")):
        config, line = load_config(path)
        rows.append((str(path), config.method.name, config.data.source, line))
    if not rows:
        raise UserError(
            f"There are no configs in the folder {os.fspath(folder)!r}: --list shows those of the current folder's "
            "'configs', so run it where jaxgen's configs lie, or name a kind, such as --list=sampler."
        )
    return columns(rows)


def columns(rows: list[tuple[str, ...]]) -> str:
    """Rows of one length as lines, each column as wide as its widest entry."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(c.ljust(w) for c, w in zip(row[:-1], widths, strict=True)), row[-1]]).rstrip() for row in rows
    )
