"""Asks which score tells outliers from digits: the variational bound, the exact likelihood, a classifier's confidence.

    python main.py --config=configs/ddpm_digits.py --workdir=runs/ddpm_digits
    python -m studies.outliers --workdir=runs/ddpm_digits --other=fashion=t10k-images-idx3-ubyte.gz

It compares held-out images of the model's own data with permuted, rotated and cropped ones, noise, and other data,
shrunk to the model's size. Prints the AUROC of each score, high for outliers: below 0.5 it is a reversal, marked with
<. A second table gives the classifier's accuracy on what each score accepts of data and outliers mixed in equal parts:
a label given to an outlier is wrong. Bits per dimension are tested in both directions: |bits - median on training
images| asks whether an image is as probable as the data are, not whether it is improbable (typicality; Nalisnick et al.
2019).

The other direction, where reversals are famous: clothes at 8x8 as an npz file (`--shrink=IN.gz,LABELS.gz,OUT.npz` makes
one), configs/ddpm_digits.py and configs/classifier_digits.py trained on it (`--config.data.source=npz:OUT.npz`), then

    python -m studies.outliers --workdir=runs/ddpm_clothes --classifier=runs/classifier_clothes --other=digits
"""

from __future__ import annotations

import functools
import gzip
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.data import open_source
from jaxgen.diffusion.likelihood import image_bits, variational_bound
from jaxgen.errors import UserError
from jaxgen.metrics.analysis.outliers import accuracy_rejection, auroc, corrupted
from jaxgen.metrics.networks.digits import Digits
from jaxgen.sampling.restore import TrainedModel
from studies import harness

REJECTED = np.array([0.0, 0.1, 0.25, 0.5, 0.75])
ORDER = ("bound", "bound, typicality", "flow", "flow, typicality", "confidence")
Scores = dict[str, dict[str, np.ndarray]]  # {score: {set of images: values [N]}}


def image_sets(
    trained: TrainedModel, other: list[str], num: int, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns `{set: images}`, "data" the held-out ones and "training" those that say what is typical, and "data"'s
    labels.
    """
    side = trained.generator.method.image_shape[0]
    held_out, training = (trained.generator.source(split) for split in ("test", "train"))
    chosen = held_out.take(list(range(min(num, len(held_out)))))
    inside = np.asarray(chosen["image"])
    sets = {"data": inside, **corrupted(inside, seed)}
    for named in other:
        name, _, path = named.partition("=")
        found = _images(Path(path)) if path else open_source(name, "test", 8, 1).arrays["image"][..., 0]
        sets[name] = shrunk(found[: len(inside)], side)
    sets["training"] = np.asarray(training.take(list(range(len(inside))))["image"])
    return sets, np.asarray(chosen["label"])


def class_probabilities(workdir: str) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from uint8 images to probabilities `[N, K]`, by a classifier's run, or by the package's
    classifier.
    """
    if not workdir:
        return lambda images: Digits()(images).probabilities
    trained = harness.trained(workdir)
    network, weights = trained.generator.method.network, trained.model.params["classifier"]

    def probabilities(images: np.ndarray) -> np.ndarray:
        logits, _ = network.apply({"params": weights}, images.astype(np.float32) / 127.5 - 1)
        return np.asarray(jax.nn.softmax(logits), np.float64)

    return probabilities


def bits(trained: TrainedModel, levels: int, steps: int, probes: int) -> dict[str, Callable]:
    """Returns the two functions (params, images, keys) -> bits per dimension `[N]`."""
    method = trained.generator.method

    def bound(params, images, keys):
        x0 = images.astype(jnp.float32) / 127.5 - 1
        return variational_bound(method.denoiser(params), method.schedule, x0, keys, levels=levels).total

    def flow(params, images, keys):
        return image_bits(method.denoiser(params), method.schedule, images, keys, steps=steps, probes=probes)

    return {"bound": bound, "flow": flow}


def bits_of_sets(run: Callable, sets: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Returns a function (images, keys) -> bits on each set, fifty images at a time."""
    found = {}
    for which, (kind, images) in enumerate(sets.items()):
        root = jax.random.fold_in(jax.random.key(seed), which)
        keys = jax.vmap(lambda i, root=root: jax.random.fold_in(root, i))(jnp.arange(len(images)))
        parts = np.array_split(np.arange(len(images)), -(-len(images) // 50))
        found[kind] = np.concatenate([np.asarray(run(jnp.asarray(images[part]), keys[part])) for part in parts])
    return found


def all_scores(functions: dict[str, Callable], trained: TrainedModel, sets: dict[str, np.ndarray], seed: int) -> Scores:
    """Returns each score, and its distance from the median of training images (typicality)."""
    scores = {}
    for name, function in functions.items():
        start = time.perf_counter()
        scores[name] = bits_of_sets(functools.partial(jax.jit(function), trained.model.params), sets, seed)
        means = ", ".join(f"{kind} {values.mean():.2f}" for kind, values in scores[name].items())
        seconds = time.perf_counter() - start
        print(f"{name}: {seconds:.0f} s with compilation; mean bits per dimension: {means}", flush=True)
        typical = np.median(scores[name]["training"])
        scores[f"{name}, typicality"] = {k: np.abs(v - typical) for k, v in scores[name].items()}
    return scores


def auroc_table(scores: Scores, outliers: list[str]) -> str:
    rows = []
    for kind in outliers:
        values = [auroc(scores[name]["data"], scores[name][kind]) for name in ORDER]
        rows.append([kind, *(f"{v:.3f}{' <' if v < 0.5 else ''}" for v in values)])
    return harness.table(["outliers", *ORDER], rows)


def rejection_table(scores: Scores, outliers: list[str], right: np.ndarray) -> str:
    """Makes a table of accuracies on what each score accepts.

    right: whether the classifier is right on each image of the data.
    """
    rows = []
    for kind in outliers:
        correct = np.concatenate([right, np.zeros(len(scores["bound"][kind]), bool)])
        for name in ORDER:
            both = np.concatenate([scores[name]["data"], scores[name][kind]])
            rows.append([kind, name, *(f"{v:.3f}" for v in accuracy_rejection(both, correct, REJECTED))])
    return harness.table(["outliers", "score", *(f"{r:.0%}" for r in REJECTED)], rows)


def main(
    workdir: Annotated[str, "a trained unconditional diffusion run of grey images"] = "",
    classifier: Annotated[str, "a classifier's run on the same data; else the package's classifier of digits"] = "",
    other: Annotated[list[str], "NAME[=FILE], outliers: .npz, idx or idx.gz; or digits; may be given again"] = (),
    num: Annotated[int, "images, and outliers of each kind"] = 200,
    shrink: Annotated[str, "IMAGES,LABELS,OUT: write an 8x8 npz file and stop"] = "",
    levels: Annotated[int, "evaluations of the bound; 0 for all levels"] = 100,
    steps: Annotated[int, "Runge-Kutta steps of the flow"] = 16,
    probes: Annotated[int, "probes of Hutchinson's estimate; 0 for the exact trace"] = 4,
    seed: int = 0,
) -> None:
    if shrink:
        images, labels, out = map(Path, shrink.split(","))
        np.savez_compressed(out, images=shrunk(_idx(images), 8), labels=_idx(labels).astype(np.int32))
        return
    harness.prepare()
    trained = harness.trained(workdir)
    method = trained.generator.method
    if method.image_shape[2] != 1 or getattr(method.network, "num_classes", 0):
        raise UserError("This table is made for an unconditional model of grey images, such as configs/ddpm_digits.py.")
    sets, labels = image_sets(trained, other, num, seed)
    outliers = [name for name in sets if name not in ("data", "training")]
    print(f"{len(labels)} held-out images of {trained.generator.source('test').name}, as many outliers of each kind; "
          f"model at {trained.images:,} images")  # fmt: skip
    probabilities = class_probabilities(classifier)
    scores = all_scores(bits(trained, levels, steps, probes), trained, sets, seed)
    scores["confidence"] = {name: 1 - probabilities(images).max(axis=1) for name, images in sets.items()}
    print(f"\nAUROC (< marks a reversal)\n\n{auroc_table(scores, outliers)}")
    right = probabilities(sets["data"]).argmax(axis=1) == labels
    print("\nAccuracy on what is accepted, data and outliers mixed one to one, by the share rejected\n")
    print(rejection_table(scores, outliers, right))


def _images(path: Path) -> np.ndarray:
    """Returns uint8 `[N, H, W]` from an idx file, gzipped or not, or the largest array of an npz."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            found = max((file[name] for name in file.files), key=np.size)
        return found.reshape(found.shape[:3])
    return _idx(path)


def _idx(path: Path) -> np.ndarray:
    """Returns the uint8 array of an idx file, gzipped or not."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    axes = data[3]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(np.frombuffer(data, ">i4", axes, offset=4))


def shrunk(images: np.ndarray, side: int) -> np.ndarray:
    """Returns uint8 `[N, H, W]` images as `[N, side, side, 1]`, by means over equal areas."""

    def shares(size: int) -> np.ndarray:
        edges, pixel = np.linspace(0, size, side + 1), np.arange(size)
        low, high = edges[:-1, None], edges[1:, None]
        return np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, 1) * side / size

    height, width = (shares(n) for n in images.shape[1:])
    small = np.einsum("ih,nhw,jw->nij", height, images.astype(np.float64), width)
    return np.round(small).astype(np.uint8)[..., None]


if __name__ == "__main__":
    sys.exit(harness.run(main))
