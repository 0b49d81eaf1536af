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
    path = next((a.split("=", 1)[1] for a in argv if a.startswith("--config=")), None)
    if path is not None:
        file = path.partition(":")[0]
        if not file.endswith(".py") or not pathlib.Path(file).is_file():
            near = nearest(file, [str(p) for p in pathlib.Path(file).parent.glob("[!_]*.py")])
            raise UserError(f"--config={path}: there is no such config file; {near}")
    try:
        rest = values(list(argv))[1:]
    except flags.UnrecognizedFlagError as error:
        known = [name for name in values if not name.startswith("config.")]
        raise UserError(f"the flag --{error.flagname} does not exist; {nearest(error.flagname, known)}") from error
    except flags.Error as error:
        raise UserError(f"{_one_line(error)}; see --help.") from error
    except (KeyError, AttributeError) as error:
        missing = re.sub(r"^['\"\s]+|['\"\s]+$", "", str(error.args[0])).split("\n")[0]
        raise UserError(f"an override names a section that the config does not have: {missing!r}.") from error
    except UserError:
        raise
    except Exception as error:  # whatever a config file's own Python raises
        raise UserError(f"--config={path} cannot be loaded: {type(error).__name__}: {_one_line(error)}") from error
    if rest:
        raise UserError(f"{rest[0]!r} is not a flag; flags look like --workdir=runs/name, with two dashes and '='.")
    return values


def _one_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__


def load_config(path: pathlib.Path) -> tuple[ConfigDict, str]:
    """A config file's config and the first line of its docstring."""
    spec = importlib.util.spec_from_file_location(f"jaxgen_config_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(), summary(module.__doc__)


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
