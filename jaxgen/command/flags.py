"""Every flag of the command line, declared once: its name, type, default, help, and the modes that it is for.

What absl is told, `--help`, the refusal of a flag in a mode that has no use for it, and the object that modes receive
are all made from the fields of `Flags`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, get_type_hints

from absl import flags as absl_flags

from jaxgen.errors import UserError

MODES = ("train", "sample", "evaluate", "plan", "profile")


def _labels(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(label) for label in text.split(","))
    except ValueError as error:
        raise UserError(f"--labels must be numbers such as 3 or 0,1,2, not {text}.") from error


def _flag(
    default: Any,
    help: str,
    *modes: str,
    needed: tuple[str, ...] = (),
    such_as: str = "",
    alone: str = "",
    read: Callable[[str], Any] | None = None,
) -> Any:
    """A flag of the table.

    Args:
      default: its value where it is not given.
      help: what `--help` says of it.
      modes: those that have a use for it; all where none is named.
      needed: those that cannot do without it.
      such_as: an example, for the sentence that asks for it.
      alone: what a flag without a value means; a flag of another type than bool needs a value where this is "".
      read: makes the value of its text, where the type does not say how.
    """
    use = Use(help, modes or MODES, needed, such_as, alone, read)
    return dataclasses.field(default=default, metadata={"flag": use})


@dataclasses.dataclass(frozen=True)
class Use:
    """What the table says of a flag beside its name, type and default; see `_flag`."""

    help: str
    modes: tuple[str, ...]
    needed: tuple[str, ...]
    such_as: str
    alone: str
    read: Callable[[str], Any] | None


@dataclasses.dataclass(frozen=True)
class Flags:
    """The command line without the config: a field is a flag, but for the last two."""

    workdir: str = _flag(
        "", "The run's folder: made, or resumed. gs:// works.",
        needed=("train", "evaluate"), such_as="<the folder of the run>, such as --workdir=runs/ddpm_digits",
    )  # fmt: skip
    mode: str = _flag("train", f"{', '.join(MODES[:-1])} or {MODES[-1]}.")
    num: int = _flag(64, "How many images (else one per prompt); with --quiz: pairs.", "sample", "evaluate")
    seed: int = _flag(0, "Image i depends on the seed and on i alone.", "sample", "evaluate")
    out: str = _flag(
        "", "The folder for what is written.", "sample", "plan", "profile",
        needed=("sample",), such_as="<the folder for the images>",
    )  # fmt: skip
    labels: tuple[int, ...] | None = _flag(
        None, "The classes to draw, such as 3 or 0,1,2; all without it.", "sample", read=_labels
    )
    checkpoint: str = _flag("last", "last, best (see train.keep_best), or a step.", "sample", "evaluate")
    quiz: bool = _flag(False, "Also quiz.html, which asks people which images are real.", "evaluate")
    prompt: tuple[str, ...] = _flag((), "What a text-to-image model draws; may be given several times.", "sample")
    prompts: str = _flag("", "A file of such texts, one per line.", "sample")
    negative_prompt: str = _flag("", "The text that guidance leads away from.", "sample")
    noise: str = _flag("", "An npy file of noise to start from, [N, h, w, c] or [N, c, h, w].", "sample")
    topology: str = _flag(
        "", "The machine, such as v5e:2x4, v5p:4x4x4, v6e:16x16 or cpu:8.", "plan",
        needed=("plan",), such_as="<machine>, such as v5e:2x4 or cpu:8",
    )  # fmt: skip
    find_batch: bool = _flag(False, "Doubles the batch size until it no longer fits.", "plan")
    list: str = _flag(
        "", "Prints every config with its method, its data and what it is; --list=<kind>, such as --list=sampler, "
        "prints every class of a kind that a config may name.", alone="configs",
    )  # fmt: skip

    command: str = ""  # the whole command, to be recorded
    summary: str = ""  # the first line of the config's docstring, to be recorded


def table() -> Iterator[tuple[str, Any, Use]]:
    """(name, default, use) of every flag, in the table's order."""
    for field in dataclasses.fields(Flags):
        if "flag" in field.metadata:
            yield field.name, field.default, field.metadata["flag"]


def defined() -> absl_flags.FlagValues:
    """The flags for absl to parse, with no value yet."""
    values = absl_flags.FlagValues()
    values.set_gnu_getopt(True)
    types = get_type_hints(Flags)
    define = {
        bool: absl_flags.DEFINE_bool, int: absl_flags.DEFINE_integer, tuple[str, ...]: absl_flags.DEFINE_multi_string
    }  # fmt: skip
    for name, default, use in table():
        default = [*default] if isinstance(default, tuple) else default
        define.get(types[name], absl_flags.DEFINE_string)(name, default, use.help, flag_values=values)
    return values


def check_use(mode: str, given: set[str]) -> None:
    """Holds the flags that were given against what the mode has a use for.

    Raises:
      UserError: for a flag that the mode would pass over; the sentence names the modes that it is for.
    """
    for name, _, use in table():
        if name in given and mode not in use.modes:
            raise UserError(f"--{name} has no use in --mode={mode}; it is for {_spoken(use.modes)}.")


def check_needed(flags: Flags) -> None:
    """Raises a UserError for a flag that the mode cannot do without and that is not there."""
    for name, default, use in table():
        if flags.mode in use.needed and getattr(flags, name) == default:
            raise UserError(f"--{name} is needed in --mode={flags.mode}: give --{name}={use.such_as}.")


def help_text() -> str:
    """A paragraph for each flag: its name and default, the modes that it is for, and what it does."""
    lines = ["  --config=FILE  (every mode)", "      The experiment's file, such as configs/ddpm_digits.py."]
    lines += ["  --config.KEY=VALUE  (every mode)", "      A key's other value, such as --config.train.batch_size=32."]
    for name, default, use in table():
        shown = f"={default}" if default not in ("", None, False, ()) else ""
        modes = "every mode" if use.modes == MODES else ", ".join(use.modes)
        lines += [f"  --{name}{shown}  ({modes})", f"      {use.help}"]
    return "\n".join(lines)


def _spoken(modes: tuple[str, ...]) -> str:
    words = [f"--mode={mode}" for mode in modes]
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]
