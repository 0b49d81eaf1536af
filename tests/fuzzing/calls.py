"""Finds every command of jaxgen and its arguments, and makes sound calls of each."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import functools
import importlib
from collections.abc import Callable, Sequence
from unittest import mock

import tiny

from jaxgen.command.flags import MODES, table
from jaxgen.entry_point import Parser

# what an argument of this name is given; <name> is a path of `fuzzing.sound`; <out> and <new> do not exist yet
GOOD = {
    "workdir": "<run>", "out": "<out>", "num": "2", "topology": "cpu:1", "a": "<pictures>", "b": "<samples.npz>",
    "source": "folder:<pictures>", "answers": "<answers.json>", "name": "digits",
    "path": "<pictures>/00.png",
}  # fmt: skip
NEW = ["--config=<config.py>", "--workdir=<new>", "--config.evaluate.at_end=False"]
PLAIN = ["--config.data.num_classes=0", "--config.method.network.num_classes=0"]
PRETRAINED = [f"--config={tiny.ROOT}/configs/stable_diffusion.py", "--config.init_from.pretrained=<pipeline>",
              "--workdir=", "--prompts=<prompts.txt>", "--noise=<noise.npy>", "--num=1",
              "--config.sampler.steps=2"]  # fmt: skip
METRICS = ["--network=digits", "--batch=4"]
# further arguments; each list is a call of its own, and an empty value takes an argument away
FURTHER = {
    "train": [["--config=<config.py>"], NEW, [*NEW, "--config.data.source=npz:<arrays.npz>"],
              [*NEW, *PLAIN, "--config.data.source=folder:<pictures>"]],
    "sample": [[], [], PRETRAINED, PRETRAINED, PRETRAINED],
    "evaluate": [["--quiz"]],
    "compare": [["--workdir=", "--workdirs=<run>,<run>"]],
    "jaxgen.metrics": [[*METRICS, "--metrics=frechet,kid"], [*METRICS, "--metrics=psnr,l2"]],
    "jaxgen.editing": [["--num=1", "--steps=2"]],
    "jaxgen.data.sources.captions": [["--channels=1"], ["--channels=1", "--split=test"]],
    "jaxgen.data.hints": [["--kind=soft", "--out=<out>.png"]],
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Call:
    """Holds a command (a mode of main.py or a module of `python -m`), arguments, and the names of all its options."""

    command: str
    arguments: tuple[str, ...]
    options: tuple[str, ...]


@functools.cache
def calls() -> tuple[Call, ...]:
    """Returns sound calls of all commands."""
    found = []
    for mode in MODES:
        if mode == "demo":  # it serves until it is stopped
            continue
        names = ["workdir", *(name for name, _, use in table() if mode in use.needed)]
        given = [f"--mode={mode}", *(f"--{name}={GOOD.get(name, '2')}" for name in names)]
        found.append((mode, given, tuple(name for name, _, _ in table())))
    for module in _modules():
        actions = _actions(module)
        given = [f"--{a.dest}={GOOD.get(a.dest, '2')}" for a in actions if a.required and a.option_strings]
        given += [GOOD.get(a.dest, "<run>") for a in actions if not a.option_strings]
        found.append((module, given, tuple(a.dest for a in actions if a.option_strings) or ("unknown",)))
    return tuple(
        Call(name, _merged([*given, *more]), options)
        for name, given, options in found
        for more in FURTHER.get(name, [[]])
    )


def _merged(arguments: Sequence[str]) -> tuple[str, ...]:
    last = {word.partition("=")[0]: word for word in arguments}
    return tuple(word for word in last.values() if not word.endswith("="))


def _modules() -> list[str]:
    """Returns every module that `python -m` runs, except for the package itself, which is main.py."""
    found = []
    for file in sorted((tiny.ROOT / "jaxgen").rglob("*.py")):
        tests = [ast.unparse(node.test) for node in ast.parse(file.read_text()).body if isinstance(node, ast.If)]
        if "__name__ == '__main__'" in tests:
            found.append(".".join(file.relative_to(tiny.ROOT).with_suffix("").parts).removesuffix(".__main__"))
    return [name for name in found if name != "jaxgen"]


def main_of(module: str) -> Callable[[Sequence[str]], int]:
    """Returns the `main` of a module that `python -m` runs."""
    package = (tiny.ROOT / module.replace(".", "/")).is_dir()
    return importlib.import_module(f"{module}.__main__" if package else module).main


class _Parser(Exception):
    """Carries the parser that a command has made."""


def _actions(module: str) -> list[argparse.Action]:
    def caught(parser: Parser, *_: object) -> None:
        raise _Parser(parser)

    with mock.patch.object(Parser, "parse_args", caught):
        try:
            main_of(module)([])
        except _Parser as made:
            return [action for action in made.args[0]._actions if action.dest != "help"]
    raise AssertionError(f"{module} makes no Parser.")
