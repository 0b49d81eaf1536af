"""Locks a folder that one process at a time may write, by claims from which the others learn whose it is.

The rule is as follows. A process that wants the folder puts a claim there, a file `training.<token>.lock` with its
host, process id and the time, and then looks for the claims of others:

- It is alone: it writes into its claim that it holds the folder.
- Another one holds the folder, or claimed it before: it takes its claim back and is refused.
- Only later claims are there: it waits until those are gone, or one of them holds the folder.

Everyone claims first and looks second, so that of two processes at least one sees the other, at whatever speed they
run. This needs no more than that a listing shows every file that was written before, which holds for local disks and
for the stores of Google and Amazon. It does not hold for network disks, where a listing may be old; there, and on
local disks, the process takes a lock of the kernel (`flock` on `training.lock`) before it claims. The kernel gives that
lock back when the process ends, however it ends.

A claim of a process that was killed counts for nothing. On one machine the kernel says whether that process lives. For
a claim from another machine, its time does: a thread of the holder renews it every `BEAT` seconds. A claim that is
older than `STALE` by this machine's clock is watched for `WATCH` seconds, in case the clocks differ, and removed if
nobody renews it. A holder that was silent for so long (a machine that slept) finds at its next beat that another one
holds the folder, under a higher `turn`; `check` then raises, and the holder must write nothing more.

The package `filelock` offers the kernel's lock as well. It empties the file at each attempt, which would erase who
holds it, and has nothing for stores.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import logging
import os
import socket
import threading
import time
import uuid
import weakref
from pathlib import Path
from typing import Annotated

import msgspec
from etils import epath

from jaxgen.errors import UserError, os_refusal
from jaxgen.files.paths import is_remote
from jaxgen.files.writing import write_bytes

log = logging.getLogger("jaxgen")

BEAT = 15.0  # seconds between two renewals of a claim
STALE = 90.0  # seconds after which a claim that was not renewed is suspected
WATCH = 40.0  # seconds for which a suspected claim is watched; over two beats
LOOK = 0.2  # seconds between two looks at the claims of others; in a store ten times as long
PATIENCE = 3.0  # seconds that the holder of the kernel's lock has to write its claim


_Time = Annotated[float, msgspec.Meta(ge=0, le=1e11)]


class Claim(msgspec.Struct, frozen=True):
    """Holds what one process says of itself in `training.<token>.lock`."""

    token: str  # differs for all claims
    host: str
    process: Annotated[int, msgspec.Meta(ge=1, lt=2**31)]  # its id
    machine: str  # a name of the running kernel, and of the namespace in which the process id counts
    born: str  # when the process began, in ticks of that kernel; "" where it does not tell
    time: _Time  # of the claim, in seconds since 1970
    beat: _Time  # the time of the last renewal
    turn: int = 0  # 0: only claimed; else the folder is held, for the so-manieth time

    @property
    def order(self) -> tuple[float, str]:
        return self.time, self.token

    def lives(self) -> bool | None:
        """Returns whether the process of this claim lives; None where this is to be found out by watching the claim."""
        if self.machine == _machine():
            return _born(self.process) == self.born
        return True if abs(time.time() - self.beat) < STALE else None


class FolderLock:
    """The lock of one folder, for one process: `take` it before anything is written, and `release` it at the end.

    Args:
      folder: local or in a store; it is made where it is missing, and `release` removes it again if it is empty.
      flag: what named the folder, for messages.
    """

    def __init__(self, folder: epath.PathLike, flag: str = "--workdir"):
        self._folder, self._flag = epath.Path(folder), flag
        self._made: list[epath.Path] = []
        self._descriptor: int | None = None
        self._claim: Claim | None = None
        self._ended = threading.Event()
        self._beats: threading.Thread | None = None
        self._lost = ""
        _locks.add(self)

    def take(self) -> None:
        """Takes the lock, and begins to renew it in a thread.

        Raises:
          UserError: another process has it; the sentence names its host, process id and time. Or the folder cannot be
            written. Nothing is left behind then.
        """
        try:
            if not is_remote(self._folder):
                self._descriptor = self._kernel_lock()
            self._take_turn()
        except OSError as error:
            self.release()
            raise UserError(f"{self._flag}={self._folder}: {os_refusal(error)}") from error
        except BaseException:
            self.release()
            raise
        self._beats = threading.Thread(target=self._renew, name="lock", daemon=True)
        self._beats.start()

    def check(self) -> None:
        """Returns where this process still holds the folder.

        Raises:
          UserError: another process holds it now, or the folder is gone.
        """
        if self._claim is not None and not is_remote(self._folder) and not os.path.exists(self._path(self._claim)):
            self._lost = self._lost or _moved(self._folder)
        if self._lost:
            raise UserError(self._lost)
        if self._beats is not None and not self._beats.is_alive():  # Python has printed what ended it
            raise UserError(f"the lock of {self._folder} is no longer renewed; start the command again.")

    def release(self) -> None:
        """Gives the lock back, and removes what it wrote; calling it again does nothing."""
        self._ended.set()
        if self._beats is not None:
            self._beats.join()
            self._beats = None
        with contextlib.suppress(OSError):  # what stays is healed by the next process
            if self._claim is not None:
                self._path(self._claim).unlink(missing_ok=True)
            if self._descriptor is not None and _is_at(self._descriptor, self._kernel_path()):
                self._kernel_path().unlink()  # while it is locked: others look whether it is gone
        self._claim = None
        self._close()
        for made in self._made:  # the innermost first
            with contextlib.suppress(OSError):
                os.rmdir(made)
        self._made = []

    # ------------------------------------------------------------------ the kernel's lock

    def _kernel_path(self) -> Path:
        return Path(os.fspath(self._folder)) / "training.lock"

    def _kernel_lock(self) -> int | None:
        """Returns a descriptor that holds the kernel's lock; None where the file system knows no locks."""
        until = time.monotonic() + PATIENCE
        while True:
            self._make_folder()
            try:
                descriptor = os.open(self._kernel_path(), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except FileNotFoundError:  # another process has just removed the folder, since it was refused
                if time.monotonic() > until:
                    raise
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                self._refuse_for_the_holder(until)
                continue
            except OSError as error:
                os.close(descriptor)
                if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK):
                    return None
                raise
            if _is_at(descriptor, self._kernel_path()):
                return descriptor
            os.close(descriptor)  # its last holder has removed it since it was opened

    def _refuse_for_the_holder(self, until: float) -> None:
        """Refuses with the name of the process that has the kernel's lock, once it has written its claim."""
        holders = [claim for claim in self._claims().values() if claim is not None and claim.lives()]
        if holders:
            self._refuse(max(holders, key=lambda claim: claim.turn))
        if time.monotonic() > until:
            raise UserError(
                f"{self._folder} is in use: another process has locked {self._kernel_path()} and has not said which it "
                "is; wait for it, or use another workdir."
            )
        time.sleep(LOOK / 4)

    def _make_folder(self) -> None:
        if is_remote(self._folder):
            return
        missing = [path for path in (self._folder, *self._folder.parents) if not path.exists()]
        self._folder.mkdir(parents=True, exist_ok=True)
        self._made = self._made or missing

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    # ------------------------------------------------------------------ claims

    def _path(self, claim: Claim) -> epath.Path:
        return self._folder / f"training.{claim.token}.lock"

    def _put(self, claim: Claim) -> None:
        """Writes a claim completely or not at all; unlike `write_bytes`, never into a folder that was moved away."""
        path, data = self._path(claim), msgspec.json.encode(claim)
        if is_remote(path):
            write_bytes(path, data)
            return
        temporary = self._folder / f".{path.name}.tmp"
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _claims(self) -> dict[str, Claim | None]:
        """Returns the claims of others by the names of their files; None for a file that cannot be read as one."""
        found: dict[str, Claim | None] = {}
        own = self._path(self._claim).name if self._claim else ""
        for path in self._folder.iterdir():
            if path.name.startswith("training.") and path.name.endswith(".lock") and path.name.count(".") == 2:
                if path.name != own:
                    with contextlib.suppress(FileNotFoundError):  # taken back since it was listed
                        found[path.name] = _parsed(path.read_bytes())
        return found

    def _take_turn(self) -> None:
        """Follows the law above, until this process holds the folder."""
        now, process = time.time(), os.getpid()
        own = Claim(uuid.uuid4().hex, socket.gethostname(), process, _machine(), _born(process) or "", now, now)
        watch, highest = _Watch(), 0
        while True:
            self._claim = own = msgspec.structs.replace(own, beat=time.time())
            self._put(own)
            others = self._claims()
            highest = max([highest, *(claim.turn for claim in others.values() if claim is not None)])
            waits = False
            for name, claim in others.items():
                lives = watch.lives(self._folder / name, claim)
                if claim is not None and self._descriptor is not None and claim.machine == own.machine:
                    lives = lives and claim.process != process  # the kernel would know of one of this process
                if lives is False:
                    (self._folder / name).unlink(missing_ok=True)
                elif lives and claim is not None and (claim.turn or claim.order < own.order):
                    self._refuse(claim)
                else:
                    waits = True
            if not waits:
                break
            time.sleep(LOOK * (10 if is_remote(self._folder) else 1))
        self._claim = own = msgspec.structs.replace(own, turn=highest + 1, beat=time.time())
        self._put(own)
        self._look_for_a_successor()
        self.check()
        if self._descriptor is not None:  # no other process of this machine is about to write one of these
            for path in self._folder.iterdir():
                if path.name.startswith(".training.") and path.name.endswith(".lock.tmp"):
                    path.unlink(missing_ok=True)

    def _refuse(self, claim: Claim) -> None:
        since = datetime.datetime.fromtimestamp(claim.time, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        raise UserError(
            f"{self._folder} is in use by process {claim.process} on host {claim.host}, which began at {since}; wait "
            "until it ends, stop it, or use another workdir."
        )

    def _renew(self) -> None:
        """Renews the claim until the lock is released or lost; in a thread of its own."""
        renewed = time.monotonic()
        while not self._ended.wait(BEAT) and not self._lost:
            assert self._claim is not None
            try:
                if not is_remote(self._folder) and not self._folder.is_dir():
                    self._lost = _moved(self._folder)
                    return
                self._put(msgspec.structs.replace(self._claim, beat=time.time()))
                self._look_for_a_successor()
                renewed = time.monotonic()
            except OSError as error:
                if time.monotonic() - renewed > STALE:
                    self._lost = f"the lock of {self._folder} could not be renewed: {os_refusal(error)}"

    def _look_for_a_successor(self) -> None:
        own = self._claim
        assert own is not None
        for claim in self._claims().values():
            if claim is not None and claim.turn and (claim.turn, claim.token) > (own.turn, own.token):
                self._lost = (
                    f"{self._folder} was taken over by process {claim.process} on host {claim.host}, since this "
                    f"process was silent for over {STALE:.0f} seconds; let that one go on."
                )


class _Watch:
    """Finds out by watching a claim whether its process lives, where the claim itself does not tell."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Claim | None, float]] = {}

    def lives(self, path: epath.Path, claim: Claim | None) -> bool | None:
        """Returns whether the process of a claim lives; None as long as it is not known."""
        told = claim.lives() if claim is not None else None
        if told is not None:
            return told
        if path.name not in self._seen:
            log.info("%s was not renewed for long; it counts as left behind if that stays so for %.0f s", path, WATCH)
            self._seen[path.name] = claim, time.monotonic()
        before, since = self._seen[path.name]
        if before != claim:
            return True
        return False if time.monotonic() - since > WATCH else None


def _moved(folder: epath.Path) -> str:
    return f"{folder} was moved or removed during the training, which ends here; give the folder that it is in now."


def _parsed(data: bytes) -> Claim | None:
    try:
        return msgspec.json.decode(data, type=Claim)
    except msgspec.DecodeError:
        return None


def _is_at(descriptor: int, path: Path) -> bool:
    """Returns whether an open file is the one that a path names now."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _machine() -> str:
    """Returns a name that two processes share if their process ids can be compared; the host's name outside Linux."""
    try:
        kernel = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{kernel} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _born(process: int) -> str | None:
    """Returns when a process began, in the kernel's ticks, "" if the kernel does not tell, or None if there is none."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except PermissionError:  # it lives and is another user's
        pass
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "" if not Path("/proc/self/stat").exists() else None
    return None if fields[0] in "ZX" else fields[19]  # a zombie has ended


_locks: weakref.WeakSet[FolderLock] = weakref.WeakSet()


def _close_in_child() -> None:
    """A forked process shares its parent's descriptors, and would keep the kernel's lock when the parent is killed."""
    for lock in _locks:
        lock._close()


os.register_at_fork(after_in_child=_close_in_child)
