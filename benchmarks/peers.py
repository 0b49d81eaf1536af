"""Times implementations in turns: each is a process of its own, and never two work at once.

A worker calls `serve(step, ...)`, which says that it is ready and then runs as many steps as each line on its standard
input asks for. The parent alternates between the workers, so a slow minute of the machine falls on all.
"""

from __future__ import annotations

import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
PREFIX = "peer: "
GIB = 2**30


def serve(step: Callable[[], None], peak: Callable[[], float | None] = lambda: None, **facts: Any) -> None:
    """Worker's side: warm up with three steps, then answer each line "N" with the wall seconds of N steps.

    Args:
      step: returns when its work is done.
      peak: GiB of an accelerator's memory; None where there is none, and the process's own is meant.
      facts: JSON that reaches the parent with the first answer.
    """
    begun = time.perf_counter()
    step()
    facts["first_step_s"] = round(time.perf_counter() - begun, 2)
    step()
    facts["peak_at_start_gib"] = _resident()
    _forget_peak()
    step()
    print(PREFIX + json.dumps(facts), flush=True)
    for line in sys.stdin:
        seconds, cpu = [], time.process_time()
        for _ in range(int(line)):
            begun = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - begun)
        cores = (time.process_time() - cpu) / sum(seconds)
        own = peak()
        answer = {"seconds": seconds, "cores": cores, "running_gib": _resident() if own is None else own}
        answer["peak_gib"] = max(answer["running_gib"], facts["peak_at_start_gib"]) if own is None else own
        print(PREFIX + json.dumps(answer), flush=True)


def _resident() -> float:
    """Returns the most GiB of memory that this process has had since `_forget_peak`."""
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024 / GIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB


def _forget_peak() -> None:
    """Starts the count of the peak again, on Linux; elsewhere it stays that of the process's whole life."""
    clear = pathlib.Path("/proc/self/clear_refs")
    if clear.exists():
        clear.write_text("5")


class Worker:
    """Holds a child process that serves steps.

    `facts` is what it said when ready; raises RuntimeError if it dies.

    Unless `wait` is set, `ready` is to be called before anything else.
    """

    def __init__(self, name: str, command: Sequence[str], env: dict[str, str], wait: bool = True):
        self.name = name
        self.process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **env}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.facts: dict[str, Any] = {}
        self.seconds: list[float] = []
        self.cores: list[float] = []
        self.memory: dict[str, float] = {}
        if wait:
            self.ready()

    def ready(self) -> Worker:
        """Waits until it is."""
        self.facts = self._answer()
        return self

    @property
    def peak_gib(self) -> float:
        """Returns the memory of the process, or of its accelerator, at its highest."""
        return self.memory["peak_gib"]

    def _answer(self) -> dict[str, Any]:
        for line in self.process.stdout:
            if line.startswith(PREFIX):
                return json.loads(line[len(PREFIX) :])
        raise RuntimeError(f"worker {self.name} ended with code {self.process.wait()}")

    def run(self, steps: int) -> None:
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        result = self._answer()
        self.seconds += result["seconds"]
        self.cores.append(result["cores"])
        self.memory = {name: result[name] for name in ("peak_gib", "running_gib")}

    def summary(self) -> dict[str, Any]:
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return {
            "median_s": statistics.median(self.seconds),
            "quartiles_s": [low, high],
            "min_s": min(self.seconds),
            "steps": len(self.seconds),
            "busy_cores": statistics.mean(self.cores),
            **self.memory,
            **self.facts,
        }

    def close(self) -> None:
        """Ends the process, ready or not."""
        self.process.stdin.close()
        self.process.terminate()
        self.process.wait()


def alternate(workers: Sequence[Worker], steps: int, turn: int = 5, pause: float = 0.3) -> dict[str, Any]:
    """Runs at least `steps` (>= 2) steps of each worker in turns of `turn`; `pause` lets thread pools fall asleep."""
    for number in range(-(-steps // turn)):
        for worker in workers if number % 2 == 0 else reversed(workers):
            worker.run(turn)
            time.sleep(pause)
    return {worker.name: worker.summary() for worker in workers}


def report(results: dict[str, Any], ours: str, peer: str) -> dict[str, Any]:
    """Prints a table and one line of JSON; returns the JSON. `ratio` is ours / peer: below 1 we are faster."""
    print(f"{'':>10} {'median s':>9} {'quartiles s':>17} {'min s':>8} {'cores':>6} {'peak GiB':>9} {'steps':>6}")
    for name, r in results.items():
        low, high = r["quartiles_s"]
        print(
            f"{name:>10} {r['median_s']:9.4f} {low:8.4f}-{high:8.4f} {r['min_s']:8.4f} {r['busy_cores']:6.2f} "
            f"{r['peak_gib']:9.2f} {r['steps']:6d}"
        )
    summary = {
        "ratio": results[ours]["median_s"] / results[peer]["median_s"],
        "ratio_of_min": results[ours]["min_s"] / results[peer]["min_s"],
        **results,
    }
    print(f"{ours} / {peer}: {summary['ratio']:.3f} of medians, {summary['ratio_of_min']:.3f} of minima")
    print(json.dumps(summary))
    return summary
