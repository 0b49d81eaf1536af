"""Holds what studies and benchmarks share: a function becomes a command, rows are kept, a table is one function.

def main(out: Path, num: Annotated[int, "images a row"] = 1000) -> None:
    rows = Rows(out, num=num)
    for name in NAMES:
        rows.get({"name": name}, lambda: measure(name, num))
    print(table(["name", "distance"], [[row["name"], row["distance"]] for row in rows]))

if __name__ == "__main__":
    sys.exit(run(main))
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import pathlib
import subprocess
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxgen.errors import UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from jaxgen.sampling.restore import TrainedModel

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"


# ------------------------------------------------------------------ a function as a command


def run(main: Callable[..., int | None], arguments: Sequence[str] | None = None) -> int:
    """Runs a function as a command whose flags are its parameters; returns the exit status.

    A parameter's annotation is the flag's type: `str`, `int`, `float`, `Path`, `bool` (a switch, off by default),
    `tuple[T, ...]` (separated by commas) or `list[T]` (the flag is repeated), as it is or as `Annotated[type, help]`.
    A parameter without a default is required; `*extra` takes all flags that are not the function's own. The module's
    docstring is the help. A `UserError` ends the command with one sentence and the status 2.
    """
    module = importlib.import_module(main.__module__)
    parser = argparse.ArgumentParser(description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    hints = typing.get_type_hints(main, include_extras=True)
    rest = ""
    for name, parameter in inspect.signature(main).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            rest = name
        else:
            _add(parser, parameter, hints[name])
    given, extra = parser.parse_known_args(arguments)
    if extra and not rest:
        parser.error(f"unrecognized arguments: {' '.join(extra)}")
    try:
        return main(*extra, **vars(given)) or 0
    except UserError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2


def _add(parser: argparse.ArgumentParser, parameter: inspect.Parameter, hint: Any) -> None:
    """Adds one parameter of a function as a flag."""
    kind, *words = typing.get_args(hint) if typing.get_origin(hint) is typing.Annotated else (hint,)
    options: dict[str, Any] = {"help": words[0] if words else None}
    if parameter.default is inspect.Parameter.empty:
        options["required"] = True
    else:
        options["default"] = parameter.default
        shown = str(parameter.default) if parameter.default and kind is not bool else ""
        options["help"] = f"{options['help'] or ''} (default: {shown})".strip() if shown else options["help"]
    of, items = typing.get_origin(kind), typing.get_args(kind)
    if kind is bool:
        options["action"] = "store_true"
    elif of is tuple:
        options["type"] = lambda text: tuple(items[0](word) for word in text.split(",") if word)
    elif of is list:
        options |= {"action": "append", "type": items[0], "default": []}
    else:
        options["type"] = kind
    parser.add_argument(f"--{parameter.name}", **options)


def prepare() -> None:
    """Makes every CPU core a device and keeps compiled programs; call before JAX starts its backends."""
    from jaxgen.host import use_compilation_cache, use_cpu_cores

    use_cpu_cores()
    use_compilation_cache()


# ------------------------------------------------------------------ rows that are kept


class Rows:
    """Appends rows of numbers to a file of JSON lines as soon as they are known, so that a command can go on.

    Args:
      path: of the file, made with its folder at the first row; None keeps nothing.
      quiet: lists of numbers are kept, but not printed.
      of: what all rows of this command share, such as the number of images: a row of the file that differs in any of
        it belongs to another command, is left alone and is not seen.
    """

    def __init__(self, path: Path | None, quiet: bool = False, **of: Any):
        self.path, self.quiet, self.of = path, quiet, of
        self.rows = [row for row in (_finished(path) if path else []) if self._holds(row, of)]

    @staticmethod
    def _holds(row: Mapping[str, Any], key: Mapping[str, Any]) -> bool:
        return all(name in row and row[name] == value for name, value in key.items())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def where(self, **key: Any) -> list[dict[str, Any]]:
        """Returns the rows that agree with all of `key`."""
        return [row for row in self.rows if self._holds(row, key)]

    def get(self, key: Mapping[str, Any], make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Returns the first row of this key; if there is none, it keeps, prints and returns what `make()` returns."""
        found = self.where(**key)
        return found[0] if found else self.add({**key, **make()})

    def add(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Keeps a row and prints it."""
        row = {**self.of, **row}
        self.rows.append(row)
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        shown = {name: value for name, value in row.items() if not (self.quiet and isinstance(value, list))}
        print(json.dumps(shown), flush=True)
        return row


def _finished(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a file; a last line that a kill cut short is removed from it."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    complete = [line for line in lines if line.endswith("\n")]
    if len(complete) < len(lines):
        path.write_text("".join(complete))
    return [json.loads(line) for line in complete]


# ------------------------------------------------------------------ tables


def table(heads: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    """Markdown; a cell is printed by `str`, None as nothing."""
    lines = [table_row(heads), "|" + "---|" * len(heads)]
    return "\n".join([*lines, *map(table_row, rows)])


def table_row(cells: Iterable[Any]) -> str:
    """Returns a row of a table alone, for tables that are printed as they grow."""
    return "| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |"


def mean_and_deviation(values: Sequence[float], digits: int = 3, ddof: int = 0, empty: str = "") -> str:
    """Returns `mean (standard deviation)`, the mean alone of a single value, and `empty` of none."""
    if not len(values):
        return empty
    deviation = f" ({np.std(values, ddof=ddof):.{digits}f})" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{deviation}"


# ------------------------------------------------------------------ runs


def config_path(name: str) -> Path:
    """Returns the path of a shipped config."""
    return CONFIGS / f"{name}.py"


def command(config: str | Path, workdir: Path, *settings: str) -> list[str]:
    """`python main.py` of a config file; a setting is `key=value`, without `--config.`; of a key, the last counts."""
    settings = tuple({setting.partition("=")[0]: setting for setting in settings}.values())
    flags = [f"--config={config}", f"--workdir={workdir}", *(f"--config.{setting}" for setting in settings)]
    return [sys.executable, os.fspath(ROOT / "main.py"), *flags]


def train(config: str, workdir: Path, *settings: str) -> float:
    """Trains a shipped config to its end, or on from where the folder stopped; returns the CPU seconds that took."""
    begun = os.times()
    subprocess.run(command(config_path(config), workdir, *settings), check=True, stdout=subprocess.DEVNULL)
    ended = os.times()
    return (ended.children_user - begun.children_user) + (ended.children_system - begun.children_system)


def named(texts: Iterable[str], flag: str, example: str) -> dict[str, str]:
    """Returns `{name: value}` of what a repeated flag NAME=VALUE was given.

    Args:
      texts: what was given.
      flag: how the flag is called, such as `--run`.
      example: one that would be right.

    Raises:
      UserError: a text has no name or no value, or a name is given twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, _, value = (part.strip() for part in text.partition("="))
        if not (name and value):
            raise UserError(f"{flag}={text!r} lacks a name or a value: give {flag}=NAME=VALUE, such as {example}.")
        if name in found:
            raise UserError(f"{flag}: {name!r} is given twice; rows need names of their own.")
        found[name] = value
    return found


def run_config(workdir: str | Path, method: str = "") -> ConfigDict:
    """Returns the config of the run in a folder.

    Raises:
      UserError: where there is no run, or one of another method than the one asked for.
    """
    from jaxgen.runs.workdir import stored_config

    config = stored_config(workdir)
    if config is None or method not in ("", config.method.name):
        raise UserError(f"{workdir} holds no run{f' of the method {method}' * bool(method)}; train one with main.py.")
    return config


def checkpoint_steps(workdir: str | Path) -> list[int]:
    """Returns the steps of a run's finished checkpoints, in order."""
    from jaxgen.runs.checkpoint import Checkpoints

    return Checkpoints(workdir, run_config(workdir).train.keep_last, 0, "", "max", read_only=True).steps()


def trained(workdir: str | Path, config: ConfigDict | None = None) -> TrainedModel:
    """Returns the trained model of a run, with another config than its own where one is given.

    Raises:
      UserError: where the folder holds no run.
    """
    from jaxgen.sampling.restore import restore

    return restore(config or run_config(workdir), workdir)
