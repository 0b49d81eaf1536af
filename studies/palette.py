"""Does a model of several tasks complete pictures, task by task, better than what costs nothing, and in several ways?

    python main.py --config=configs/palette_shapes.py --workdir=runs/palette_shapes
    python main.py --config=configs/classifier_scenes.py --workdir=runs/classifier_scenes
    python -m jaxgen.evaluation.export_classifier runs/classifier_scenes --out=scenes.npz
    python -m studies.palette --workdir=runs/palette_shapes --classifier=scenes.npz --out=palette.jsonl

Each task of config.data.corruptions.condition is asked of the run for the same held-out images. Beside its draws stand

- what costs nothing: for a hole the mean of what is known, and the biharmonic continuation of scikit-image (Damelin &
  Hoang 2018); for the whole image the picture that the model is given, which is grey, or a JPEG;
- the same network with shuffled conditions: it is given the next image's picture, with this image's hole, and what it
  draws in the hole stands in this image;
- runs of one task alone, --singles=<task>=<run>, of the same network and budget;
- the true image.

All known pixels are those of the true image in every row, so that rows differ in what is completed alone.
`feature distance` is the mean squared distance to the true image in the classifier's features, as a share of that of
two different true images completed in the same place. `class kept` is the share of images whose class the classifier
sees; `of seen ones` counts images of which at least half of the object is known (entry `object_mask`), since nobody can
know the class of an object that is hidden. `known exact` is the share of known pixels that are equal in all levels.
`diversity` is the mean distance of two draws of one picture in the unknown part, as a share of that of two different
true images there; `truth` is the distance of a draw from the true image, as the same share: a perfect model has equal
numbers in both. A picture is written beside --out.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Float, Int, UInt8
from ml_collections import ConfigDict

from jaxgen.errors import UserError
from jaxgen.metrics.choice import open_network
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.report.images import grid, save_png
from jaxgen.sampling.generator import Generator
from jaxgen.sampling.held_out import HeldOut
from studies import harness

Images = UInt8[np.ndarray, "N H W C"]
Numbers = dict[str, float]
BATCH, VARIED = 32, 32  # images in a program; images of which there are several draws
HEADS = ("task", "completed by", "feature distance", "class kept", "of seen ones", "known exact", "diversity", "truth")


@dataclasses.dataclass(frozen=True)
class Asked:
    """Holds what a model was asked for in one task.

    Attributes:
      truth: the true images.
      picture: what the model was given, in the same levels.
      unknown: which pixels it was to draw, bool `[N, H, W]`.
      labels: the classes.
      seen: the share of each object's pixels that is known; 1 where the data do not say where the object is.
    """

    truth: Images
    picture: Images
    unknown: np.ndarray
    labels: Int[np.ndarray, " N"]
    seen: Float[np.ndarray, " N"]

    def first(self, count: int) -> Asked:
        """Returns the first images alone."""
        return Asked(*(getattr(self, field.name)[:count] for field in dataclasses.fields(self)))

    @property
    def whole(self) -> bool:
        """Returns whether nothing of the images is known."""
        return bool(self.unknown.all())

    def completed(self, images: Images) -> Images:
        """Returns the true images with what these images have in the unknown part."""
        return np.where(self.unknown[..., None], images, self.truth)


def levels(pictures: Float[np.ndarray, "N H W C"]) -> Images:
    return np.clip(np.round((np.asarray(pictures) + 1) * 127.5), 0, 255).astype(np.uint8)


def shuffled(asked: Asked) -> Images:
    """Returns the next image's picture for each: what is known of that image where this one is known."""
    if asked.whole:
        return np.roll(asked.picture, -1, axis=0)
    return np.where(asked.unknown[..., None], 128, np.roll(asked.truth, -1, axis=0)).astype(np.uint8)


def for_nothing(asked: Asked) -> dict[str, Images]:
    """Returns completions that need no model, by name."""
    if asked.whole:
        return {"the picture as it is": asked.picture}
    try:
        from skimage.restoration import inpaint_biharmonic
    except ImportError as error:
        raise UserError("The biharmonic continuation needs scikit-image: pip install scikit-image.") from error
    pairs = list(zip(asked.truth, asked.unknown, strict=True))
    means = [np.where(hole[..., None], image[~hole].mean(0), image) for image, hole in pairs]
    smooth = [inpaint_biharmonic(image, hole, channel_axis=-1) * 255 for image, hole in pairs]
    named = {"the mean of what is known": means, "biharmonic": smooth}
    return {name: np.clip(np.round(np.stack(images)), 0, 255).astype(np.uint8) for name, images in named.items()}


def inside(a: Images, b: Images, unknown: np.ndarray) -> Float[np.ndarray, " N"]:
    """Returns the root mean squared difference of images in their unknown part, of values in [-1, 1]."""
    squares = np.square((a.astype(np.float32) - b) / 127.5).mean(-1)
    return np.sqrt((squares * unknown).sum((1, 2)) / unknown.sum((1, 2)))


def spread(draws: list[Images], asked: Asked) -> tuple[float, float]:
    """Returns the distance of two draws, and that of a draw and the truth, as shares of that of two true images."""
    other = inside(np.roll(asked.truth, 1, axis=0), asked.truth, asked.unknown).mean()
    pairs = [inside(a, b, asked.unknown).mean() for a, b in itertools.combinations(draws, 2)]
    own = [inside(a, asked.truth, asked.unknown).mean() for a in draws]
    return float(np.mean(pairs) / other), float(np.mean(own) / other)


def judged(images: Images, asked: Asked, network: FeatureNetwork) -> Numbers:
    """Returns how near completed images are to the truth in the network's features, and how often the class is seen."""
    found, truth = network(asked.completed(images)), network(asked.truth)
    another = network(asked.completed(np.roll(asked.truth, -1, axis=0)))
    unit = np.square(another.features - truth.features).sum(1).mean()
    assert found.probabilities is not None
    right = found.probabilities.argmax(1) == asked.labels
    return {
        "feature distance": float(np.square(found.features - truth.features).sum(1).mean() / unit),
        "class kept": float(right.mean()),
        "of seen ones": float(right[asked.seen >= 0.5].mean()) if (asked.seen >= 0.5).any() else float("nan"),
    }


class Restorer:
    """Draws with one run, by one program for all tasks.

    Args:
      workdir: a run of the method palette, with the tasks of one_of.
      num: how many held-out images are asked for.
    """

    def __init__(self, workdir: str, num: int):
        self.config = harness.run_config(workdir, "palette")
        trained = harness.trained(workdir, self.config)
        config, sources = trained.generator.config, trained.generator.held_out.sources
        self._generator, self._model = Generator(trained.generator.method, config, BATCH, sources), trained.model
        self._rows = self._generator.source(config.data.eval_split).take(range(num))

    def asked(self, task: str) -> Asked:
        """Returns what a task makes of the held-out images."""
        config = ConfigDict(copy.deepcopy(self.config.to_dict()), type_safe=False)
        config.data.corruptions.condition.only = task
        truth = self._rows["image"]
        made = HeldOut(self._generator.method, config, self._generator.held_out.sources, {}).corrupted(truth, 0)
        unknown, seen = made["mask"] != 0, np.ones(len(truth))
        if "object_mask" in self._rows:
            of_object = self._rows["object_mask"] != 0
            seen = (of_object & ~unknown).sum((1, 2)) / np.maximum(of_object.sum((1, 2)), 1)
        seen = np.where(unknown.all((1, 2)), 1.0, seen)  # a grey or a compressed copy shows all of the object
        labels = self._rows["label"] if "label" in self._rows else np.zeros(len(truth), int)
        return Asked(truth, levels(made["condition"]), unknown, labels, seen)

    def draw(self, picture: Images, unknown: np.ndarray, seed: int = 0) -> Images:
        """Returns a draw for each picture."""
        given = {"condition": picture.astype(np.float32) / 127.5 - 1, "mask": unknown.astype(np.int32)}
        self._generator.held_out.given.update(given)
        return self._generator.images(self._model, seed, len(picture)).main


def by_a_model(model: Restorer, asked: Asked, draws: int, network: FeatureNetwork) -> tuple[Numbers, list[Images]]:
    """Returns a model's numbers, and its draws: the first of all images, the others of the first `VARIED`."""
    first, some = model.draw(asked.picture, asked.unknown), asked.first(VARIED)
    more = [model.draw(some.picture, some.unknown, seed) for seed in range(1, draws)]
    known = ~asked.unknown
    exact = {} if asked.whole else {"known exact": float((first == asked.truth)[known].mean())}
    varied = dict(zip(("diversity", "truth"), spread([first[:VARIED], *more], some), strict=True)) if more else {}
    return {**judged(first, asked, network), **exact, **varied}, [first, *more]


def cell(value: object) -> object:
    return f"{value:.3f}" if isinstance(value, float) else value


def measured(
    rows: harness.Rows, task: str, model: Restorer, single: Restorer | None, draws: int, network: FeatureNetwork
) -> list[Images]:
    """Adds a task's rows; returns what a picture shows: what is given, what costs nothing, three draws, the truth."""
    asked = model.asked(task)
    numbers, images = by_a_model(model, asked, draws, network)
    rows.add({"task": task, "by": "one model of all tasks", **numbers})
    if single is not None:
        rows.add({"task": task, "by": "a model of this task", **by_a_model(single, asked, draws, network)[0]})
    nothing = for_nothing(asked)
    control = model.draw(shuffled(asked), asked.unknown)
    for name, found in {**nothing, "shuffled conditions": control, "(truth)": asked.truth}.items():
        rows.add({"task": task, "by": name, **judged(found, asked, network)})
    return [asked.picture, list(nothing.values())[-1], *[images[k % draws] for k in range(3)], asked.truth]


def main(
    workdir: Annotated[str, "a run of the method palette, with the tasks of one_of"],
    classifier: Annotated[str, "an npz of python -m jaxgen.evaluation.export_classifier"],
    singles: Annotated[tuple[str, ...], "<task>=<run of this task alone>, with commas"] = (),
    num: Annotated[int, "held-out images"] = 128,
    draws: Annotated[int, "of each of the first 32 pictures"] = 4,
    out: Annotated[str, "file of the rows; a picture is put beside it"] = "",
) -> None:
    harness.prepare()
    model = Restorer(workdir, num)
    tasks = model.config.data.corruptions.condition.get("tasks", {})
    runs = harness.named(singles, "--singles", "colour=runs/palette_shapes_colour")
    for task in runs:
        if task not in tasks:
            raise UserError(f"--singles={task}=: {workdir} has the tasks {', '.join(sorted(tasks))}.")
    path, network = Path(out) if out else None, open_network("classifier", weights=classifier)
    alone = {task: Restorer(run, num) for task, run in runs.items()}
    rows = harness.Rows(path, workdir=workdir, num=num, draws=draws)
    shown = [measured(rows, task, model, alone.get(task), draws, network) for task in sorted(tasks)]
    keys = ("task", "by", *HEADS[2:])
    print(harness.table(HEADS, [[cell(row.get(key)) for key in keys] for row in rows]))
    if path:
        columns = np.stack([np.stack([images[:2] for images in images_of], axis=1) for images_of in shown])
        save_png(path.with_suffix(".png"), grid(columns.reshape(-1, *columns.shape[3:]), columns=12))


if __name__ == "__main__":
    sys.exit(harness.run(main))
