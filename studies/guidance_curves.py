"""Measures guidance scale against label accuracy, Fréchet distance and diversity, on trained digit models.

    python -m studies.guidance_curves --classes=runs/ddpm_digits_classes --plain=runs/ddpm_digits \\
        --noisy=runs/noisy_classifier_digits --clean=runs/classifier_digits_1 --num=500 --seeds=3 --out=curves.jsonl

Five ways to ask for a digit: classifier-free guidance of the model that was trained with labels; and of the plain one,
the gradient of a classifier that has seen noise, of a clean one on the predicted x0 (universal guidance, forward), of
the same on x_t, which it has never seen noisy, and universal guidance with its backward search and self-recurrence too.
The clean classifier must not be the one that evaluates: train configs/classifier_digits.py with --config.seed=1
--config.data.crop=0 --config.method.label_smoothing=0.0. One JSON line for each way, scale and seed is appended to
--out; the same command goes on where it stopped, and prints the means over seeds and their standard deviations as
Markdown.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from ml_collections import ConfigDict

from jaxgen.config import section
from jaxgen.metrics.distributions.classes import class_accuracy
from jaxgen.metrics.distributions.diversity import class_diversity
from jaxgen.metrics.distributions.frechet import frechet_distance
from jaxgen.metrics.networks.digits import Digits
from jaxgen.runs.setup import make_method
from jaxgen.sampling.generator import Generator
from studies import harness

SCALES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
LABELS = 10


def diversity(features: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean distance between two different examples of a class, in its classifier's features `[N, D]`."""
    return float(np.mean(list(class_diversity(features, labels).values())))


def ways(classes: str, plain: str, noisy: str, clean: str) -> dict[str, tuple[str, ConfigDict, str, int]]:
    """`{name: (workdir, guidance, workdir of the classifier, recurrence)}`; the scale is still to be filled in."""

    def network(workdir: str) -> ConfigDict:
        return harness.run_config(workdir).method.network

    found = {}
    if classes:
        found["classifier-free"] = (classes, section(name="classifier_free"), "", 1)
    if plain and noisy:
        guidance = section(name="classifier", network=network(noisy))
        found["classifier that has seen noise"] = (plain, guidance, noisy, 1)
    if plain and clean:
        forward = section(name="universal", network=network(clean))
        found["clean classifier on x0-hat (universal)"] = (plain, forward, clean, 1)
        found["the same on x_t"] = (plain, section(name="classifier", network=network(clean)), clean, 1)
        backward = section(name="universal", network=network(clean), backward_steps=5, backward_rate=0.3)
        found["universal, 5 backward steps, recurrence 3"] = (plain, backward, clean, 3)
    return found


def measure(generator: Generator, model: Any, seed: int, num: int, real: np.ndarray) -> dict[str, float]:
    """Returns one point of a curve."""
    begun = time.perf_counter()
    samples = generator.images(model, 1000 + seed, num, range(LABELS))
    seconds = time.perf_counter() - begun
    seen = Digits()(samples.images)
    return {
        "label_accuracy": class_accuracy(seen.probabilities, samples.labels).value,
        "frechet": frechet_distance(seen.features, real),
        "diversity": diversity(seen.features, samples.labels),
        "seconds": round(seconds, 1),
    }


class Way:
    """Holds a trained model with one way to guide it, at any scale."""

    def __init__(self, workdir: str, guidance: ConfigDict, classifier: str, recurrence: int, steps: int):
        config = harness.run_config(workdir)
        config.sampler = section(name="ddim", steps=steps, self_recurrence=recurrence)
        config.evaluate.batch_size = 125
        config.guidance = section(**{**guidance.to_dict(), "scale": 1.0})
        if classifier:
            config.init_from.classifier = classifier
        self.config, self.trained = config, harness.trained(workdir, config)
        self.source = self.trained.generator.source(config.data.eval_split)
        self.held_out = self.source.take(list(range(len(self.source))))
        self.real = Digits()(self.held_out["image"])

    def measure(self, scale: float, seed: int, num: int) -> dict[str, float]:
        """Returns one point of the curve."""
        self.config.guidance.scale = scale
        sources = {self.config.data.eval_split: self.source}
        generator = Generator(make_method(self.config), self.config, sources=sources)
        return measure(generator, self.trained.model, seed, num, self.real.features)

    def reference(self) -> dict[str, float]:
        """Returns the numbers of the real held-out digits."""
        label = self.held_out["label"]
        accuracy = class_accuracy(self.real.probabilities, label).value
        return {"label_accuracy": accuracy, "diversity": diversity(self.real.features, label)}


def tables(rows: harness.Rows, scales: tuple[float, ...]) -> Iterator[str]:
    """Makes a table for each number, with a row for each way and a column for each scale."""
    names = list(dict.fromkeys(row["way"] for row in rows))
    for name in ("label_accuracy", "frechet", "diversity"):
        lines = []
        for way in names:
            found = [[row[name] for row in rows.where(way=way, scale=scale)] for scale in scales]
            lines.append([way, *(harness.mean_and_deviation(values, empty="-") for values in found)])
        yield f"\n{name}, mean (standard deviation) over seeds\n"
        yield harness.table(["scale", *(f"{scale:g}" for scale in scales)], lines)


def main(
    out: Path,
    classes: Annotated[str, "a run of configs/ddpm_digits_classes.py"] = "",
    plain: Annotated[str, "a run of configs/ddpm_digits.py"] = "",
    noisy: Annotated[str, "a run of configs/noisy_classifier_digits.py"] = "",
    clean: Annotated[str, "a run of configs/classifier_digits.py with another seed than 0"] = "",
    scales: tuple[float, ...] = SCALES,
    num: int = 500,
    seeds: int = 3,
    steps: Annotated[int, "steps of DDIM"] = 50,
) -> None:
    harness.prepare()
    rows = harness.Rows(out, num=num)
    for name, of in ways(classes, plain, noisy, clean).items():
        way = Way(*of, steps)
        print(f"{name}; real held-out digits: {way.reference()}", flush=True)
        for scale in scales:
            for seed in range(seeds):
                key = {"way": name, "scale": scale, "seed": seed}
                rows.get(key, lambda way=way, scale=scale, seed=seed: way.measure(scale, seed, num))
    print("\n".join(tables(rows, scales)))


if __name__ == "__main__":
    sys.exit(harness.run(main))
