"""Reading the command line: flags to a config and `cli.Flags`, every mistake one sentence."""

from __future__ import annotations

import ast
import importlib.util
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from jaxgen.config import section
from jaxgen.errors import UserError, nearest

# Sections to which the command line may add sections.
GROWING = ("sampler", "guidance", "optimizers")


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
    argv, deep = _set_deep_ones_aside(argv, path)
    whole, sys.argv = sys.argv, argv  # where the flags of a config look for its overrides
    try:
        rest = values(argv)[1:]
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
    finally:
        sys.argv = whole
    if rest:
        raise UserError(f"{rest[0]!r} is not a flag; flags look like --workdir=runs/name, with two dashes and '='.")
    if not isinstance(values.config, ConfigDict | None):
        raise UserError(f"--config={path}: get_config() gives no ConfigDict; start it from jaxgen.config.defaults().")
    for keys, value in deep:
        inner = values.config
        for key in keys[:-1]:
            if key not in inner:
                inner[key] = section()
            inner = inner[key]
        inner[keys[-1]] = value
    return values


def _set_deep_ones_aside(
    argv: Sequence[str], path: pathlib.Path | None
) -> tuple[list[str], list[tuple[list[str], Any]]]:
    """Overrides of keys in sections that do not exist yet, such as `--config.guidance.network.name=classifier` where
    the config has no guidance: the flags of a config know its own keys only, and one level more."""
    kept, deep = [], []
    config = load_config(path)[0] if path is not None and any("=" in a and a.count(".") > 2 for a in argv) else None
    for argument in argv:
        name, equals, text = argument.partition("=")
        keys = name.removeprefix("--config.").split(".")
        found = config
        if name.startswith("--config.") and equals and len(keys) > 2 and keys[0] in GROWING and config is not None:
            for key in keys[:-1]:
                found = found.get(key) if isinstance(found, ConfigDict) else None
            if found is None:
                deep.append((keys, _literal(text)))
                continue
        kept.append(argument)
    return kept, deep


def _literal(text: str) -> Any:
    """A Python literal, or else the text itself, as the flags of a config read their values."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def prompts(given: Any) -> tuple[str, ...]:
    """The texts of --prompt and --prompts, in this order; lines of spaces are passed over.

    Raises:
      UserError: for a file that is missing, unreadable or empty.
    """
    if not given.prompts:
        return tuple(given.prompt)
    path = pathlib.Path(given.prompts)
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--prompts={path} cannot be read as text ({_one_line(error)}).") from error
    if not any(lines):
        raise UserError(f"--prompts={path} holds no text; write one a line.")
    return (*given.prompt, *(line for line in lines if line))


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
