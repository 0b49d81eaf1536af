"""Declares every flag of the command line once, with its name, type, default, help and modes.

All else is made from the fields of `Flags`: the definitions for absl, the text of `--help`, the error for a flag in a
mode that does not use it, and the object that the modes receive.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar, get_type_hints

from absl import flags as absl_flags
from etils import epath

from jaxgen.command.settings import Settings
from jaxgen.errors import UserError
from jaxgen.sampling.grafts.requests import Adapter

MODES = ("train", "sample", "evaluate", "plan", "profile", "demo", "publish", "compare")
OF_ONE_RUN = MODES[:-1]  # the modes that take one config and one workdir
T = TypeVar("T")


def _labels(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(label) for label in text.split(","))
    except ValueError as error:
        raise UserError(f"--labels must be numbers such as 3 or 0,1,2, not {text}.") from error


def _share(text: str) -> float:
    try:
        found = float(text)
    except ValueError as error:
        raise UserError(f"--strength={text} is no number; it is a share from 0 to 1.") from error
    if not 0 <= found <= 1:
        raise UserError(f"--strength={text} is no share from 0 to 1: 0 gives the image back, 1 draws it anew.")
    return found


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text)
    if not found:
        raise UserError(f"--size={text} is no size: give <height>x<width> in pixels, such as --size=96x128.")
    return int(found[1]), int(found[2])


def _licence(text: str) -> str:
    if not re.fullmatch(r"(|[a-z0-9][a-z0-9.+-]*)", text):
        raise UserError(
            f"--licence={text} is no identifier of the hub; such are apache-2.0, mit, cc-by-4.0, cc0-1.0 and other."
        )
    return text


def _flag(
    default: T,
    help: str,
    *modes: str,
    needed: tuple[str, ...] = (),
    such_as: str = "",
    alone: str = "",
    read: Callable[[str], object] | None = None,
    path: bool = False,
    hub: bool = False,
) -> T:
    """Declares a flag as a field of `Flags`.

    Args:
      default: the value of a flag that is not given.
      help: the sentence of `--help`.
      modes: the modes that use the flag; all modes if none is named.
      needed: the modes that require the flag.
      such_as: an example for the error message that asks for the flag.
      alone: the meaning of the flag without a value; with "", a flag that is not a bool must have a value.
      read: makes the value from the flag's text, for types that absl does not read.
      path: whether the value is a path.
      hub: whether the path may be `hf:owner/name`, which is kept as it is written, so that nothing is fetched yet.
    """
    use = Use(help, modes or MODES, needed, such_as, alone, read, path, hub)
    return dataclasses.field(default=default, metadata={"flag": use})


@dataclasses.dataclass(frozen=True)
class Use:
    """Holds the properties of a flag other than its name, type and default; `_flag` explains them."""

    help: str
    modes: tuple[str, ...]
    needed: tuple[str, ...]
    such_as: str
    alone: str
    read: Callable[[str], object] | None
    path: bool
    hub: bool

    def value(self, name: str, found: Any, given: bool) -> Any:
        """Returns a flag's value from what absl found."""
        if isinstance(found, list):
            return tuple(found)
        if self.path and given:
            from jaxgen.files import user_path
            from jaxgen.files.hub import hub_name, names_hub

            if self.hub and names_hub(found):
                return hub_name(found, f"--{name}").text
            return os.fspath(user_path(found, f"--{name}"))
        return self.read(found) if self.read and found is not None else found


@dataclasses.dataclass(frozen=True)
class Flags:
    """Holds the values of the command line without the config. Each field is a flag, except the last seven."""

    workdir: str = _flag(
        "", "The run's folder; it is created, or its run is resumed. gs:// works, and to sample hf:<owner>/<name>.",
        *OF_ONE_RUN, needed=("train", "evaluate", "publish"),
        such_as="<the folder of the run>, such as --workdir=runs/ddpm_digits", path=True, hub=True,
    )  # fmt: skip
    mode: str = _flag("train", f"{', '.join(MODES[:-1])} or {MODES[-1]}.")
    workdirs: tuple[str, ...] = _flag(
        (), "The folders of two to eight runs that are compared in one page, with commas between them.", "compare",
        needed=("compare",), such_as="<the folders of runs, with commas between them>",
    )  # fmt: skip
    num: int = _flag(
        64, "How many images to draw, by default one per prompt if there are prompts, and 16 of each run in a "
        "comparison and on a card; with --quiz, how many pairs.", "sample", "evaluate", "publish", "compare",
    )  # fmt: skip
    seed: int = _flag(
        0, "The random seed; image i depends only on the seed and i.", "sample", "evaluate", "publish", "compare"
    )
    out: str = _flag(
        "", "The folder that the results are written to.", "sample", "plan", "profile", "publish", "compare",
        needed=("sample", "publish", "compare"), such_as="<the folder for the results>", path=True,
    )  # fmt: skip
    draws: int = _flag(
        1, "How many images are drawn under each of the --num conditions, such as pictures: panel_draws.png has them "
        "side by side. With --rerank one of each is kept.", "sample", "evaluate",
    )  # fmt: skip
    rerank: str = _flag(
        "", "A run of CLIP: of the --draws images of each text, the one that it finds nearest to the text is kept. In "
        "--mode=evaluate the scores are printed and not stored.", "sample", "evaluate", path=True,
    )  # fmt: skip
    size: tuple[int, int] | None = _flag(
        None, "<height>x<width> in pixels, such as 96x128, at which a diffusion model draws and reads pictures, where "
        "its network takes any; by default the size that it learned with.", "sample", read=_size,
    )  # fmt: skip
    labels: tuple[int, ...] | None = _flag(
        None, "The classes to draw, such as 3 or 0,1,2; by default all classes.", "sample", read=_labels
    )
    checkpoint: str = _flag(
        "last",
        "The checkpoint to use: last, best (see train.keep_best), or a step.",
        "sample",
        "evaluate",
        "demo",
        "publish",
        "compare",
    )
    quiz: bool = _flag(False, "Also writes quiz.html, which asks people which images are real.", "evaluate")
    prompt: tuple[str, ...] = _flag((), "What a text-to-image model draws; may be given several times.", "sample")
    prompts: str = _flag("", "A file with prompts, one per line.", "sample", path=True)
    negative_prompt: str = _flag("", "A text that describes what guidance avoids.", "sample")
    image: tuple[str, ...] = _flag(
        (), "A picture, or a folder of pictures, that the model reads, or that a diffusion model begins with and "
        "changes; may be given several times.", "sample",
    )  # fmt: skip
    mask: tuple[str, ...] = _flag(
        (), "A grey picture of the image's size, or a folder of them: white is drawn, black is kept.", "sample"
    )
    legend: str = _flag(
        "", "A file that says which colour, or which number, of a painted layout in --mask is which class, in lines "
        "such as '#4682b4 0 sky'.", "sample", path=True,
    )  # fmt: skip
    hint: tuple[str, ...] = _flag((), "A picture, or a folder of pictures, that steers the model.", "sample")
    input: tuple[str, ...] = _flag(
        (), "<entry>=<file or folder>: another condition that the model reads; image i has file i.", "sample"
    )
    strength: float | None = _flag(
        None, "The share of --image that may change: 0 gives it back, 1 draws anew; 1 with --mask, else 0.6.",
        "sample", read=_share,
    )  # fmt: skip
    degrade: bool = _flag(
        False, "--image is a clean picture: the run's own corruptions make of it what the model reads.", "sample"
    )
    noise: str = _flag(
        "", "An npy file of noise that a diffusion model begins with, [N, h, w, c] or [N, c, h, w].", "sample",
        path=True,
    )  # fmt: skip
    adapter: tuple[str, ...] = _flag(
        (), "lora:FILE[:scale], embedding:FILE[:word], custom_diffusion:FILE, controlnet:FOLDER[:scale] or "
        "motion:FOLDER[:frames]: low-rank updates, a new word, keys and values, a network that reads --hint, or "
        "temporal layers for videos, put on the model as they are; may be given several times.", "sample",
    )  # fmt: skip
    like: str = _flag(
        "", "A PNG file that --mode=sample wrote: draws it again, from the settings that it carries. What is given "
        "beside it takes the place of what the picture says.", "sample", path=True,
    )  # fmt: skip
    trust: tuple[str, ...] = _flag(
        (), "A package that the config stored in the workdir may import classes of; may be given several times.",
        "sample", "evaluate", "plan", "profile", "demo", "publish", "compare",
    )  # fmt: skip
    licence: str = _flag(
        "", "The licence under which a run is published, by its identifier on the hub, or 'other'.", "publish",
        needed=("publish",), such_as="<identifier>, such as --licence=apache-2.0", read=_licence,
    )  # fmt: skip
    push_to: str = _flag(
        "",
        "hf:<owner>/<name> or hf:<owner>/<name>@<branch>, the repository that the published folder is sent to.",
        "publish",
    )
    private: bool = _flag(False, "A repository that --push_to makes is private.", "publish")
    port: int = _flag(7860, "The port at which the demo is served.", "demo")
    host: str = _flag(
        "127.0.0.1", "The address at which the demo is served: by default that of this machine alone; 0.0.0.0 lets "
        "everyone in who can reach it.", "demo",
    )  # fmt: skip
    topology: str = _flag(
        "", "The machine to plan for, such as v5e:2x4, v5p:4x4x4, v6e:16x16 or cpu:8.", "plan",
        needed=("plan",), such_as="<machine>, such as v5e:2x4 or cpu:8",
    )  # fmt: skip
    find_batch: bool = _flag(False, "Doubles the batch size until it no longer fits.", "plan")
    list: str = _flag(
        "", "Prints every config with its method, data and summary; --list=<kind>, such as --list=sampler, prints "
        "every class of that kind that a config may name.", alone="configs",
    )  # fmt: skip

    command: str = ""  # the complete command, which the run records
    summary: str = ""  # the first line of the config's docstring, which the run records
    files: Mapping[str, Sequence[epath.Path]] = dataclasses.field(default_factory=dict)  # of --input, by entry
    adapters: Sequence[Adapter] = ()  # what --adapter says
    name: str = ""  # of the file of --config, without folder and ending
    changes: Mapping[str, tuple[Any, Any]] = dataclasses.field(default_factory=dict)  # what overrides changed
    settings: Settings | None = None  # what the picture of --like says


def table() -> Iterator[tuple[str, object, Use]]:
    """Yields (name, default, use) of every flag, in the order of the fields."""
    for field in dataclasses.fields(Flags):
        if "flag" in field.metadata:
            yield field.name, field.default, field.metadata["flag"]


def defined() -> absl_flags.FlagValues:
    """Returns the flags as absl parses them, before any value is set."""
    values = absl_flags.FlagValues()
    values.set_gnu_getopt(True)
    types = get_type_hints(Flags)
    define: dict[object, Callable[..., object]] = {
        bool: absl_flags.DEFINE_bool, int: absl_flags.DEFINE_integer, tuple[str, ...]: absl_flags.DEFINE_multi_string
    }  # fmt: skip
    for name, default, use in table():
        default = [*default] if isinstance(default, tuple) else default
        define.get(types[name], absl_flags.DEFINE_string)(name, default, use.help, flag_values=values)
    return values


def check_use(mode: str, given: set[str]) -> None:
    """Checks that the mode uses every flag that was given.

    Raises:
      UserError: the mode would ignore a flag; the message names the modes that the flag is for.
    """
    for name, _, use in table():
        if name in given and mode not in use.modes:
            raise UserError(f"--{name} has no use in --mode={mode}; it is for {_spoken(use.modes)}.")


def check_needed(flags: Flags, without: Collection[str] = ()) -> None:
    """Raises a UserError for a flag that the mode requires and that was not given.

    Args:
      without: flags that this call can do without.
    """
    for name, default, use in table():
        if flags.mode in use.needed and name not in without and getattr(flags, name) == default:
            raise UserError(f"--{name} is needed in --mode={flags.mode}: give --{name}={use.such_as}.")


def help_text() -> str:
    """Returns a paragraph for each flag: its name and default, the modes that it is for, and what it does."""
    lines = ["  --config=FILE  (every mode)", "      The experiment's file, such as configs/ddpm_digits.py."]
    lines += ["  --config.KEY=VALUE  (every mode)", "      Sets a key, such as --config.train.batch_size=32."]
    for name, default, use in table():
        shown = f"={default}" if default not in ("", None, False, ()) else ""
        modes = "every mode" if use.modes == MODES else ", ".join(use.modes)
        lines += [f"  --{name}{shown}  ({modes})", f"      {use.help}"]
    return "\n".join(lines)


def _spoken(modes: tuple[str, ...]) -> str:
    words = [f"--mode={mode}" for mode in modes]
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]
