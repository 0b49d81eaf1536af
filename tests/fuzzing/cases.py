"""Makes the cases: a sound call of a command of which one argument, key, class or file is spoilt."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import os
import pathlib
import random
import re
import shutil
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from fuzzing import values
from fuzzing.calls import Call, calls
from jaxgen.build import _contracts, _hints, _parameters
from jaxgen.command.flags import MODES
from jaxgen.config.schema import DEFAULTS
from jaxgen.registry import KINDS, classes, kind_of, names

BUILD = "build"  # no command of jaxgen: a section of a config is built and nothing else


@dataclasses.dataclass(frozen=True)
class Case:
    """Holds a command (as in `Call`, or BUILD), its arguments, what is spoilt, and whether its process is its own."""

    command: str
    arguments: tuple[str, ...]
    spoilt: str
    alone: bool = False


def make(seed: int, number: int, sound: pathlib.Path, folder: pathlib.Path) -> Case:
    """Copies the sound inputs into a folder and makes a case there, which depends on the seed and the number alone.

    A negative number makes a sound call, in which nothing is spoilt.
    """
    chance = random.Random(f"{seed} {number}")
    shutil.copytree(sound, folder, symlinks=True, copy_function=_copy)
    call = chance.choice(calls()) if number >= 0 else calls()[number]
    sort = chance.choices([_file, _option, _key, _section, _class], [8, 4, 4, 3, 2])[0] if number >= 0 else _nothing
    case = sort(call, folder, chance)
    arguments = tuple(re.sub(r"<([\w.]+)>", lambda m: os.fspath(folder / m[1]), word) for word in case.arguments)
    possible = not {"\0", "\ud800"} & set("".join(arguments))  # a process cannot be given these
    alone = case.command != BUILD and possible and (chance.random() < 0.06 or case.command in ("plan", "profile"))
    return Case(case.command, arguments, case.spoilt[:2000], alone)


def _copy(source: str, target: str) -> str:
    path = pathlib.Path(source)
    if path.is_fifo():
        os.mkfifo(target)
    elif not path.is_socket():
        shutil.copy2(source, target, follow_symlinks=False)
    return target


def _nothing(call: Call, folder: pathlib.Path, chance: random.Random) -> Case:
    return Case(call.command, call.arguments, "nothing")


def _file(call: Call, folder: pathlib.Path, chance: random.Random) -> Case:
    """Spoils a file or folder that the command is given, or one below it."""
    given = sorted(name for name in os.listdir(folder) if f"<{name}>" in "".join(call.arguments))
    path = folder / chance.choice(given)
    below = sorted(path.rglob("*"))
    telling = [p for p in below if p.suffix in (".json", ".jsonl") or "METADATA" in p.name]
    if below and chance.random() < 0.95:
        path = chance.choice(telling if telling and chance.random() < 0.6 else below)
    return Case(call.command, call.arguments, f"{path.relative_to(folder)}: {values.spoil(path, chance)}")


def _option(call: Call, folder: pathlib.Path, chance: random.Random) -> Case:
    """Gives an argument of the command a bad value, or adds, removes or misspells one."""
    arguments, kind = list(call.arguments), chance.random()
    i = chance.randrange(len(arguments))
    name, equals, text = arguments[i].partition("=")
    bad = str(chance.choice(chance.choice([values.NUMBERS[:-1], values.TEXTS])))
    if kind < 0.2:
        arguments[i] = chance.choice(["", name + equals, name, f"{name}s={text}", f"-{name}", f"{name[:-1]}={text}"])
    elif kind < 0.4:
        arguments[i] = name + equals + bad if equals else bad
    else:
        arguments.append(f"--{chance.choice(call.options)}={bad}")
        i = -1
    return Case(call.command, tuple(word for word in arguments if word), f"{name} or {arguments[i]}")


def _key(call: Call, folder: pathlib.Path, chance: random.Random) -> Case:
    """Overrides any key of the config."""
    if call.command not in MODES:
        return _option(call, folder, chance)
    key, sound = chance.choice([*_keys(_stored(folder)), *_keys(DEFAULTS)])
    bad = values.near(sound, chance)
    bad = "[" * 2_000 + "]" * 2_000 if values.DEEP in repr(bad) else bad
    spoilt = f"--config.{key}{chance.choice([*[''] * 12, 's', '.x', '.name'])}={bad}"
    return Case(call.command, (*call.arguments, spoilt), spoilt)


def _stored(folder: pathlib.Path) -> dict[str, Any]:
    return json.loads((folder / "run/config.json").read_text())


def _keys(section: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, inner in section.items():
        yield f"{path}{key}", inner
        if isinstance(inner, dict):
            yield from _keys(inner, f"{path}{key}.")


def _section(call: Call, folder: pathlib.Path, chance: random.Random) -> Case:
    """Names any class of its kind in a section of the run's config, with a bad value of one of its arguments."""
    if call.command not in MODES:
        return _class(call, folder, chance)
    fields = _parameters(_found("method", _stored(folder)["method"]["name"]))
    places = [*DEFAULTS, *(f"method.{key}" for key in fields)]
    place = chance.choice([key for key in places if key.rpartition(".")[2] in KINDS])
    section = _arguments(place.rpartition(".")[2], chance)
    words = [f"--config.{place}.{key}={value}" for key, value in section.items()]
    words = words if chance.random() < 0.8 else [f"--config.{place}={section['name']}"]
    return Case(call.command, (*call.arguments, *words), " ".join(words))


def _class(call: Call, folder: pathlib.Path, chance: random.Random) -> Case:
    """Builds a class of any kind from a section with a bad value; sources are opened by a text, not by a section."""
    kind = chance.choice(sorted(KINDS.keys() - {"source"}))
    text = json.dumps(_arguments(kind, chance))
    return Case(BUILD, (kind, text), text)


def _arguments(kind: str, chance: random.Random) -> dict[str, Any]:
    """Returns the name of a class, what it needs, and one argument that may be bad."""
    name = chance.choice(names(kind))
    target = _found(kind, name)
    hints, empty = _hints(target), inspect.Parameter.empty
    sound = {
        key: _fitting(hints.get(key, Any), chance) if p.default is empty else p.default
        for key, p in _parameters(target).items()
    }
    needed = {key: value for key, value in sound.items() if _parameters(target)[key].default is empty}
    bad = {key: values.near(sound[key], chance) for key in chance.sample(sorted(sound), min(1, len(sound)))}
    return {"name": name, **needed, **bad}


@functools.cache
def _found(kind: str, name: str) -> type:
    return classes(kind)[name]


def _fitting(hint: Any, chance: random.Random) -> Any:
    """Returns a value that is of an annotation's type."""
    if kind := kind_of(_contracts(hint)) if _contracts(hint) else None:
        return {"name": chance.choice(names(kind))}
    if typing.get_origin(hint) is typing.Literal:
        return chance.choice(typing.get_args(hint))
    return [2, 2] if typing.get_origin(hint) is tuple else {int: 2, float: 0.5, bool: True}.get(hint, "x")
