"""What text-to-image models draw of the same texts, in one table: any run that takes a prompt is a row.

    python main.py --config=configs/clip_shapes.py --workdir=runs/clip_shapes
    python main.py --config=configs/glide_shapes.py --workdir=runs/glide_shapes
    python -m studies.text_to_image --clip=runs/clip_shapes --out=rows.jsonl --picture=rows.png \\
        --run="GLIDE: --workdir=runs/glide_shapes" \\
        --run="no guidance: --workdir=runs/glide_shapes --config.guidance.scale=1" \\
        --run="GLIDE, 64 pixels: --config=configs/glide_shapes_64.py"

--run is "NAME: FLAGS", once for each row. FLAGS are those of `main.py --mode=sample` that say what is sampled:
--workdir of a run, --config of a chain, --checkpoint, --rerank with --draws, and keys of the config. --scales draws
each row whose guidance has a scale once for each of them: the guidance curves.

Each row draws one image for each of the first --num captions of `test` (combinations of training, other scenes) and of
`unseen` (combinations of no training image), and has
    shape, colour, position, all   the share of images whose pixels show what the caption says
    shuffled                       the same of all three, against the captions of others: chance
    CLIP score                     100 max(cos(image, caption), 0) by the run of --clip, with its standard error
    R-precision                    the share of images to which their own caption is nearer than --others captions are
                                   that say something else, by the same CLIP
    diversity                      the distance of two draws for one text, in pixels, over that of two real images of
                                   that text: 1 is as diverse as the data
    Fréchet distance               to real images of the split, in the features of --classifier
    CPU seconds an image           of this process, after compiling; those of the clock need a quiet machine
Beside them stand the real images of the same captions. Rows are appended to --out as they are known, and the same
command goes on where it stopped. The CLIP that judges should be one that guided none of the rows. --picture has a line
of the same eight prompts for each row.
"""

from __future__ import annotations

import dataclasses
import functools
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8
from ml_collections import ConfigDict
from PIL import Image

from jaxgen.command.flags import Flags
from jaxgen.command.parse import parse
from jaxgen.data import Source, open_source
from jaxgen.data.sources import caption_shapes
from jaxgen.data.transforms import to_float
from jaxgen.errors import UserError
from jaxgen.methods.contrastive.clip import CLIP
from jaxgen.metrics.analysis.shape_attributes import agreement
from jaxgen.metrics.distributions.frechet import frechet_distance
from jaxgen.metrics.networks.trained import TrainedClassifier
from jaxgen.metrics.pairs.r_precision import r_precision
from jaxgen.report.images import grid, save_png
from jaxgen.runs.chains.stages import is_chain
from jaxgen.runs.workdir import open_workdir
from jaxgen.sampling.chains import open_chain
from jaxgen.sampling.rerank import reranked
from jaxgen.sampling.restore import TrainedModel, restore
from studies import harness

Images = UInt8[np.ndarray, "N H W 3"]
SPLITS = ("test", "unseen")
SOURCE = f"caption_shapes:{caption_shapes.PHRASED}"
COUNTED = 50  # images of the measure of cost
SHOWN = (  # the prompts of the picture, some of whose combinations are in no training image
    "a red circle at the top left", "an emerald star in the middle", "at the bottom there is a cobalt box",
    "a hoop that is golden on the right side", "there is a violet heart at the left",
    "a pink plus in the upper right corner", "a turquoise trigon along the upper edge",
    "an orange diamond at the bottom right",
)  # fmt: skip
HEADS = (
    "model", "split", "scale", "shape", "colour", "position", "all", "shuffled", "CLIP score", "R-precision",
    "diversity", "Fréchet distance", "CPU seconds an image",
)  # fmt: skip


class Entry(NamedTuple):
    """Holds one row of the table: its name, and the flags that say how its model is opened."""

    name: str
    words: tuple[str, ...]

    def config(self, scale: float | None = None) -> tuple[ConfigDict, Flags]:
        """Returns the config and the flags; `scale` is that of the guidance, None for its own."""
        config, flags = parse([*self.words, "--mode=evaluate"])
        assert config is not None
        if scale is not None:
            config.guidance.scale = scale
        return config, flags

    def opened(self, scale: float | None) -> TrainedModel:
        """Returns the model. Raises a UserError where there is none, or it takes no prompt."""
        config, flags = self.config(scale)
        if is_chain(config):
            trained = open_chain(config, flags.checkpoint)
        else:
            trained = restore(open_workdir(flags.workdir, config, training=False)[0], flags.workdir, flags.checkpoint)
        if "tokens" not in trained.generator.method.conditions:
            raise UserError(f"--run={self.name}: the method {config.method.name!r} takes no prompt; leave the row out.")
        return reranked(trained, flags.rerank, flags.draws, flags.trust) if flags.rerank else trained


def entry_of(text: str) -> Entry:
    """Returns the row that a flag --run describes. Raises a UserError for text of another form."""
    name, colon, flags = text.partition(":")
    words = tuple(shlex.split(flags)) if colon else ()
    if not name.strip() or not words:
        raise UserError(f"--run={text!r} is no row: give 'NAME: FLAGS', such as 'GLIDE: --workdir=runs/glide_shapes'.")
    return Entry(name.strip(), words)


# ------------------------------------------------------------------ the judges


class Judge:
    """Compares images and captions by a run of CLIP.

    Raises:
      UserError: the run is of another method, or has no contrastive loss.
    """

    def __init__(self, workdir: str):
        trained = harness.trained(workdir, harness.run_config(workdir, "clip"))
        method = trained.generator.method
        if not isinstance(method, CLIP) or not method.contrastive:
            raise UserError(f"--clip={workdir} writes captions alone; give a run with the contrastive loss.")
        self._tokenized = trained.generator.tokens_of
        self._side, self._params = method.image_shape[0], trained.model.params
        self._image, self._text = jax.jit(method.embed_image), jax.jit(method.embed_text)

    def images(self, images: Images, batch: int = 100) -> Float[np.ndarray, "N D"]:
        """Returns the unit embeddings of images of any size."""
        seen = resized(images, self._side)
        parts = (jnp.asarray(seen[i : i + batch]) for i in range(0, len(seen), batch))
        found = [self._image(self._params, to_float({"image": part})["image"]) for part in parts]
        return np.concatenate([np.asarray(one) for one in found])

    def texts(self, texts: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """Returns the unit embeddings of texts."""
        return np.asarray(self._text(self._params, self._tokenized(list(texts), "a caption")))


def resized(images: Images, side: int) -> Images:
    """Returns images of this side: the means of pixels where it is smaller, the nearest ones where it is larger."""
    if images.shape[1] == side:
        return images
    how = Image.Resampling.BOX if images.shape[1] > side else Image.Resampling.NEAREST
    return np.stack([np.asarray(Image.fromarray(image).resize((side, side), how)) for image in images])


def clip_score(images: Float[np.ndarray, "N D"], texts: Float[np.ndarray, "N D"]) -> dict[str, float]:
    """Returns 100 max(cos, 0) of unit embeddings (Hessel et al. 2021, Eq. 1, with 100 for their 2.5)."""
    values = 100 * np.maximum((images * texts).sum(1), 0)
    return {"clip_score": float(values.mean()), "clip_score_error": float(values.std() / np.sqrt(len(values)))}


def diversity(draws: Sequence[Images], real: Sequence[Images]) -> float:
    """Returns how much two draws for one text differ, over how much two real images of it do.

    Args:
      draws: two or more sets, of which image i of each is for text i. `real` are sets of real images of the same texts.

    Returns:
      The ratio of root mean squares of the differences of pixels: 0 for a model that has one image for each text.
    """

    def spread(sets: Sequence[Images]) -> float:
        levels = np.stack(sets).astype(np.float64)
        return float(np.sqrt(levels.var(axis=0, ddof=1).mean()))

    return spread(draws) / spread(real)


# ------------------------------------------------------------------ a row


@dataclasses.dataclass(frozen=True)
class Asked:
    """Holds the captions of a split and what is needed to judge images of one size for them.

    Attributes:
      captions: what is drawn. `attributes` are what they say.
      real: the images of the captions.
      more: further real images for the same captions, set by set.
    """

    captions: list[str]
    attributes: Int[np.ndarray, "N 3"]
    real: Images
    more: tuple[Images, ...]

    @classmethod
    def of(cls, source: str, split: str, side: int, num: int, draws: int) -> Asked:
        """Returns the first captions of a split of a source of captioned shapes."""
        data = open_source(source, split, side, 3, 0)
        rows = data.take(range(num))
        captions, attributes = [str(caption) for caption in rows["caption"]], rows["attributes"]
        more = (again(data, attributes, k) for k in range(1, draws))
        return cls(captions, attributes, rows["image"], tuple(more))


def again(source: Source, attributes: Int[np.ndarray, "N 3"], number: int) -> Images:
    """Returns real images of these attributes that stand elsewhere in their cells: with the draws of other scenes."""
    assert isinstance(source, caption_shapes.CaptionShapes)
    count, size = len(source), source.request.resolution
    return np.stack(
        [
            caption_shapes.draw(values, source.draws((i + number * len(attributes)) % count), size)
            for i, values in enumerate(attributes)
        ]
    )


def judged(
    draws: Sequence[Images], asked: Asked, judge: Judge | None, classifier: TrainedClassifier | None, others: int
) -> dict[str, float]:
    """Returns the numbers of a row; `draws` are sets of images for the captions, of which the first has all numbers."""
    images = draws[0]
    found = dataclasses.asdict(agreement(images, asked.attributes))
    found["shuffled"] = agreement(images, np.roll(asked.attributes, 1, axis=0)).all
    if judge is not None:
        of_images, of_texts = judge.images(images), judge.texts(asked.captions)
        found |= clip_score(of_images, of_texts)
        found["r_precision"] = float(r_precision(of_images, of_texts, asked.attributes, others).mean())
    if len(draws) > 1:
        found["diversity"] = diversity(draws, (asked.real, *asked.more))
    if classifier is not None:
        side = classifier.file.shape[0]
        real = np.concatenate([asked.real, *asked.more[:1]])
        found["frechet"] = frechet_distance(*(classifier(resized(x, side)).features for x in (images, real)))
    return found


def drawn(trained: TrainedModel, captions: Sequence[str], draws: int) -> list[Images]:
    """Returns sets of images for the captions, each of its own seed."""
    generator = trained.generator
    generator.use_prompts(list(captions))
    return [generator.images(trained.model, seed, len(captions)).images for seed in range(draws)]


def cost(trained: TrainedModel, num: int) -> dict[str, float]:
    """Returns what one image costs, after compiling: seconds of the process on all cores, and by the clock."""
    size = trained.generator.batch_size
    count = max(num // size, 1) * size
    trained.generator.images(trained.model, 1, size)
    before, begun = time.process_time(), time.perf_counter()
    trained.generator.images(trained.model, 1, count)
    cpu, wall = time.process_time() - before, time.perf_counter() - begun
    return {"cpu_seconds": cpu / count, "seconds": wall / count}


def cells(name: str, split: str, scale: float | None, row: dict[str, Any], costs: dict[str, Any]) -> list[Any]:
    """Returns a line of the table."""

    def shown(key: str, digits: int, of: dict[str, Any] = row) -> str | None:
        return f"{of[key]:.{digits}f}" if key in of else None

    shares = [shown(key, 3) for key in ("shape", "colour", "position", "all", "shuffled")]
    error = f" ± {row['clip_score_error']:.1f}" if "clip_score" in row else ""
    score = f"{shown('clip_score', 1)}{error}" if error else None
    rest = [shown("r_precision", 3), shown("diversity", 2), shown("frechet", 2), shown("cpu_seconds", 3, costs)]
    return [name, split, None if scale is None else f"{scale:g}", *shares, score, *rest]


class Table:
    """Makes the rows of the table.

    Attributes:
      rows: those that are known.
      lines: `{model and scale: images of the prompts of the picture}`.
    """

    def __init__(
        self, rows: harness.Rows, judges: Callable[[Sequence[Images], Asked], dict[str, float]],
        ask: Callable[[str, int], Asked],
    ):  # fmt: skip
        self.rows, self.judges, self.ask = rows, judges, ask
        self.found: list[list[Any]] = []
        self.lines: list[Images] = []

    def draw(self, entry: Entry, scale: float | None, draws: int, pictured: bool) -> None:
        """Adds the row of a model."""
        key = {"model": entry.name, "flags": list(entry.words), "scale": scale}
        opened = functools.cache(lambda: entry.opened(scale))

        def measured(split: str) -> dict[str, float]:
            asked = self.ask(split, opened().generator.config.data.resolution)
            return self.judges(drawn(opened(), asked.captions, draws), asked)

        found = {split: self.rows.get({**key, "split": split}, functools.partial(measured, split)) for split in SPLITS}
        costs = self.rows.get({**key, "split": "cost"}, lambda: cost(opened(), COUNTED))
        self.found += [cells(entry.name, split, scale, found[split], costs) for split in SPLITS]
        if pictured:
            self.lines += drawn(opened(), SHOWN, 1)

    def real(self) -> None:
        """Adds the row of real images."""
        for split in SPLITS:

            def measured(split: str = split) -> dict[str, float]:
                asked = self.ask(split, 64)
                return self.judges((asked.real, *asked.more), asked)

            self.found.append(cells("real images", split, None, self.rows.get(
                {"model": "real images", "split": split}, measured
            ), {}))  # fmt: skip


def main(
    run: Annotated[list[str], "'NAME: FLAGS' of main.py --mode=sample; repeated"],
    out: Path,
    clip: Annotated[str, "a run of configs/clip_shapes.py, which judges"] = "",
    classifier: Annotated[str, "a file of python -m jaxgen.evaluation.export_classifier"] = "",
    scales: Annotated[tuple[float, ...], "guidance scales, with commas; the row's own by default"] = (),
    num: Annotated[int, "captions of each split"] = 200,
    draws: Annotated[int, "images for each caption; 1 leaves diversity out"] = 2,
    others: Annotated[int, "other captions of R-precision"] = 99,
    source: Annotated[str, "the captioned shapes whose captions are drawn"] = SOURCE,
    picture: Annotated[str, "a PNG that is written"] = "",
) -> None:
    harness.prepare()
    if clip and others >= num:
        raise UserError(f"--others={others} captions beside the own one need more than --num={num} images.")
    entries = [entry_of(text) for text in run]
    common: dict[str, Any] = dict(num=num, draws=draws, clip=clip, classifier=classifier, others=others, source=source)
    judges = functools.partial(
        judged, judge=Judge(clip) if clip else None,
        classifier=TrainedClassifier(classifier) if classifier else None, others=others,
    )  # fmt: skip
    table = Table(harness.Rows(out, **common), judges, lambda split, side: Asked.of(source, split, side, num, draws))
    for entry in entries:
        guided = "scale" in entry.config()[0].guidance
        for scale in (scales if guided else ()) or (None,):
            table.draw(entry, scale, draws, bool(picture))
    table.real()
    print(harness.table(HEADS, table.found))
    if picture:
        side = max(line.shape[1] for line in table.lines)
        shown = np.concatenate([resized(line, side) for line in table.lines])
        save_png(Path(picture), grid(shown, columns=len(SHOWN)))


if __name__ == "__main__":
    sys.exit(harness.run(main))
