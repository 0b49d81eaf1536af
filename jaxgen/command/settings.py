"""Makes the settings that pictures carry, so that `--like=picture.png` draws a picture again.

They say which model drew, by its method, its step and a checksum of its weights, and how: the flags and the keys of the
config that matter at sampling. They hold no path: of files that a call was given they keep the name and a checksum, and
the user gives the files again. A picture may be anybody's, so that what it says is checked as a run's own files are.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shlex
import zlib
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from ml_collections import ConfigDict

import jaxgen
from jaxgen.config import differences, from_json, to_json
from jaxgen.config.trust import check_names
from jaxgen.errors import UserError
from jaxgen.files import parse_json, read_json, regular_file, strict_json, user_path

if TYPE_CHECKING:
    from jaxgen.command.flags import Flags
    from jaxgen.sampling.restore import TrainedModel

KEYWORD = "jaxgen"  # of the text chunk that holds the settings, as JSON
WHOLE = ("sampler", "guidance")  # sections that are carried as they are
# Sections and keys without a part in what is drawn, and those that name a user's files.
NOT_CARRIED = ("train", "optimizer", "optimizers", "distributed", "evaluate", "init_from", "data.root", "data.workers")
BATCH = "evaluate.batch_size"  # the shape of the program that draws, on which the last bits depend

Seed = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
Count = Annotated[int, msgspec.Meta(ge=1, lt=2**53)]
Side = Annotated[int, msgspec.Meta(ge=1, lt=100_000)]


@dataclasses.dataclass(frozen=True)
class Asked:
    """Holds the flags of a call that a picture can repeat, as `jaxgen.command.flags.Flags` has them."""

    num: Count
    seed: Seed
    draws: Count = 1
    size: tuple[Side, Side] | None = None
    labels: tuple[int, ...] | None = None
    prompt: tuple[str, ...] = ()
    negative_prompt: str = ""
    strength: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    degrade: bool = False


@dataclasses.dataclass(frozen=True)
class GivenFiles:
    """Holds what is kept of the files that a flag named: their number, the first one's name, and a checksum of all."""

    count: Count
    name: str
    checksum: str  # "" for folders


@dataclasses.dataclass(frozen=True)
class Settings:
    """Holds what a picture says about itself.

    Attributes:
      config: the name of the config's file, without its ending; "" where it is not known.
      method: `config.method.name`.
      step: the updates that the model was trained for.
      weights: a checksum of all weights that drew, which is the same wherever the run lies.
      asked: the flags.
      files: `{flag: the files that it named}`.
      sections: the sections in `WHOLE`.
      keys: other keys of the config that the call changed, `{path: value}`.
      own: keys that the call set to a file or folder of the user's, or to a data source.
      versions: those of jaxgen and jax, and the devices.
    """

    method: str
    step: int
    weights: str
    asked: Asked
    config: str = ""
    files: dict[str, GivenFiles] = dataclasses.field(default_factory=dict)
    sections: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    keys: dict[str, Any] = dataclasses.field(default_factory=dict)
    own: tuple[str, ...] = ()
    versions: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def who(self) -> str:
        """Returns what drew the picture, for sentences."""
        return f"{self.config} ({self.method})" if self.config else f"a run of {self.method}"

    @property
    def told(self) -> str:
        """Returns what people look for: model, step, seed, sampler, labels and texts."""
        asked, sampler = self.asked, self.sections.get("sampler", {})
        said = [f"{self.who} at step {self.step}", f"seed {asked.seed}"]
        if "name" in sampler:
            said.append(f"sampler {sampler['name']}" + (f" of {sampler['steps']} steps" if "steps" in sampler else ""))
        said += [f"labels {', '.join(map(str, asked.labels))}"] if asked.labels else []
        said += [f"prompt {'; '.join(asked.prompt)[:200]}"] if asked.prompt else []
        return "; ".join(said)


def read_settings(path: str) -> Settings:
    """Returns what the picture of `--like` says.

    Raises:
      UserError: the file is no PNG file, or carries no settings that can be used.
    """
    from jaxgen.files.carried import carried_texts

    texts = carried_texts(path, "--like")
    if KEYWORD not in texts:
        raise UserError(
            f"--like={path} carries no settings: give a PNG file as --mode=sample wrote it, since many programs leave "
            "the settings out when they save a picture."
        )
    return parse_json(texts[KEYWORD], f"--like={path}", Settings)


def with_asked(flags: Flags, found: Settings, given: Collection[str]) -> Flags:
    """Returns flags with those of a picture, where they were not given; `given` has the names of those that were."""
    asked = dataclasses.asdict(found.asked) | ({"checkpoint": str(found.step)} if flags.workdir else {})
    prompts = {"prompt", "prompts"} & set(given)
    taken = {name: value for name, value in asked.items() if name not in given and not (name == "prompt" and prompts)}
    return dataclasses.replace(flags, **taken, settings=found)


def check_files(flags: Flags) -> list[str]:
    """Compares the files of a call with those that its picture was drawn from; returns a warning for each difference.

    Raises:
      UserError: a flag that named files is not given.
    """
    assert flags.settings is not None
    here, told = _files(flags), []
    for flag, files in flags.settings.files.items():
        what = files.name if files.count == 1 else f"{files.count} files from {files.name} on"
        if flag not in here:
            raise UserError(f"--like={flags.like} was drawn with {flag} ({what}): give {flag}=<the same> too.")
        if here[flag].checksum != files.checksum:
            told.append(f"{flag} is not what --like={flags.like} was drawn with ({what}): another picture is drawn")
    return told


def with_config(config: ConfigDict, flags: Flags, trust: Collection[str]) -> None:
    """Sets the keys of a config that the picture of `--like` names.

    Raises:
      UserError: the picture is of another method, or names a class that is not trusted, or a section that is none.
    """
    found, where = flags.settings, f"--like={flags.like}"
    assert found is not None
    if found.method != config.method.get("name"):
        place = f"--workdir={flags.workdir}" if flags.workdir else "the config"
        raise UserError(
            f"{where} was drawn by {found.who}, and {place} is of the method {config.method.get('name')!r}: give the "
            "run that drew it."
        )
    sections = {name: value for name, value in found.sections.items() if name in WHOLE}
    keys = {key: value for key, value in found.keys.items() if _is_carried(key) and key.partition(".")[0] not in WHOLE}
    tree = ConfigDict(from_json(strict_json(sections)), type_safe=False)
    for key, value in keys.items():
        _set(tree, key, from_json(strict_json([value]))[0], where)
    check_names(tree, where, trust)
    for name in sections:
        config[name] = tree[name]
    for key in keys:
        _set(config, key, _get(tree, key), where)


def check_own_keys(config: ConfigDict, flags: Flags) -> None:
    """Raises a UserError for a key that names the user's files, was set for the picture, and is not set here."""
    for key in flags.settings.own if flags.settings else ():
        if _get(config, key) in (None, ""):
            raise UserError(f"--like={flags.like} was drawn with --config.{key}=...: give that too.")


def weights_of(trained: TrainedModel) -> str:
    """Returns a checksum of all weights of a model. All processes call it."""
    from jaxgen.runs.integrity import checksums, text_checksum

    return f"{text_checksum(checksums((trained.model.params, trained.model.memory))):08x}"


def settings_of(config: ConfigDict, flags: Flags, trained: TrainedModel, weights: str = "") -> Settings:
    """Returns what the pictures of a call carry; `flags` are those that the user gave. All processes call it.

    Args:
      weights: what `weights_of` gives, where it is known.
    """
    import jax

    changed = {key: new for key, (_, new) in flags.changes.items() if _is_carried(key) or key.startswith("init_from")}
    changed = {key: new for key, new in changed.items() if new is not None and key.partition(".")[0] not in WHOLE}
    own = tuple(key for key, value in changed.items() if key.startswith("init_from") or _names_a_place(key, value))
    asked = {field.name: getattr(flags, field.name) for field in dataclasses.fields(Asked)}
    whole = ConfigDict({name: config[name] for name in WHOLE if name in config})
    devices = trained.generator.mesh.devices.reshape(-1)
    return Settings(
        method=config.method.name,
        step=trained.step,
        weights=weights or weights_of(trained),
        asked=Asked(**asked),
        config=flags.name or _recorded_name(flags.workdir),
        files=_files(flags),
        sections=parse_json(to_json(whole), "config"),
        keys={key: value for key, value in changed.items() if key not in own} | {BATCH: config.evaluate.batch_size},
        own=own,
        versions={"jaxgen": jaxgen.__version__, "jax": jax.__version__,
                  "devices": f"{len(devices)} {devices[0].device_kind}"},
    )  # fmt: skip


def check_model(flags: Flags, here: Settings) -> list[str]:
    """Compares the model of this call with that of its picture; returns a warning where another picture is drawn.

    Raises:
      UserError: the weights are others, and no flag of this call chose others.
    """
    found, where = flags.settings, f"--like={flags.like}"
    assert found is not None
    if found.weights != here.weights:
        what = f"at step {found.step} (weights {found.weights}), and here is step {here.step} (weights {here.weights})"
        chosen = flags.workdir and flags.checkpoint != str(found.step)
        if chosen or any(found.files.get(flag) != here.files.get(flag) for flag in ("--adapter", "--rerank")):
            return [f"{where} was drawn {what}: another picture is drawn"]
        raise UserError(f"{where} was drawn by {found.who} {what}: give the run that drew it.")
    if found.versions != here.versions:
        there, now = (", ".join(f"{name} {value}" for name, value in of.items()) for of in (
            found.versions, here.versions))  # fmt: skip
        return [f"{where} was drawn on other versions or devices ({there}) than these ({now}): last bits may differ"]
    return []


def texts(settings: Settings) -> dict[str, str]:
    """Returns the text chunks of a picture: the settings as JSON, and a sentence for people."""
    return {
        "Software": f"jaxgen {settings.versions['jaxgen']}",
        "Description": settings.told,
        KEYWORD: strict_json(dataclasses.asdict(settings)),
    }


def _is_carried(key: str) -> bool:
    return key == BATCH or not any(f"{key}.".startswith(f"{part}.") for part in NOT_CARRIED)


def _names_a_place(key: str, value: object) -> bool:
    """Returns whether a value may name a user's file: a data source, or a text with a slash."""
    return key == "data.source" or any(isinstance(text, str) and ("/" in text or os.sep in text) for text in _in(value))


def _in(value: object) -> Iterator[object]:
    for inner in value if isinstance(value, list | tuple) else [value]:
        yield from _in(inner) if isinstance(inner, list | tuple) else [inner]


def _get(config: ConfigDict, key: str) -> Any:
    found: Any = config
    for part in key.split("."):
        found = found.get(part) if isinstance(found, ConfigDict) else None
    return found


def _set(config: ConfigDict, key: str, value: Any, where: str) -> None:
    *sections, last = key.split(".")
    for part in sections:
        inner = config.get(part)
        if inner is None:
            config[part] = inner = ConfigDict(type_safe=False)
        if not isinstance(inner, ConfigDict):
            raise UserError(f"{where} sets config.{key}, and {part!r} is no section here: give the run that drew it.")
        config = inner
    with config.ignore_type():
        config[last] = value


def _files(flags: Flags) -> dict[str, GivenFiles]:
    """Returns what is kept of the files that the flags name."""
    from jaxgen.command.inputs import spoken

    named: dict[str, list[str]] = {spoken(entry): list(map(os.fspath, of)) for entry, of in flags.files.items()}
    named |= {f"--{name}": [value] for name in ("noise", "legend", "rerank") if (value := getattr(flags, name))}
    named |= {"--adapter": [adapter.file for adapter in flags.adapters]} if flags.adapters else {}
    return {flag: _kept(of, flag) for flag, of in named.items()}


def _kept(paths: list[str], flag: str) -> GivenFiles:
    total = 0
    for path in paths:
        place = user_path(path, flag)
        if place.is_dir():
            return GivenFiles(len(paths), place.name, "")
        with regular_file(place, flag).open("rb") as file:
            while part := file.read(2**24):
                total = zlib.crc32(part, total)
    return GivenFiles(len(paths), pathlib.PurePath(paths[0]).name, f"{total:08x}")


def _recorded_name(workdir: str) -> str:
    """Returns the name of the config's file by the command that a run records; "" where there is none."""
    path = user_path(workdir, "--workdir") / "run.json" if workdir else None
    if path is None or not path.exists():
        return ""
    try:
        words = shlex.split(str(read_json(path).get("command", "")))
    except (UserError, ValueError):
        return ""
    return next((config_name(word.partition("=")[2]) for word in words if word.startswith("--config=")), "")


def config_name(file: str) -> str:
    """Returns the name of a config's file, `<path>.py` or `<path>.py:<argument>`, without folder and ending."""
    return pathlib.PurePath(file.partition(".py:")[0]).name.removesuffix(".py")


def changes(base: ConfigDict, config: ConfigDict) -> Mapping[str, tuple[Any, Any]]:
    """Returns what overrides changed in a config, `{key: (old, new)}`; nothing where it is no valid config."""
    try:
        return differences(base, config)
    except (TypeError, ValueError):  # `check` says what is wrong with it
        return {}
