"""Hands cases to a worker process, and starts another one where it hangs or dies."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator

import tiny

from fuzzing.judge import HANG

STARTING = 900  # seconds for a worker's start, in which it may make the sound inputs
PROGRAM = "from fuzzing.judge import worker; import pathlib, sys; worker(pathlib.Path(sys.argv[1]), int(sys.argv[2]))"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Holds how the case of a number ended: its verdict, the processor's seconds, and the end of stderr."""

    number: int
    case: str
    verdict: str
    seconds: float = 0.0
    err: str = ""

    @property
    def fault(self) -> bool:
        """Whether the case ended as none should."""
        return self.verdict not in ("refused", "run")


def fuzz(seed: int, numbers: Iterable[int]) -> Iterator[Outcome]:
    """Runs the cases of these numbers, one after the other, and yields how each one ended."""
    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        made, process = pathlib.Path(folder).resolve() / "sound", None
        for number in numbers:
            process = process or _start(made, seed)
            process.stdin.write(b"%d\n" % number)
            case = _told(process, 60) or b""
            ended = case and _told(process, HANG)
            if ended:
                yield Outcome(number, case.decode(), **json.loads(ended))
                continue
            found = process.poll()
            verdict = f"hang: more than {HANG} s" if found is None else f"the process ended with status {found}"
            process.kill()
            process.wait()
            process = None
            logs = [log for log in (made.with_name("streams"), made.with_name("worker.log")) if log.exists()]
            err = "".join(log.read_text(errors="backslashreplace")[-4000:] for log in logs)
            yield Outcome(number, case.decode(), verdict, err=err)
        if process is not None:
            process.kill()
            process.wait()


def _start(made: pathlib.Path, seed: int) -> subprocess.Popen[bytes]:
    cache = {"XDG_CACHE_HOME": os.fspath(made.with_name("cache")), "https_proxy": "http://127.0.0.1:9"}  # no network
    paths = os.pathsep.join([os.fspath(tiny.ROOT), os.fspath(tiny.ROOT / "tests")])
    environment = tiny.environment(PYTHONPATH=paths, **cache)
    words = [sys.executable, "-c", PROGRAM, os.fspath(made), str(seed)]
    log = made.with_name("worker.log")
    with log.open("w") as errors:
        process = subprocess.Popen(words, env=environment, stdin=-1, stdout=-1, stderr=errors, bufsize=0)
    assert _told(process, STARTING), log.read_text()
    return process


def _told(process: subprocess.Popen[bytes], seconds: float) -> bytes:
    """Returns the next line of the worker, or nothing if it says nothing for so long, or has ended."""
    return process.stdout.readline() if select.select([process.stdout], [], [], seconds)[0] else b""
