"""Kills a training run again and again, gives the same command each time, and holds the end against an unkilled run.

    python benchmarks/kill_and_resume.py --config=configs/ddpm_digits.py --kills=10 --total_images=200000

Every other kill (`kill -9`) waits until a checkpoint is being written, the rest come at a random moment after the
process began to make headway, and one comes before that. Both runs must end with the same arrays, bit for bit, and
with one history. Further flags (`--config.train.batch_size=32`) go to both runs. The exit status is 0 if they agree.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[1]
POLL = 0.002  # seconds between two looks at a run's folder
TIMEOUT = 3600.0  # seconds without an end or headway


@dataclasses.dataclass(frozen=True)
class Kill:
    """One process's violent end.

    Attributes:
      when: what was waited for: "start", "moment" or "save".
      seconds: the process lived.
      images: into training, by the history it left; step: of its newest finished checkpoint.
      partial: checkpoints that were left half written.
    """

    when: str
    seconds: float
    images: int
    step: int
    partial: int


def train_command(config: str, workdir: pathlib.Path, extra: Sequence[str] = ()) -> list[str]:
    """The command of a run; judging is left out, since it changes no state."""
    return [
        sys.executable,
        os.fspath(ROOT / "main.py"),
        f"--config={config}",
        f"--workdir={workdir}",
        "--config.evaluate.at_end=False",
        *extra,
    ]


def history(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl` that end; without the numbers that are times."""
    path = workdir / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    rows = [json.loads(line) for line in lines]
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]


def finished_steps(workdir: pathlib.Path) -> list[int]:
    """Steps of the checkpoints that are whole."""
    folder = workdir / "checkpoints"
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.exists() else []


def partial_saves(workdir: pathlib.Path) -> list[str]:
    """Names of the checkpoints that are being, or were being, written."""
    folder = workdir / "checkpoints"
    return sorted(p.name for p in folder.iterdir() if "tmp" in p.name) if folder.exists() else []


def checkpoint(workdir: pathlib.Path) -> dict[str, Any]:
    """Everything in the newest checkpoint that does not depend on the clock: `{name: array or plain value}`."""
    import jax
    import orbax.checkpoint as ocp

    folder = workdir.absolute() / "checkpoints" / str(finished_steps(workdir)[-1])
    found: dict[str, Any] = {}
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        for item in sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name != "meta"):
            tree = reader.metadata(folder / item).item_metadata.tree
            as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
            arrays = reader.restore(folder / item, ocp.args.PyTreeRestore(restore_args=as_numpy))
            for path, leaf in jax.tree_util.tree_flatten_with_path(arrays)[0]:
                found[f"{item}/{jax.tree_util.keystr(path, simple=True, separator='/')}"] = np.asarray(leaf)
    meta = json.loads((folder / "meta" / "metadata").read_text())
    sums = meta.pop("sums", {})
    found |= {f"sums/{name}": value for name, value in sums.items() if name != "meta"}  # that one is of the clock too
    found |= {f"meta/{name}": value for name, value in meta.items() if name != "seconds"}
    return found


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names that only one of two checkpoints has, or whose values differ in any bit."""

    def bits(value: Any) -> Any:
        return (value.dtype, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value

    names = {*one, *other}
    return sorted(n for n in names if n not in one or n not in other or bits(one[n]) != bits(other[n]))


def run_once(command: Sequence[str], environment: Mapping[str, str], log: pathlib.Path) -> float:
    """Runs to the end; gives the seconds that took.

    Raises:
      RuntimeError: where it does not end with 0; the last lines it said are in the message.
    """
    began = time.monotonic()
    with log.open("ab") as stream:
        done = subprocess.run(command, env=environment, cwd=ROOT, stdout=stream, stderr=stream, check=False)
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
    """Runs, and sends a signal; gives the exit status and what was left.

    Args:
      when: "start" sends it `delay` seconds after the process began, "moment" so long after its first headway, "save"
        at the first half-written checkpoint after that.
    """
    before = (history(workdir), finished_steps(workdir))
    old = set(partial_saves(workdir))
    began = time.monotonic()
    with log.open("ab") as stream:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=stream, stderr=stream)
        if when != "start":
            while process.poll() is None and (history(workdir), finished_steps(workdir)) == before:
                if time.monotonic() - began > TIMEOUT:
                    raise RuntimeError(f"no headway in {TIMEOUT:.0f} seconds")
                time.sleep(POLL)
        reached = time.monotonic()
        while process.poll() is None and time.monotonic() - reached < delay:
            time.sleep(POLL)
        while when == "save" and process.poll() is None and not set(partial_saves(workdir)) - old:
            time.sleep(POLL)
        process.send_signal(number)
        status = process.wait()
    rows, steps = history(workdir), finished_steps(workdir)
    left = Kill(
        when,
        time.monotonic() - began,
        rows[-1]["images"] if rows else 0,
        steps[-1] if steps else 0,
        len(partial_saves(workdir)),
    )
    return status, left


def kill_and_resume(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: pathlib.Path,
    workdir: pathlib.Path,
    kills: int,
    longest: float,
    seed: int,
) -> list[Kill]:
    """Kills the command `kills` times and then lets it finish.

    Args:
      longest: a process is killed at most so many seconds after its first headway (or its start).

    Raises:
      RuntimeError: where the run was over before it could be killed so often, or does not end well.
    """
    chance = random.Random(seed)
    done = []
    for i in range(kills):
        when = "start" if kills > 2 and i == kills // 2 else ("save", "moment")[i % 2]
        status, left = interrupt(command, environment, log, workdir, when, chance.uniform(0, longest))
        if status != -signal.SIGKILL:
            raise RuntimeError(f"the run ended with {status} before kill {i + 1}; ask for more images or fewer kills")
        done.append(left)
    run_once(command, environment, log)
    return done


def compare(straight: pathlib.Path, killed: pathlib.Path) -> list[str]:
    """What differs between an unkilled and a killed run, in words; nothing where all agrees."""
    said = [f"the last checkpoint's {name} differs" for name in differing(checkpoint(straight), checkpoint(killed))]
    one, other = history(straight), history(killed)
    if [row["step"] for row in other] != sorted({row["step"] for row in other}):
        said.append("the history holds a step twice, or goes back")
    if one != other:
        said.append("the histories differ")
    if partial_saves(killed):
        said.append(f"half-written checkpoints are left: {partial_saves(killed)}")
    return said


def table(kills: Sequence[Kill]) -> str:
    """The kills, one a line."""
    rows = [("kill", "when", "lived, s", "images logged", "newest checkpoint", "half written")]
    for i, k in enumerate(kills, 1):
        rows.append((str(i), k.when, f"{k.seconds:.1f}", f"{k.images:,}", f"step {k.step}", str(k.partial)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(word.rjust(width) for word, width in zip(row, widths, strict=True)) for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--total_images", type=int, required=True)
    parser.add_argument("--every_images", type=int, default=0, help="between two checkpoints; 0: a fiftieth of all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--workdir", type=pathlib.Path, help="for both runs; a temporary folder without it")
    own, extra = parser.parse_known_args()
    logging.getLogger("absl").setLevel(logging.ERROR)
    every = own.every_images or max(1, own.total_images // 50)
    lengths = {"total_images": own.total_images, "checkpoint_every_images": every, "log_every_images": every}
    # pictures take time and change nothing
    lengths["sample_every_images"] = 0
    extra = [*(f"--config.train.{key}={value}" for key, value in lengths.items()), *extra]

    with tempfile.TemporaryDirectory() as temporary:
        top = own.workdir or pathlib.Path(temporary)
        top.mkdir(parents=True, exist_ok=True)
        straight, killed, log = top / "straight", top / "killed", top / "log.txt"
        if straight.exists() or killed.exists():
            raise SystemExit(f"{top} holds earlier runs; choose another folder.")
        seconds = run_once(train_command(own.config, straight, extra), os.environ, log)
        print(f"unkilled: {own.total_images:,} images, {len(history(straight))} log lines, {seconds:.0f} s", flush=True)
        last = json.loads((straight / "metrics.jsonl").read_text().splitlines()[-1])
        kills = kill_and_resume(
            train_command(own.config, killed, extra), os.environ, log, killed, own.kills,
            longest=last["seconds"] / (own.kills + 1), seed=own.seed,
        )  # fmt: skip
        print(table(kills))
        said = compare(straight, killed)
        arrays = checkpoint(straight)
    size = sum(value.size for value in arrays.values() if isinstance(value, np.ndarray))
    print(f"compared: {len(arrays)} entries of the last checkpoint, {size:,} numbers, and the history")
    print("\n".join(said) or f"verdict: after {own.kills} kills the run ends bit for bit as the unkilled one.")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
