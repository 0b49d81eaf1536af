"""Bayes' rule both ways: p(x | y) of a model without labels and a classifier, p(y | x) of a model with labels.

    python -m studies.bayes_rule --classes=runs/ddpm_digits_classes --plain=runs/ddpm_digits \\
        --noisy=runs/noisy_classifier_digits --clean=runs/classifier_digits_1 --out=bayes.jsonl

The runs are those of studies/guidance_curves.py. First, digits are drawn under their labels: from the model that was
trained with labels; from the plain one and the classifier of noisy digits, with the classifier's gradient once, which
is Bayes' rule; and with the gradient three halves, which is not. Label accuracy and Fréchet distance are measured by
the package's classifier, beside held-out digits. Second, held-out digits are classified by the model with labels (Li et
al. 2023), by draws and weighting, beside the supervised classifier of --clean on the same digits and the package's own,
which has learned from shifted digits too. One JSON line for each is appended to --out; the same command goes on where
it stopped, and prints both tables.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import jax
import numpy as np

from jaxgen.data.transforms import to_float
from jaxgen.editing.bayes import class_log_likelihoods
from jaxgen.metrics.distributions.classes import class_accuracy
from jaxgen.metrics.networks.digits import Digits
from jaxgen.sampling.restore import TrainedModel
from studies import harness
from studies.guidance_curves import LABELS, Way, diversity, ways

CONDITIONAL, BY_RULE = "classifier-free", "classifier that has seen noise"
DRAWN = {  # {row: (way of guidance_curves, scale)}; at scale 1 classifier-free guidance is the conditional model itself
    "model with labels": (CONDITIONAL, 1.0),
    "model without labels, Bayes' rule": (BY_RULE, 1.0),
    "the same, gradient x 1.5": (BY_RULE, 1.5),
}
BATCH = 50


def drawn(rows: harness.Rows, found: dict[str, Way], num: int, seeds: int) -> str:
    """Returns the table of p(x | y)."""
    lines = []
    for name, (way, scale) in DRAWN.items():
        points = [
            rows.get({"drawn": name, "seed": seed}, lambda w=way, s=scale, k=seed: found[w].measure(s, k, num))
            for seed in range(seeds)
        ]
        numbers = ("label_accuracy", "frechet", "diversity")
        lines.append([name, *(harness.mean_and_deviation([row[number] for row in points]) for number in numbers)])
    real = found[CONDITIONAL]
    label = real.held_out["label"]
    accuracy = class_accuracy(real.real.probabilities, label).value
    lines.append(["held-out digits", f"{accuracy:.3f}", None, f"{diversity(real.real.features, label):.3f}"])
    return harness.table(["digits from", "label accuracy", "Fréchet distance", "diversity"], lines)


def by_diffusion(
    trained: TrainedModel, images: np.ndarray, labels: np.ndarray, draws: int, weighting: str
) -> dict[str, float]:
    """Returns the accuracy of the diffusion classifier, and how many seconds an image takes."""
    method = trained.generator.method
    x = np.asarray(to_float({"image": images})["image"])
    keys = jax.random.split(jax.random.key(0), len(x))

    @jax.jit
    def run(params, x, keys):
        denoise = method.denoiser(params)
        return class_log_likelihoods(denoise, method.schedule, x, keys, LABELS, draws, weighting)

    begun = time.perf_counter()
    parts = range(0, len(x), BATCH)
    found = [np.asarray(run(trained.model.params, x[i : i + BATCH], keys[i : i + BATCH])) for i in parts]
    seconds = (time.perf_counter() - begun) / len(x)
    return {"accuracy": class_accuracy(np.concatenate(found), labels).value, "seconds": round(seconds, 3)}


def supervised(workdir: str, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns the accuracy of a run of configs/classifier_digits.py, or, for "", of the package's classifier."""
    if not workdir:
        return {"accuracy": class_accuracy(Digits()(images).probabilities, labels).value}
    trained = harness.trained(workdir)
    logits, _ = trained.generator.method.network.apply(
        {"params": trained.model.params["classifier"]}, images.astype(np.float32) / 127.5 - 1
    )
    return {"accuracy": class_accuracy(np.asarray(logits), labels).value}


def told(rows: harness.Rows, classes: str, clean: str, num: int, draws: tuple[int, ...]) -> str:
    """Returns the table of p(y | x)."""
    trained = harness.trained(classes)
    held_out = trained.generator.source("test").take(range(num))
    images, labels = held_out["image"], held_out["label"]
    lines = []
    for weighting in ("bound", "uniform"):
        for count in draws:
            key = {"told": "diffusion", "draws": count, "weighting": weighting}
            row = rows.get(key, lambda n=count, w=weighting: by_diffusion(trained, images, labels, n, w))
            lines.append([f"diffusion, {weighting}", count, count * LABELS, f"{row['accuracy']:.3f}"])
    for name, workdir in (("supervised", clean), ("supervised, with shifts", "")):
        row = rows.get({"told": name}, lambda w=workdir: supervised(w, images, labels))
        lines.append([name, "", 1, f"{row['accuracy']:.3f}"])
    return harness.table(["classifier", "draws", "evaluations an image", "accuracy"], lines)


def main(
    classes: Annotated[str, "a run of configs/ddpm_digits_classes.py"],
    plain: Annotated[str, "a run of configs/ddpm_digits.py"],
    noisy: Annotated[str, "a run of configs/noisy_classifier_digits.py"],
    clean: Annotated[str, "a run of configs/classifier_digits.py with another seed than 0"],
    out: Path,
    num: Annotated[int, "digits that are drawn for each row and seed"] = 500,
    images: Annotated[int, "held-out digits that are classified"] = 200,
    seeds: int = 2,
    steps: Annotated[int, "steps of DDIM"] = 50,
    draws: Annotated[tuple[int, ...], "times and noises for each digit"] = (4, 16, 64),
) -> None:
    harness.prepare()
    named = ways(classes, plain, noisy, "")
    found = {name: Way(*named[name], steps) for name in (CONDITIONAL, BY_RULE)}
    print(drawn(harness.Rows(out, num=num, steps=steps), found, num, seeds))
    print(told(harness.Rows(out, images=images), classes, clean, images, draws))


if __name__ == "__main__":
    sys.exit(harness.run(main))
