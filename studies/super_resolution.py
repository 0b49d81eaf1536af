"""Is a picture that was made larger true to its small copy, to its class, and is it taken for a real one?

    python main.py --config=configs/sr3_fashion_mnist.py --workdir=runs/sr3_fashion_mnist
    python main.py --config=configs/regression_fashion_mnist.py --workdir=runs/regression_fashion_mnist
    python -m studies.super_resolution --workdir=runs/sr3_fashion_mnist --control=runs/regression_fashion_mnist

Enlarges the small copies of held-out images by a run, by its control, by nearest neighbours and by a cubic kernel, and
holds each against the true image: PSNR, SSIM, the distance between its small copy and the given one (of values in
[-1, 1]), and how often a classifier sees the true class.

The fool rate is that of the quiz (docs/quiz.md), with a network in the place of people: it sees an enlarged image and
the true one side by side, in a random order, learns on two thirds of the pairs to say which is real, and is asked
about the others. 50 % is the best that can be had. Prints a table, and writes a picture with --out: in each column a
small copy, the enlarged images in the table's order, and the truth.

The classifier is that of config.evaluate.network, or with --classifier that of a file of export_classifier. The
feature distance is the mean squared distance of an image to its own true one in the classifier's features.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.arrays import to_uint8
from jaxgen.metrics.analysis.classification import classification_accuracy_score
from jaxgen.metrics.analysis.human import wilson_interval
from jaxgen.metrics.asked.hint_error import hint_error
from jaxgen.metrics.choice import open_network
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.networks.trained import TrainedClassifier
from jaxgen.metrics.pairs.pixels import psnr, ssim
from jaxgen.networks.classifier import Classifier
from jaxgen.report.images import grid, save_png
from jaxgen.sampling.restore import TrainedModel
from studies import harness

HEADS = (
    "enlarged by", "PSNR", "SSIM", "distance of small copies", "class accuracy", "feature distance",
    "fool rate of a network",
)  # fmt: skip


def side_by_side(found: np.ndarray, truth: np.ndarray, swapped: np.ndarray) -> np.ndarray:
    """Returns `[N, H, 2 W, C]`: the true image at the right where `swapped`, else at the left."""
    pairs = np.concatenate([truth, found], axis=2), np.concatenate([found, truth], axis=2)
    return np.where(swapped[:, None, None, None], pairs[1], pairs[0])


def fool_rate(found: np.ndarray, truth: np.ndarray, steps: int) -> str:
    """Returns the share of unseen pairs in which a network takes the enlarged image for the real one, with interval."""
    learned = 2 * len(found) // 3
    both = [np.zeros(learned, bool), np.ones(learned, bool)]  # each pair is learnt in both orders
    images = np.concatenate([side_by_side(found[:learned], truth[:learned], order) for order in both])
    order = np.random.default_rng(0).random(len(found) - learned) < 0.5
    judge = Classifier(num_classes=2, widths=(16, 32, 48), features=32, dropout=0.2)
    unseen = side_by_side(found[learned:], truth[learned:], order)
    labels = np.concatenate(both).astype(int)
    score = classification_accuracy_score(images, labels, unseen, order.astype(int), judge, steps, batch=64)
    fooled = round((1 - score.samples.value) * len(order))
    low, high = wilson_interval(fooled, len(order))
    return f"{fooled / len(order):.3f} ({low:.3f} to {high:.3f})"


def numbers(
    name: str, found: np.ndarray, truth: np.ndarray, trained: TrainedModel, network: FeatureNetwork, steps: int
) -> list[str]:
    """Returns a row of the table."""
    config, held_out = trained.generator.config, trained.generator.held_out
    entry = next(iter(config.data.corruptions))
    asked, again = (held_out.corrupted(images, 0) for images in (truth, found))
    labels = trained.generator.source(config.data.eval_split).take(list(range(len(truth))))["label"]
    see, real = network(found), network(truth)
    assert see.probabilities is not None
    right = (see.probabilities.argmax(axis=1) == labels).mean()
    away = np.square(see.features - real.features).mean(axis=1).mean()
    same = np.array_equal(found, truth)
    cells = ["", "1", "0"] if same else [
        f"{psnr(found, truth).mean():.2f}", f"{ssim(found, truth).mean():.3f}",
        f"{hint_error(asked, again, entry).mean():.3f}",
    ]  # fmt: skip
    fooled = "" if same or not steps else fool_rate(found, truth, steps)
    return [name, *cells, f"{right:.3f}", f"{away:.3f}", fooled]


def main(
    workdir: Annotated[str, "a run that makes larger what config.data.corruptions has made small"],
    control: Annotated[str, "a run of the method regression on the same data"],
    num: Annotated[int, "held-out images"] = 600,
    steps: Annotated[int, "of the training of the network that is asked which is real; 0 asks none"] = 400,
    classifier: Annotated[str, "a file of export_classifier; the run's config.evaluate.network by default"] = "",
    out: Annotated[str, "a PNG that is written"] = "",
) -> None:
    harness.prepare()
    runs = {path: harness.trained(path) for path in (workdir, control)}
    trained = runs[workdir]
    named = trained.generator.config.evaluate.network
    network = TrainedClassifier(classifier) if classifier else open_network(named, "config.evaluate.network")
    config = trained.generator.config
    truth = trained.generator.source(config.data.eval_split).take(list(range(num)))["image"]
    small = next(iter(trained.generator.held_out.corrupted(truth, 0).values()))
    shape = (num, *truth.shape[1:3], small.shape[-1])

    def resized(how: str) -> np.ndarray:
        return np.asarray(to_uint8(jax.image.resize(jnp.asarray(small), shape, how)))

    drawn = {Path(path).name: run.generator.images(run.model, 0, num).images for path, run in runs.items()}
    drawn |= {"cubic kernel": resized("cubic"), "nearest neighbours": resized("nearest"), "(truth)": truth}
    rows = [numbers(name, found, truth, trained, network, steps) for name, found in drawn.items()]
    print(harness.table(HEADS, rows))
    if out:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        columns = [drawn["nearest neighbours"], *list(drawn.values())[:3], truth]
        save_png(Path(out), grid(np.concatenate([images[:12] for images in columns]), columns=12))


if __name__ == "__main__":
    sys.exit(harness.run(main))
