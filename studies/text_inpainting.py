"""Does a text say what fills a hole? A model that fills holes under a text, on captioned shapes.

    python main.py --config=configs/glide_shapes.py --workdir=runs/glide_shapes
    python main.py --config=configs/glide_shapes_inpainting.py --workdir=runs/glide_shapes_inpainting
    python -m studies.text_inpainting --workdir=runs/glide_shapes_inpainting --out=holes.jsonl

The hole of each held-out image is the rectangle of its object and --margin pixels on each side. The text asks for
another shape and another colour at the object's place. Rows are what the model draws for that text, for the text of
another image (with the same place, so that shape and colour alone differ), and for the empty text; each is judged by
what the first text says, as `read_attributes` sees it in the completed picture. Chance is 1/8 for the shape and for the
colour. `known` is the share of known pixels that are equal in all levels. --picture has lines of: the image, the hole,
what was drawn.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Bool, Int, UInt8

from jaxgen.data.sources import caption_shapes
from jaxgen.errors import UserError
from jaxgen.metrics.analysis.shape_attributes import LEAST, read_attributes
from jaxgen.report.images import grid, save_png
from jaxgen.sampling.restore import TrainedModel
from studies import harness

Images = UInt8[np.ndarray, "N H W 3"]
HEADS = ("split", "text", "shape", "colour", "shape and colour", "known")
SHOWN = 12  # columns of the picture


@dataclasses.dataclass(frozen=True)
class Holes:
    """Holds images with a hole each, and what is to fill it.

    Attributes:
      images: the true images. `unknown` is where their holes are.
      attributes: what the images show. `wanted` is what their holes are to show.
    """

    images: Images
    unknown: Bool[np.ndarray, "N H W"]
    attributes: Int[np.ndarray, "N 3"]
    wanted: Int[np.ndarray, "N 3"]

    @classmethod
    def of(cls, images: Images, attributes: Int[np.ndarray, "N 3"], margin: int) -> Holes:
        """Returns images whose hole covers their object; another shape and colour is to fill it."""
        chance = np.random.default_rng(0)
        moved = chance.integers(1, 8, (len(images), 2))  # of 8 shapes and 8 colours, never the same again
        wanted = np.concatenate([(attributes[:, :2] + moved) % 8, attributes[:, 2:]], axis=1)
        return cls(images, np.stack([around(image, margin) for image in images]), attributes, wanted)

    def texts(self, attributes: Int[np.ndarray, "N 3"]) -> list[str]:
        """Returns a sentence for each row of attributes, in one of the phrasings of the data."""
        chance = np.random.default_rng(1)
        return [str(chance.choice(caption_shapes.sentences(values))) for values in attributes]

    @property
    def shuffled(self) -> Int[np.ndarray, "N 3"]:
        """Returns the shapes and colours that other images' holes are to show, at this image's place."""
        return np.concatenate([np.roll(self.wanted[:, :2], 1, axis=0), self.wanted[:, 2:]], axis=1)

    def judged(self, drawn: Images) -> dict[str, float]:
        """Returns the shares of completed images that show what was wanted, and of known pixels that are kept."""
        right = read_attributes(drawn)[:, :2] == self.wanted[:, :2]
        kept = (drawn == self.images).all(-1)[~self.unknown]
        return {
            "shape": float(right[:, 0].mean()), "colour": float(right[:, 1].mean()),
            "both": float(right.all(1).mean()), "known": float(kept.mean()),
        }  # fmt: skip


def around(image: UInt8[np.ndarray, "H W 3"], margin: int) -> Bool[np.ndarray, "H W"]:
    """Returns the rectangle of what is not black, larger by a margin on each side, as far as the image goes."""
    seen = np.linalg.norm(image.astype(float), axis=2) > LEAST * 255 * np.sqrt(3)
    found = np.zeros(seen.shape, bool)
    rows, columns = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
    if len(rows):
        top, left = max(rows[0] - margin, 0), max(columns[0] - margin, 0)
        found[top : rows[-1] + 1 + margin, left : columns[-1] + 1 + margin] = True
    return found


def filled(trained: TrainedModel, holes: Holes, texts: list[str]) -> Images:
    """Returns what a model draws in the holes for texts."""
    generator = trained.generator
    picture = np.where(holes.unknown[..., None], 0.0, holes.images.astype(np.float32) / 127.5 - 1)
    generator.held_out.given.update({"condition": picture.astype(np.float32), "mask": holes.unknown.astype(np.int32)})
    generator.use_prompts(texts)
    return generator.images(trained.model, 0, len(texts)).images


def main(
    workdir: Annotated[str, "a run of configs/glide_shapes_inpainting.py"],
    out: Path,
    num: Annotated[int, "images of each split"] = 200,
    margin: Annotated[int, "pixels of a hole around its object"] = 2,
    picture: Annotated[str, "a PNG that is written"] = "",
) -> None:
    harness.prepare()
    trained = harness.trained(workdir)
    if not {"condition", "mask", "tokens"} <= {*trained.generator.method.conditions}:
        raise UserError(f"--workdir={workdir} is no model that fills holes under a text.")
    rows, table, lines = harness.Rows(out, workdir=workdir, num=num, margin=margin), [], []
    for split in ("test", "unseen"):
        real = trained.generator.source(split).take(range(num))
        holes = Holes.of(real["image"], real["attributes"], margin)
        texts = {
            "of the hole": holes.texts(holes.wanted), "of another hole": holes.texts(holes.shuffled),
            "none": [""] * num,
        }  # fmt: skip
        for name, asked in texts.items():
            images: list[Images] = []

            def measured(
                holes: Holes = holes, asked: list[str] = asked, images: list[Images] = images
            ) -> dict[str, float]:
                images.append(filled(trained, holes, asked))
                return holes.judged(images[0])

            row = rows.get({"split": split, "text": name}, measured)
            table.append([split, name, *(f"{row[key]:.3f}" for key in ("shape", "colour", "both", "known"))])
            if picture and name == "of the hole":
                drawn = images[0] if images else filled(trained, holes, asked)
                grey = np.where(holes.unknown[..., None], 128, holes.images).astype(np.uint8)
                lines += [side[:SHOWN] for side in (holes.images, grey, drawn)]
    print(harness.table(HEADS, table))
    if picture:
        save_png(Path(picture), grid(np.concatenate(lines), columns=SHOWN))


if __name__ == "__main__":
    sys.exit(harness.run(main))
