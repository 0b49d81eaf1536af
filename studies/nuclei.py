"""How well are nuclei found and told apart, with few labels and with many, within a stain and in another?

    python -m studies.nuclei --data=nuclei128.npz --out=runs/nuclei

The data are an npz with `images` (uint8 [N, H, W, 3]), `instances` (int [N, H, W]: 0, or the number of the nucleus),
`modality` (int [N], the stain) and `is_test` (bool [N]), such as those of the 2018 Data Science Bowl (BBBC038, CC0).
Each image is scaled by its own range and cut into windows of --side pixels; a nucleus that is cut is one in each.

Every student is configs/segmenter_nuclei.py: it learns ground, rim and core, and a watershed makes objects of them
(`jaxgen.metrics.analysis.instances`). Rows, by what it learned from:

    few            --labels images of all stains
    all            all training images
    stain K        the training images of one stain, for each of --stains: measured in its own stain and in the others
    pairs          --pairs, a file of python -m jaxgen.editing.dataset_gan pairs whose masks are such layers
    direct         no student: the masks of --direct, a run of the method segmentation on the same layers

The last three columns are of objects: the aggregated Jaccard index, the mean over pictures; the average precision at an
intersection over union of 0.5, and its mean from 0.5 to 0.95, of all objects of the pictures together. The mean IoU is
of nuclei and ground. Each row is appended to OUT/table.jsonl, and the same command goes on where it stopped. The
picture OUT/nuclei.png has held-out images, true objects and those of each row.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int, UInt8

from jaxgen.data.transforms import to_float
from jaxgen.editing.dataset_gan.commands import write_arrays
from jaxgen.errors import UserError
from jaxgen.metrics.analysis import instances as objects
from jaxgen.metrics.analysis.segmentation import confusion_matrix, mean_iou
from jaxgen.report.images import grid, save_png
from studies import harness

NAMES = {0: "dark fluorescence", 1: "grey bright field", 2: "stained tissue"}  # of `modality` in BBBC038's copy
BATCH, SHOWN = 44, 8
HEADS = ("learned from", "images", "measured on", "mean IoU", "AJI", "AP at 0.5", "AP, mean")


class Data:
    """Holds windows of images with their objects.

    Attributes:
      images, objects, stain, test: of each window, `test` whether it is held out.

    Raises:
      UserError: an entry is missing, or the sides are no multiples of `side`.
    """

    def __init__(self, path: str, side: int):
        with np.load(path, allow_pickle=False) as found:
            missing = [name for name in ("images", "instances", "modality", "is_test") if name not in found.files]
            if missing:
                raise UserError(f"--data={path} has no {missing[0]!r}; it has {', '.join(found.files)}.")
            images, maps = scaled(found["images"]), found["instances"]
            stain, test = found["modality"], found["is_test"]
        if images.shape[1] % side or images.shape[2] % side:
            raise UserError(f"--side={side} does not divide the sides of the images, {images.shape[1:3]}.")
        count = (images.shape[1] // side) * (images.shape[2] // side)
        self.images = windows(images, side)
        self.objects = np.stack([objects.relabelled(window) for window in windows(maps, side)])
        self.stain, self.test, self.image = (np.repeat(x, count) for x in (stain, test, np.arange(len(images))))

    @functools.cached_property
    def layers(self) -> UInt8[np.ndarray, "N H W"]:
        """Returns the layers of all windows."""
        return np.stack([objects.layers_of(one) for one in self.objects]).astype(np.uint8)

    def few(self, number: int, seed: int) -> Bool[np.ndarray, " N"]:
        """Returns which windows belong to `number` training images that a seed draws."""
        known = np.unique(self.image[~self.test])
        return np.isin(self.image, np.random.default_rng(seed).permutation(known)[:number])


def scaled(images: UInt8[np.ndarray, "N H W C"]) -> UInt8[np.ndarray, "N H W C"]:
    """Returns images whose own range, without its outermost half per cent, becomes 0 to 255."""
    low, high = (np.percentile(images, q, axis=(1, 2, 3), keepdims=True) for q in (0.5, 99.5))
    return np.round(255 * np.clip((images - low) / np.maximum(high - low, 1), 0, 1)).astype(np.uint8)


def windows(x: np.ndarray, side: int) -> np.ndarray:
    """Returns the windows `[N * n, side, side, ...]` of arrays `[N, H, W, ...]`, image after image."""
    count, height, width = x.shape[:3]
    cut = x.reshape(count, height // side, side, width // side, side, *x.shape[3:])
    return np.moveaxis(cut, 3, 2).reshape(-1, side, side, *x.shape[3:])


# ------------------------------------------------------------------ students


def told(workdir: Path) -> Callable[[UInt8[np.ndarray, "N H W C"]], Int[np.ndarray, "N H W"]]:
    """Returns the function of images to layers of a run that gives masks.

    Raises:
      UserError: the run knows other classes.
    """
    found = harness.trained(workdir)
    method = found.generator.method
    if getattr(method, "classes", 0) != len(objects.LAYERS):
        raise UserError(f"{workdir} tells no {', '.join(objects.LAYERS)}: train configs/segmenter_nuclei.py.")
    draw = jax.jit(lambda model, keys, image: method.sample(model, keys, {"image": image}))

    def of(images: UInt8[np.ndarray, "N H W C"]) -> Int[np.ndarray, "N H W"]:
        parts = []
        for i in range(0, len(images), BATCH):
            seen = to_float({"image": jnp.asarray(images[i : i + BATCH])})["image"]
            made = draw(found.model, jax.random.split(jax.random.key(0), len(seen)), seen)
            parts.append(np.asarray(made["mask"] if isinstance(made, dict) else made))
        return np.concatenate(parts)

    return of


def student(out: Path, name: str, seed: int, source: Path, *settings: str) -> Path:
    """Trains a student on a file; returns its run."""
    workdir = out / f"student_{name.replace(' ', '_')}_{seed}"
    harness.train("segmenter_nuclei", workdir, f"data.source=npz:{source}", f"seed={seed}", "train.tensorboard=False",
                  "evaluate.at_end=False", *settings)  # fmt: skip
    return workdir


def written(out: Path, name: str, data: Data, chosen: Bool[np.ndarray, " N"]) -> Path:
    """Writes the chosen training windows with their layers, and the held-out ones; returns the file."""
    path = out / f"{name.replace(' ', '_')}.npz"
    if not path.exists():
        write_arrays(path, {
            "train_images": data.images[chosen], "train_masks": data.layers[chosen],
            "test_images": data.images[data.test], "test_masks": data.layers[data.test],
        })  # fmt: skip
    return path


def measured(layers: Int[np.ndarray, "N H W"], truth: Int[np.ndarray, "N H W"]) -> dict[str, float]:
    """Returns the numbers of predicted layers beside true objects."""
    found = [objects.instances_of(one) for one in layers]
    pairs = list(zip(truth, found, strict=True))
    precision = objects.average_precision(np.sum([objects.matches(*pair) for pair in pairs], axis=0))
    matrix = confusion_matrix((truth > 0).astype(int), (layers > 0).astype(int), 2)
    return {
        "mean_iou": round(mean_iou(matrix).value, 4),
        "aji": round(float(np.mean([objects.aggregated_jaccard(*pair) for pair in pairs])), 4),
        "ap_50": round(float(precision[0]), 4),
        "ap": round(float(precision.mean()), 4),
    }


def coloured(maps: Int[np.ndarray, "N H W"]) -> UInt8[np.ndarray, "N H W 3"]:
    """Returns objects in colours of their own on black."""
    colours = np.random.default_rng(0).integers(80, 256, (maps.max() + 1, 3)).astype(np.uint8)
    colours[0] = 0
    return colours[maps]


def main(
    data: Annotated[str, "an npz of images, instances, modality and is_test"],
    out: Path,
    labels: Annotated[int, "labelled images of the row `few`"] = 20,
    stains: Annotated[tuple[int, ...], "stains that a student learns alone"] = (0, 2),
    seeds: Annotated[tuple[int, ...], "of the few images and of students"] = (0, 1, 2),
    side: Annotated[int, "pixels of a window's side"] = 64,
    pairs: Annotated[str, "a file of generated pairs whose masks are layers"] = "",
    direct: Annotated[str, "a run of the method segmentation on layers"] = "",
    images: Annotated[int, "training images, with repetitions, of a student"] = 24_000,
) -> None:
    harness.prepare()
    held = Data(data, side)
    out.mkdir(parents=True, exist_ok=True)
    table = Table(harness.Rows(out / "table.jsonl", data=Path(data).name, side=side, images=images), held, out)
    for seed in seeds:
        alone = {named(stain): ~held.test & (held.stain == stain) for stain in stains}
        for name, those in {f"few, {labels}": held.few(labels, seed), "all": ~held.test, **alone}.items():
            table.student(name, seed, those, images)
        if pairs:
            made = functools.partial(student, out, "pairs", seed, Path(pairs), f"train.total_images={images}")
            table.row("pairs", seed, 0, made)
    if direct:
        table.row("direct", seeds[0], 0, functools.partial(Path, direct))
    print(harness.table(HEADS, lines(table.rows, list(table.groups))))
    if table.shown:
        some = _some(held)
        parts = [held.images[held.test][some], *map(coloured, (held.objects[held.test][some], *table.shown))]
        save_png(out / "nuclei.png", grid(np.concatenate(parts), columns=SHOWN))


class Table:
    """Makes the rows, each on all held-out windows and on those of each stain.

    Attributes:
      shown: the objects of some held-out windows that each new row found.
    """

    def __init__(self, rows: harness.Rows, data: Data, out: Path):
        self.rows, self.data, self.out = rows, data, out
        stains = np.unique(data.stain)
        self.groups = {"all stains": data.test} | {named(k): data.test & (data.stain == k) for k in stains}
        self.shown: list[Int[np.ndarray, "n H W"]] = []

    def student(self, name: str, seed: int, those: Bool[np.ndarray, " N"], images: int) -> None:
        """Adds the rows of a student of some training windows."""

        def run() -> Path:
            source = written(self.out, f"{name.replace(', ', '_')}_{seed}", self.data, those)
            return student(self.out, name.replace(", ", "_"), seed, source, f"train.total_images={images}")

        self.row(name, seed, len(np.unique(self.data.image[those])), run)

    def row(self, name: str, seed: int, count: int, run: Callable[[], Path]) -> None:
        """Adds the rows of the run that a function makes, unless they are known."""
        if self.rows.where(row=name, seed=seed):
            return
        held = self.data.test
        layers = told(run())(self.data.images[held])
        for group, those in self.groups.items():
            numbers = measured(layers[those[held]], self.data.objects[those])
            self.rows.add({"row": name, "seed": seed, "count": count, "on": group, **numbers})
        self.shown.append(np.stack([objects.instances_of(one) for one in layers[_some(self.data)]]))


def named(stain: Any) -> str:
    """Returns the name of a stain."""
    return NAMES.get(int(stain), f"stain {int(stain)}")


def _some(data: Data) -> Int[np.ndarray, " n"]:
    """Returns held-out windows of all stains that have the most objects."""
    counts, stain = data.objects[data.test].max((1, 2)), data.stain[data.test]
    order = np.argsort(-counts, kind="stable")
    per = SHOWN // len(np.unique(stain))
    return np.concatenate([order[stain[order] == k][:per] for k in np.unique(stain)] + [order])[:SHOWN]


def lines(rows: harness.Rows, groups: list[str]) -> list[list[str]]:
    """Returns the table: means over seeds."""
    found = []
    for name in dict.fromkeys(row["row"] for row in rows):
        for group in groups:
            of = rows.where(row=name, on=group)
            numbers = (
                harness.mean_and_deviation([row[key] for row in of]) for key in ("mean_iou", "aji", "ap_50", "ap")
            )
            found.append([name, str(of[0]["count"] or ""), group, *numbers])
    return found


if __name__ == "__main__":
    sys.exit(harness.run(main))
