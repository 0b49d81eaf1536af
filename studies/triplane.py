"""Do objects that were drawn from sentences show what the sentences say, in the right place, from all sides?

    python main.py --config=configs/triplane_solids.py --workdir=runs/triplane_solids
    python main.py --config=configs/clip_solids.py --workdir=runs/clip_solids
    python main.py --config=configs/classifier_solids.py --workdir=runs/classifier_solids
    python -m studies.triplane --clip=runs/clip_solids --classifier=runs/classifier_solids --out=triplane.jsonl \\
        --picture=triplane.png --run=all=runs/triplane_solids --run="no word attention=runs/triplane_no_word"

--run is NAME=WORKDIR of a run of `triplane_gan` or `camera_gan`, once for each row. Each draws one picture for each of
the first --num captions and cameras of a split, alone (`single`) and one upon another (`pairs`). Rows have

    retrieval        the share of pictures to which their own caption is nearer, by the CLIP of --clip, than the others
                     of its kind: all 39 of single solids, and --others that are drawn of the 1,599 of pairs
    all              the share in which the classifier sees every solid and colour that the caption says
    shuffled         `retrieval` with the caption of the next picture that says something else: chance
    depth            the correlation of nearness with the true one (docs/triplane_gan.md); of objects in space alone
    reprojection     the mean absolute difference, of colours in [-1, 1], of points as two cameras 30 degrees apart see
                     them. Where they are is known from the true solids, so that models without a depth have it too
    Fréchet distance to as many other true pictures, in the classifier's features
    CPU seconds      of this process for an object and its picture, after compiling

Beside them stand the true pictures. Runs without captions have no retrieval. Rows are appended to --out as they are
known, and the same command goes on where it stopped. --picture has a line of eight captions for each row.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from jaxgen.arrays import to_uint8
from jaxgen.data import open_source
from jaxgen.data.sources.solids.solids import COMBINATIONS, KINDS, TOKENIZER, Solids, caption, render
from jaxgen.data.transforms import to_float
from jaxgen.errors import UserError
from jaxgen.geometry import agreement, cameras
from jaxgen.methods.classifiers.classifier import Classifier
from jaxgen.methods.contrastive.clip import CLIP
from jaxgen.methods.gans.camera_gan import CameraGAN
from jaxgen.methods.gans.triplane_gan import ASIDE
from jaxgen.metrics.distributions.frechet import frechet_distance
from jaxgen.networks.layers.stateless import apply_params
from jaxgen.report.images import grid, save_png
from jaxgen.sampling.restore import TrainedModel
from studies import harness

Images = UInt8[np.ndarray, "N H W 3"]
SPLITS = ("test", "unseen")
BATCH, SHOWN = 50, 8  # pictures in a program, and in a line of the picture
LENGTH = 1000  # examples of a split
TRUE = "true pictures"
HEADS = (
    "model", "solids", "split", "retrieval", "all", "shuffled", "depth", "reprojection", "Fréchet distance",
    "CPU seconds",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Asked:
    """Holds captions with their cameras, and what is true of them.

    Attributes:
      kind: `single` or `pairs`.
      told: `camera` [N, 25] and `tokens` [N, L].
      attributes: int [N, 4], as `solids` has them.
      here, aside: what the cameras of the examples see of the true solids, and those that are turned by `ASIDE`.
      depth: as in an example.
    """

    kind: str
    told: dict[str, np.ndarray]
    attributes: Int[np.ndarray, "N 4"]
    here: agreement.View
    aside: agreement.View
    depth: Float[np.ndarray, "N H W 1"]

    @classmethod
    def of(cls, kind: str, split: str, side: int, num: int, first: int = 0) -> Asked:
        """Returns `num` examples of a split from `first` on."""
        source = open_source(f"solids:{kind}", split, side, 3, 0)
        assert isinstance(source, Solids)
        numbers = range(first, first + num)
        rows = source.take(numbers)
        turned = np.asarray(cameras.turned(jnp.asarray(rows["camera"]), ASIDE))
        seen = [
            render(source.scene(i), rows["attributes"][n, 1::2], turned[n], (side, side))
            for n, i in enumerate(numbers)
        ]  # fmt: skip
        beside = {name: np.stack([one[name] for one in seen]) for name in ("image", "mask", "depth")}
        told = {name: rows[name] for name in ("camera", "tokens")}
        views = (view(rows, rows["camera"]), view(beside, turned))
        return cls(kind, told, rows["attributes"], *views, rows["depth"])

    @property
    def images(self) -> Images:
        """Returns the true pictures."""
        return levels(self.here.image)


def view(rows: dict[str, np.ndarray], camera: np.ndarray) -> agreement.View:
    """Returns true pictures as what a camera sees."""
    image, opaque = to_float({"image": rows["image"]})["image"], (rows["mask"] > 0)[..., None].astype(np.float32)
    return agreement.View(*map(jnp.asarray, (image, rows["depth"], opaque, camera)))


def levels(images: Any) -> Images:
    """Returns pictures in [-1, 1] as bytes."""
    return np.asarray(to_uint8(jnp.asarray(images)))


# ------------------------------------------------------------------ the judges


class Judge:
    """Says by a run of CLIP which caption a picture shows, and by a classifier which solids.

    Raises:
      UserError: a run is of another method.
    """

    def __init__(self, clip: str, classifier: str, others: int):
        of_clip = harness.trained(clip, harness.run_config(clip, "clip"))
        of_class = harness.trained(classifier, harness.run_config(classifier, "classifier"))
        towers, reader = of_clip.generator.method, of_class.generator.method
        assert isinstance(towers, CLIP) and isinstance(reader, Classifier)
        if len(reader.attributes) != 4:
            raise UserError(f"--classifier={classifier} tells no solids: train configs/classifier_solids.py.")
        self._others, self._params, self._model = others, of_clip.model.params, of_class.model
        self._image, self._text = jax.jit(towers.embed_image), jax.jit(towers.embed_text)
        self._tell = jax.jit(reader.tell)
        self._features = jax.jit(lambda model, x: apply_params(reader.network, model.params["classifier"], x)[1])

    def features(self, images: Images) -> Float[np.ndarray, "N D"]:
        """Returns the classifier's features."""
        return in_parts(lambda part: self._features(self._model, part), images)

    def tell(self, images: Images) -> Int[np.ndarray, "N 4"]:
        """Returns the attributes that the classifier sees."""
        return in_parts(lambda part: self._tell(self._model, part), images)

    def retrieval(self, images: Images, attributes: Int[np.ndarray, "N 4"], kind: str) -> float:
        """Returns the share of pictures to which the caption of these attributes is nearer than others of the kind."""
        known = COMBINATIONS[kind]
        texts = np.asarray(self._text(self._params, TOKENIZER([caption(one) for one in known])))
        near = in_parts(lambda part: self._image(self._params, part), images) @ texts.T
        own = np.array([np.flatnonzero((known == one).all(1))[0] for one in attributes])
        return found_first(near, own, self._others)


def found_first(near: Float[np.ndarray, "N C"], own: Int[np.ndarray, " N"], others: int) -> float:
    """Returns the share of rows whose `own` column is above `others` further ones, which are drawn; ties are wrong."""
    chance, right = np.random.default_rng(0), []
    for row, column in zip(near, own, strict=True):
        rest = np.delete(np.arange(near.shape[1]), column)
        drawn = chance.choice(rest, others, replace=False) if others < len(rest) else rest
        right.append(row[column] > row[drawn].max())
    return float(np.mean(right))


def in_parts(function: Any, images: Images) -> np.ndarray:
    """Returns a function of pictures in [-1, 1], part by part."""
    parts = (images[i : i + BATCH] for i in range(0, len(images), BATCH))
    return np.concatenate([np.asarray(function(to_float({"image": jnp.asarray(part)})["image"])) for part in parts])


def said_otherwise(attributes: Int[np.ndarray, "N 4"]) -> Int[np.ndarray, "N 4"]:
    """Returns for each row the next one that differs from it. Raises a UserError where all rows are equal."""
    found = []
    for i, one in enumerate(attributes):
        later = np.roll(attributes, -1 - i, axis=0)
        different = np.flatnonzero((later != one).any(1))
        if not len(different):
            raise UserError("All captions are equal: set --num higher.")
        found.append(later[different[0]])
    return np.stack(found)


# ------------------------------------------------------------------ a row


class Drawer:
    """Draws with a run.

    Raises:
      UserError: the run is of no GAN of cameras.
    """

    def __init__(self, workdir: str):
        self.trained: TrainedModel = harness.trained(workdir)
        method = self.trained.generator.method
        if not isinstance(method, CameraGAN):
            raise UserError(f"{workdir} is a run of no triplane_gan and no camera_gan.")
        self.method, self._draw = method, jax.jit(method.sample)
        self.reads_captions = "tokens" in method.conditions

    def seen(self, told: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns `image` in [-1, 1] and, where the method has them, `depth` and `opacity`. Object i has noise i."""
        count = len(told["camera"])
        keys, parts = jax.random.split(jax.random.key(0), count), []
        for i in range(0, count, BATCH):
            given = {name: told[name][i : i + BATCH] for name in self.method.conditions}
            made = self._draw(self.trained.model, keys[i : i + BATCH], given)
            parts.append(made if isinstance(made, dict) else {"image": made})
        return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in parts[0]}

    def cost(self, asked: Asked) -> float:
        """Returns the CPU seconds of an object, after compiling."""
        told = {name: values[:BATCH] for name, values in asked.told.items()}
        self.seen(told)
        before = time.process_time()
        self.seen(told)
        return (time.process_time() - before) / len(told["camera"])


def measured(
    asked: Asked, more: Asked, judge: Judge, here: dict[str, np.ndarray], aside: np.ndarray, captions: bool
) -> dict[str, float]:
    """Returns the numbers of pictures that cameras see, `aside` those of the turned ones, all in [-1, 1]."""
    images = levels(here["image"])
    found = {}
    if captions:
        found = {
            "retrieval": judge.retrieval(images, asked.attributes, asked.kind),
            "all": float((judge.tell(images) == asked.attributes).all(1).mean()),
            "shuffled": judge.retrieval(images, said_otherwise(asked.attributes), asked.kind),
        }
    error, share = agreement.reprojection(
        asked.here._replace(image=jnp.asarray(here["image"])), asked.aside._replace(image=jnp.asarray(aside))
    )  # fmt: skip
    found["reprojection"] = float((error * share).sum() / share.sum())
    if "depth" in here:
        end = cameras.DISTANCE + 1
        near = (here["opacity"] * (end - here["depth"]), np.where(asked.depth > 0, end - asked.depth, 0.0))
        found["depth"] = float(agreement.correlation(*map(jnp.asarray, near)).mean())
    found["frechet"] = frechet_distance(judge.features(images), judge.features(more.images))
    return found


def drawn(drawer: Drawer, asked: Asked, more: Asked, judge: Judge) -> dict[str, float]:
    """Returns the numbers of a run."""
    here, turned = drawer.seen(asked.told), {**asked.told, "camera": np.asarray(asked.aside.camera)}
    return measured(asked, more, judge, here, drawer.seen(turned)["image"], drawer.reads_captions)


def line_of(row: dict[str, Any]) -> list[Any]:
    """Returns a line of the table."""
    keys = ("retrieval", "all", "shuffled", "depth", "reprojection", "frechet", "cpu_seconds")
    digits = (3, 3, 3, 3, 3, 2, 3)
    numbers = (f"{row[key]:.{d}f}" if key in row else None for key, d in zip(keys, digits, strict=True))
    return [row["model"], row["kind"], row["split"], *numbers]


def block(
    rows: harness.Rows, asked: Asked, more: Asked, judge: Judge, drawers: Mapping[str, Callable[[], Drawer]], split: str
) -> list[dict[str, Any]]:
    """Returns the rows of a kind of solids and a split: those of the runs, then that of the true pictures."""

    def of_run(drawer: Callable[[], Drawer]) -> dict[str, float]:
        return {**drawn(drawer(), asked, more, judge), "cpu_seconds": drawer().cost(asked)}

    def of_truth() -> dict[str, float]:
        return measured(
            asked, more, judge, {"image": np.asarray(asked.here.image)}, np.asarray(asked.aside.image), True
        )

    made = {name: functools.partial(of_run, drawer) for name, drawer in drawers.items()} | {TRUE: of_truth}
    return [rows.get({"model": name, "kind": asked.kind, "split": split}, make) for name, make in made.items()]


def main(
    run: Annotated[list[str], "NAME=WORKDIR of a triplane_gan or a camera_gan; repeated"],
    clip: Annotated[str, "a run of configs/clip_solids.py"],
    classifier: Annotated[str, "a run of configs/classifier_solids.py"],
    out: Path,
    num: Annotated[int, "captions of each split and kind"] = 400,
    others: Annotated[int, "other captions of pairs that a picture's own is held against"] = 99,
    side: Annotated[int, "pixels of a picture's side; that of the runs"] = 32,
    picture: Annotated[str, "a PNG that is written"] = "",
) -> None:
    if not 1 < num <= LENGTH // 2:
        raise UserError(f"--num={num}: a split has {LENGTH} examples, of which 2 to {LENGTH // 2} are drawn.")
    harness.prepare()
    judge, rows = Judge(clip, classifier, others), harness.Rows(out, num=num, others=others, clip=clip)
    runs = harness.named(run, "--run", "all=runs/triplane_solids")
    drawers = {name: functools.cache(functools.partial(Drawer, workdir)) for name, workdir in runs.items()}
    found = []
    for kind, split in itertools.product(KINDS, SPLITS):
        asked, more = (Asked.of(kind, split, side, num, first) for first in (0, LENGTH - num))
        found += [line_of(row) for row in block(rows, asked, more, judge, drawers, split)]
    print(harness.table(HEADS, found))
    if picture:
        asked = Asked.of("pairs", "unseen", side, SHOWN)
        lines = [levels(drawer().seen(asked.told)["image"]) for drawer in drawers.values()]
        save_png(Path(picture), grid(np.concatenate([*lines, asked.images]), columns=SHOWN))


if __name__ == "__main__":
    sys.exit(harness.run(main))
