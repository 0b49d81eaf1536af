"""What every command shares, `python main.py` and each `python -m jaxgen.<room>`: its parser, and how its errors end.

An expected error is one sentence on stderr and a status:

    0    the command is done
    2    bad input, or the operating system refused something (no permission, a full disk, a folder in place of a file)
    130  stopped by SIGINT (Ctrl-C)
    141  whoever read stdout has gone (`... | head`)

An unexpected exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jaxgen.errors import UserError, nearest, os_refusal

log = logging.getLogger("jaxgen")

RETRY = 0.05  # seconds after which a swallowed signal is sent again


class Parser(argparse.ArgumentParser):
    """argparse's parser, which raises a UserError in place of printing its usage and leaving."""

    def error(self, message: str) -> None:
        unknown = message.partition("unrecognized arguments: ")[2]
        if unknown.startswith("--"):
            flag = unknown.split()[0].partition("=")[0]
            raise UserError(f"the flag {flag} does not exist; {nearest(flag, self._option_string_actions)}")
        raise UserError(f"{message}; see {self.prog} --help.")


def seed(text: str) -> int:
    """The type of a `--seed` argument.

    Raises:
      UserError: outside [0, 2**32).
    """
    if not text.lstrip("+-").isdigit() or not 0 <= int(text) < 2**32:
        raise UserError(f"--seed={text}: a seed is a whole number in [0, 2**32).")
    return int(text)


def count(name: str, least: int = 1) -> Callable[[str], int]:
    """The type of the argument `--name` that counts something; it raises a UserError below `least`."""

    def parse(text: str) -> int:
        if not text.lstrip("+-").isdigit() or int(text) < least:
            raise UserError(f"--{name}={text}: give a whole number of at least {least}.")
        return int(text)

    return parse


def entry_point(main: Callable[[Sequence[str] | None], int | None]) -> Callable[..., int]:
    """Decorates the `main` of a command: it returns the exit status, and expected errors are one sentence on stderr."""

    @functools.wraps(main)
    def guarded(arguments: Sequence[str] | None = None) -> int:
        return status_of(lambda: main(arguments))

    return guarded


def status_of(
    run: Callable[[], int | None],
    *,
    interrupted: str = "interrupted.",
    explain: Callable[[BaseException], str | None] = lambda error: None,
) -> int:
    """Runs a command and returns its exit status.

    Args:
      run: the command; it returns a status, and None for 0.
      interrupted: the sentence for Ctrl-C.
      explain: gives the sentence of a further exception that is expected, or None, whereupon it is raised.
    """
    _mend_hooks()
    with _lasting_streams():
        try:
            status = run() or 0
            sys.stdout.flush()
            return status
        except UserError as error:
            text, status = str(error), 2
        except KeyboardInterrupt:
            text, status = interrupted, 130
        except OSError as error:
            if isinstance(error, BrokenPipeError) and _has_no_reader(sys.stdout):
                return 141
            text, status = os_refusal(error), 2
        except Exception as error:
            text, status = disk_trouble(error) or explain(error), 2
            if text is None:
                raise
        print(f"jaxgen: {text}", file=sys.stderr)
        return status


def disk_trouble(error: BaseException | None) -> str | None:
    """A sentence for a full disk met inside a storage library, which has its own exception types."""
    while error is not None:
        text = str(error)
        if "No space left on device" in text or "Disk quota exceeded" in text:
            return (
                "the disk of the workdir is full; the checkpoints written before are whole. "
                "Free some space and give the same command again."
            )
        if "File too large" in text:
            return "a file would be larger than is allowed here; raise the limit and give the same command again."
        error = error.__cause__ or error.__context__
    return None


class _LastingStream:
    """stderr whose reader may go away, or whose disk may be full: what it cannot take is dropped, and the command goes
    on. Everything else is the stream's own."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            _send_to_nowhere(self._stream)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            _send_to_nowhere(self._stream)


@contextlib.contextmanager
def _lasting_streams() -> Iterator[None]:
    """Streams that were closed at the start lead to nowhere, and stderr may fail."""
    _fill_closed_descriptors()
    before = sys.stdout, sys.stderr
    sys.stdout = sys.stdout or open(os.devnull, "w")
    sys.stderr = _LastingStream(sys.stderr or open(os.devnull, "w"))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _fill_closed_descriptors() -> None:
    """Opens the null device where stdin, stdout or stderr is closed, or the next file that is opened would receive what
    libraries print."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _send_to_nowhere(stream: Any) -> None:
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _has_no_reader(stream: Any) -> bool:
    """Whether a stream's pipe is broken; it then leads to nowhere, so that the end of the process is quiet."""
    poll = select.poll()
    try:
        poll.register(stream.fileno(), select.POLLOUT)
    except (OSError, ValueError):  # a stream without a file
        return False
    broken = any(event & select.POLLERR for _, event in poll.poll(0))
    if broken:
        _send_to_nowhere(stream)
    return broken


def _mend_hooks() -> None:
    """Mends what is said and lost outside the command's own frames, until the process ends.

    Threads of the storage libraries tell of one failed write in hundreds of lines: one line stays. An exception that a
    signal raises inside a callback of the garbage collector is swallowed by Python, and the command would go on as if
    nothing had been asked: the signal is sent again.
    """
    for noisy in ("absl", "asyncio", "orbax"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    unraisable, in_thread = sys.unraisablehook, threading.excepthook
    if getattr(unraisable, "__module__", "") == __name__:  # an earlier command of this process has mended them
        return

    def on_unraisable(seen: Any) -> None:
        if isinstance(seen.exc_value, KeyboardInterrupt):
            _send_again(signal.SIGINT)
        elif isinstance(seen.exc_value, SystemExit) and callable(signal.getsignal(signal.SIGTERM)):
            _send_again(signal.SIGTERM)
        elif "Event loop is closed" not in str(seen.exc_value):
            unraisable(seen)

    def on_thread(seen: Any) -> None:
        if isinstance(seen.exc_value, OSError):
            log.warning("a thread stopped: %s", os_refusal(seen.exc_value))
        else:
            in_thread(seen)

    sys.unraisablehook, threading.excepthook = on_unraisable, on_thread


def _send_again(number: int) -> None:
    timer = threading.Timer(RETRY, os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()
