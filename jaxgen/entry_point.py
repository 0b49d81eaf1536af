"""Holds what every command (`main.py` and each `python -m jaxgen.<room>`) shares: a parser and its exit statuses.

An expected error is printed as one sentence on stderr. The exit status is one of

    0    the command is done
    2    bad input, or the operating system refused something (no permission, a full disk, a folder in place of a file)
    130  stopped by SIGINT (Ctrl-C)
    141  the program that read stdout has ended (`... | head`)

An unexpected exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import os
import pathlib
import re
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TextIO

from jaxgen.errors import UserError, nearest, os_refusal, printable
from jaxgen.sizes import whole

log = logging.getLogger("jaxgen")

RETRY = 0.05  # seconds after which a swallowed signal is sent again


class Parser(argparse.ArgumentParser):
    """This is argparse's parser, but it raises a UserError instead of printing its usage and ending the process.

    It also does so for a flag that is given twice and has one value, of which argparse would take the last.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._once: set[str] = set()
        for action, kind in ((None, _Once), ("store", _Once), ("store_true", _OnceTrue)):
            self.register("action", action, kind)

    def take(self, flag: str | None) -> None:
        """Raises a UserError for a flag of one value, or for a switch, that has been taken already."""
        if flag is None:  # an argument without a name
            return
        if flag in self._once:
            raise given_twice(flag)
        self._once.add(flag)

    def error(self, message: str) -> NoReturn:
        unknown = message.partition("unrecognized arguments: ")[2]
        if unknown.startswith("--"):
            flag = unknown.split()[0].partition("=")[0]
            raise UserError(f"the flag {flag} does not exist; {nearest(flag, self._option_string_actions)}")
        raise UserError(f"{message}; see {self.prog} --help.")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parses as argparse does; `parse_args` calls it. Arguments that are not text are refused first.

        So is `--out=--`, of which argparse makes an empty list.
        """
        words = sys.argv[1:] if args is None else args
        check_text(words)
        for word in words:
            if word.startswith("-") and word.endswith("=--"):
                raise UserError(f"{word}: the two dashes are no value; give one.")
        self._once.clear()
        return super().parse_known_args(args, namespace)


class _Once(argparse._StoreAction):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        parser.take(option_string and self.option_strings[0])
        super().__call__(parser, namespace, values, option_string)


class _OnceTrue(argparse._StoreTrueAction):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        parser.take(self.option_strings[0])
        super().__call__(parser, namespace, values, option_string)


def given_twice(flag: str) -> UserError:
    """Returns the error for a flag that has one value and is given twice: one of the values would be dropped."""
    return UserError(f"{flag} is given twice; give it once.")


def check_text(arguments: Sequence[str]) -> None:
    """Raises a UserError for an argument whose bytes are not UTF-8, which Python passes on as lone surrogates."""
    for word in arguments:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            raise UserError(f"the argument {word!r} is not text in UTF-8; rename the file, or write it so.") from error


def a_path(named_by: str) -> Callable[[str], str]:
    """Returns the `type` for argparse of an argument that is a path (`jaxgen.files.user_path`)."""

    def parse(text: str) -> str:
        from jaxgen.files import user_path

        return os.fspath(user_path(text, named_by))

    return parse


def seed(text: str) -> int:
    """Reads the value of a `--seed` argument.

    Raises:
      UserError: the value is not a whole number in [0, 2**32).
    """
    number = whole(text.removeprefix("+"))
    if number is None or number >= 2**32:
        raise UserError(f"--seed={text}: a seed is a whole number in [0, 2**32).")
    return number


def count(name: str, least: int = 1) -> Callable[[str], int]:
    """Returns the `type` for argparse of an argument `--name` that counts; it raises a UserError below `least`."""

    def parse(text: str) -> int:
        number = whole(text.removeprefix("+"))
        if number is None or number < least:
            raise UserError(f"--{name}={text}: give a whole number of at least {least} and below 2**63.")
        return number

    return parse


def add_trust(parser: argparse.ArgumentParser) -> None:
    """Adds `--trust=<package>`, which may be given several times, for commands that use a run's stored config."""
    help = "a package that the config stored in the workdir may import classes of; may be given several times"
    parser.add_argument("--trust", metavar="PACKAGE", action="append", default=[], help=help)


def entry_point(main: Callable[[Sequence[str] | None], int | None]) -> Callable[..., int]:
    """Decorates the `main` of a command, which then returns the exit status and prints expected errors on stderr."""

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
      run: the command; it returns a status, or None, which means 0.
      interrupted: the sentence that is printed after Ctrl-C, unless the KeyboardInterrupt has one of its own.
      explain: returns the sentence for another expected exception; if it returns None, the exception is raised.
    """
    _replace_hooks()
    text: str | None
    with _lasting_streams():
        try:
            status = run() or 0
            sys.stdout.flush()
            return status
        except UserError as error:
            text, status = str(error), 2
        except KeyboardInterrupt as stop:
            text, status = str(stop) or interrupted, 130
        except OSError as error:
            if isinstance(error, BrokenPipeError) and _has_no_reader(sys.stdout):
                return 141
            text, status = os_refusal(error), 2
        except Exception as error:
            text, status = disk_trouble(error) or beyond_machine(error) or explain(error), 2
            if text is None:
                raise
        print(f"jaxgen: {printable(text)}", file=sys.stderr)
        return status


def disk_trouble(error: BaseException | None) -> str | None:
    """Returns a sentence if a storage library, which has exception types of its own, met a full disk; else None."""
    while error is not None:
        text = str(error)
        if "No space left on device" in text or "Disk quota exceeded" in text:
            return (
                "the disk of the workdir is full; the checkpoints written before are complete. "
                "Free some space and give the same command again."
            )
        if "File too large" in text:
            return "a file would be larger than is allowed here; raise the limit and give the same command again."
        error = error.__cause__ or error.__context__
    return None


def beyond_machine(error: BaseException) -> str | None:
    """Returns a sentence if an error means that the device has too little memory, or lacks an operation; else None."""
    text = str(error).strip().partition("\n")[0]
    if re.search(r"precision '\w+' is not supported by dot_general", text):
        return f"{text}; set the dtype in the config to 'bfloat16' or 'float32'."
    full = isinstance(error, MemoryError) or re.search(r"RESOURCE_EXHAUSTED|[Oo]ut of memory", text)
    if full and not isinstance(error, UserError):
        return (
            f"the memory does not suffice ({text[:200] or 'MemoryError'}): lower config.train.batch_size or "
            "config.evaluate.batch_size, or raise config.train.accumulate; --mode=plan tells what fits."
        )
    return None


class _LastingStream:
    """Wraps stderr so that the command continues when a write fails, since its reader has ended or its disk is full.

    What cannot be written is dropped. All other attributes are those of the stream.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            _redirect_to_null(self._stream)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            _redirect_to_null(self._stream)


@contextlib.contextmanager
def _lasting_streams() -> Iterator[None]:
    """Replaces streams that were closed at the start by the null device, and lets writes to stderr fail silently."""
    _fill_closed_descriptors()
    before = sys.stdout, sys.stderr
    sys.stdout = sys.stdout or open(os.devnull, "w")
    sys.stderr = _LastingStream(sys.stderr or open(os.devnull, "w"))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _fill_closed_descriptors() -> None:
    """Opens the null device where stdin, stdout or stderr is closed.

    Otherwise the next file that is opened would take that descriptor and receive what libraries print.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _redirect_to_null(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _has_no_reader(stream: TextIO) -> bool:
    """Returns whether a stream's pipe is broken; if so, redirects it, so that the process ends without a message."""
    poll = select.poll()
    try:
        poll.register(stream.fileno(), select.POLLOUT)
    except (OSError, ValueError):  # a stream without a file
        return False
    broken = any(event & select.POLLERR for _, event in poll.poll(0))
    if broken:
        _redirect_to_null(stream)
    return broken


def _replace_hooks() -> None:
    """Replaces Python's hooks for exceptions that no frame of the command can catch, and cleans the lines of the log.

    Both last until the process ends.

    Threads of the storage libraries report one failed write in hundreds of lines; these become one line. Python
    swallows an exception that a signal raises inside a callback of the garbage collector, and the command would go on
    as if no signal had come; so the signal is sent again.
    """
    for noisy in ("absl", "asyncio", "orbax"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    log.addFilter(_one_line)  # once, since a filter that is there is not added again
    unraisable, in_thread = sys.unraisablehook, threading.excepthook
    if getattr(unraisable, "__module__", "") == __name__:  # an earlier command of this process has replaced them
        return

    def on_unraisable(seen: sys.UnraisableHookArgs) -> None:
        if isinstance(seen.exc_value, KeyboardInterrupt):
            _send_again(signal.SIGINT)
        elif isinstance(seen.exc_value, SystemExit) and callable(signal.getsignal(signal.SIGTERM)):
            _send_again(signal.SIGTERM)
        elif "Event loop is closed" not in str(seen.exc_value) and not _is_left_over(seen.object):
            unraisable(seen)

    def on_thread(seen: threading.ExceptHookArgs) -> None:
        if isinstance(seen.exc_value, OSError):
            log.warning("a thread stopped: %s", os_refusal(seen.exc_value))
        else:
            in_thread(seen)

    sys.unraisablehook, threading.excepthook = on_unraisable, on_thread


def _one_line(record: logging.LogRecord) -> bool:
    """Makes a log record one line that a terminal can show: names of files may hold control characters."""
    record.msg, record.args = printable(record.getMessage()), ()
    return True


def _is_left_over(coroutine: object) -> bool:
    """Returns whether a coroutine is one of Orbax, which leaves hundreds behind after the error that it has raised."""
    code = getattr(coroutine, "cr_code", None)
    return code is not None and "orbax" in pathlib.Path(code.co_filename).parts


def _send_again(number: int) -> None:
    timer = threading.Timer(RETRY, os.kill, (os.getpid(), number))
    timer.daemon = True
    timer.start()
