"""Does a few-shot model draw the class of the pictures that it is shown, of classes that it has never met?

    python main.py --config=configs/fsdm_digits.py --workdir=runs/fsdm_digits
    python -m studies.few_shot --workdir=runs/fsdm_digits --network=digits

Draws `--draws` images for each of `--sets` sets of each held-out class. Beside the samples for a set stand those for a
set of another class, those for no set (the null of guidance), and real images of the class that are not in the set. The
accuracy is the share of images that a judge takes for the class of the set:

- With --network, a classifier that comes with jaxgen and knows all classes.
- Else the nearest class mean among the class and 19 other held-out classes, which are the same for all rows. An image
  is told by how often its strokes run in which direction where, after it is centred (histograms of oriented gradients,
  Dalal & Triggs 2005), and distances are whitened by the spread within the classes of training (Fisher's linear
  discriminant). So the judge never learned from the held-out classes; their means are those of real images without the
  shown ones and without the judged one.

The diversity is the mean distance between the images of one set in the judge's features, and `nearest_shown` the mean
root of the squared pixel difference to the nearest picture of the set, both as a share of what real images have: a
model that copies what it is shown has a nearest_shown near 0.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
from scipy.ndimage import gaussian_filter

from jaxgen.data import Source
from jaxgen.metrics.distributions.diversity import diversity
from jaxgen.metrics.networks.classifier import packaged
from jaxgen.report.images import grid, save_png
from jaxgen.sampling.restore import TrainedModel
from studies import harness

DIRECTIONS, CELLS, SHRINKAGE, CANDIDATES = 6, 7, 0.3, 20


@dataclasses.dataclass(frozen=True)
class Shown:
    """Holds S sets of held-out classes.

    Attributes:
      labels: the class of each, [S].
      indices: the images that are shown, [S, K].
      others: other real images of the class, [S, D].
    """

    labels: np.ndarray
    indices: np.ndarray
    others: np.ndarray


def chosen_sets(labels: np.ndarray, size: int, sets: int, draws: int, seed: int) -> Shown:
    """Chooses sets of each class at random, and as many other real images of the class as are drawn."""
    random, found = np.random.default_rng(seed), []
    for label in np.unique(labels).repeat(sets):
        order = random.permutation(np.flatnonzero(labels == label))
        found.append((label, order[:size], order[size : size + draws]))
    return Shown(*(np.array(values) for values in zip(*found, strict=True)))


def centred(images: np.ndarray) -> np.ndarray:
    """Returns grey images `[N, H, W]` shifted so that the centre of their ink is that of the image."""
    found = []
    for image in images:
        total = image.sum() + 1e-6
        middles = [(image.sum(1 - axis) * np.arange(side)).sum() / total for axis, side in enumerate(image.shape)]
        shift = [round((side - 1) / 2 - middle) for side, middle in zip(image.shape, middles, strict=True)]
        found.append(np.roll(image, shift, (0, 1)))
    return np.stack(found)


def strokes(images: np.ndarray) -> np.ndarray:
    """Returns histograms of oriented gradients `[N, D]` of unit length, of uint8 images `[N, H, W, C]`."""
    grey = centred(images.astype(np.float32).mean(-1) / 255)
    smooth = gaussian_filter(grey, (0, 0.7, 0.7))
    rows, columns = np.gradient(smooth, axis=1), np.gradient(smooth, axis=2)
    angle, strength, maps = np.arctan2(rows, columns), np.hypot(rows, columns), []
    count, height, width = grey.shape
    for k in range(DIRECTIONS):
        away = np.abs((angle - k * np.pi / DIRECTIONS + np.pi / 2) % np.pi - np.pi / 2)
        near = gaussian_filter(np.maximum(0, 1 - away * DIRECTIONS / np.pi) * strength, (0, 2, 2))
        step = (height // CELLS, width // CELLS)
        near = near[:, : step[0] * CELLS, : step[1] * CELLS]
        maps.append(near.reshape(count, CELLS, step[0], CELLS, step[1]).mean((2, 4)))
    found = np.sqrt(np.maximum(np.stack(maps, -1), 0)).reshape(count, -1)
    return found / (np.linalg.norm(found, axis=1, keepdims=True) + 1e-6)


class Prototypes:
    """Judges by the nearest class mean, in features that are whitened on the classes of training."""

    def __init__(self, seen: tuple[np.ndarray, np.ndarray], unseen: tuple[np.ndarray, np.ndarray], seed: int):
        values, labels = strokes(seen[0]), seen[1]
        classes, of = np.unique(labels, return_inverse=True)
        means = np.stack([values[of == i].mean(0) for i in range(len(classes))])
        within = np.cov((values - means[of]).T)
        floor = np.trace(within) / len(within) * np.eye(len(within))
        self._whiten = np.linalg.cholesky(np.linalg.inv((1 - SHRINKAGE) * within + SHRINKAGE * floor))
        self.features, self.labels = self.see(unseen[0]), unseen[1]
        self.classes, random = np.unique(self.labels), np.random.default_rng(seed)
        count = min(CANDIDATES, len(self.classes)) - 1
        self._rivals = {c: random.choice(self.classes[self.classes != c], count, replace=False) for c in self.classes}

    @property
    def chance(self) -> float:
        return 1 / min(CANDIDATES, len(self.classes))

    def see(self, images: np.ndarray) -> np.ndarray:
        return strokes(images) @ self._whiten

    def right(self, images: np.ndarray, label: int, shown: np.ndarray, own: np.ndarray | None) -> np.ndarray:
        """Returns which images are nearest to the mean of their class; `own` are their indices, of real ones."""
        found = []
        for i, value in enumerate(self.see(images)):
            left_out = [*shown, *([] if own is None else [own[i]])]
            kept = np.setdiff1d(np.arange(len(self.labels)), left_out)
            candidates = [label, *self._rivals[label]]
            means = [self.features[kept[self.labels[kept] == c]].mean(0) for c in candidates]
            found.append(np.argmin(np.square(np.stack(means) - value).sum(1)) == 0)
        return np.array(found)


class Network:
    """Judges by a classifier that comes with jaxgen."""

    def __init__(self, name: str):
        self._network = packaged(name, "--network")

    @property
    def chance(self) -> float:
        return 1 / self._network.network.num_classes

    def see(self, images: np.ndarray) -> np.ndarray:
        return self._network(images).features

    def right(self, images: np.ndarray, label: int, shown: np.ndarray, own: np.ndarray | None) -> np.ndarray:
        probabilities = self._network(images).probabilities
        assert probabilities is not None
        return probabilities.argmax(1) == label


def everything(source: Source) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(source.take(range(len(source)))["image"]), source.column("label")


def measured(
    drawn: np.ndarray, shown: Shown, images: np.ndarray, judge: Prototypes | Network, real: bool = False
) -> dict[str, float]:
    """Returns the numbers of images `[S, D, H, W, C]`, D for each set."""
    right, spread, nearest = [], [], []
    for i, label in enumerate(shown.labels):
        own = shown.others[i] if real else None
        right.append(judge.right(drawn[i], int(label), shown.indices[i], own))
        spread.append(diversity(judge.see(drawn[i])))
        gaps = drawn[i][:, None].astype(np.float32) - images[shown.indices[i]][None]
        nearest.append(np.sqrt(np.square(gaps / 127.5).mean((2, 3, 4))).min(1))
    found = np.concatenate(right)
    accuracy, error = float(found.mean()), float(found.std() / np.sqrt(len(found)))
    return {"n": len(found), "accuracy": accuracy, "error": error, "diversity": float(np.mean(spread)),
            "nearest_shown": float(np.mean(nearest))}  # fmt: skip


def sampler(trained: TrainedModel, draws: int, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from sets, float32 `[S, K, H, W, C]`, to images `[S, draws, H, W, C]`."""

    def sample(sets: np.ndarray) -> np.ndarray:
        generator = trained.generator.changed(trained.generator.method, {"set": sets})
        images = generator.images(trained.model, seed, len(sets) * draws).main  # image i is of set i % S
        return images.reshape(draws, len(sets), *images.shape[1:]).swapaxes(0, 1)

    return sample


def main(
    workdir: Annotated[str, "a run of a few-shot model"],
    network: Annotated[str, "a classifier of jaxgen as judge, such as digits; the nearest class mean by default"] = "",
    sets: Annotated[int, "sets of each held-out class"] = 1,
    draws: Annotated[int, "images for each set"] = 5,
    sizes: Annotated[tuple[int, ...], "numbers of pictures in a set, with commas; that of training by default"] = (),
    scales: Annotated[tuple[float, ...], "guidance scales, with commas; the run's own by default"] = (),
    seed: int = 0,
    out: Annotated[str, "file of the rows; pictures are put beside it"] = "",
) -> None:
    harness.prepare()
    config = harness.run_config(workdir)
    scales = scales or (float(config.guidance.get("scale", 1.0)),)
    path = Path(out) if out else None
    rows = harness.Rows(path, workdir=workdir, network=network, sets=sets, draws=draws, seed=seed)
    trained = harness.trained(workdir, config)
    seen, unseen = (trained.generator.source(split) for split in (config.data.split, config.data.eval_split))
    images, labels = everything(unseen)
    judge = Network(network) if network else Prototypes(everything(seen), (images, labels), seed)
    for size in sizes or (int(config.data.options.get("size", 5)),):
        shown = chosen_sets(labels, size, sets, draws, seed)
        pictures = images[shown.indices].astype(np.float32) / 127.5 - 1
        far = np.roll(np.arange(len(shown.labels)), sets * (len(np.unique(labels)) // 2), axis=0)
        kinds = {"the set": pictures, "a set of another class": pictures[far], "no set": np.zeros_like(pictures)}
        rows.get(
            {"what": "real images", "size": size, "scale": None},
            lambda shown=shown: (
                measured(images[shown.others], shown, images, judge, real=True) | {"chance": judge.chance}
            ),
        )
        for scale in scales:
            config.guidance.update(name="classifier_free", scale=scale)
            sample = sampler(harness.trained(workdir, config), draws, seed)
            for what, given in kinds.items():
                key = {"what": what, "size": size, "scale": scale}
                if rows.where(**key):
                    continue
                drawn = sample(given)
                rows.add(key | measured(drawn, shown, images, judge) | {"chance": judge.chance})
                if path and what == "the set":
                    save_pictures(path.with_name(f"{path.stem}_{size}_{scale:g}.png"), images[shown.indices], drawn)
    heads = ["what", "size", "scale", "n", "accuracy", "error", "diversity", "nearest_shown"]
    print(harness.table(heads, [[_short(row[head]) for head in heads] for row in rows]))


def _short(value: object) -> object:
    return f"{value:.3f}" if isinstance(value, float) else value


def save_pictures(path: Path, shown: np.ndarray, drawn: np.ndarray, lines: int = 12) -> None:
    """Writes a picture with a line for each of some sets: what was shown, a white gap, and what was drawn."""
    chosen = np.linspace(0, len(shown) - 1, min(lines, len(shown))).astype(int)
    white = np.full((len(chosen), 1, *shown.shape[2:]), 255, np.uint8)
    cells = np.concatenate([shown[chosen], white, drawn[chosen][:, :8]], axis=1)
    save_png(path, grid(cells.reshape(-1, *cells.shape[2:]), cells.shape[1]))


if __name__ == "__main__":
    sys.exit(harness.run(main))
