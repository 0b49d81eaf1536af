"""Runs the command line: it prints help and lists at once, checks the input before JAX starts, and runs one mode."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from ml_collections import ConfigDict

from jaxgen.command import modes
from jaxgen.command.demo import check_demo
from jaxgen.command.flags import Flags, check_needed, help_text, table
from jaxgen.command.lists import listed
from jaxgen.command.parse import parse
from jaxgen.command.publish import check_publish
from jaxgen.config import check, check_count, check_sizes, defaults
from jaxgen.entry_point import check_text, status_of
from jaxgen.errors import UserError
from jaxgen.files import user_path

DESCRIPTION = """jaxgen's command line.

    {program} --config=configs/ddpm_digits.py --workdir=runs/ddpm_digits

trains, or resumes the run in the workdir. Any key of the config can be overridden, as in --config.seed=1. In the other
modes --config may be left out if the workdir holds a run: its stored config is used, overrides included.

flags (and the modes that they are for):
"""
BEGINS_AGAIN = "interrupted; the same command begins again."  # in all modes but train
INTERRUPTED = "interrupted; the checkpoints on disk are complete, and the same command resumes the run."


def main(arguments: Sequence[str], program: Sequence[str] = ("main.py",)) -> int:
    """Runs the command line and returns the exit status. Expected errors are one sentence on stderr.

    The statuses are those of `jaxgen.entry_point`; a run that SIGTERM stops after it has saved everything returns 0.

    Args:
      arguments: the words after the program's name.
      program: the words between "python" and the arguments, for the command that the run records.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("jaxgen").setLevel(logging.INFO)
    status = status_of(lambda: _run(arguments, program), interrupted=INTERRUPTED, explain=_lost)
    together = sys.modules.get("jaxgen.parallel.distributed")
    if status and together is not None:
        together.leave(status)
    return status


def end_with(program: Callable[[], int]) -> NoReturn:
    """Runs the command line as a whole process, which ends with the status that it returns.

    A run that is stopped while its first update is being compiled does not wait for the compiler.
    """
    try:
        sys.exit(program())
    except SystemExit as end:  # SIGTERM raises it too
        training = sys.modules.get("jaxgen.train.ahead")
        if training is not None and isinstance(end.code, int):
            training.leave(end.code)
        raise


def _run(arguments: Sequence[str], program: Sequence[str]) -> int:
    check_text(arguments)
    if {"--help", "-help", "-h"} & set(arguments):
        print(DESCRIPTION.format(program=" ".join(["python", *program])) + help_text())
        return 0
    config, flags = parse(arguments, program)
    if flags.list:
        print(listed(flags.list))
        return 0
    try:
        if flags.mode == "compare":
            check_needed(flags)
            _check_numbers(flags)
            return modes.compare(config, flags)
        assert config is not None  # or `parse` would have refused
        return run(config, flags)
    except KeyboardInterrupt as stop:
        if flags.mode == "train":
            raise
        raise KeyboardInterrupt(BEGINS_AGAIN) from stop


def _lost(error: BaseException) -> str | None:
    """Returns a sentence if an error means that another process of this run has ended; else None."""
    together = sys.modules.get("jaxgen.parallel.distributed")
    return together.lost(error) if together else None


def run(config: ConfigDict, flags: Flags) -> int:
    """Runs one mode and returns the exit status.

    Raises:
      UserError: the input is bad.
    """
    _check_flags(config, flags)
    if flags.mode == "demo":
        check_demo(flags)
    if flags.mode == "publish":
        check_publish(config, flags)
    _fit_resolution(config)
    check(config)
    if flags.mode == "plan":
        return modes.plan(config, flags)

    import jax

    from jaxgen.host import use_compilation_cache, use_cpu_cores
    from jaxgen.parallel import distributed

    use_cpu_cores()
    use_compilation_cache()
    together = distributed.start(config.distributed)
    check_sizes(config, jax.process_count() if together else 1)
    check_count(config, flags.num)
    config.distributed = defaults().distributed  # how the processes found each other is not stored with the run
    return modes.MODES[flags.mode](config, flags)


def _check_flags(config: ConfigDict, flags: Flags) -> None:
    """Checks that the flags fit each other and the config; `check_use` has checked them against the mode."""
    if "pretrained" in config.init_from and config.method.name == "stable_diffusion":
        _check_pretrained(config, flags)
    elif _is_chain(config):
        _check_chain(flags)
    elif flags.mode in ("sample", "demo") and not flags.workdir:
        raise UserError(f"--workdir is needed in --mode={flags.mode}: give --workdir=<the folder of a trained run>.")
    check_needed(flags, without=("workdir",) if _is_chain(config) else ())
    if flags.mode == "profile" and not (flags.out or flags.workdir):
        raise UserError("--mode=profile needs --out=<folder for the trace>, or the --workdir of a run.")
    if flags.mode == "evaluate" and not flags.quiz:
        for name, default, _ in table():
            if name in ("num", "seed") and getattr(flags, name) != default:
                raise UserError(f"--{name} has no use in --mode=evaluate without --quiz.")
    _check_numbers(flags)
    for name, given in (("prompt", flags.prompt), ("labels", flags.labels or ())):
        if len(given) > flags.num:
            raise UserError(
                f"--num={flags.num} draws fewer images than --{name} names ({len(given)}): image i takes number i of "
                f"them, so give --num={len(given)}, or fewer."
            )


def _check_numbers(flags: Flags) -> None:
    if flags.num < 1:
        raise UserError(f"--num={flags.num}: ask for at least 1.")
    if not 0 <= flags.seed < 2**32:
        raise UserError(f"--seed={flags.seed}: a seed is in [0, 2**32).")


def _fit_resolution(config: ConfigDict) -> None:
    """Fills in a side of `config.data.resolution` that is 0: it follows from the picture that the data are."""
    data = config.get("data")
    sides = data.get("resolution") if isinstance(data, ConfigDict) else None
    if not isinstance(sides, tuple | list) or 0 not in sides or not isinstance(data.get("source"), str):
        return
    from jaxgen.data.resolution import own_resolution

    data.resolution = own_resolution(data.source, data.resolution, data.get("root") or None)


def _is_chain(config: ConfigDict) -> bool:
    """Returns whether a config is of runs that are sampled one behind the other, before it is checked."""
    named = config.init_from.get("pretrained") if hasattr(config.get("init_from"), "get") else None
    name = config.method.get("name") if hasattr(config.get("method"), "get") else None
    return name == "cascade" or isinstance(named, tuple | list)


def _check_chain(flags: Flags) -> None:
    if flags.mode not in ("sample", "demo", "evaluate"):
        raise UserError(
            f"--mode={flags.mode} is for one model, and a cascade does not train: train each stage by its own config, "
            "and use --mode=sample, --mode=demo or --mode=evaluate."
        )
    if flags.mode in ("sample", "demo") and flags.workdir:
        raise UserError(
            "a cascade is sampled from the runs in config.init_from.pretrained, not from one: leave --workdir out."
        )
    if flags.workdir and (user_path(flags.workdir, "--workdir") / "config.json").exists():
        raise UserError(
            f"--workdir={flags.workdir} holds a run, whose numbers those of the chain would replace; name another."
        )
    if flags.quiz and not flags.workdir:
        raise UserError("--quiz writes quiz.html to --workdir: give --workdir=<a folder for the chain's numbers>.")


def _check_pretrained(config: ConfigDict, flags: Flags) -> None:
    if flags.mode not in ("sample", "demo"):
        raise UserError(
            f"--mode={flags.mode} has no use for config.init_from.pretrained; it is for --mode=sample and --mode=demo."
        )
    if flags.workdir:
        raise UserError("config.init_from.pretrained needs no run to sample from: leave --workdir out.")
    if not config.init_from.pretrained:
        raise UserError("config.init_from.pretrained is empty; name the folder of a pipeline that diffusers wrote.")
    if flags.labels is not None:
        raise UserError("--labels was given, but this model draws what texts describe; leave it out.")
    if flags.checkpoint != "last":
        raise UserError("--checkpoint was given, but config.init_from.pretrained has one only; leave it out.")
