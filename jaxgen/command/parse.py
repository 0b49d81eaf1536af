"""Turns the arguments of the command line into a config and `Flags`; every mistake raises an error of one sentence."""

from __future__ import annotations

import ast
import dataclasses
import logging
import os
import re
import shlex
from collections.abc import Sequence
from typing import Any

from absl import flags as absl_flags
from ml_collections import ConfigDict, config_flags

from jaxgen.command.compare import NUM
from jaxgen.command.flags import MODES, Flags, check_needed, check_use, defined, table
from jaxgen.command.inputs import asked_files, check_together
from jaxgen.command.settings import (
    changes,
    check_files,
    check_own_keys,
    config_name,
    read_settings,
    with_asked,
    with_config,
)
from jaxgen.config import section
from jaxgen.config.files import load_config
from jaxgen.config.trust import foreign, texts
from jaxgen.entry_point import given_twice
from jaxgen.errors import UserError, nearest
from jaxgen.files import folder, is_remote, read_lines, user_path
from jaxgen.files.hub import names_hub
from jaxgen.renamed import unknown_key
from jaxgen.runs.workdir import stored_config
from jaxgen.sampling.grafts.requests import read_adapter

# Sections in which the command line may create sections.
GROWING = (
    "sampler", "guidance", "optimizers", "method.augment", "method.overrides", "method.grafts", "method.parts",
    "data.extra", "data.corruptions",
)  # fmt: skip
log = logging.getLogger("jaxgen")
HIDDEN = ("flagfile", "undefok")  # flags that absl adds by itself


def parse(arguments: Sequence[str], program: Sequence[str] = ("main.py",)) -> tuple[ConfigDict | None, Flags]:
    """Returns the config, with its overrides, and the flags.

    The config is that of --config; without it, in modes other than train, the one that is stored in --workdir; with
    --list, and where runs are compared, it is None.

    Args:
      arguments: the words after the program's name.
      program: the words between "python" and the arguments, for the command that the run records.

    Raises:
      UserError: a flag is unknown or not used by the mode, a value has the wrong type, the config file cannot be
        loaded or there is none, the stored config names another package's class, or an override names a section that
        does not exist.
    """
    rest, file = _take_config(arguments)
    flags, rest = _flags(rest, shlex.join(["python", *program, *arguments]))
    if flags.list:
        return None, flags
    if flags.mode == "compare":
        return None, _without_config(flags, rest, file)
    if names_hub(flags.workdir):
        flags = _from_hub(flags, rest)
    summary = ""
    if file:
        if flags.trust:
            raise UserError("--trust has no use beside --config: what the file of --config names is trusted.")
        path, colon, argument = (file, "", "") if is_remote(file) else file.partition(":")
        config, summary = load_config(path, *([argument] if colon else []))
    elif flags.workdir and flags.mode != "train":
        config = stored_config(folder(flags.workdir, "--workdir"), (*flags.trust, *_modules_named(rest)))
        if config is None:
            raise UserError(
                f"--workdir={flags.workdir} holds no run (it has no config.json), and there is no --config; give the "
                "folder of a run."
            )
    else:
        config = None
    flags = dataclasses.replace(flags, summary=summary, name=config_name(file))
    if config is not None:
        flags, rest = _changed(config, flags, rest, file)
    _refuse(rest, config)
    return config, flags


def _from_hub(flags: Flags, rest: Sequence[str]) -> Flags:
    """Returns flags with the local folder of the repository that --workdir names, which is fetched.

    Raises:
      UserError: the mode writes into its workdir, another flag is wrong, or it cannot be fetched.
    """
    if flags.mode not in ("sample", "demo"):
        raise UserError(
            f"--workdir={flags.workdir}: --mode={flags.mode} writes into the workdir, and a repository of the hub is "
            "only read: sample from it, name it in config.init_from, or fetch it (hf download) and name the folder."
        )
    check_needed(flags)
    unknown = [word for word in rest if not word.lstrip("-").removeprefix("no").startswith("config.")]
    if unknown:
        _refuse(unknown, ConfigDict())
    return dataclasses.replace(flags, workdir=os.fspath(user_path(flags.workdir, "--workdir", hub=True)))


def _without_config(flags: Flags, rest: Sequence[str], file: str) -> Flags:
    """Returns the flags of a mode that has no config. Raises a UserError for one that is given, and for other words."""
    if file or any(word.lstrip("-").removeprefix("no").startswith("config.") for word in rest):
        raise UserError(f"--config has no use in --mode={flags.mode}: each run keeps its own.")
    if rest:
        _refuse(rest, ConfigDict())
    return flags


def _changed(config: ConfigDict, flags: Flags, rest: list[str], file: str) -> tuple[Flags, list[str]]:
    """Changes a config as the picture of --like and the overrides say; returns the flags and the other arguments."""
    if flags.mode not in ("sample", "demo"):
        return flags, _override(config, rest, file)
    base = ConfigDict(config.to_dict(), type_safe=False)
    if flags.settings:
        with_config(config, flags, (*flags.trust, *_modules_named(rest)))
    rest = _override(config, rest, file)
    check_own_keys(config, flags)
    return dataclasses.replace(flags, changes=changes(base, config)), rest


def _take_config(arguments: Sequence[str]) -> tuple[list[str], str]:
    """Returns the arguments without --config, and its value or "".

    Raises:
      UserError: --config, or one key of it, is given twice.
    """
    rest, found = [], ""
    once: set[str] = set()
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        key = name.lstrip("-").removeprefix("no")
        if name.startswith("-") and (key == "config" or key.startswith("config.")):
            if key in once:
                raise given_twice(f"--{key}")
            once.add(key)
        if name in ("--config", "-config"):
            found = value if equals else next(words, "")
        else:
            rest.append(word)
    return rest, found


def _flags(arguments: Sequence[str], command: str) -> tuple[Flags, list[str]]:
    """Returns the declared flags, and the arguments that are none of them."""
    alone = {f"{dashes}{name}": use.alone for name, _, use in table() if use.alone for dashes in ("-", "--")}
    words = [f"{word}={alone[word]}" if word in alone else word for word in arguments]
    for word in words:
        hidden = word.lstrip("-").partition("=")[0]
        if word.startswith("-") and hidden in HIDDEN:
            raise UserError(f"the flag --{hidden} does not exist; {nearest(hidden, [name for name, _, _ in table()])}")
    values = defined()
    try:
        rest = values(["", *words], known_only=True)[1:]
    except absl_flags.Error as error:
        raise UserError(f"{_refused_value(error)}; see --help.") from error
    found: dict[str, Any] = {}
    for name, _, use in table():
        found[name] = use.value(name, values[name].value, bool(values[name].present))
    flags = Flags(**found, command=command)
    if flags.mode not in MODES:
        raise UserError(f"--mode={flags.mode} is unknown; {nearest(flags.mode, MODES)}")
    repeated = [name for name in found if values[name].present > 1 and not isinstance(values[name].value, list)]
    if repeated:
        raise given_twice(f"--{repeated[0]}")
    given = {name for name in found if values[name].present}
    check_use(flags.mode, given)
    flags = dataclasses.replace(flags, prompt=(*flags.prompt, *_lines(flags.prompts)), files=asked_files(flags))
    flags = dataclasses.replace(flags, adapters=tuple(map(read_adapter, flags.adapter)))
    if flags.mode in ("compare", "publish") and "num" not in given:
        flags = dataclasses.replace(flags, num=NUM)
    if flags.like:
        flags = with_asked(flags, read_settings(flags.like), given)
        assert flags.settings is not None
        log.info("%s: %s", flags.like, flags.settings.told)
        for sentence in check_files(flags):
            log.warning(sentence)
        try:
            check_together(flags, flags.files)  # a picture that was edited may say what no command line may
        except UserError as error:
            raise UserError(f"--like={flags.like}: {error}") from error
        return flags, rest
    rows = max(len(flags.prompt), *map(len, flags.files.values()), 0)
    return dataclasses.replace(flags, num=rows if rows and "num" not in given else flags.num), rest


def _lines(file: str) -> tuple[str, ...]:
    """Returns the texts in the file of --prompts without its empty lines.

    Raises:
      UserError: the file is missing, unreadable or empty.
    """
    return tuple(read_lines(file, "--prompts")) if file else ()


def _modules_named(arguments: Sequence[str]) -> list[str]:
    """Returns the modules outside of jaxgen that overrides name; they are trusted, since the user typed them."""
    found = []
    for key, _, value in (word.partition("=") for word in arguments):
        if key.startswith("--config.") and not key.startswith("--config.init_from."):
            found += [foreign(text) for _, text in texts(_literal(value))]
    return [module for module in found if module]


def _override(config: ConfigDict, arguments: Sequence[str], file: str) -> list[str]:
    """Sets the keys of `--config.<key>=<value>` in a config, and returns the other arguments."""
    argv, deep = _set_deep_ones_aside(["", *arguments], config)
    values = absl_flags.FlagValues()
    values.set_gnu_getopt(True)
    try:
        config_flags.DEFINE_config_dict(
            "config", config, flag_values=values, lock_config=False, accept_new_attributes=True, sys_argv=argv
        )
        rest = values(argv, known_only=True)[1:]
    except absl_flags.Error as error:
        raise UserError(f"{_refused_value(error)}; see --help.") from error
    except (KeyError, AttributeError) as error:
        raise _unknown_section(argv, config) from error
    except (TypeError, ValueError) as error:
        raise UserError(f"an override does not fit the config of {file or '--workdir'}: {_last_line(error)}") from error
    for keys, value in deep:
        inner = config
        for key in keys[:-1]:
            if key not in inner:
                inner[key] = section()
            inner = inner[key]
        inner[keys[-1]] = value
    return rest


def _unknown_section(argv: Sequence[str], config: ConfigDict) -> UserError:
    """Returns the error for the first override that names a section which the config does not have."""
    for word in argv:
        name, _, _ = word.partition("=")
        if not name.startswith("--config."):
            continue
        section, path = config, "config"
        for key in name.split(".")[1:-1]:
            if not isinstance(section, ConfigDict):
                return UserError(f"{path}={section!r} is no section, so that {name} has no place; name {path} alone.")
            if key not in section:
                return unknown_key(path, key, section.keys())
            section, path = section[key], f"{path}.{key}"
        if not isinstance(section, ConfigDict):
            return UserError(f"{path}={section!r} is no section, so that {name} has no place; name {path} alone.")
    return UserError("an override names a section that the config does not have.")


def _set_deep_ones_aside(argv: Sequence[str], config: ConfigDict) -> tuple[list[str], list[tuple[list[str], object]]]:
    """Separates overrides in sections that do not exist yet from the others; returns `(others, [(keys, value)])`.

    An example is `--config.guidance.network.name=classifier` where the config has no guidance. ml_collections can set
    only a config's own keys and new ones one level below them.
    """
    kept: list[str] = []
    deep: list[tuple[list[str], object]] = []
    for argument in argv:
        name, equals, text = argument.partition("=")
        keys = name.removeprefix("--config.").split(".")
        found: Any = config
        grows = keys[0] in GROWING or ".".join(keys[:2]) in GROWING
        if name.startswith("--config.") and equals and len(keys) > 2 and grows:
            for key in keys[:-1]:
                found = found.get(key) if isinstance(found, ConfigDict) else None
            if found is None:
                deep.append((keys, _literal(text)))
                continue
        if name == "--config.data.resolution" and equals:  # a number or two, and ml_collections keeps the kind of one
            deep.append((keys, _literal(text)))
            continue
        if name.startswith("--config.") and equals and isinstance(_at(config, keys), ConfigDict) and _is_name(text):
            deep.append((keys, section(name=text)))  # the class alone, with its own defaults
            continue
        kept.append(argument)
    return kept, deep


def _at(config: ConfigDict, keys: Sequence[str]) -> object:
    found: object = config
    for key in keys:
        found = found.get(key) if isinstance(found, ConfigDict) else None
    return found


def _is_name(text: str) -> bool:
    """Returns whether a text can be the name of a class, as `jaxgen.registry` understands it."""
    return re.fullmatch(r"[A-Za-z_][\w.]*(:[A-Za-z_]\w*)?", text) is not None


def _literal(text: str) -> object:
    """Returns the value of a Python literal, or else the text itself, as the flags of a config read their values."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _refuse(rest: Sequence[str], config: ConfigDict | None) -> None:
    """Raises a UserError for the first argument that is neither a flag nor an override."""
    unknown = rest[0] if rest else ""
    flag = unknown.lstrip("-").partition("=")[0]
    if config is None and (not rest or flag.removeprefix("no").startswith("config.")):
        raise UserError("--config is needed, such as --config=configs/ddpm_digits.py; --list names them all.")
    if unknown.startswith("-"):
        known = ["config", *(name for name, _, _ in table())]
        raise UserError(f"the flag --{flag} does not exist; {nearest(flag, known)}")
    if rest:
        raise UserError(f"{unknown!r} is not a flag; flags look like --workdir=runs/name, with two dashes and '='.")


def _refused_value(error: absl_flags.Error) -> str:
    """Returns what is wrong with a flag's value, in words of its own where absl's are about its own types."""
    said = _last_line(error).rstrip(".")
    if switch := re.match(r"flag (--\w+=.*): \('Non-boolean argument", said):
        return f"{switch[1]}: this flag is a switch and takes no value"
    if number := re.match(r"flag (--\w+=.*): (invalid literal for int|could not convert string to float)", said):
        return f"{number[1]}: give a {'whole number' if 'int' in number[2] else 'number'}"
    if section_given := re.match(r"flag (--([\w.]+)=.*): Failed to parse .* as a ConfigDict", said):
        flag, key = section_given.groups()
        return f"{flag}: {key} is a section; give its keys, such as --{key}.<key>=<value>, or \"{{'key': value}}\""
    return said


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
