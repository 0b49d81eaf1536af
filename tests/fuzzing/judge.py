"""Runs cases in a process of their own, and judges how each one ends.

A case is *refused* if its status is 2, its last line on stderr is one sentence, nothing was written, and the processor
took less than 20 seconds; it is *run* if its status is 0 and all inputs are as they were. All else is a fault.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import resource
import shutil
import signal
import stat
import subprocess
import sys
import traceback
from collections.abc import Iterator

import tiny

from fuzzing import calls, cases, sound
from jaxgen.build import build
from jaxgen.command.flags import MODES
from jaxgen.command.run import main
from jaxgen.entry_point import status_of

SECONDS = 20  # of the processor, for a refusal
LONG = 60  # seconds of the processor after which a command is told to stop; a training saves and ends with status 0
HANG = 150  # seconds of the clock
MEMORY = 8 << 30  # bytes of address space


def judge(case: cases.Case, status: int | str, err: str, seconds: float, changed: set[str]) -> str:
    """Returns "refused", "run", or the fault in a few words."""
    if isinstance(status, str):
        return status
    if "Traceback (most recent call last)" in err or "Exception ignored" in err:
        return f"traceback: {err.strip().splitlines()[-1][:300]}"
    if status == 0:
        spoilt = sorted(name for name in changed if not name.startswith(_results(case)))
        return f"changed {spoilt[:5]}" if spoilt else "run"
    lines = err.strip("\n").split("\n")
    if status != 2:
        return f"status {status}"
    if [line for line in lines if line.startswith("jaxgen: ")] != lines[-1:] or not lines[-1].isprintable():
        return "not one sentence"
    if len(lines[-1]) > 4100:
        return f"a sentence of {len(lines[-1])} characters"
    if "is said in its place" in lines[-1]:  # a report that shows all but one damaged file
        changed = {name for name in changed if not name.startswith(_results(case))}
    if changed:
        return f"refused, and yet changed {sorted(changed)[:5]}"
    return "refused" if seconds < SECONDS else f"refused after {seconds:.0f} s of the processor"


def _results(case: cases.Case) -> tuple[str, ...]:
    """Returns the beginnings of the paths that a command may write if it succeeds."""
    asked = ("cwd/", "home/", "odd/")  # a bad value may be a path that is fine
    if case.command == "train":
        return ("run", "new", *asked)
    pages = ("run/report.html", "run/quiz.html", "run/samples/")
    numbers = tuple(f"run/{name}.json" for name in ("metrics", "metrics_best", "plan", "profile"))
    vocabulary = ("pictures.", "arrays.", "run.", "noise.") if "captions" in case.command else ()
    hints = ("pictures/", "run/") if "hints" in case.command else ()
    return ("out", *asked, "run/trace", *pages, *numbers, *vocabulary, *hints)


def worker(made: pathlib.Path, seed: int) -> None:
    """Reads numbers of cases from stdin, and writes to stdout, as JSON, the case and then the verdict of each."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    sys.excepthook = lambda *seen: (sys.__excepthook__(*seen), os._exit(1))  # a fault of the fuzzer: no thread may wait
    reply, log, folder = os.fdopen(os.dup(1), "w"), made.with_name("streams"), made.with_name("case")
    if not made.exists():
        with _streams(log):
            sound.make(made)
    print("ready", file=reply, flush=True)
    for line in sys.stdin:
        shutil.rmtree(folder, ignore_errors=True)
        case = cases.make(seed, int(line), made, folder)
        print(json.dumps(dataclasses.astuple(case)), file=reply, flush=True)
        before, started = _digest(folder), _seconds()
        os.environ["HOME"] = os.fspath(folder / "home")
        with _streams(log), contextlib.chdir(folder / "cwd"):
            status = _alone(case) if case.alone else _here(case)
        after, seconds = _digest(folder), _seconds() - started
        err = log.read_bytes().decode("utf-8", "backslashreplace")
        changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        verdict = judge(case, status, err, seconds, changed)
        print(json.dumps({"verdict": verdict, "seconds": seconds, "err": err[-6000:]}), file=reply, flush=True)


def _digest(folder: pathlib.Path) -> dict[str, str]:
    """Returns what every file below a folder holds, and of what sort every other thing is."""
    sorts = {path: path.lstat().st_mode for path in folder.rglob("*")}
    return {
        os.fspath(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if stat.S_ISREG(mode)
        else str(stat.S_IFMT(mode))
        for path, mode in sorts.items()
    }


def _seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


@contextlib.contextmanager
def _streams(file: pathlib.Path) -> Iterator[None]:
    """Sends stderr, also that of C++ and of other processes, to a file, and stdout to nowhere."""
    kept = os.dup(1), os.dup(2)
    with file.open("wb") as err, open(os.devnull, "wb") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number in (0, 1):
            os.dup2(kept[number], number + 1)
            os.close(kept[number])


def _here(case: cases.Case) -> int | str:
    """Runs a case in this process; returns its status, or what went wrong."""

    def too_long(number: int, frame: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGTERM, too_long)
    signal.signal(signal.SIGPROF, lambda number, frame: os.kill(os.getpid(), signal.SIGTERM))
    signal.setitimer(signal.ITIMER_PROF, LONG, LONG)
    try:
        if case.command == cases.BUILD:
            kind, text = case.arguments
            return status_of(lambda: build(json.loads(text), kind, f"config.{kind}") is None)
        return (main if case.command in MODES else calls.main_of(case.command))(list(case.arguments))
    except TimeoutError:
        traceback.print_exc()
        return f"more than {LONG} s of the processor"
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _alone(case: cases.Case) -> int | str:
    """Runs a case in a process of its own; returns its status, or what went wrong."""
    program = [os.fspath(tiny.ROOT / "main.py")] if case.command in MODES else ["-m", case.command]
    environment = tiny.environment(HOME=os.environ["HOME"], JAXGEN_LARGE_PAGES="0")
    words = [sys.executable, *program, *case.arguments]
    try:
        return subprocess.run(words, env=environment, timeout=HANG - 20, stdin=subprocess.DEVNULL).returncode
    except subprocess.TimeoutExpired:
        return f"hang: more than {HANG - 20} s"
