"""Kills a training run again and again, gives the same command each time, and holds the end against an unkilled run.

    python -m studies.kill_and_resume --config=configs/ddpm_digits.py --kills=10 --total_images=200000
    python -m studies.kill_and_resume --cases=all --kills=25

Every other kill (`kill -9`) waits until a checkpoint is being written, the rest come at a random moment after the
process began to make progress, and one comes before that. Both runs must end with the same arrays, bit for bit, and
with one history. Further flags (`--config.train.batch_size=32`) go to both runs. The exit status is 0 if they agree.

The second command does this with four small runs, one after the other, each of which carries something else on:

    ddpm              the optimiser and the EMA
    gan               two players, whose networks have BatchNorm
    kl_autoencoder    it grows: half-way the discriminator begins, and all optimisers start again
    latent_diffusion  a frozen autoencoder, which comes from the run before, and the scale of the latents
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np

from jaxgen.errors import UserError
from jaxgen.runs.comparison import checkpoint, compare, history
from jaxgen.runs.rehearsal import Kill, kill_and_resume, run_once
from studies.harness import command, config_path, run, table

STEPS, BATCH = 300, 32  # the length of a case, in updates, and its batch


@dataclasses.dataclass(frozen=True)
class Case:
    """A shipped config, and settings that make it small."""

    config: str
    settings: tuple[str, ...]
    autoencoder: str = ""  # the case whose unkilled run has the frozen autoencoder


CASES = {
    "ddpm": Case("ddpm_digits", ("method.network.channels=8", "method.network.blocks=1")),
    "gan": Case("gan_digits", ("method.generator.channels=8", "method.discriminator.channels=8")),
    "kl_autoencoder": Case(
        "kl_autoencoder_digits",
        (
            "method.network.channels=8",
            "method.discriminator.width=8",
            f"method.adversarial_start={STEPS // 2 * BATCH}",
        ),
    ),
    "latent_diffusion": Case(
        "latent_diffusion_digits",
        ("method.autoencoder.channels=8", "method.network.channels=8", "method.network.attention_resolutions=()"),
        "kl_autoencoder",
    ),
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Holds what one run and its kills gave."""

    kills: list[Kill]
    entries: int  # of the last checkpoint
    numbers: int  # in its arrays
    lines: int  # of the history
    said: list[str]  # what differs


def kills_table(kills: Sequence[Kill]) -> str:
    """Makes a table of the kills, one in each row."""
    heads = ("kill", "when", "lived, s", "images logged", "newest checkpoint", "half written")
    rows = [
        (i, k.when, f"{k.seconds:.1f}", f"{k.images:,}", f"step {k.step}", k.partial) for i, k in enumerate(kills, 1)
    ]
    return table(heads, rows)


def outcomes_table(outcomes: dict[str, Outcome]) -> str:
    """Makes a table of several runs, one in each row."""
    heads = ("run", "kills", "in a save", "at a moment", "before training", "numbers compared", "log lines", "the end")
    rows = []
    for name, found in outcomes.items():
        counts = [sum(kill.when == when for kill in found.kills) for when in ("save", "moment", "start")]
        end = "; ".join(found.said) or "the same bits"
        rows.append((name, len(found.kills), *counts, f"{found.numbers:,}", found.lines, end))
    return table(heads, rows)


def tried(
    config: str | Path, settings: Sequence[str], extra: Sequence[str], total_images: int, every: int, top: Path,
    kills: int, seed: int,
) -> Outcome:  # fmt: skip
    """Trains a run in `top/straight`, trains and kills the same one in `top/killed`, and compares both."""
    top.mkdir(parents=True, exist_ok=True)
    straight, killed, log = top / "straight", top / "killed", top / "log.txt"
    if killed.exists() or straight.exists():
        raise UserError(f"{top} holds earlier runs; choose another folder.")
    # pictures, evaluations and TensorBoard take time and change no state
    settings = [
        f"train.total_images={total_images}",
        f"train.checkpoint_every_images={every}",
        f"train.log_every_images={every}",
        "train.sample_every_images=0",
        "train.tensorboard=False",
        "evaluate.at_end=False",
        *settings,
    ]
    seconds = run_once([*command(config, straight, *settings), *extra], os.environ, log)
    print(f"unkilled: {total_images:,} images, {len(history(straight))} log lines, {seconds:.0f} s", flush=True)
    rows = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    trains = total_images / statistics.median(row["images_per_second"] for row in rows)  # without the compilation
    again = [*command(config, killed, *settings), *extra]
    done = kill_and_resume(again, os.environ, log, killed, kills, trains / (kills + 1), seed, total_images)
    print(kills_table(done), flush=True)
    arrays = checkpoint(straight)
    size = sum(value.size for value in arrays.values() if isinstance(value, np.ndarray))
    return Outcome(done, len(arrays), size, len(history(straight)), compare(straight, killed))


def all_cases(names: Sequence[str], extra: Sequence[str], top: Path, kills: int, seed: int) -> dict[str, Outcome]:
    """Tries the named cases one after the other, in folders of `top`."""
    if unknown := set(names) - set(CASES):
        raise UserError(f"--cases: there is no {sorted(unknown)[0]!r}; there are {', '.join(CASES)}, and all.")
    found: dict[str, Outcome] = {}
    for name in names:
        case = CASES[name]
        # lines of the log come between two checkpoints as well as with them
        settings = [f"train.batch_size={BATCH}", f"train.log_every_images={5 * BATCH}", *case.settings]
        if case.autoencoder:
            trained = top / case.autoencoder / "straight"
            if not trained.exists():
                raise UserError(f"--cases={','.join(names)}: {name} needs the run of {case.autoencoder} before it.")
            settings.append(f"init_from.autoencoder={trained}")
        print(f"\n{name}", flush=True)
        path = config_path(case.config)
        moments = seed + list(CASES).index(name)
        found[name] = tried(path, settings, extra, STEPS * BATCH, STEPS // 50 * BATCH, top / name, kills, moments)
        print("\n".join(found[name].said) or "the same bits", flush=True)
    return found


def main(
    *extra: str,
    config: str = "",
    total_images: int = 0,
    cases: Annotated[tuple[str, ...], "in place of a config: names of small runs, or all"] = (),
    kills: int = 10,
    every_images: Annotated[int, "between two checkpoints; 0: a fiftieth of all"] = 0,
    seed: Annotated[int, "seed of the moments at which it kills"] = 0,
    workdir: Annotated[str, "a folder for the runs; a temporary one without it"] = "",
) -> int:
    logging.getLogger("absl").setLevel(logging.ERROR)
    if bool(cases) == bool(config and total_images):
        raise UserError("give --config and --total_images, or --cases=all.")
    with contextlib.nullcontext(workdir) if workdir else tempfile.TemporaryDirectory() as folder:
        top = Path(folder).absolute()
        if cases:
            outcomes = all_cases(tuple(CASES) if cases == ("all",) else cases, extra, top, kills, seed)
            print("\n" + outcomes_table(outcomes))
            return 1 if any(found.said for found in outcomes.values()) else 0
        every = every_images or max(1, total_images // 50)
        found = tried(config, (), extra, total_images, every, top, kills, seed)
    print(f"compared: {found.entries} entries of the last checkpoint, {found.numbers:,} numbers, and the history")
    print("\n".join(found.said) or f"verdict: after {kills} kills the run ends bit for bit as the unkilled one.")
    return 1 if found.said else 0


if __name__ == "__main__":
    sys.exit(run(main))
