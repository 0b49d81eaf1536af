"""Compares the families: VAE, GAN, pixel and latent diffusion at equal training time, on digits and Fashion-MNIST.

    python -m studies.families --out=runs/families --seconds=120

Each family is a shipped config, without labels. A short run first says how many images a second it trains (the median
of its log, so without compilation); then it trains for as many as fit `--seconds` of wall time, schedules and all
stretched to that number, so that a quiet machine gives all families the same. Latent diffusion spends four tenths of it
on its autoencoder. Evaluated are --num samples against held-out images in the features of the data set's
classifier, with the floor of real training images and noise as the other end. One JSON line for each family is
appended to OUT/table.jsonl, and the same command goes on where it stopped; OUT/<data>.png has a row of samples each.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from jaxgen.errors import UserError
from studies import harness

FIRST_STAGE = 0.4  # share of latent diffusion's time that its autoencoder gets
NO_LABELS = ("method.network.num_classes=0", "method.label_dropout=0.0", "guidance.scale=1.0")

# data -> {family: stages (config, overrides)}
FAMILIES: dict[str, dict[str, tuple[tuple[str, tuple[str, ...]], ...]]] = {
    "digits": {
        "VAE": (("vae_digits", ()),),
        "GAN": (("gan_digits", ()),),
        "pixel diffusion": (("ddpm_digits", ()),),
        "latent diffusion": (("kl_autoencoder_digits", ()), ("latent_diffusion_digits", NO_LABELS)),
    },
    "fashion_mnist": {
        "VAE": (("vae_fashion_mnist", ()),),
        "GAN": (("dcgan_fashion_mnist", ()),),
        "pixel diffusion": (("ddpm_fashion_mnist", ()),),
        "latent diffusion": (("kl_autoencoder_fashion_mnist", ()), ("latent_diffusion_fashion_mnist", ())),
    },
}
COLUMNS = ("images_seen", "train_images_per_second", "frechet", "excess", "precision", "recall", "copies",
           "sample_images_per_second", "evaluations")  # fmt: skip


def train(config: str, overrides: tuple[str, ...], images: int, workdir: Path) -> list[dict[str, float]]:
    """Trains one run with a log of twenty lines and one checkpoint, without evaluation; returns its rows of numbers."""
    settings = [f"train.total_images={images}", f"train.log_every_images={max(1, images // 20)}"]
    settings += [f"train.checkpoint_every_images={images}", "train.sample_every_images=0", "train.tensorboard=False"]
    settings += ["train.evaluate_every_images=0", "train.keep_best=0", "train.best_metric=", "evaluate.at_end=False"]
    if config.startswith("kl_autoencoder"):
        settings += [f"method.adversarial_start={images // 2}"]
    harness.train(config, workdir, *settings, *overrides)
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def seconds_per_image(rows: list[dict[str, float]]) -> float:
    """Returns the mean over both halves of a run, which may be two stages, of the median in each."""
    middle = rows[-1]["images"] / 2
    halves: tuple[list[float], list[float]] = ([], [])
    for row in rows:
        halves[row["images"] > middle].append(1 / row["images_per_second"])
    return statistics.mean(statistics.median(half) for half in halves)


def family(name: str, data: str, stages: Any, seconds: float, probe: int, out: Path) -> dict[str, Any]:
    """Trains one family; returns where its last run is, and what it saw."""
    found: dict[str, Any] = {"images_seen": 0}
    earlier: tuple[str, ...] = ()
    for number, (config, overrides) in enumerate(stages):
        share = 1.0 if len(stages) == 1 else (FIRST_STAGE, 1 - FIRST_STAGE)[number]
        overrides = (*overrides, *earlier)
        folder = out / f"{data}_{config}"
        pace = seconds_per_image(train(config, overrides, probe, folder.with_name(folder.name + "_probe")))
        rows = train(config, overrides, max(1000, int(share * seconds / pace)), folder)
        found["images_seen"] = int(rows[-1]["images"])
        found["train_images_per_second"] = 1 / seconds_per_image(rows)
        found[f"seconds_{config}"] = rows[-1]["images"] * seconds_per_image(rows)
        earlier = (f"init_from.autoencoder={folder}",)
    return {"family": name, "data": data, "workdir": str(folder), **found}


def measure(workdir: Path, num: int, shown: int) -> tuple[dict[str, float], np.ndarray]:
    """Returns a trained run's numbers, and samples to be looked at."""
    from jaxgen.evaluation.evaluate import evaluate

    config = harness.run_config(workdir)
    config.evaluate.num = num
    trained = harness.trained(workdir, config)
    generator, model = trained.generator, trained.model
    scores = evaluate(generator, model)  # compiles the sampler
    begun = time.perf_counter()
    generator.images(model, 1, num)
    seconds = time.perf_counter() - begun

    def score(start: str) -> dict[str, Any]:
        return next(entry for key, entry in scores.items() if key.startswith(start))

    found = {"frechet": score("frechet_")["value"], "excess": score("frechet_")["excess"]}
    found |= {"floor": score("frechet_")["floor"], "noise": score("frechet_")["noise"]}
    found |= {key: score(f"{key}_")["value"] for key in ("precision", "recall")}
    if copies := [entry for key, entry in scores.items() if key == "share_of_near_copies"]:
        found["copies"] = copies[0]["value"]
    found["sample_images_per_second"] = num / seconds
    found["evaluations"] = getattr(getattr(generator.method, "sampler", None), "evaluations", 1)
    return found, scores.images.samples[:shown]


def tables(rows: harness.Rows) -> str:
    """Makes a table for each data set, with a row for each family."""
    lines = []
    for data in dict.fromkeys(row["data"] for row in rows):
        of = rows.where(data=data)
        lines += ["", f"{data}: real {of[0]['floor']:.3f}, noise {of[0]['noise']:.1f}, n = {of[0]['num']}", ""]
        cells = [[row["family"], *(_cell(row.get(column)) for column in COLUMNS)] for row in of]
        lines.append(harness.table(["", *COLUMNS], cells))
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def main(
    out: Path,
    data: Annotated[tuple[str, ...], "data sets, separated by commas"] = tuple(FAMILIES),
    seconds: Annotated[float, "seconds of training, for each family"] = 120.0,
    probe: Annotated[int, "images of the run that measures the pace"] = 12_800,
    num: int = 1000,
    shown: Annotated[int, "samples in a row of the picture"] = 16,
) -> None:
    unknown = [name for name in data if name not in FAMILIES]
    if unknown:
        raise UserError(f"--data has {unknown[0]!r}, which is none of {', '.join(FAMILIES)}.")
    harness.prepare()
    from jaxgen.report.images import grid, save_png

    rows = harness.Rows(out / "table.jsonl")

    def make(name: str, world: str) -> dict[str, Any]:
        row = {**family(name, world, FAMILIES[world][name], seconds, probe, out), "num": num}
        numbers, samples = measure(Path(row["workdir"]), num, shown)
        np.save(_samples(out, world, name), samples)
        return row | {key: float(value) for key, value in numbers.items()}

    for world in data:
        for name in FAMILIES[world]:
            rows.get({"family": name, "data": world}, lambda name=name, world=world: make(name, world))
        kept = [np.load(_samples(out, world, name)) for name in FAMILIES[world]]
        save_png(out / f"{world}.png", grid(np.concatenate(kept), columns=shown))
    print(tables(rows))


def _samples(out: Path, data: str, family: str) -> Path:
    return out / f"{data}_{family.replace(' ', '_')}.npy"


if __name__ == "__main__":
    sys.exit(harness.run(main))
