"""Compares GANs of 32x32 pixels at an equal time of the CPU: DCGAN, WGAN-GP, ProGAN, its control, StyleGAN, StyleGAN2.

    python -m studies.gan_race --out=runs/gan_race --seconds=1800

Each is a shipped config on `caption_shapes`, those of other data with these in their place. It is trained until its
process has used `--seconds` of the CPU, start and compilation included, and is then stopped; the same command goes on
where it stopped. Evaluated are --num samples against held-out images in the features `filters`, which need no weights,
with the floor of real training images and noise as the other end. One JSON line for each is appended to
OUT/table.jsonl, and OUT/samples.png has a row of samples each. The time is read from /proc, as Linux has it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from jaxgen.errors import UserError
from studies import families, harness

SHAPES = ("data.source=caption_shapes", "data.resolution=32", "data.channels=3", "data.num_classes=0")
# row: (config, overrides); a plan follows the config's name behind a colon
ROWS: dict[str, tuple[str, tuple[str, ...]]] = {
    "DCGAN": ("dcgan_fashion_mnist", SHAPES),
    "WGAN-GP": ("wgan_gp_fashion_mnist", SHAPES),
    "ProGAN": ("progan_shapes", ()),
    "ProGAN from the start": ("progan_shapes:from_start", ()),
    "StyleGAN": ("stylegan_shapes", ()),
    "StyleGAN2": ("stylegan2_shapes", ()),
}
COLUMNS = ("cpu_seconds", "images_seen", "frechet", "excess", "precision", "recall")
SETTINGS = (
    "train.total_images=100000000", "train.tensorboard=False", "train.evaluate_every_images=0", "train.keep_best=0",
    "train.best_metric=", "train.sample_every_images=0", "evaluate.at_end=False",
    "evaluate.network=filters", "evaluate.real=2000", "evaluate.metrics=('frechet','precision','recall')",
)  # fmt: skip


def cpu_seconds(pid: int) -> float:
    """Returns the time that a running process has had of all cores so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime, of all its threads


def train(config: str, overrides: tuple[str, ...], workdir: Path, seconds: float) -> float:
    """Trains until so many seconds of the CPU are used, by earlier calls too; returns those that were."""
    note = workdir.with_name(workdir.name + "_cpu_seconds")
    before = float(note.read_text()) if note.exists() else 0.0
    if before >= seconds:
        return before
    workdir.parent.mkdir(parents=True, exist_ok=True)
    name, colon, plan = config.partition(":")
    words = harness.command(f"{harness.config_path(name)}{colon}{plan}", workdir, *SETTINGS, *overrides)
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    used = before
    while process.poll() is None and used < seconds:
        used = before + cpu_seconds(process.pid)
        note.write_text(str(used))
        time.sleep(0.5)
    process.send_signal(signal.SIGTERM)  # it saves, and ends with 0
    if process.wait():
        raise UserError(f"{name} ended with an error, which it has printed above.")
    return used


def measured(name: str, out: Path, seconds: float, num: int, shown: int) -> dict[str, Any]:
    """Returns the row of one GAN, trained first where it is not."""
    config, overrides = ROWS[name]
    workdir = out / config.replace(":", "_")
    used = train(config, overrides, workdir, seconds)
    numbers, samples = families.measure(workdir, num, shown)
    np.save(out / f"{workdir.name}.npy", samples)
    images = harness.trained(workdir).images
    return {"cpu_seconds": round(used), "images_seen": images} | {key: float(v) for key, v in numbers.items()}


def table(rows: harness.Rows) -> str:
    """Returns the table, as Markdown, with real and noise images above it."""
    found = [row for name in ROWS for row in rows.where(row=name)]
    if not found:
        return ""
    lines = [[row["row"], *(row[key] if key in COLUMNS[:2] else f"{row[key]:.4g}" for key in COLUMNS)] for row in found]
    head = f"real {found[0]['floor']:.4g}, noise {found[0]['noise']:.4g}, n = {found[0]['num']}"
    return "\n".join([head, "", harness.table(["", *COLUMNS], lines)])


def main(
    out: Path,
    seconds: Annotated[float, "seconds of the CPU, for each GAN"] = 1800.0,
    only: Annotated[tuple[str, ...], "GANs, separated by commas: " + ", ".join(ROWS)] = (),
    num: int = 1000,
    shown: Annotated[int, "samples in a row of the picture"] = 16,
) -> None:
    unknown = [name for name in only if name not in ROWS]
    if unknown:
        raise UserError(f"--only has {unknown[0]!r}, which is none of {', '.join(ROWS)}.")
    harness.prepare()
    from jaxgen.report.images import grid, save_png

    rows = harness.Rows(out / "table.jsonl", num=num, seconds=seconds)
    for name in only or ROWS:
        rows.get({"row": name}, lambda name=name: measured(name, out, seconds, num, shown))
    done = [config.replace(":", "_") for name, (config, _) in ROWS.items() if rows.where(row=name)]
    save_png(out / "samples.png", grid(np.concatenate([np.load(out / f"{run}.npy") for run in done]), columns=shown))
    print(table(rows))


if __name__ == "__main__":
    sys.exit(harness.run(main))
