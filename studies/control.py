"""Does a ControlNet keep to the contours that it is given, from which step on, and who wins against the text?

    python main.py --config=configs/control_shapes.py --workdir=runs/control_shapes
    python -m studies.control --workdir=runs/control_shapes --out=control.jsonl --pictures=pictures

Each held-out image gives its contours as the hint and its caption as the text. Of the samples these are told

    f_score     harmonic mean of the shares of edge pixels of the sample that lie within a pixel of one of the image,
                and of the image of one of the sample (Martin, Fowlkes & Malik 2004, with a tolerance of one pixel)
    hint_rmse   root mean square of the difference between the strengths of their edges, in [0, 1]
    shape, colour, place
                the shares of samples that show what the caption says, read from the pixels

against training steps, from every checkpoint of the run; against the conditioning scale; and where the text is that of
another image, for which `<attribute> of hint` and `<attribute> of text` are the shares that follow each of the two.
Pairs that have the attribute in common are left out. Beside them stand the true images, the autoencoder's copies of
them, which are the most that can be had, and the base without a control. The last rows say what it costs.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
from jaxtyping import Bool, UInt8
from ml_collections import ConfigDict
from scipy.ndimage import binary_dilation

from jaxgen.data.hints import Contours
from jaxgen.metrics.analysis.shape_attributes import read_attributes
from jaxgen.report.images import grid, save_png
from jaxgen.sampling.generator import Generator
from jaxgen.sampling.restore import TrainedModel, restore
from studies import harness
from studies.caption_accuracy import reconstruct

Images = UInt8[np.ndarray, "N H W 3"]
NAMES = ("shape", "colour", "place")
COLUMNS = [0, 1, 3]  # of the attributes of `concept_shapes`
SEED, EDGES, SOFT = 0, Contours("edges"), Contours("soft")


@dataclasses.dataclass(frozen=True)
class Asked:
    """Holds held-out images, whose contours are the hints, their attributes `[N, 3]` and their captions."""

    images: Images
    attributes: np.ndarray
    captions: list[str]

    @classmethod
    def of(cls, generator: Generator, num: int) -> Asked:
        rows = generator.source(generator.config.data.eval_split).take(range(num))
        return cls(rows["image"], rows["attributes"][:, COLUMNS], [str(caption) for caption in rows["caption"]])

    def measured(self, samples: Images) -> dict[str, float]:
        """Returns the numbers of samples for these hints and captions."""
        right = read_attributes(samples) == self.attributes
        shares = dict(zip(NAMES, right.mean(axis=0).tolist(), strict=True))
        return rounded({**self.kept(samples), **shares})

    def kept(self, samples: Images) -> dict[str, float]:
        """Returns how well samples keep to the contours."""
        pairs = list(zip(samples, self.images, strict=True))
        scores = [f_score(EDGES(a) > 0, EDGES(b) > 0) for a, b in pairs]
        errors = [np.sqrt(np.square((SOFT(a).astype(float) - SOFT(b)) / 255).mean()) for a, b in pairs]
        return {"f_score": float(np.mean(scores)), "hint_rmse": float(np.mean(errors))}

    def conflict(self, samples: Images) -> dict[str, float]:
        """Returns whom samples follow that have the text of the next image."""
        said, read = np.roll(self.attributes, -1, axis=0), read_attributes(samples)
        found = self.kept(samples)
        for i, name in enumerate(NAMES):
            differ = said[:, i] != self.attributes[:, i]
            for whose, wanted in (("hint", self.attributes), ("text", said)):
                found[f"{name} of {whose}"] = float((read == wanted)[differ, i].mean())
        return rounded(found)


def f_score(a: Bool[np.ndarray, "H W"], b: Bool[np.ndarray, "H W"], pixels: int = 1) -> float:
    """Returns the F-score of two sets of edge pixels, which may be some pixels apart; 1 where both are empty."""
    if not a.any() or not b.any():
        return float(a.any() == b.any())
    near = np.ones((2 * pixels + 1, 2 * pixels + 1), bool)
    precision, recall = (x[binary_dilation(y, near)].sum() / x.sum() for x, y in ((a, b), (b, a)))
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def rounded(numbers: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 4) for name, value in numbers.items()}


def run_of(workdir: str, scale: float = 1.0) -> ConfigDict:
    config = harness.run_config(workdir, "tuned")
    config.method.grafts.control.scale = scale
    return config


def drawn(trained: TrainedModel, num: int, captions: list[str] | None = None) -> Images:
    """Returns samples for the first held-out hints, with their own captions or with others."""
    if captions:
        trained.generator.use_prompts(captions)
    return trained.generator.images(trained.model, SEED, num).images


def curve(workdir: str, rows: harness.Rows, asked: Asked, trained: TrainedModel, num: int) -> None:
    """Adds a row for each checkpoint; one program draws for all of them."""
    for step in harness.checkpoint_steps(workdir):

        def row(step: int = step) -> dict[str, float]:
            model = restore(run_of(workdir), workdir, step).model
            return asked.measured(trained.generator.images(model, SEED, num).images)

        rows.get({"what": "step", "at": step}, row)


def cost(trained: TrainedModel, workdir: str, num: int) -> dict[str, float]:
    """Returns sizes, and seconds a sample with the control and without; the programs are compiled already."""
    params = trained.model.params
    values = {name: sum(leaf.size for leaf in jax.tree.leaves(params[name])) for name in ("control", "denoiser")}
    newest = Path(workdir) / "checkpoints" / str(harness.checkpoint_steps(workdir)[-1])
    held = sum(file.stat().st_size for file in newest.rglob("*") if file.is_file())
    plain = restore(run_of(workdir, 0.0), workdir)
    seconds = []
    for one in (trained, plain):
        drawn(one, one.generator.batch_size)
        begun = time.perf_counter()
        drawn(one, num)
        seconds.append(round((time.perf_counter() - begun) / num, 4))
    return {**values, "checkpoint bytes": held, "s a sample": seconds[0], "s without": seconds[1]}


def main(
    workdir: Annotated[str, "a run of configs/control_shapes.py"],
    out: Annotated[Path, "file of the rows"],
    num: Annotated[int, "held-out images of each row"] = 100,
    scales: Annotated[tuple[float, ...], "conditioning scales, with commas"] = (0.25, 0.5, 0.75, 1.0, 1.5),
    pictures: Annotated[str, "folder of the pictures"] = "",
) -> None:
    harness.prepare()
    rows = harness.Rows(out, num=num)
    trained = restore(run_of(workdir), workdir)
    asked = Asked.of(trained.generator, num)
    rows.get({"what": "true images"}, lambda: asked.measured(asked.images))
    base = harness.run_config(workdir).init_from.pretrained
    plain = restore(harness.run_config(base), base)
    rows.get({"what": "autoencoder"}, lambda: asked.measured(reconstruct(plain)(asked.images)))
    curve(workdir, rows, asked, trained, num)
    shown = {}
    for scale in (0.0, *scales):
        with_scale = restore(run_of(workdir, scale), workdir)
        samples = drawn(with_scale, num)
        shown[scale] = samples
        found = asked.measured(samples)
        if scale == 0:  # the base draws the same, to the bit
            found["as the base"] = bool((drawn(plain, num) == samples).all())
        rows.get({"what": "scale", "at": scale}, lambda found=found: found)
        others = np.roll(asked.captions, -1).tolist()
        shown[f"{scale} other text"] = drawn(with_scale, num, others)
        rows.get({"what": "other text", "at": scale}, lambda s=shown[f"{scale} other text"]: asked.conflict(s))
    rows.get({"what": "cost"}, lambda: cost(trained, workdir, num))
    if pictures:
        save_pictures(Path(pictures), asked, shown)


def save_pictures(folder: Path, asked: Asked, shown: dict[object, Images]) -> None:
    """Writes, in rows, the hints, the true images, samples of them, and samples with the texts of other images."""
    hints = np.stack([np.repeat(EDGES(image)[..., None], 3, axis=-1) for image in asked.images[:8]])
    parts = [hints, asked.images[:8], shown[0.0][:8], shown[1.0][:8], shown["1.0 other text"][:8]]
    folder.mkdir(parents=True, exist_ok=True)
    picture = grid(np.concatenate(parts), columns=8)
    save_png(folder / "control_shapes.png", np.repeat(np.repeat(picture, 2, 0), 2, 1))
    lines = [f"{a} / {b}" for a, b in zip(asked.captions, np.roll(asked.captions, -1), strict=True)]
    (folder / "control_shapes.txt").write_text("\n".join(lines[:8]) + "\n")


if __name__ == "__main__":
    sys.exit(harness.run(main))
