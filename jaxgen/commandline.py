"""Reading the command line: flags to a config and `cli.Flags`, every mistake one sentence."""

from __future__ import annotations

import importlib.util
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from jaxgen.errors import UserError, nearest


def parse(argv: Sequence[str]) -> Any:
    """absl's flags, parsed.

    Raises:
      UserError: for an unknown flag, a value of a wrong type, a config file that cannot be loaded, or a key of it
        that does not exist.
    """
    values = flags.FLAGS
    path = config_file(argv)
    if path is not None and (path.suffix != ".py" or not path.is_file()):
        folders = {path.parent, pathlib.Path("configs")} - {pathlib.Path()}
        near = nearest(str(path), [str(file) for folder in folders for file in folder.glob("[!_]*.py")])
        raise UserError(f"--config={path}: there is no such config file; {near}")
    try:
        rest = values(list(argv))[1:]
    except flags.UnrecognizedFlagError as error:
        ours = values.find_module_defining_flag("workdir")
        known = [name for name in values if values.find_module_defining_flag(name) == ours]
        raise UserError(f"the flag --{error.flagname} does not exist; {nearest(error.flagname, known)}") from error
    except flags.Error as error:
        raise UserError(f"{_one_line(error).rstrip('.')}; see --help.") from error
    except (KeyError, AttributeError) as error:
        if path is not None:
            load_config(path)  # raises where the file itself is to blame, and not an override
        text = str(error.args[0])
        missing = re.search(r"lookup: ([\w.]+)", text) or re.search(r"([\w.]+)", text)
        raise UserError(f"an override names a section that the config does not have: {missing[1]!r}.") from error
    except UserError:
        raise
    except Exception as error:  # whatever a config file's own Python raises
        raise UserError(f"--config={path} cannot be loaded: {type(error).__name__}: {_one_line(error)}") from error
    if rest:
        raise UserError(f"{rest[0]!r} is not a flag; flags look like --workdir=runs/name, with two dashes and '='.")
    if not isinstance(values.config, ConfigDict | None):
        raise UserError(f"--config={path}: get_config() gives no ConfigDict; start it from jaxgen.config.defaults().")
    return values


def config_file(argv: Sequence[str]) -> pathlib.Path | None:
    """What --config names, without the argument that may follow a colon."""
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name in ("--config", "-config"):
            return pathlib.Path((value if equals else following).partition(":")[0])
    return None


def _one_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__


def load_config(path: pathlib.Path) -> tuple[ConfigDict, str]:
    """A config file's config and the first line of its docstring.

    Raises:
      UserError: for whatever the file's own Python raises.
    """
    spec = importlib.util.spec_from_file_location(f"jaxgen_config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return module.get_config(), summary(module.__doc__)
    except Exception as error:
        raise UserError(f"{path} cannot be loaded: {type(error).__name__}: {_one_line(error)}") from error


def summary(docstring: str | None) -> str:
    """The first paragraph's first line."""
    return (docstring or "").strip().split("\n")[0].rstrip(".")


def listing(folder: pathlib.Path) -> str:
    """Every config of a folder: its path, method, data and one line."""
    rows = []
    for path in sorted(folder.glob("[!_]*.py")):
        config, line = load_config(path)
        rows.append((str(path), config.method.name, config.data.source, line))
    if not rows:
        raise UserError(f"There are no configs in {folder}; run the command in the project's folder.")
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    return "\n".join("  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3]]) for row in rows)
