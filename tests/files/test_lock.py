"""A folder belongs to one process at a time: who wins, what the others are told, and what killed processes leave."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import socket
import threading
import time

import pytest

from jaxgen.errors import UserError
from jaxgen.files import FolderLock, lock

SPAWN = multiprocessing.get_context("spawn")
FORK = multiprocessing.get_context("fork")


@pytest.fixture(params=["disk", "store"])
def place(request, tmp_path, monkeypatch):
    """A folder; as a store it has no kernel's locks."""
    monkeypatch.setattr(lock, "is_remote", lambda _: request.param == "store")
    monkeypatch.setattr(lock, "LOOK", 0.02)
    return tmp_path / "run"


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def files(folder) -> list[str]:
    """Of all folders below; folders of a store are nothing but the beginnings of names."""
    return [path.name for path in folder.rglob("*") if path.is_file()]


def claim_of(folder) -> dict:
    """The one claim that lies in a folder."""
    (path,) = folder.glob("training.*.lock")
    return json.loads(path.read_text())


def leave_claim(folder, **changes) -> None:
    """Writes the claim of a process of another machine that holds the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    now = time.time()
    claim = {"token": "other", "host": "elsewhere", "process": 77, "machine": "another", "born": "1", "time": now - 9,
             "beat": now, "turn": 3}  # fmt: skip
    (folder / "training.other.lock").write_text(json.dumps(claim | changes))


def test_the_second_is_told_who_the_first_is(place):
    first, second = FolderLock(place), FolderLock(place)
    first.take()
    first.check()
    claim, before = claim_of(place), names(place)
    with pytest.raises(UserError) as error:
        second.take()
    date = r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC"
    assert re.search(
        rf"run is in use by process {os.getpid()} on host {re.escape(socket.gethostname())}, which began at {date};",
        str(error.value),
    )
    assert names(place) == before and claim_of(place) == claim, "the refused one leaves no trace"
    first.release()
    second.take()
    second.release()


def test_the_end_leaves_nothing(place, tmp_path):
    held = FolderLock(place / "a")
    held.take()
    assert (place / "a").is_dir()
    held.release()
    held.release()
    assert files(tmp_path) == []
    assert lock.is_remote("") or names(tmp_path) == [], "folders that the lock made and nothing was written to"
    held = FolderLock(place / "a")
    held.take()
    (place / "a" / "config.json").write_text("{}")
    held.release()
    assert names(place / "a") == ["config.json"]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match=r"--workdir=.*a file; choose another folder"):
            FolderLock(path).take()
    assert names(tmp_path) == ["file"]


def compete(folder, remote, gate, counts, ended) -> None:
    """Takes the lock when the gate opens; a winner counts how many hold it while it does."""
    lock.is_remote, lock.LOOK = (lambda _: remote), 0.02
    gate.wait()
    held = FolderLock(folder)
    try:
        held.take()
    except UserError as error:
        assert "in use by process" in str(error)
        return
    with counts.get_lock():
        counts[0] += 1
    ended.wait()
    held.release()


def alive(processes) -> int:
    return sum(process.is_alive() for process in processes)


@pytest.mark.parametrize("remote", [False, True])
def test_of_many_that_start_at_once_one_wins(tmp_path, remote):
    for trial in range(8):
        gate, ended, counts = FORK.Barrier(6), FORK.Event(), FORK.Array("i", 1)
        arguments = (tmp_path / str(trial), remote, gate, counts, ended)
        processes = [FORK.Process(target=compete, args=arguments) for _ in range(6)]
        for process in processes:
            process.start()
        until = time.monotonic() + 30
        while (counts[0] == 0 or alive(processes) > 1) and time.monotonic() < until:
            time.sleep(0.01)
        assert counts[0] == 1 and alive(processes) == 1
        ended.set()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * 6
        assert files(tmp_path) == []


def hold(folder, remote, ready) -> None:
    lock.is_remote = lambda _: remote
    FolderLock(folder).take()
    ready.set()
    time.sleep(60)


def test_a_killed_process_leaves_no_lock(place, request):
    remote = request.node.callspec.params["place"] == "store"
    for turn in (1, 2):
        ready = FORK.Event()
        process = FORK.Process(target=hold, args=(place, remote, ready))
        process.start()
        assert ready.wait(30)
        assert claim_of(place)["turn"] == turn
        with pytest.raises(UserError, match=f"by process {process.pid} on host"):
            FolderLock(place).take()
        process.kill()
        process.join()
    began = time.monotonic()
    held = FolderLock(place)
    held.take()
    assert time.monotonic() - began < 2 and claim_of(place)["process"] == os.getpid()
    held.release()
    assert files(place) == []


def test_a_forked_child_does_not_keep_the_lock(place):
    """Such as a worker that reads ahead, and that lives on for a while when its parent is killed."""
    held = FolderLock(place)
    held.take()
    child = FORK.Process(target=time.sleep, args=(60,))
    child.start()
    try:
        held.release()
        again = FolderLock(place)
        again.take()
        again.release()
    finally:
        child.kill()
        child.join()


def test_an_old_process_id_of_a_new_process_holds_nothing(place):
    held = FolderLock(place)
    held.take()
    claim = claim_of(place)
    held.release()
    leave_claim(place, machine=claim["machine"], process=os.getpid(), born="1")
    again = FolderLock(place)
    again.take()
    assert claim_of(place)["turn"] == 4
    again.release()


def test_another_machine_holds_it_as_long_as_its_heart_beats(place):
    leave_claim(place, beat=time.time() - lock.STALE / 2)
    with pytest.raises(UserError, match="in use by process 77 on host elsewhere"):
        FolderLock(place).take()
    assert names(place) == ["training.other.lock"]


@pytest.mark.parametrize("age", [1000.0, -1000.0])
def test_a_machine_that_fell_silent_loses_it(place, age, monkeypatch, caplog):
    caplog.set_level("INFO", "jaxgen")
    monkeypatch.setattr(lock, "WATCH", 0.3)
    leave_claim(place, beat=time.time() - age)
    held = FolderLock(place)
    held.take()
    assert claim_of(place)["turn"] == 4 and "was not renewed for long" in caplog.text
    held.release()


def test_a_machine_whose_clock_is_wrong_keeps_it(place, monkeypatch):
    monkeypatch.setattr(lock, "WATCH", 5.0)
    old = time.time() - 1000
    leave_claim(place, beat=old)
    timer = threading.Timer(0.3, leave_claim, (place,), {"beat": old + 1})
    timer.start()
    with pytest.raises(UserError, match="on host elsewhere"):
        FolderLock(place).take()
    timer.join()


@pytest.mark.parametrize("text", ["", "{}", "\0", '{"token": 1}', "[" * 100_000])
def test_a_damaged_claim_is_healed(place, text, monkeypatch):
    monkeypatch.setattr(lock, "WATCH", 0.1)
    place.mkdir()
    (place / "training.x.lock").write_text(text)
    held = FolderLock(place)
    held.take()
    held.release()
    assert files(place) == []


def test_the_claim_is_renewed(place, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.02)
    held = FolderLock(place)
    held.take()
    before, until = claim_of(place)["beat"], time.monotonic() + 10
    while claim_of(place)["beat"] == before and time.monotonic() < until:
        time.sleep(0.01)
    assert claim_of(place)["beat"] > before
    held.check()
    held.release()


def lost(held) -> str:
    """What `check` says once the lock is lost."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            held.check()
        except UserError as error:
            return str(error)
        time.sleep(0.01)
    raise AssertionError("the loss was not seen")


def test_who_was_taken_over_learns_it(place, monkeypatch):
    monkeypatch.setattr(lock, "BEAT", 0.02)
    held = FolderLock(place)
    held.take()
    leave_claim(place, turn=2)
    assert "taken over by process 77 on host elsewhere" in lost(held)
    held.release()
    assert names(place) == ["training.other.lock"]


@pytest.mark.parametrize("beat", [0.02, 60.0])
def test_a_folder_that_was_moved_is_not_made_anew(tmp_path, monkeypatch, beat):
    monkeypatch.setattr(lock, "BEAT", beat)
    held = FolderLock(tmp_path / "run")
    held.take()
    (tmp_path / "run").rename(tmp_path / "moved")
    assert "run was moved or removed during the training" in lost(held)
    held.release()
    assert names(tmp_path) == ["moved"]
    again = FolderLock(tmp_path / "moved")
    again.take()
    again.release()
    assert names(tmp_path / "moved") == []
