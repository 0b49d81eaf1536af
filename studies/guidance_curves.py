"""Guidance scale against label accuracy, Fréchet distance and diversity, on trained digit models.

    python -m studies.guidance_curves --classes=runs/ddpm_digits_classes --plain=runs/ddpm_digits \\
        --noisy=runs/noisy_classifier_digits --clean=runs/judge_digits_1 --num=500 --seeds=3 --out=curves.jsonl

Five ways to ask for a digit: classifier-free guidance of the model that was trained with labels; and of the plain one,
the gradient of a classifier that has seen noise, of a clean one on the predicted x0 (universal guidance, forward), of
the same on x_t, which it has never seen noisy, and universal guidance with its backward search and self-recurrence too.
The clean classifier must not be the judge: train configs/judge_digits.py with --config.seed=1 --config.data.crop=0
--config.method.label_smoothing=0.0. One JSON line for each way, scale and seed is appended to --out; the same command
goes on where it stopped, and prints the means over seeds and their standard deviations as Markdown.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import time
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxgen.config import section
from jaxgen.host import use_compilation_cache, use_cpu_cores
from jaxgen.metrics.classification import class_accuracy
from jaxgen.metrics.digits import JUDGE
from jaxgen.metrics.distances import class_diversity
from jaxgen.metrics.frechet import frechet_distance
from jaxgen.runs.setup import make_method
from jaxgen.runs.workdir import stored_config
from jaxgen.sampling.generator import Generator
from jaxgen.sampling.restore import restore

SCALES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
LABELS = 10


def diversity(features: np.ndarray, labels: np.ndarray) -> float:
    """Mean distance between two different examples of a class, in the judge's features `[N, D]`."""
    return float(np.mean(list(class_diversity(features, labels).values())))


def ways(options: argparse.Namespace) -> dict[str, tuple[str, ConfigDict, str, int]]:
    """`{name: (workdir, guidance, workdir of the classifier, recurrence)}`; the scale is still to be filled in."""

    def network(workdir: str) -> ConfigDict:
        return stored_config(workdir).method.network

    found = {}
    if options.classes:
        found["classifier-free"] = (options.classes, section(name="classifier_free"), "", 1)
    if options.plain and options.noisy:
        noisy = section(name="classifier", network=network(options.noisy))
        found["classifier that has seen noise"] = (options.plain, noisy, options.noisy, 1)
    if options.plain and options.clean:
        clean = network(options.clean)
        forward = section(name="universal", network=clean)
        found["clean classifier on x0-hat (universal)"] = (options.plain, forward, options.clean, 1)
        found["the same on x_t"] = (options.plain, section(name="classifier", network=clean), options.clean, 1)
        whole = section(name="universal", network=clean, backward_steps=5, backward_rate=0.3)
        found["universal, 5 backward steps, recurrence 3"] = (options.plain, whole, options.clean, 3)
    return found


def measure(generator: Generator, model: Any, seed: int, num: int, real: np.ndarray) -> dict[str, float]:
    """One point of a curve."""
    begun = time.perf_counter()
    samples = generator.images(model, 1000 + seed, num, range(LABELS))
    seconds = time.perf_counter() - begun
    seen = JUDGE(samples.images)
    return {
        "label_accuracy": class_accuracy(seen.probabilities, samples.labels).value,
        "frechet": frechet_distance(seen.features, real),
        "diversity": diversity(seen.features, samples.labels),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, what in (
        ("classes", "a run of configs/ddpm_digits_classes.py"),
        ("plain", "a run of configs/ddpm_digits.py"),
        ("noisy", "a run of configs/noisy_classifier_digits.py"),
        ("clean", "a run of configs/judge_digits.py with another seed than 0"),
    ):
        parser.add_argument(f"--{name}", default="", help=what)
    parser.add_argument("--scales", type=lambda text: tuple(map(float, text.split(","))), default=SCALES)
    parser.add_argument("--num", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50, help="of DDIM")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    use_cpu_cores()
    use_compilation_cache()
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    done = {(row["way"], row["scale"], row["seed"], row["num"]) for row in rows}
    reference = None
    for way, (workdir, guidance, classifier, recurrence) in ways(options).items():
        config = stored_config(workdir)
        config.sampler = section(name="ddim", steps=options.steps, self_recurrence=recurrence)
        config.evaluate.batch_size = 125
        config.guidance = section(**{**guidance.to_dict(), "scale": 1.0})
        if classifier:
            config.init_from.classifier = classifier
        trained = restore(config, workdir)
        source = trained.generator.source(config.data.eval_split)
        held_out = source.take(list(range(len(source))))
        real = JUDGE(held_out["image"])
        reference = {
            "label_accuracy": class_accuracy(real.probabilities, held_out["label"]).value,
            "diversity": diversity(real.features, held_out["label"]),
        }
        for scale in options.scales:
            config.guidance.scale = scale
            generator = Generator(make_method(config), config, sources={config.data.eval_split: source})
            for seed in range(options.seeds):
                if (way, scale, seed, options.num) in done:
                    continue
                row = {"way": way, "scale": scale, "seed": seed, "num": options.num}
                row |= measure(generator, trained.model, seed, options.num, real.features)
                rows.append(row)
                with options.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(row, flush=True)
    print(f"\nReal held-out digits: {reference}")
    for name in ("label_accuracy", "frechet", "diversity"):
        print(f"\n{name}, n = {options.num}, mean (standard deviation) of {options.seeds} seeds\n")
        print("| scale | " + " | ".join(f"{scale:g}" for scale in options.scales) + " |")
        print("|---" * (len(options.scales) + 1) + "|")
        for way in dict.fromkeys(row["way"] for row in rows):
            cells = []
            for scale in options.scales:
                of = (way, scale, options.num)
                values = [row[name] for row in rows if (row["way"], row["scale"], row["num"]) == of]
                cells.append(f"{np.mean(values):.3f} ({np.std(values):.3f})" if values else "-")
            print(f"| {way} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
