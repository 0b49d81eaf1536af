"""Is a chain of three small models as good as one model, and what does noise or blur on its small images change?

    python main.py --config=configs/cascade_shapes_base.py --workdir=runs/cascade_shapes_base
    python main.py --config=configs/cascade_shapes_32.py --workdir=runs/cascade_shapes_32
    python main.py --config=configs/cascade_shapes_64.py --workdir=runs/cascade_shapes_64
    python main.py --config=configs/ddpm_shapes_64.py --workdir=runs/ddpm_shapes_64
    python main.py --config=configs/classifier_shapes.py --workdir=runs/classifier_shapes
    python -m jaxgen.evaluation.export_classifier runs/classifier_shapes --out=shapes_64.npz
    python -m studies.cascades --classifier=shapes_64.npz --stages=runs/cascade_shapes_base,runs/cascade_shapes_32,\\
runs/cascade_shapes_64 --control=runs/ddpm_shapes_64 --out=cascades.jsonl

Samples the chain for each of --noises, the noise that is added to what the second stage reads, then the same chain with
the upsamplers of --plain, which were trained without augmentation, and the one model of --control. Each row has the
Fréchet distance to held-out images in the features of a classifier, its floor (as many real images), its excess (0 for
real images, 1 for noise), and how often the classifier sees the class that was asked for. Beside the chain stands
what its upsamplers make of small copies of true images, which shows how much of the error is that of the stage before.

The cost is the processor seconds of this process for one image, after compiling; --speed measures it. Images a second
are right only on a machine that does nothing else. One row at a time is appended to --out, and the same command goes on
where it stopped. --picture writes a PNG with a line for each system.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from ml_collections import ConfigDict

from jaxgen.config import section
from jaxgen.config.files import load_config
from jaxgen.data import open_source
from jaxgen.metrics.distributions.frechet import frechet_distance
from jaxgen.metrics.networks.trained import TrainedClassifier
from jaxgen.report.images import grid, save_png
from jaxgen.sampling.chains import open_chain
from jaxgen.sampling.restore import TrainedModel
from jaxgen.sampling.samples import Samples
from studies import harness

HEADS = ("system", "sampling noise", "Fréchet distance", "excess", "class accuracy", "CPU seconds an image")
SHOWN = 12  # columns of the picture
NOISED = "overrides.stage_1.parts.low.sampling_noise"


def chain_config(stages: tuple[str, ...], noise: float | None, factor: int = 0) -> ConfigDict:
    """Returns the config of a chain of runs.

    Args:
      noise: what is added to the images that the first upsampler reads; None for one that learned without.
      factor: above 0 the first stage reads copies of held-out images that are this many times smaller.
    """
    config, _ = load_config(harness.config_path("cascade_shapes"))
    config.init_from.pretrained = stages
    parts = section(parts=section(low=section(sampling_noise=noise)))
    config.method.overrides = section() if noise is None else section(**{f"stage_{0 if factor else 1}": parts})
    if factor:
        config.data.corruptions.condition = section(name="low_resolution", factor=factor)
    return config


class Judge:
    """Holds what images are measured by: a classifier, and the features of held-out images."""

    def __init__(self, classifier: str, num: int, real: int):
        config, _ = load_config(harness.config_path("cascade_shapes"))
        data = config.data
        source = open_source(data.source, data.eval_split, data.resolution, data.channels, data.num_classes)
        self.network, self.num = TrainedClassifier(classifier), num
        self.truth = source.take(range(num))
        self.features = self.network(source.take(range(num, min(num + real, len(source))))["image"]).features
        noise = np.random.default_rng(0).integers(0, 256, self.truth["image"].shape, dtype=np.uint8)
        self.floor, self.worst = self.distance(self.truth["image"]), self.distance(noise)

    def distance(self, images: np.ndarray) -> float:
        """Returns the Fréchet distance of uint8 images to held-out ones."""
        return frechet_distance(self.network(images).features, self.features)

    def measure(self, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Returns the numbers of uint8 images that were drawn for labels."""
        seen, distance = self.network(images).probabilities, self.distance(images)
        assert seen is not None
        return {
            "frechet": distance,
            "floor": self.floor,
            "excess": (distance - self.floor) / (self.worst - self.floor),
            "accuracy": float((seen.argmax(1) == labels).mean()),
        }


class Systems:
    """Opens the systems that are compared, and each of them once."""

    def __init__(self, stages: tuple[str, ...], plain: tuple[str, ...], control: str, noises: tuple[float, ...]):
        def chain(*arguments: Any) -> Callable[[], TrainedModel]:
            return lambda: open_chain(chain_config(*arguments))

        ways: dict[tuple[str, float | None], Callable[[], TrainedModel]]
        ways = {("cascade", noise): chain(stages, noise) for noise in noises}
        if plain:
            ways["cascade without augmentation", None] = chain((stages[0], *plain), None)
        if control:
            ways["one model", None] = functools.partial(harness.trained, control)
        ways["both upsamplers, true copies of 16x16", 0.0] = chain(stages[1:], 0.0, 4)
        ways["last upsampler, true copies of 32x32", None] = functools.partial(harness.trained, stages[2])
        if plain:
            ways["both upsamplers without augmentation, true copies", None] = chain(plain, None, 4)
        self.ways = ways

    def drawn(self, name: str, noise: float | None, num: int) -> tuple[TrainedModel, Samples]:
        """Returns a system and its first images."""
        trained = self.ways[name, noise]()
        return trained, trained.generator.images(trained.model, 0, num)


def cost(trained: TrainedModel, num: int) -> dict[str, float]:
    """Returns what one image costs, after compiling: seconds of the process on all cores, and images a second."""
    size = trained.generator.batch_size
    count = max(num // size, 1) * size
    before, begun = time.process_time(), time.perf_counter()
    trained.generator.images(trained.model, 1, count)
    cpu, wall = time.process_time() - before, time.perf_counter() - begun
    return {"cpu_seconds": cpu / count, "images_per_second": count / wall}


def main(
    classifier: Annotated[str, "a file of python -m jaxgen.evaluation.export_classifier, for 64x64 pixels"],
    stages: Annotated[tuple[str, ...], "the three runs, with commas, in the order of sampling"],
    out: Path,
    plain: Annotated[tuple[str, ...], "the two upsamplers that learned without augmentation, with commas"] = (),
    control: Annotated[str, "a run of one model"] = "",
    noises: Annotated[tuple[float, ...], "sampling noises of the second stage"] = (0.0, 0.1, 0.2, 0.3, 0.5),
    num: Annotated[int, "images of each system"] = 400,
    real: Annotated[int, "further held-out images that they are compared with, at most all"] = 2000,
    speed: Annotated[int, "images of the measure of cost; 0 leaves it out"] = 0,
    picture: Annotated[str, "a PNG that is written"] = "",
) -> None:
    harness.prepare()
    systems, judge = Systems(stages, plain, control, noises), Judge(classifier, num, real)
    rows, table, shown = harness.Rows(out, num=num, real=real), [], [judge.truth["image"][:SHOWN]]
    for name, noise in systems.ways:
        key: dict[str, Any] = {"system": name, "noise": noise}
        row = rows.where(**key, kind="quality")
        timed = rows.where(**key, kind="cost", images=speed)
        if not row or picture or (speed and not timed):
            trained, found = systems.drawn(name, noise, num)
            labels = judge.truth["label"] if found.labels is None else found.labels
            row = row or [rows.add({**key, "kind": "quality", **judge.measure(found.images, labels)})]
            shown.append(found.images[:SHOWN])
            if speed and not timed:
                timed = [rows.add({**key, "kind": "cost", "images": speed, **cost(trained, speed)})]
        cells = [f"{row[0]['frechet']:.1f}", f"{row[0]['excess']:.4f}", f"{row[0]['accuracy']:.3f}"]
        table.append([name, noise, *cells, f"{timed[0]['cpu_seconds']:.4f}" if timed else None])
    real_row = judge.measure(judge.truth["image"], judge.truth["label"])
    table.append(["real images", None, f"{judge.floor:.1f}", "0", f"{real_row['accuracy']:.3f}", None])
    print(harness.table(HEADS, table))
    if picture:
        save_png(Path(picture), grid(np.concatenate(shown), columns=SHOWN))


if __name__ == "__main__":
    sys.exit(harness.run(main))
