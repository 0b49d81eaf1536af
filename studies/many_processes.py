"""Runs several processes as one run on this machine: compared with one process, killed, told to stop, and resumed.

    python -m studies.many_processes --config=configs/ddpm_digits.py --processes=1,2,4 --images=6400

Trains the same config with each number of processes, `--devices` CPU devices in all, and compares losses and
checkpoints with the first. Then, with the largest number: `kill -9` of one process once a checkpoint is written, how
long the others live on and what they say, and whether the same command then ends with the checkpoint of the run that
nobody disturbed, bit for bit; SIGTERM to one process, after which all save and end, and likewise. Further
flags (`--config.mesh.fsdp=2`) go to all runs. The exit status is 0 if all agree.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from jaxgen.runs.comparison import difference, finished_steps
from jaxgen.runs.rehearsal import Processes
from studies.harness import command, run

PATIENCE = 60.0  # seconds that a run may live on without one of its processes
Begin = Callable[[str, int], Processes]  # a run's name and its number of processes


def undisturbed(begin: Begin, counts: tuple[int, ...]) -> bool:
    """Returns whether every number of processes trains what the first does."""
    good, first = True, None
    for count in counts:
        started = begin(f"calm_{count}", count)
        first = first or started.workdir
        statuses = started.wait()
        found = difference(first, started.workdir)
        good &= not any(statuses) and found["losses"] < 1e-5 and found["arrays"] < 1e-4
        print(f"{count} processes: statuses {statuses}, against {counts[0]}: {found}", flush=True)
    return good


def disturbed(begin: Begin, count: int, name: str, number: int) -> bool:
    """Returns whether a signal to the last process ends all of them in time, and leaves no trace in the resumed run."""
    started = begin(name, count)
    lived, statuses = started.disturb(count - 1, number)
    survivors = [started.said(i)[:1] for i in range(count - 1)]
    step = finished_steps(started.workdir)[-1]
    print(f"{name}: all ended {lived:.1f} s later, statuses {statuses}, at step {step}", flush=True)
    for i, words in enumerate(survivors):
        print(f"  process {i}: {words}", flush=True)
    resumed = begin(name, count).wait()
    found = difference(started.workdir.with_name(f"calm_{count}"), started.workdir)
    print(f"  the same command: statuses {resumed}, against the undisturbed run: {found}", flush=True)
    good = all(survivors) and all(statuses) if number == signal.SIGKILL else not any(statuses)
    return good and lived < PATIENCE and not any(resumed) and found["equal"]


def main(
    *extra: str,
    config: str = "configs/ddpm_digits.py",
    processes: Annotated[tuple[int, ...], "numbers of them, separated by commas"] = (1, 2, 4),
    devices: int = 4,
    images: int = 6400,
    folder: Annotated[str, "where the runs are kept; a temporary folder without it"] = "",
) -> int:
    top = Path(folder or tempfile.mkdtemp(prefix="processes_"))
    top.mkdir(parents=True, exist_ok=True)
    settings = (
        f"train.total_images={images}",
        f"train.checkpoint_every_images={images // 4}",
        f"train.log_every_images={images // 8}",
        "train.sample_every_images=0",
        "train.keep_last=8",
        "evaluate.at_end=False",
    )

    def begin(name: str, count: int) -> Processes:
        return Processes([*command(config, top / name, *settings), *extra], top / name, count, devices)

    good = undisturbed(begin, processes)
    for name, number in (("killed", signal.SIGKILL), ("stopped", signal.SIGTERM)):
        good &= disturbed(begin, max(processes), name, number)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(run(main))
