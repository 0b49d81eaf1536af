"""Does a tuned text-to-image model draw the new thing, can it be changed by words, and what did the model forget?

    python main.py --config=configs/lora_concepts.py --workdir=runs/lora_concepts
    python -m studies.concepts --base=runs/latent_diffusion_concepts --classifier=runs/classifier_concepts \\
        --run=lora=runs/lora_concepts --out=concepts.jsonl

Each run was tuned on five pictures of a concept of `concept_shapes`: a ring, stripes or purple, none of which the base
has ever seen. A classifier that knows them (configs/classifier_concepts.py) reads images that are drawn for

    new        captions of the split `test`, the concept in other combinations; of `together` where a run has several
    old        captions that the base learned from

`concept` is the share of new images that show the concept; `edited` the share in which everything that the caption says
is right, the concept and its colour, texture and place; `old` the share of old images in which everything is right; and
`moved` how far old images are from those that the base draws from the same noise (root mean square of values in
[-1, 1]). Beside the runs stand real images, the autoencoder's copies of them, and the base, for which the concept's
word is one that it has never seen.

--adapters puts files on the base, such as several low-rank updates at once, and asks for what --together says, such as
a striped ring. --checkpoints reads every checkpoint of the runs: the curves against training steps.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import jax
import numpy as np

from jaxgen.data import open_source
from jaxgen.data.sources import concept_shapes, shapes
from jaxgen.errors import UserError
from jaxgen.report.images import grid, save_png
from jaxgen.sampling.grafts.requests import read_adapter
from jaxgen.sampling.restore import TrainedModel, restore
from studies import harness
from studies.caption_accuracy import classifier_of, reconstruct

Tell = Callable[[np.ndarray], np.ndarray]  # uint8 images -> attributes [N, 4]
SEED = 0


@dataclasses.dataclass(frozen=True)
class Asked:
    """Holds captions, the attributes `[N, 4]` that their images should show, and real images of them."""

    captions: list[str]
    attributes: np.ndarray
    images: np.ndarray
    concepts: tuple[str, ...] = ()

    @classmethod
    def of(cls, source: str, split: str, num: int) -> Asked:
        opened = open_source(source, split, 64, 3, 8)
        chosen = opened.take(np.linspace(0, len(opened) - 1, num).astype(int).tolist())
        concepts = tuple(concept_shapes.words_of(source.partition(":")[2]))
        return cls([str(c) for c in chosen["caption"]], chosen["attributes"], chosen["image"], concepts)

    def agreement(self, images: np.ndarray, tell: Tell) -> dict[str, float]:
        """Returns the shares of images that show everything, and that show the concepts they were asked for."""
        right = tell(images) == self.attributes
        found = {"all": right.all(axis=1)}
        if self.concepts:
            found["concept"] = (right | ~self._of_concepts()).all(axis=1)
        return {key: round(float(values.mean()), 4) for key, values in found.items()}

    def _of_concepts(self) -> np.ndarray:
        """Tells which of the attributes `[N, 4]` are concepts."""
        numbers = np.full(len(concept_shapes.ATTRIBUTES), -1)
        for concept in self.concepts:
            key = concept_shapes.CONCEPTS[concept]
            numbers[concept_shapes.ATTRIBUTES.index(key)] = shapes.NAMES[key].index(concept)
        return self.attributes == numbers


def reader(classifier: str) -> Tell:
    """Returns a function that reads the four attributes of `concept_shapes`."""
    return classifier_of(harness.trained(classifier))


def drawn(trained: TrainedModel, captions: list[str]) -> np.ndarray:
    """Returns an image of each caption, from the same noise for every model."""
    trained.generator.use_prompts(captions)
    return trained.generator.images(trained.model, SEED, len(captions)).images


def tuned(workdir: str, source: str, step: int | str = "last") -> TrainedModel:
    """Returns the model of a run's checkpoint, its data replaced by what it is asked for."""
    config = harness.run_config(workdir)
    config.data.source, config.data.eval_split = source, "test"
    return restore(config, workdir, step)


def with_adapters(base: str, files: list[str]) -> TrainedModel:
    """Returns the base with files put on it, as --adapter does."""
    config = harness.run_config(base)
    config.data.source, config.data.eval_split = "concept_shapes", "test"
    return restore(config, base, adapters=[read_adapter(file) for file in files])


def tuned_values(trained: TrainedModel) -> int:
    """Returns how many values learned: those of the grafts."""
    names = getattr(trained.generator.method, "grafts", ())
    return sum(x.size for name in names for x in jax.tree.leaves(trained.model.params[name]))


def save_picture(path: Path, images: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_png(path, grid(images[:32], columns=8))


def picture_of(folder: str, name: str) -> Path | None:
    return Path(folder) / name if folder else None


def concept_of(workdir: str) -> str:
    source = str(harness.run_config(workdir).data.source)
    if not source.startswith("concept_shapes:"):
        raise UserError(f"{workdir} was tuned on {source!r}; this study reads runs on concept_shapes:<concept>=<word>.")
    return source


def main(
    base: Annotated[str, "the run that was tuned, of configs/latent_diffusion_concepts.py"],
    classifier: Annotated[str, "a run of configs/classifier_concepts.py"],
    out: Annotated[Path, "file of the rows"],
    run: Annotated[list[str], "name=workdir of a tuned run; may be given several times"] = [],  # noqa: B006
    adapters: Annotated[list[str], "name=lora:FILE,embedding:FILE,...: files that are put on the base, together"] = [],  # noqa: B006
    together: Annotated[str, "what --adapters draw, such as ring=sks,striped=zwx"] = "",
    num: Annotated[int, "images of each kind"] = 200,
    checkpoints: Annotated[bool, "every checkpoint of the runs"] = False,
    pictures: Annotated[str, "folder of the pictures"] = "",
) -> None:
    harness.prepare()
    rows, tell = harness.Rows(out, num=num), reader(classifier)
    old = Asked.of("concept_shapes", "test", num)
    plain = tuned(base, "concept_shapes")
    before = drawn(plain, old.captions)
    for what in ("old", *concept_shapes.CONCEPTS):
        asked = old if what == "old" else Asked.of(f"concept_shapes:{what}=sks", "test", num)
        for name, images in controls(plain, asked).items():
            rows.get({"name": name, "what": what}, functools.partial(asked.agreement, images, tell))
    for name, workdir in harness.named(run, "--run", "dreambooth=runs/dreambooth_concepts").items():
        source = concept_of(workdir)
        split = "together" if "," in source else "test"
        asked = Asked.of(source, split, num)
        for step in harness.checkpoint_steps(workdir)[0 if checkpoints else -1 :]:
            key = {"name": name, "what": source.partition(":")[2], "step": step}
            model = functools.partial(tuned, workdir, source, step)
            rows.get(key, functools.partial(measured, model, asked, old, before, tell, picture_of(pictures, name)))
    for name, files in harness.named(adapters, "--adapters", "two=a.safetensors,b.safetensors").items():
        asked = Asked.of(f"concept_shapes:{together}", "together" if "," in together else "test", num)
        model = functools.partial(with_adapters, base, files.split(","))
        given = (asked, old, before, tell, picture_of(pictures, name))
        rows.get({"name": name, "what": together}, functools.partial(measured, model, *given))


def controls(base: TrainedModel, asked: Asked) -> dict[str, np.ndarray]:
    """Returns real images of captions, the autoencoder's copies of them, and what the base draws for the captions."""
    copies = reconstruct(base)(asked.images)
    return {"real": asked.images, "copies": copies, "base": drawn(base, asked.captions)}


def measured(
    model: Callable[[], TrainedModel], asked: Asked, old: Asked, before: np.ndarray, tell: Tell, picture: Path | None
) -> dict[str, float]:
    """Returns one row: what a tuned model draws of the new and of the old."""
    trained = model()
    new, after = drawn(trained, asked.captions), drawn(trained, old.captions)
    if picture:
        save_picture(picture.with_name(f"{picture.name}_new.png"), new)
        save_picture(picture.with_name(f"{picture.name}_old.png"), after)
    found = asked.agreement(new, tell)
    moved = np.sqrt(np.mean((after.astype(float) - before) ** 2)) / 127.5
    return {
        "concept": found["concept"],
        "edited": found["all"],
        "old": old.agreement(after, tell)["all"],
        "moved": round(float(moved), 4),
        "values": tuned_values(trained),
    }


if __name__ == "__main__":
    sys.exit(harness.run(main))
