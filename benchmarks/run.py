"""Makes the table of jaxgen against PyTorch, with diffusers where it has the model: speed, memory, utilisation.

    python -m benchmarks.run --out=speed.json                  # every row for the device that is here
    python -m benchmarks.run --rows=unet16,ddim --steps=40
    python -m benchmarks.run --device=gpu --seconds=400        # no row is begun later: under nine minutes

Each side runs in a process of its own, in turns, in one process tree: jaxgen's own update and sampler against PyTorch,
eager (`pytorch`) and, where a compiler is found, under `torch.compile` (`compiled`). A ratio is of medians, jaxgen's
seconds over those of eager PyTorch on a CPU and of compiled PyTorch on a GPU: below 1 jaxgen is faster. Times are wall
seconds; FLOPs are counted in the traced program (`jaxgen.planning.flops`) and set against the product of two large
matrices, timed in the same run. Needs the extra 'parity'; the machine should be otherwise idle.

Rows on a CPU: a U-Net's update at batch 16 and 64, DDIM with 50 steps, DCGAN's update (both players), the step of
WGAN-GP's critic, updates of pix2pix, CycleGAN, one scale of SinGAN, StyleGAN2 and a triplane GAN with their lazy
penalties, and of a VAE, and `start`: seconds from `python main.py` to its first step, the second time. On a GPU, in
bfloat16: DiT-B/2, the U-Net of DDPM for CIFAR-10 and that of Stable Diffusion 1.5, updates and DDIM. jaxgen's updates
hold the guard against non-finite values and the metrics; PyTorch's do not.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Annotated, Any

from benchmarks.peers import Worker, alternate
from benchmarks.workloads import ROWS, Row
from jaxgen.command import large_pages as pages
from jaxgen.errors import UserError
from studies.harness import ROOT, run

START_BAR = 8.0  # seconds
SIDES = ("jaxgen", "pytorch", "compiled")
SAME = 1e-3  # parameters may differ by this share: a network's twin is the same network


@dataclasses.dataclass(frozen=True)
class Settings:
    """Says how rows are measured.

    Attributes:
      device: cpu or gpu. steps: timed steps of each side, where a row has fewer. small: tiny sizes.
      compiled: whether `torch.compile` is a side.
    """

    device: str
    steps: int
    small: bool
    compiled: bool


def environment(side: str, device: str) -> dict[str, str]:
    """Returns what a worker's process is started with."""
    cores = str(len(os.sched_getaffinity(0)))
    if side == "jaxgen":
        # two processes share a GPU
        own = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if device == "gpu" else {"JAX_PLATFORMS": "cpu"}
        return {**own, **pages.environment()}  # as main.py starts itself
    return {"OMP_NUM_THREADS": cores, "HF_HUB_OFFLINE": "1"}


def find_device() -> str:
    """Returns gpu where a driver answers, else cpu."""
    if shutil.which("nvidia-smi") and not subprocess.run(["nvidia-smi", "-L"], capture_output=True).returncode:
        return "gpu"
    return "cpu"


def work(side: str, name: str, settings: Settings) -> None:
    """Does the worker's side."""
    row = {**ROWS["cpu"], **ROWS["gpu"], "matmul": Row("matmul", task="matmul")}[name]
    row = row.smaller() if settings.small else row
    if side == "jaxgen":
        from benchmarks import jax_side

        jax_side.work(row, settings.device, settings.small)
    else:
        from benchmarks import torch_side

        torch_side.work(row, settings.device, settings.small, side == "compiled")


def measure(name: str, row: Row, settings: Settings, sides: tuple[str, ...]) -> dict[str, Any]:
    """Returns one row, by all sides that can."""
    own = ["--device", settings.device, *(["--small"] if settings.small else [])]
    row = row.smaller() if settings.small else row
    workers = []
    try:
        for side in sides:
            command = [sys.executable, "-m", "benchmarks.run", "--worker", side, "--rows", name, *own]
            one_by_one = settings.device == "cpu"  # a GPU's programs are compiled at the same time
            workers.append(Worker(side, command, environment(side, settings.device), wait=one_by_one))
        if settings.device == "gpu":
            for worker in workers:
                worker.ready()
        counts = {worker.name: worker.facts["parameters"] for worker in workers}
        if row.model != "dit_b" and max(counts.values()) > (1 + SAME) * min(counts.values()):
            raise RuntimeError(f"{name}: not the same networks, parameters {counts}")
        steps = max(row.steps, settings.steps) if settings.steps else row.steps
        found = alternate(workers, 2 if settings.small else steps, row.turn)
    finally:
        for worker in workers:
            worker.close()
    peer = "compiled" if settings.device == "gpu" and "compiled" in sides else "pytorch"
    return {"row": name, "peer": peer, "batch": row.batch, "bar": row.bar, "goal": row.goal, **found}


def start(config: str) -> dict[str, Any]:
    """Returns the seconds from `python main.py` to its first step, with an empty compilation cache and again."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        cache = {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
        for number in range(4):
            workdir = pathlib.Path(folder) / f"run{number}"
            one = ["--config.train.log_every_images=1", "--config.train.total_images=1000000"]
            command = [sys.executable, "main.py", f"--config={config}", f"--workdir={workdir}", *one]
            begun = time.perf_counter()
            process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **cache}, stderr=subprocess.PIPE, text=True
            )
            log = workdir / "metrics.jsonl"
            while not (log.exists() and log.stat().st_size) and process.poll() is None:
                time.sleep(0.02)
            found.append(time.perf_counter() - begun)
            if process.poll() is not None:
                raise RuntimeError(f"{' '.join(command)}: {process.stderr.read()}")
            process.kill()
            process.communicate()
    return {"row": "start", "config": config, "cold_s": found[0], "warm_s": sorted(found[1:]), "bar_s": START_BAR}


def ceiling(settings: Settings) -> float:
    """Returns the FLOP/s of the faster side's product of two large matrices."""
    row = Row("matmul", task="matmul", steps=10)
    found = measure("matmul", row, settings, ("jaxgen", "pytorch"))
    return found["jaxgen"]["flops"] / min(found[side]["min_s"] for side in ("jaxgen", "pytorch"))


def describe(found: dict[str, Any], peak: float | None) -> list[str]:
    """Returns the lines of the table for one row."""
    if found["row"] == "start":
        low, middle, high = found["warm_s"]
        return [
            f"start: {found['config']}, {middle:.1f} s ({low:.1f}-{high:.1f}) to the first step with a warm cache "
            f"(bar {found['bar_s']:g} s), {found['cold_s']:.1f} s with an empty one"
        ]
    ours, theirs = found["jaxgen"], found[found["peer"]]
    ratio = found["ratio"] = ours["median_s"] / theirs["median_s"]
    memory = found["memory_ratio"] = ours["peak_gib"] / theirs["peak_gib"]
    aims = ", ".join(f"{name} {found[name]:.2f}" for name in ("bar", "goal") if found[name])
    aims = f" ({aims})" if aims else ""
    head = f"{found['row']}: batch {found['batch']}, ratio to {found['peer']} {ratio:.3f}{aims}"
    lines = [f"{head}, of peak memory {memory:.2f}"]
    for side in SIDES:
        if side not in found:
            continue
        one = found[side]
        low, high = one["quartiles_s"]
        rate = found["batch"] / one["median_s"]
        text = (
            f"  {side:>9} {one['median_s']:9.4f} s ({low:.4f}-{high:.4f}, least {one['min_s']:.4f}) "
            f"{rate:9.1f} images/s {one['busy_cores']:5.2f} cores {one['peak_gib']:6.2f} GiB"
        )
        if peak:
            one["utilisation"] = ours["flops"] / one["median_s"] / peak
            text += f" {100 * one['utilisation']:5.1f} %"
        lines.append(f"{text}  first step {one['first_step_s']:.1f} s")
    for other in {"pytorch", "compiled"} & set(found) - {found["peer"]}:
        found[f"ratio_to_{other}"] = ours["median_s"] / found[other]["median_s"]
        lines.append(f"  ratio to {other}: {found[f'ratio_to_{other}']:.3f}")
    return lines


def one_row(name: str, row: Row, settings: Settings) -> dict[str, Any]:
    """Measures one row with torch.compile or, where that fails, without it."""
    if settings.compiled:
        try:
            return measure(name, row, settings, SIDES)
        except RuntimeError as error:
            if "worker compiled" not in str(error):
                raise
            print(f"{name}: torch.compile does not work here ({error}); without it", flush=True)
    return measure(name, row, settings, SIDES[:2])


def main(
    rows: Annotated[tuple[str, ...], "names, separated by commas; all by default"] = (),
    device: Annotated[str, "cpu or gpu; by default what is here"] = "",
    steps: Annotated[int, "timed steps of each side, where a row has fewer"] = 0,
    seconds: Annotated[float, "no row is begun after so many; 0: no limit"] = 0,
    out: Annotated[str, "a file for all numbers, JSON"] = "",
    start_config: Annotated[str, "what the row `start` runs"] = "configs/ddpm_digits.py",
    no_compile: Annotated[bool, "leave torch.compile out"] = False,
    small: Annotated[bool, "tiny sizes, to try every line of code"] = False,
    worker: Annotated[str, "for the script's own use"] = "",
) -> None:
    settings = Settings(device or find_device(), steps, small, not no_compile)
    if worker:
        return work(worker, rows[0], settings)
    begun = time.perf_counter()
    workloads = ROWS[settings.device]
    known = [*workloads, *(["start"] if settings.device == "cpu" else [])]
    names = list(rows) or known
    if unknown := set(names) - set(known):
        raise UserError(f"--rows has {min(unknown)!r}; rows for a {settings.device} are {', '.join(known)}.")
    results: dict[str, Any] = {"device": settings.device, "command": " ".join(["python", *sys.argv]), "rows": []}
    peak = None
    if names != ["start"]:
        results["ceiling_gflops"] = (peak := ceiling(settings)) / 1e9
        print(f"ceiling: {peak / 1e9:.0f} GFLOP/s, the product of two large matrices", flush=True)
    for name in names:
        if seconds and time.perf_counter() - begun > seconds:
            print(f"{name}: not begun, {seconds:.0f} s are over", flush=True)
            continue
        found = start(start_config) if name == "start" else one_row(name, workloads[name], settings)
        print("\n".join(describe(found, peak)), flush=True)
        results["rows"].append(found)
        if out:
            pathlib.Path(out).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(run(main))
