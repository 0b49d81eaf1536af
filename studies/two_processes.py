"""Starts the same run twice within one second, again and again, and counts who trained, who was refused, what was left.

    python -m studies.two_processes --trials=50

All trials share one workdir. In each of them, two processes (or `--processes`) start at the same moment. Once all but
one have ended, the one that trains is killed (`kill -9`) in every other trial, and stopped by SIGTERM in the rest, at a
random moment; the next trial must find no lock in its way. The numbers of the evaluation differ between the processes,
so that `config.json` tells whether a refused one has written it. At the end the same command trains to its end. The
exit status is 0 if every trial had one winner, all others were refused by a sentence that names it, and no lock is
left.
"""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

from studies.harness import Rows, command, run, table

TIMEOUT = 300.0  # seconds that one trial may take
IMAGES = 10**7  # more than a trial has time for
IN_USE = re.compile(r"jaxgen: .* is in use by process (\d+) on host \S+, which began at 20\S+ \S+ UTC;")


def locks(workdir: Path) -> list[str]:
    """Returns the lock files in a workdir."""
    return sorted(path.name for path in workdir.glob("*.lock*")) + sorted(p.name for p in workdir.glob(".*.lock.tmp"))


def written_by(workdir: Path) -> int:
    """Returns the number of the process whose config the workdir holds; -1 without one."""
    path = workdir / "config.json"
    return json.loads(path.read_text())["evaluate"]["num"] if path.exists() else -1


def trial(
    config: str, workdir: Path, extra: tuple[str, ...], first: int, count: int, kill: bool, delay: float
) -> dict[str, Any]:
    """Starts `count` processes at once, whose numbers begin at `first`, and ends the one that trains."""
    before = written_by(workdir)
    outputs = [workdir.with_name(f"{workdir.name}.{i}.log") for i in range(count)]
    processes = []
    for i, output in enumerate(outputs):
        words = [*command(config, workdir, f"evaluate.num={first + i}", f"train.total_images={IMAGES}"), *extra]
        with output.open("w") as stream:
            processes.append(subprocess.Popen(words, stdout=stream, stderr=stream))
    until = time.monotonic() + TIMEOUT
    while sum(p.poll() is None for p in processes) > 1 and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(delay)
    trains = [i for i, p in enumerate(processes) if p.poll() is None]
    held = len(locks(workdir))
    for i in trains:
        processes[i].send_signal(signal.SIGKILL if kill else signal.SIGTERM)
    statuses = [p.wait(TIMEOUT) for p in processes]
    named = [IN_USE.search(output.read_text()) for output in outputs]
    refused = [i for i in range(count) if statuses[i] == 2 and named[i]]
    return {
        "winners": len(trains),
        "refused": len(refused),
        "named_the_winner": all(int(named[i][1]) in [processes[j].pid for j in trains] for i in refused),
        "statuses": statuses,
        "locks_held": held,
        "locks_left": len(locks(workdir)),
        "config_of_a_refused": written_by(workdir) not in {before, *(first + i for i in trains)},
    }


def sound(row: dict[str, Any], count: int) -> bool:
    """Returns whether a trial had one winner, and the others were refused for it and wrote nothing."""
    left = row["locks_left"] == 0 or row["kill"]  # a killed process cannot tidy up
    return (
        (row["winners"], row["refused"]) == (1, count - 1)
        and row["named_the_winner"]
        and left
        and not row["config_of_a_refused"]
    )


def main(
    *extra: str,
    config: str = "configs/ddpm_digits.py",
    trials: int = 50,
    processes: Annotated[int, "started at once"] = 2,
    seed: Annotated[int, "of the moments"] = 0,
) -> int:
    chance, rows = random.Random(seed), Rows(None)
    with tempfile.TemporaryDirectory(prefix="two_processes_") as folder:
        workdir = Path(folder) / "run"
        settings = ("--config.train.sample_every_images=0", "--config.evaluate.at_end=False", *extra)
        for number in range(trials):
            kill, delay = number % 2 == 0, chance.uniform(0, 3)
            first = 1000 + processes * number
            rows.add({"kill": kill, **trial(config, workdir, settings, first, processes, kill, delay)})
        history = workdir / "metrics.jsonl"
        images = json.loads(history.read_text().splitlines()[-1])["images"] if history.exists() else 0
        end = [*command(config, workdir, f"train.total_images={images + 1000}"), *settings]
        status = subprocess.run(end, stdout=subprocess.DEVNULL, check=False).returncode
        left = locks(workdir)
    good = [row for row in rows if sound(row, processes)]
    winners, refused = (sum(row[key] for row in rows) for key in ("winners", "refused"))
    cells = [len(rows.rows), winners, refused, len(good), len(left), status]
    print(table(["trials", "winners", "refused", "sound trials", "locks at the end", "status of the end"], [cells]))
    return 0 if len(good) == len(rows.rows) and not left and not status else 1


if __name__ == "__main__":
    sys.exit(run(main))
