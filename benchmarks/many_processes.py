"""One run as several processes on this machine: held against one process, killed, told to stop, and resumed.

    python benchmarks/many_processes.py --config=configs/ddpm_digits.py --processes=1,2,4 --images=6400

Trains the same config with each number of processes, `--devices` CPU devices in all, and compares losses and
checkpoints with the first. Then, with the largest number: `kill -9` of one process once a checkpoint is written, how
long the others live on and what they say, and whether the same command then ends with the checkpoint of the run that
nobody disturbed, bit for bit; SIGTERM to one process, after which all save and end, and likewise. Further
flags (`--config.mesh.fsdp=2`) go to all runs. The exit status is 0 if all agree.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
PATIENCE = 60.0  # seconds that a run may live on without one of its processes
TIMEOUT = 1800.0  # seconds of a whole run


class Run:
    """The processes of one run, whose output goes to `<workdir>.<process>.log`."""

    def __init__(self, config: str, workdir: pathlib.Path, count: int, devices: int, extra: Sequence[str] = ()):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        command = [sys.executable, os.fspath(ROOT / "main.py"), f"--config={config}", f"--workdir={workdir}", *extra]
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
                self.processes.append(
                    subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
                )

    def wait(self) -> list[int]:
        """The processes' statuses."""
        try:
            return [process.wait(TIMEOUT) for process in self.processes]
        finally:
            self.end()

    def end(self) -> None:
        """Kills what is left."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()

    def said(self, process: int) -> list[str]:
        """The lines of one process that a person is meant to read first: jaxgen's, or else a fatal one of JAX's."""
        lines = self.logs[process].read_text(errors="replace").splitlines()
        return [line for line in lines if line.startswith("jaxgen: ")] or [
            line for line in lines if "distributed service" in line or "coordination" in line.lower()
        ]


def steps(workdir: pathlib.Path) -> list[int]:
    """Steps of the finished checkpoints."""
    folder = workdir / "checkpoints"
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.exists() else []


def arrays(workdir: pathlib.Path) -> dict[str, np.ndarray]:
    """Everything in the newest checkpoint."""
    import jax
    from etils import epath

    from jaxgen.runs.checkpoint import read_item

    at = epath.Path(workdir) / "checkpoints" / str(steps(workdir)[-1])
    found = {}
    for item in ("params", "ema", "opt_state", "memory", "counters"):
        for path, leaf in jax.tree_util.tree_flatten_with_path(read_item(at / item))[0]:
            found[f"{item}{jax.tree_util.keystr(path)}"] = np.asarray(leaf)
    return found


def losses(workdir: pathlib.Path) -> dict[int, dict[str, float]]:
    """`{images: {name: loss}}` of the log."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {row["images"]: {k: v for k, v in row.items() if k.endswith("/loss")} for row in rows}


def difference(one: pathlib.Path, two: pathlib.Path) -> dict[str, Any]:
    """The largest differences of losses and arrays, and whether the arrays are equal to the bit."""
    a, b = arrays(one), arrays(two)
    before, after = losses(one), losses(two)
    if a.keys() != b.keys() or before.keys() != after.keys() or steps(one)[-1] != steps(two)[-1]:
        return {"losses": float("inf"), "arrays": float("inf"), "equal": False}
    return {
        "losses": max(abs(before[i][k] - after[i][k]) for i in before for k in before[i]),
        "arrays": max(float(np.abs(a[k].astype(np.float64) - b[k].astype(np.float64)).max(initial=0)) for k in a),
        "equal": all(a[k].tobytes() == b[k].tobytes() for k in a),
    }


def disturb(run: Run, workdir: pathlib.Path, number: int, process: int) -> tuple[float, list[int]]:
    """Waits for a checkpoint, sends one process a signal; seconds until the others ended, and all statuses."""
    start = time.monotonic()
    while not steps(workdir):
        if time.monotonic() - start > TIMEOUT or any(p.poll() is not None for p in run.processes):
            run.end()
            raise RuntimeError(f"no checkpoint came; see {run.logs[0]}")
        time.sleep(0.05)
    run.processes[process].send_signal(number)
    start = time.monotonic()
    statuses = run.wait()
    return time.monotonic() - start, statuses


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/ddpm_digits.py")
    parser.add_argument("--processes", default="1,2,4")
    parser.add_argument("--devices", type=int, default=4)
    parser.add_argument("--images", type=int, default=6400)
    parser.add_argument("--folder", default="", help="where the runs are kept; a temporary folder without")
    options, extra = parser.parse_known_args()
    extra = [
        f"--config.train.total_images={options.images}",
        f"--config.train.checkpoint_every_images={options.images // 4}",
        f"--config.train.log_every_images={options.images // 8}",
        "--config.train.sample_every_images=0",
        "--config.train.keep_last=8",
        "--config.evaluate.at_end=False",
        *extra,
    ]
    folder = pathlib.Path(options.folder or tempfile.mkdtemp(prefix="processes_"))
    folder.mkdir(parents=True, exist_ok=True)
    counts = [int(n) for n in options.processes.split(",")]
    good = True

    def begin(name: str, count: int) -> tuple[Run, pathlib.Path]:
        return Run(options.config, folder / name, count, options.devices, extra), folder / name

    first = folder / f"calm_{counts[0]}"
    for count in counts:
        run, workdir = begin(f"calm_{count}", count)
        statuses = run.wait()
        found = difference(first, workdir)
        good &= not any(statuses) and found["losses"] < 1e-5 and found["arrays"] < 1e-4
        print(f"{count} processes: statuses {statuses}, against {counts[0]}: {found}", flush=True)

    most = max(counts)
    calm = folder / f"calm_{most}"
    for name, number in (("killed", signal.SIGKILL), ("stopped", signal.SIGTERM)):
        run, workdir = begin(name, most)
        lived, statuses = disturb(run, workdir, number, most - 1)
        survivors = [run.said(i)[:1] for i in range(most - 1)]
        print(f"{name}: all ended {lived:.1f} s later, statuses {statuses}, at step {steps(workdir)[-1]}", flush=True)
        for i, words in enumerate(survivors):
            print(f"  process {i}: {words}", flush=True)
        again, _ = begin(name, most)
        resumed = again.wait()
        found = difference(calm, workdir)
        print(f"  the same command: statuses {resumed}, against the undisturbed run: {found}", flush=True)
        good &= lived < PATIENCE and not any(resumed) and found["equal"]
        good &= all(survivors) and all(statuses) if number == signal.SIGKILL else not any(statuses)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
