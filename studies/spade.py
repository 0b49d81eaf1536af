"""Do pictures of layouts show their layouts, and the style that was asked for?

    python main.py --config=configs/spade_regions.py --workdir=runs/spade_instance
        --config.method.generator.statistics=instance; for runs/spade_encoded also
        --config.method.generator.name=encoded_layout_generator
    python -m studies.spade --run=SPADE=runs/spade_instance --run=encoded=runs/spade_encoded --out=spade.jsonl

The layout of each picture is read back: by its hues for the source `regions`, and else by --segmenter, a run of the
method `segmenter` that learned from real pictures. `true images` is what the reader sees in them, and `other layouts`
are a run's pictures held against the layouts of others: what a picture has without looking at its layout. `uniform` is
the share of right pixels of the layouts with one class.

For runs with an encoder on `regions`, `style` is the mean distance of brightness and saturation, both in [0, 1],
between a picture that is drawn in the style of a true image of another layout and that image; `no style` is that of
pictures with a z at random. A picture of layouts and images is written beside --out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Float, Int, UInt8

from jaxgen.colours import class_colours
from jaxgen.errors import UserError
from jaxgen.methods.gans.gan import GAN
from jaxgen.methods.gans.spade import SPADE
from jaxgen.methods.segmentation.segmenter import Segmenter
from jaxgen.metrics.analysis.regions import read_regions
from jaxgen.metrics.analysis.segmentation import confusion_matrix, mean_iou, pixel_accuracy
from jaxgen.report.images import grid, save_png
from jaxgen.sampling.restore import TrainedModel
from studies import harness

Images = UInt8[np.ndarray, "N H W C"]
Masks = Int[np.ndarray, "N H W"]
Reader = Callable[[Images], Masks]
HEADS = ("mean IoU", "accuracy", "uniform", "style", "no style")
SHOWN = 8


def layout_row(seen: Masks, asked: Masks, ignore: int | None = None) -> dict[str, float]:
    """Returns the numbers of layouts that were read from pictures, beside those that were asked for."""
    counted = asked[asked != ignore] if ignore is not None else asked
    classes = int(max(counted.max(initial=0), seen.max())) + 1
    matrix = confusion_matrix(asked, seen, classes, ignore)
    found = {"mean IoU": mean_iou(matrix).value, "accuracy": pixel_accuracy(matrix)}
    uniform = (asked == asked[:, :1, :1]).all(axis=(1, 2))
    if uniform.any():
        found["uniform"] = float((seen == asked)[uniform].mean())
    return found


def style_of(images: UInt8[np.ndarray, "N H W 3"]) -> Float[np.ndarray, "N 2"]:
    """Returns the brightness of each image's bright pixels, and its mean saturation, of images of `regions`."""
    levels = images.astype(np.float64) / 255
    highest, lowest = levels.max(axis=-1), levels.min(axis=-1)
    bright = np.quantile(highest, 0.95, axis=(1, 2))
    saturation = 1 - (lowest / np.maximum(highest, 1 / 255)).mean(axis=(1, 2))
    return np.stack([bright, saturation], axis=1)


def style_row(trained: TrainedModel, truth: Images, drawn: Images, seed: int) -> dict[str, float]:
    """Returns how far pictures are from the style of the true images of other layouts, asked for it and not."""
    other = np.roll(truth, 1, axis=0)
    given = trained.generator.changed(trained.generator.method, {"image": other})
    styled = given.draw(trained.model, seed, len(truth)).main
    return {
        name: float(np.abs(style_of(images) - style_of(other)).mean())
        for name, images in (("style", styled), ("no style", drawn))
    }


def reader_of(trained: TrainedModel, segmenter: str, seed: int) -> Reader:
    """Returns what reads the layouts of pictures.

    Raises:
      UserError: there is no reader for the run's data.
    """
    if segmenter:
        reader = harness.trained(segmenter)
        if not isinstance(reader.generator.method, Segmenter):
            raise UserError(f"--segmenter={segmenter} is no run of the method segmenter.")

        def read(images: Images) -> Masks:
            given = reader.generator.changed(reader.generator.method, {"image": images})
            return np.asarray(given.draw(reader.model, seed, len(images)).main)

        return read
    source, _, argument = trained.generator.config.data.source.partition(":")
    if source != "regions":
        raise UserError(f"Nothing reads the layouts of {source!r}: give --segmenter=<a run of the method segmenter>.")
    return lambda images: read_regions(images, int(argument or 6))


def write_picture(path: Path, masks: Masks, sides: list[Images]) -> None:
    """Writes a row for each layout: its colours, and a picture of each side."""
    colours = class_colours(int(masks.max()) + 1)[masks[:SHOWN]]
    cells = np.stack([colours, *(images[:SHOWN] for images in sides)], axis=1)
    save_png(path, grid(cells.reshape(-1, *cells.shape[2:]), cells.shape[1]))


def main(
    run: Annotated[list[str], "<name>=<workdir of a SPADE or of a pix2pix of masks>; may be given several times"],
    out: Annotated[Path, "where rows are kept"],
    segmenter: Annotated[str, "a run of the method segmenter, which reads layouts"] = "",
    ignore: Annotated[int, "a number of the layouts that is not counted; -1 for none"] = -1,
    num: Annotated[int, "layouts"] = 500,
    seed: int = 0,
) -> None:
    rows = harness.Rows(out, num=num, seed=seed, segmenter=segmenter, ignore=ignore)
    none, shown = (None if ignore < 0 else ignore), []
    masks = np.zeros((0,))
    for name, workdir in harness.named(run, "--run", "spade=runs/spade_regions").items():
        trained = harness.trained(workdir)
        method = trained.generator.method
        if not (isinstance(method, GAN) and "mask" in method.generator.reads):
            raise UserError(f"--run={name}={workdir} is no run of a GAN that draws layouts.")
        samples = trained.generator.draw(trained.model, seed, num, asked=True)
        masks, truth, drawn = samples.asked["mask"], samples.asked["image"], samples.main
        read = reader_of(trained, segmenter, seed)
        seen = read(drawn)
        shown += [drawn] if shown else [truth, drawn]
        rows.get({"images": "true images"}, lambda: layout_row(read(truth), masks, none))  # noqa: B023
        styled = isinstance(method, SPADE) and method.encoder is not None and not segmenter
        styles = style_row(trained, truth, drawn, seed) if styled else {}
        rows.get({"images": name}, lambda: layout_row(seen, masks, none) | styles)  # noqa: B023
        other = np.roll(masks, 1, axis=0)
        rows.get({"images": f"{name}, other layouts"}, lambda: layout_row(seen, other, none))  # noqa: B023
    table = [[row["images"], *(f"{row[head]:.3f}" if head in row else "" for head in HEADS)] for row in rows]
    print(harness.table(["images", *HEADS], table))
    write_picture(out.with_suffix(".png"), masks, shown)


if __name__ == "__main__":
    sys.exit(harness.run(main))
