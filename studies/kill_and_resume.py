"""Kills a training run again and again, gives the same command each time, and holds the end against an unkilled run.

    python -m studies.kill_and_resume --config=configs/ddpm_digits.py --kills=10 --total_images=200000

Every other kill (`kill -9`) waits until a checkpoint is being written, the rest come at a random moment after the
process began to make progress, and one comes before that. Both runs must end with the same arrays, bit for bit, and
with one history. Further flags (`--config.train.batch_size=32`) go to both runs. The exit status is 0 if they agree.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np

from jaxgen.errors import UserError
from jaxgen.runs.comparison import checkpoint, compare, history
from jaxgen.runs.rehearsal import Kill, kill_and_resume, run_once
from studies.harness import command, run, table


def kills_table(kills: Sequence[Kill]) -> str:
    """Makes a table of the kills, one in each row."""
    heads = ("kill", "when", "lived, s", "images logged", "newest checkpoint", "half written")
    rows = [
        (i, k.when, f"{k.seconds:.1f}", f"{k.images:,}", f"step {k.step}", k.partial) for i, k in enumerate(kills, 1)
    ]
    return table(heads, rows)


def main(
    *extra: str,
    config: str,
    total_images: int,
    kills: int = 10,
    every_images: Annotated[int, "between two checkpoints; 0: a fiftieth of all"] = 0,
    seed: Annotated[int, "seed of the moments at which it kills"] = 0,
    workdir: Annotated[str, "a folder for both runs; a temporary one without it"] = "",
) -> int:
    logging.getLogger("absl").setLevel(logging.ERROR)
    every = every_images or max(1, total_images // 50)
    # pictures and evaluations take time and change no state
    settings = [
        f"train.total_images={total_images}",
        f"train.checkpoint_every_images={every}",
        f"train.log_every_images={every}",
        "train.sample_every_images=0",
        "evaluate.at_end=False",
    ]
    with tempfile.TemporaryDirectory() as temporary:
        top = Path(workdir or temporary)
        top.mkdir(parents=True, exist_ok=True)
        straight, killed, log = top / "straight", top / "killed", top / "log.txt"
        if straight.exists() or killed.exists():
            raise UserError(f"{top} holds earlier runs; choose another folder.")
        seconds = run_once([*command(config, straight, *settings), *extra], os.environ, log)
        print(f"unkilled: {total_images:,} images, {len(history(straight))} log lines, {seconds:.0f} s", flush=True)
        last = json.loads((straight / "metrics.jsonl").read_text().splitlines()[-1])
        longest = last["seconds"] / (kills + 1)
        again = [*command(config, killed, *settings), *extra]
        print(kills_table(kill_and_resume(again, os.environ, log, killed, kills, longest, seed)))
        said = compare(straight, killed)
        arrays = checkpoint(straight)
    size = sum(value.size for value in arrays.values() if isinstance(value, np.ndarray))
    print(f"compared: {len(arrays)} entries of the last checkpoint, {size:,} numbers, and the history")
    print("\n".join(said) or f"verdict: after {kills} kills the run ends bit for bit as the unkilled one.")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(run(main))
