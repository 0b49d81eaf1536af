"""Are translations true to the pairs that were held out, and do they look like pictures of their kind?

    python -m studies.translation --run=pix2pix=runs/pix2pix_emoji --run="L1 alone"=runs/pix2pix_emoji_l1 --num=140
        --out=translation.jsonl
    python -m studies.translation --run=CycleGAN=runs/cyclegan_shapes --num=500 --out=cycles.jsonl

Of a run of pix2pix: L1 in levels of 255 and PSNR to the true image; `features`, the mean distance at each pixel of
colours and slopes, blurred by 1, 2 and 4 pixels; `Frechet`, the Frechet distance of their means over each image;
`slopes`, the mean difference of neighbouring pixels, over that of the true images (1: as sharp as they are); `again`,
the mean difference of two results of one picture, in levels of 255. Where the generator drops values in use, a second
row has none dropped. `true images, shuffled` holds each picture against the truth of another.

Of a CycleGAN, with `config.method.truth`: the mean error after both translations, and the share of right pixels and L1
each way, in [-1, 1]. The second row is a wrong translation that is as consistent: the run's own, with the colours of
`image` in another order behind it, and in the first order again before the way back. Its cycles are as good if a low
cycle loss says nothing about the truth. A picture of some held-out examples is written beside --out.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from jaxgen.arrays import Array, Batch, to_uint8
from jaxgen.data.transforms import to_float
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.methods.translation.cyclegan import IMAGE, OTHER, CycleGAN
from jaxgen.methods.translation.pix2pix import Pix2Pix
from jaxgen.metrics.distributions.frechet import frechet_distance
from jaxgen.metrics.networks.filters import Filters
from jaxgen.metrics.pairs.pixels import absolute_error, psnr
from jaxgen.report.images import grid, save_png
from jaxgen.sampling.restore import TrainedModel
from studies import harness

Images = UInt8[np.ndarray, "N H W C"]
HEADS = ("L1", "PSNR", "features", "Frechet", "slopes", "again")
CYCLES = ("cycle_l1_image", "cycle_l1_other", "accuracy_to_image", "accuracy_to_other", "l1_to_image", "l1_to_other")
ORDER = (1, 2, 0)  # of the colours in the wrong translation
SHOWN = 12


def slopes(images: Images) -> float:
    """Returns the mean absolute difference of neighbouring pixels."""
    levels = images.astype(np.int16)
    return float(np.mean([np.abs(np.diff(levels, axis=axis)).mean() for axis in (1, 2)]))


def pair_row(found: Images, truth: Images) -> dict[str, float]:
    """Returns the numbers of pictures beside the true ones of the same places."""
    network = Filters()
    see, real = network.maps(found), network.maps(truth)
    return {
        "L1": float(absolute_error(found, truth).mean()),
        "PSNR": float(np.minimum(psnr(found, truth), 99.0).mean()),  # equal pictures have none
        "features": float(np.linalg.norm(see - real, axis=-1).mean()),
        "Frechet": frechet_distance(see.mean(axis=(1, 2)), real.mean(axis=(1, 2))),
        "slopes": slopes(found) / slopes(truth),
    }


def pix2pix_rows(name: str, trained: TrainedModel, rows: harness.Rows, seed: int, num: int) -> list[Images]:
    """Keeps the rows of a run of pix2pix; returns what is read, the results and the true images."""
    generator, method = trained.generator, trained.generator.method
    samples = generator.draw(trained.model, seed, num, asked=True)
    truth, found = samples.asked["image"], samples.main

    def own_row() -> dict[str, float]:
        again = generator.draw(trained.model, seed, num, again=1).main
        return pair_row(found, truth) | {"again": float(absolute_error(found, again).mean())}

    rows.get({"pictures": "true images, shuffled"}, lambda: pair_row(np.roll(truth, 1, axis=0), truth))
    rows.get({"pictures": name}, own_row)
    if method.generator.dropout and method.sampler.dropout:
        still = dataclasses.replace(method, sampler=dataclasses.replace(method.sampler, dropout=False))
        undropped = generator.changed(still, {})
        key = {"pictures": f"{name}, nothing dropped"}
        rows.get(key, lambda: pair_row(undropped.draw(trained.model, seed, num).main, truth))
    read = samples.asked.get("condition")
    return [*([] if read is None else [read]), found, truth]


@dataclasses.dataclass(frozen=True)
class Misled(CycleGAN):
    """Translates as a CycleGAN whose images have their colours in another order: consistent, and wrong."""

    def translate(self, params: dict, to: str, pictures: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        if to == IMAGE:
            return super().translate(params, to, pictures)[..., ORDER]
        return super().translate(params, to, pictures[..., np.argsort(ORDER)])


def cycle_row(method: CycleGAN, model: Model, batch: Batch, parts: int = 50) -> dict[str, float]:
    """Returns the means over held-out images of what a CycleGAN is scored by, in parts of so many."""
    score = jax.jit(lambda model, batch: method.scores(model, jax.random.split(jax.random.key(0), parts), batch))
    found: dict[str, list[np.ndarray]] = {}
    count = len(batch["image"]) // parts * parts
    for start in range(0, count, parts):
        for name, values in score(model, jax.tree.map(lambda x, s=start: x[s : s + parts], batch)).items():
            found.setdefault(name, []).append(np.asarray(values))
    return {name: float(np.concatenate(values).mean()) for name, values in found.items()}


def cycle_rows(name: str, trained: TrainedModel, rows: harness.Rows, num: int) -> list[Images]:
    """Keeps the rows of a CycleGAN and of its misled copy; returns images, drawings and both ways."""
    method: CycleGAN = trained.generator.method
    if not method.truth:
        raise UserError(f"--run={name}: the run has no config.method.truth, by which translations could be scored.")
    source = trained.generator.source(trained.generator.config.data.eval_split)
    taken = source.take(list(range(num)))
    batch = dict(to_float({entry: jnp.asarray(taken[entry]) for entry in ("image", method.truth)}))
    fields = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
    rows.get({"pictures": name}, lambda: cycle_row(method, trained.model, batch))
    misled = Misled(**fields)
    rows.get({"pictures": f"{name}, colours in another order"}, lambda: cycle_row(misled, trained.model, batch))
    shown = {entry: x[:SHOWN] for entry, x in batch.items()}
    ways = [(OTHER, shown["image"]), (IMAGE, shown[method.truth])]
    there, back = (to_uint8(method.translate(trained.model.params, to, given)) for to, given in ways)
    return [taken["image"], np.asarray(there), taken[method.truth], np.asarray(back)]


def write_picture(path: Path, sides: list[Images]) -> None:
    """Writes a row for each example, with a picture of each side; grey ones become grey in three channels."""
    cells = [np.broadcast_to(images[:SHOWN], (*images[:SHOWN].shape[:3], 3)) for images in sides]
    stacked = np.stack(cells, axis=1)
    save_png(path, grid(stacked.reshape(-1, *stacked.shape[2:]), len(cells)))


def main(
    run: Annotated[list[str], "<name>=<workdir of a pix2pix or of a CycleGAN>; may be given several times"],
    out: Annotated[Path, "where rows are kept"],
    num: Annotated[int, "held-out examples"] = 140,
    seed: int = 0,
) -> None:
    rows, shown = harness.Rows(out, num=num, seed=seed), []
    for name, workdir in harness.named(run, "--run", "pix2pix=runs/pix2pix_shapes").items():
        trained = harness.trained(workdir)
        if isinstance(trained.generator.method, CycleGAN):
            sides = cycle_rows(name, trained, rows, num)
            shown = [*shown, *sides]
        elif isinstance(trained.generator.method, Pix2Pix):
            sides = pix2pix_rows(name, trained, rows, seed, num)
            shown = [*shown[:-1], sides[-2], sides[-1]] if shown else sides
        else:
            raise UserError(f"--run={name}={workdir} is no run of the methods pix2pix and cyclegan.")
    heads = [head for head in (*HEADS, *CYCLES) if any(head in row for row in rows)]
    table = [[row["pictures"], *(f"{row[head]:.3f}" if head in row else "" for head in heads)] for row in rows]
    print(harness.table(["pictures", *heads], table))
    write_picture(out.with_suffix(".png"), shown)


if __name__ == "__main__":
    sys.exit(harness.run(main))
