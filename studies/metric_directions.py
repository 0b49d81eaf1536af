"""Does each number move the way it should? The study compares real images with real ones: unchanged, blurred, noisy,
halved and copied.

    python -m studies.metric_directions
    python -m studies.metric_directions --fashion=t10k-images-idx3-ubyte.gz

Held-out images are the reference. The sets are other real images, the same blurred, the same with noise, real images
of half the classes; copies of a few training images. Every number is in the features of the data's classifier. A second
table has numbers of pairs, of images that are blurred and made noisy more and more. Each number has a direction to go
from that of real images; the script names every cell that goes another way, and then ends with status 1. Rows that need
published weights say how to fill them.

Recall under noise has no direction: noise sets samples apart, so that their balls grow and still reach the real images
(Naeem et al. 2020 say so of outliers). Coverage, whose balls are the real images', does fall.
"""

from __future__ import annotations

import dataclasses
import gzip
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
from scipy.ndimage import gaussian_filter

from jaxgen.data import open_source
from jaxgen.errors import UserError
from jaxgen.metrics.choice import open_network
from jaxgen.metrics.compare import compare, set_metrics
from jaxgen.metrics.distributions.memorisation import memorisation
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.networks.classifier import PackagedClassifier
from jaxgen.metrics.pairs.features import l1_distance, l2_distance
from jaxgen.metrics.pairs.pixels import WINDOWS, absolute_error, psnr, squared_error, ssim
from studies import harness

METRICS = ("frechet", "kid", "frechet_infinity", "inception_score", "precision", "recall", "density", "coverage")
METRICS += ("class_entropy", "confidence", "label_accuracy")
COPIED = 10  # training images that the memorising row copies
# where a row's number must be, compared with that of real images: + above, - below, 0 near, blank anywhere
EXPECTED = {
    "frechet": "++++", "kid": "++++", "frechet_infinity": "++++", "inception_score": "--- ", "precision": "--0 ",
    "recall": "- --", "density": "--  ", "coverage": "----", "class_entropy": "  - ", "confidence": "-- 0",
    "label_accuracy": "--00",
    "nearest_train_distance": "  0-", "share_of_near_copies": "  0+",
}  # fmt: skip
ROWS = ("real", "blurred", "noisy", "half the classes", "copies")
NEAR = 0.1  # what counts as near, absolute, and the least that a share must move
SHARES = ("precision", "recall", "density", "coverage", "class_entropy", "confidence", "label_accuracy")
WEIGHTS = {
    "fid, kid, inception_score, precision, recall (Inception)": "--network=inception --weights=pt_inception-2015-12-05-"
    "6726825d.pth --metrics=fid,kid,inception_score,precision,recall",
    "fid, clean resize (Inception)": "--network=inception --resize=clean --weights=pt_inception-2015-12-05-"
    "6726825d.pth --metrics=fid,kid",
    "lpips": "--metrics=lpips --weights=FOLDER",
    "kid, recall (CLIP)": "--network=clip --weights=FOLDER --metrics=kid,recall",
    "clip_score": "--metrics=clip_score --weights=FOLDER",
}


@dataclasses.dataclass(frozen=True)
class Data:
    """Holds three sets of real images of one data set.

    Attributes:
      held_out: the reference.
      memory: the images that a model would have learned from.
      fresh: further real images.
    """

    held_out: np.ndarray
    memory: np.ndarray
    fresh: np.ndarray


def blurred(images: np.ndarray, sigma: float) -> np.ndarray:
    """Returns uint8 images, each smoothed by a Gaussian of so many pixels."""
    smooth = gaussian_filter(images.astype(np.float64), (0, sigma, sigma, 0))
    return np.clip(np.round(smooth), 0, 255).astype(np.uint8)


def noisy(images: np.ndarray, sigma: float, seed: int = 0) -> np.ndarray:
    """Returns uint8 images with Gaussian noise of so many grey levels."""
    noise = np.random.default_rng(seed).normal(0, sigma, images.shape)
    return np.clip(np.round(images + noise), 0, 255).astype(np.uint8)


def sets_of(network: PackagedClassifier, data: Data, num: int) -> dict[str, np.ndarray]:
    """Returns `{row: images}`, equally many in each."""
    classes = network(data.fresh).probabilities.argmax(axis=1)
    half = data.fresh[classes < 5]
    if min(len(half), len(data.fresh)) < num:
        raise UserError(f"--num={num} images of half the classes are asked for; there are {len(half)}.")
    real = data.fresh[:num]
    return {
        "real": real,
        "blurred": blurred(real, real.shape[1] / 8),
        "noisy": noisy(real, 50),
        "half the classes": half[:num],
        "copies": data.memory[np.arange(num) % COPIED],
    }


def sets_table(network: PackagedClassifier, data: Data, rows: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Returns `{row: {metric: value}}`."""
    real = network(data.held_out)
    table = {}
    for row, images in rows.items():
        # a sample's class is what the network saw before the image was changed
        clean = rows["real"] if row in ("blurred", "noisy") else images
        labels = network(clean).probabilities.argmax(axis=1)
        found = compare(
            network(images), real, metrics=METRICS, network=network, reference_name="held-out", labels=labels
        )
        table[row] = {metric.name: found[metric.number(network)].value for metric in set_metrics(METRICS)}
        evidence = EvaluationImages(images, None, data.memory, data.held_out, None, "held-out")
        table[row] |= {name: score.value for name, score in memorisation(evidence).items()}
    return table


def check_sets(table: dict[str, dict[str, float]]) -> list[str]:
    """Returns the cells that went another way than they should."""
    wrong = []
    for metric, signs in EXPECTED.items():
        for row, sign in zip(ROWS[1:], signs, strict=True):
            start, value = table["real"][metric], table[row][metric]
            least = 0.02 if metric in SHARES else 1e-6
            near = abs(value - start) <= NEAR * max(abs(start), 1)
            right = {"+": value > start + least, "-": value < start - least, "0": near, " ": True}[sign]
            if not right:
                wrong.append(f"{metric}: real {start:.4g}, {row} {value:.4g}; expected {sign}")
    return wrong


def pair_functions(
    network: PackagedClassifier, side: int
) -> dict[str, tuple[str, Callable[[np.ndarray, np.ndarray], np.ndarray]]]:
    """Returns `{metric: (better, function)}`; SSIM is among them where its window fits."""
    found = {"psnr": ("higher", psnr), "l1": ("lower", absolute_error), "squared error": ("lower", squared_error)}
    for window, least in WINDOWS.items():
        if side >= least:
            found[f"ssim, {window}"] = ("higher", lambda a, b, window=window: ssim(a, b, window))
    for name, distance in (("feature_l1", l1_distance), ("feature_l2", l2_distance)):
        found[name] = ("lower", lambda a, b, d=distance: d(network(a).features, network(b).features))
    return found


def pairs_table(network: PackagedClassifier, images: np.ndarray) -> tuple[str, list[str]]:
    """Returns the table of pairs, and the cells that went another way."""
    steps = {
        "blurred": [blurred(images, sigma) for sigma in (0.3, 0.6, 1.2)],
        "noisy": [noisy(images, sigma) for sigma in (10, 30, 90)],
    }
    rows, wrong = [], []
    for name, (better, function) in pair_functions(network, images.shape[1]).items():
        cells = []
        for kind, sets in steps.items():
            values = [float(np.mean(function(images, changed))) for changed in sets]
            cells.append(" ".join(f"{v:.4g}" for v in values))
            falls = better == "higher"
            if any((a <= b) if falls else (a >= b) for a, b in zip(values, values[1:], strict=False)):
                wrong.append(f"{name}: {kind} {cells[-1]}; expected to {'fall' if falls else 'rise'}")
        rows.append([name, better, *cells])
    return harness.table(["pairs", "better", *(f"{kind}, more and more" for kind in steps)], rows), wrong


def split(images: np.ndarray, held_out: np.ndarray | None = None) -> Data:
    """Returns shuffled parts that share no image."""
    images = images[np.random.default_rng(0).permutation(len(images))]
    if held_out is None:
        held_out, images = images[: len(images) // 3], images[len(images) // 3 :]
    return Data(held_out, images[: len(images) // 2], images[len(images) // 2 :])


def idx_images(path: Path) -> np.ndarray:
    """Returns uint8 `[N, H, W, 1]` of an idx file, gzipped or not."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if data[:4] != b"\0\0\x08\x03":
        raise UserError(f"{path} is no idx file of images; give such as t10k-images-idx3-ubyte.gz.")
    return np.frombuffer(data, np.uint8, offset=16).reshape(np.frombuffer(data, ">i4", 3, offset=4))[..., None]


def report(network: PackagedClassifier, data: Data, num: int) -> list[str]:
    """Prints the tables of one data set; returns the cells that went another way."""
    rows = sets_of(network, data, num)
    table = sets_table(network, data, rows)
    print(f"\n{network.name}: n = {num} against {len(data.held_out)} held-out images, network {network.digest}\n")
    lines = []
    for metric, signs in EXPECTED.items():
        expected = " ".join(sign if sign.strip() else "." for sign in signs)
        lines.append([metric, *(f"{table[row][metric]:.4g}" for row in ROWS), expected])
    print(harness.table(["number", *ROWS, "expected"], lines))
    pairs, wrong = pairs_table(network, rows["real"])
    print(f"\n{pairs}")
    return [f"{network.name}, {cell}" for cell in (*check_sets(table), *wrong)]


def main(
    fashion: Annotated[str, "images of Fashion-MNIST: idx or idx.gz"] = "",
    num: Annotated[int, "images a row; by default 300 digits, 1000 clothes"] = 0,
) -> int:
    harness.prepare()
    wrong = []
    train, test = (open_source("digits", name, 8, 1).arrays["image"] for name in ("train", "test"))
    wrong += report(open_network("digits"), split(train, test), num or 300)
    if fashion:
        wrong += report(open_network("fashion"), split(idx_images(Path(fashion))), num or 1000)
    needed = [(name, f"`python -m jaxgen.metrics A B {options}`") for name, options in WEIGHTS.items()]
    print("\n" + harness.table(["number", "weights needed; to fill it"], needed))
    print("\n" + ("\n".join(f"WRONG WAY: {cell}" for cell in wrong) or "Every number moved the way it should."))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(harness.run(main))
