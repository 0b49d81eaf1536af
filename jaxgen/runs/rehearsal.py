"""Tests what may happen to a run: a kill at any moment, a signal, the loss of one of several processes.

The functions start a run's command as its user would, end it, and start the same command again.
`jaxgen.runs.comparison` then tells whether the result differs from that of an undisturbed run.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import random
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence

from jaxgen.runs.comparison import finished_steps, history, partial_saves

POLL = 0.002  # seconds between two reads of a run's folder
TIMEOUT = 3600.0  # seconds without an end or progress


@dataclasses.dataclass(frozen=True)
class Kill:
    """Says how one process was killed, and what it left."""

    when: str  # what the kill waited for: "start", "moment" or "save"
    seconds: float  # how long the process ran
    images: int  # training images seen, by the history that it left
    step: int  # the step of its newest finished checkpoint
    partial: int  # the number of checkpoints that were left half written


def run_once(command: Sequence[str], environment: Mapping[str, str], log: pathlib.Path) -> float:
    """Runs the command to its end and appends its output to `log`; returns how many seconds it took.

    Raises:
      RuntimeError: where the exit status is not 0; the message holds the end of the output.
    """
    began = time.monotonic()
    with log.open("ab") as stream:
        done = subprocess.run(command, env=environment, stdout=stream, stderr=stream, check=False)
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}: {log.read_text()[-2000:]}")
    return time.monotonic() - began


def interrupt(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: pathlib.Path,
    workdir: pathlib.Path,
    when: str,
    delay: float,
    number: int = signal.SIGKILL,
) -> tuple[int, Kill]:
    """Runs the command and sends it the signal `number`; returns the exit status and what was left.

    Args:
      when: "start" sends the signal `delay` seconds after the process began, "moment" `delay` seconds after its first
        progress, and "save" at the first half-written checkpoint after that moment.

    Raises:
      RuntimeError: where there is no progress in an hour.
    """
    before = (history(workdir), finished_steps(workdir))
    old = set(partial_saves(workdir))
    began = time.monotonic()
    with log.open("ab") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)
        if when != "start":
            while process.poll() is None and (history(workdir), finished_steps(workdir)) == before:
                if time.monotonic() - began > TIMEOUT:
                    raise RuntimeError(f"no progress in {TIMEOUT:.0f} seconds")
                time.sleep(POLL)
        reached = time.monotonic()
        while process.poll() is None and time.monotonic() - reached < delay:
            time.sleep(POLL)
        while when == "save" and process.poll() is None and not set(partial_saves(workdir)) - old:
            time.sleep(POLL)
        process.send_signal(number)
        status = process.wait()
    rows, steps = history(workdir), finished_steps(workdir)
    images, step = rows[-1]["images"] if rows else 0, steps[-1] if steps else 0
    return status, Kill(when, time.monotonic() - began, images, step, len(partial_saves(workdir)))


def kill_and_resume(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: pathlib.Path,
    workdir: pathlib.Path,
    kills: int,
    longest: float,
    seed: int,
    total_images: int = 0,
) -> list[Kill]:
    """Kills the command `kills` times (`kill -9`) and then lets it finish.

    Every other kill waits until a checkpoint is being written. The other kills come at a random moment after the first
    progress of the process; if there are more than two kills, one of them comes at a random moment after its start.

    Args:
      longest: the longest time in seconds between a process's first progress (or its start) and its kill.
      seed: the seed of the random moments.
      total_images: the length of the run. If it is given, `longest` is for its beginning, and becomes shorter or longer
        with the images that are left for each of the kills that are left, so that the kills spread over the whole run.

    Raises:
      RuntimeError: where the run ended before all kills, or the last command fails.
    """
    chance = random.Random(seed)
    done: list[Kill] = []
    for i in range(kills):
        when = "start" if kills > 2 and i == kills // 2 else ("save", "moment")[i % 2]
        most = longest
        if total_images and done:
            most *= (1 - done[-1].images / total_images) * (kills + 1) / (kills - i + 1)
        status, left = interrupt(command, environment, log, workdir, when, chance.uniform(0, most))
        if status != -signal.SIGKILL:
            raise RuntimeError(f"the run ended with {status} before kill {i + 1}; ask for more images or fewer kills")
        done.append(left)
    run_once(command, environment, log)
    return done


class Processes:
    """Runs one run as several processes of this machine, whose output goes to `<workdir>.<process>.log`.

    Args:
      command: the run's command, with its `--workdir`.
      workdir: the run's folder.
      count: the number of processes.
      devices: the number of CPU devices of all processes together.
    """

    def __init__(self, command: Sequence[str], workdir: pathlib.Path, count: int, devices: int):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        self.workdir = workdir
        self.logs = [workdir.with_name(f"{workdir.name}.{i}.log") for i in range(count)]
        self.processes = []
        for i, path in enumerate(self.logs):
            named = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": str(count)}
            environment = {
                **os.environ,
                **(named | {"JAX_PROCESS_ID": str(i)} if count > 1 else {}),
                "JAX_PLATFORMS": "cpu",
                "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices // count}",
            }
            with path.open("w") as log:
                started = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
            self.processes.append(started)

    def wait(self) -> list[int]:
        """Returns the exit statuses of the processes, once all have ended."""
        try:
            return [process.wait(TIMEOUT) for process in self.processes]
        finally:
            self.end()

    def end(self) -> None:
        """Kills the processes that still run."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()

    def disturb(self, process: int, number: int) -> tuple[float, list[int]]:
        """Waits for a checkpoint and sends one process a signal; returns the seconds until all ended, and the statuses.

        Raises:
          RuntimeError: where a process ends, or an hour passes, before there is a checkpoint.
        """
        start = time.monotonic()
        while not finished_steps(self.workdir):
            if time.monotonic() - start > TIMEOUT or any(p.poll() is not None for p in self.processes):
                self.end()
                raise RuntimeError(f"no checkpoint came; see {self.logs[0]}")
            time.sleep(0.05)
        self.processes[process].send_signal(number)
        start = time.monotonic()
        statuses = self.wait()
        return time.monotonic() - start, statuses

    def said(self, process: int) -> list[str]:
        """Returns the lines of one process to read first: jaxgen's own, or, without any, those of JAX's runtime."""
        lines = self.logs[process].read_text(errors="replace").splitlines()
        return [line for line in lines if line.startswith("jaxgen: ")] or [
            line for line in lines if "distributed service" in line or "coordination" in line.lower()
        ]
