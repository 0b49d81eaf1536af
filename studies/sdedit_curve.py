"""SDEdit's realism against its faithfulness: rough drawings of held-out shapes, noised to t0 and denoised from there.

    python main.py --config=configs/ddpm_shapes.py --workdir=runs/ddpm_shapes
    python main.py --config=configs/classifier_shapes.py --workdir=runs/classifier_shapes_32 --config.data.resolution=32
    python -m jaxgen.evaluation.export_classifier runs/classifier_shapes_32 --out=shapes_32.npz
    python -m studies.sdedit_curve --workdir=runs/ddpm_shapes --classifier=shapes_32.npz --out=curve.jsonl \\
        --picture=sdedit.png

The drawing of an image has the mean of each block of pixels, eight blocks a side, in the block's place. Realism is the
excess of the Fréchet distance to held-out images in the features of a classifier: 0 for real images, 1 for noise.
Faithfulness is the distance to the drawing, the root of the mean squared difference of values in [-1, 1], as Meng et
al. (2022) have it. Beside them stand that distance after the edit is drawn roughly itself, which forgives details, and
how often the classifier sees the class of the image that was drawn. One row for each t0 is appended to --out; the same
command goes on where it stopped, prints the table, and writes a picture: drawings, edits for growing t0, true images.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.arrays import to_uint8
from jaxgen.data.transforms import to_float
from jaxgen.diffusion.samplers.ddim import DDIM
from jaxgen.editing.model import DiffusionModel
from jaxgen.editing.panels import coarse
from jaxgen.editing.sdedit import sdedit
from jaxgen.metrics.distributions.frechet import frechet_distance
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.networks.trained import TrainedClassifier
from jaxgen.report.images import grid, save_png
from studies import harness

STRENGTHS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SHOWN = 8  # columns of the picture


class Drawings:
    """Holds rough drawings of held-out images, a trained model that edits them, and what the edits are measured by."""

    def __init__(self, workdir: str, network: FeatureNetwork, num: int, steps: int, batch: int = 50):
        trained = harness.trained(workdir)
        self.method, self.model, self.batch = trained.generator.method, trained.model, batch
        source = trained.generator.source("test")
        chosen = source.take(range(num))
        self.truth, self.labels, self.network = chosen["image"], chosen["label"], network
        self.images = np.asarray(to_float({"image": self.truth})["image"])
        self.guides = np.asarray(coarse(jnp.asarray(self.images)))
        self.real = network(source.take(range(num, min(6 * num, len(source))))["image"]).features
        self.keys = jax.random.split(jax.random.key(0), num)
        self.sampler = DDIM(steps, clip=self.method.sampler.clip, eta=1.0)

    def edits(self, t0: float, num: int = 0) -> np.ndarray:
        """Returns the edits of all drawings, or of the first `num`, float32 in [-1, 1]."""

        @jax.jit
        def run(params, guides, keys):
            denoise = self.method.denoiser(params)
            return sdedit(DiffusionModel(denoise, self.method.schedule, self.sampler), guides, keys, t0)

        count = num or len(self.guides)
        rows = [slice(start, min(start + self.batch, count)) for start in range(0, count, self.batch)]
        return np.concatenate([np.asarray(run(self.model.params, self.guides[r], self.keys[r])) for r in rows])

    def distance(self, images: np.ndarray) -> float:
        """Returns the Fréchet distance of uint8 images to further held-out ones."""
        return frechet_distance(self.network(images).features, self.real)

    def measure(self, t0: float) -> dict[str, float]:
        """Returns the row of one t0."""
        edits = self.edits(t0)
        noise = np.random.default_rng(0).integers(0, 256, self.truth.shape, dtype=np.uint8)
        floor, worst = self.distance(self.truth), self.distance(noise)
        levels = np.asarray(to_uint8(jnp.asarray(edits)))
        seen = self.network(levels).probabilities
        found = {
            "frechet": self.distance(levels),
            "floor": floor,
            "excess": (self.distance(levels) - floor) / (worst - floor),
            "l2": _l2(edits, self.guides),
            "l2_rough": _l2(np.asarray(coarse(jnp.asarray(edits))), self.guides),
            "class_kept": float((seen.argmax(1) == self.labels).mean()),
        }
        return {name: round(float(value), 4) for name, value in found.items()}

    def picture(self, strengths: tuple[float, ...]) -> np.ndarray:
        """Returns the drawings, their edits and the true images, a row each."""
        rows = [self.guides[:SHOWN], *(self.edits(t0, SHOWN) for t0 in strengths), self.images[:SHOWN]]
        return grid(np.concatenate(rows), columns=SHOWN)


def _l2(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.square(a - b).mean(axis=(1, 2, 3))).mean())


def main(
    workdir: Annotated[str, "a run of an unconditional diffusion model, such as configs/ddpm_shapes.py"],
    classifier: Annotated[str, "a file of python -m jaxgen.evaluation.export_classifier"],
    out: Path,
    num: Annotated[int, "drawings; the reference is of up to five times as many other held-out images"] = 200,
    steps: Annotated[int, "steps of DDIM with eta = 1, from t = 1"] = 50,
    strengths: tuple[float, ...] = STRENGTHS,
    shown: Annotated[tuple[float, ...], "strengths of the picture"] = (0.2, 0.4, 0.5, 0.6, 0.7, 0.9),
    picture: Annotated[str, "the PNG to write"] = "",
) -> None:
    harness.prepare()
    drawings = Drawings(workdir, TrainedClassifier(classifier), num, steps)
    rows = harness.Rows(out, num=num, steps=steps)
    for t0 in strengths:
        rows.get({"t0": t0}, lambda t0=t0: drawings.measure(t0))
    names = ("excess", "frechet", "l2", "l2_rough", "class_kept")
    print(f"Fréchet distance of the true images: {next(iter(rows))['floor']}")
    print(harness.table(["t0", *names], [[row["t0"], *(row[name] for name in names)] for row in rows]))
    if picture:
        save_png(Path(picture), drawings.picture(shown))


if __name__ == "__main__":
    sys.exit(harness.run(main))
