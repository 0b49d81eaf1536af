"""Does a text-to-image model draw what its captions say, in combinations that it was trained on and in others?

    python main.py --config=configs/kl_autoencoder_shapes.py --workdir=runs/kl_autoencoder_shapes
    python main.py --config=configs/latent_diffusion_shapes.py --workdir=runs/latent_diffusion_shapes
    python -m studies.caption_accuracy --workdir=runs/latent_diffusion_shapes

Draws an image for each of the first captions of `test` (combinations of training, other scenes) and of `unseen`, and
tells shape, colour and place twice: from its pixels (`read_attributes`), and, with --classifier, a run of
configs/classifier_shapes.py, by a classifier that was trained on real shapes. Beside the samples stand real images,
their reconstructions by the autoencoder, the most that can be had, and the same samples against the captions of
others. Chance is 1/8, 1/8 and 1/9. Prints one JSON line per row, and writes a picture of samples with --out.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxgen.arrays import to_uint8
from jaxgen.data.transforms import to_float
from jaxgen.methods.base import Model
from jaxgen.metrics.analysis.shape_attributes import agreement, read_attributes
from jaxgen.report.images import grid, save_png
from jaxgen.sampling.restore import TrainedModel
from studies import harness

Tell = Callable[[np.ndarray], np.ndarray]  # uint8 images -> attributes [N, 3]


def run_config(workdir: str) -> ConfigDict:
    config = harness.run_config(workdir)
    config.data.source = "caption_shapes"  # the run's own may be latents, without the split `unseen`
    return config


def print_row(facts: dict[str, object], images: np.ndarray, wanted: np.ndarray, tellers: dict[str, Tell]) -> None:
    """Prints one JSON line for each way to tell the attributes: the shares of images that have those wanted."""
    for name, tell in tellers.items():
        found = dataclasses.asdict(agreement(images, wanted, tell))
        numbers = {key: round(value, 4) for key, value in found.items()}
        print(json.dumps({**facts, "told_by": name, "n": len(images), **numbers}), flush=True)


def reconstruct(trained: TrainedModel) -> Tell:
    """Turns uint8 images into what the autoencoder makes of them."""
    method = trained.generator.method

    def again(model: Model, image: jax.Array) -> jax.Array:
        return to_uint8(method.decode(model, method.diffused(model, {"image": image})))

    return in_parts(again, trained.model)


def save_pictures(stem: Path, drawn: np.ndarray, captions: np.ndarray) -> None:
    """Writes the first 64 samples and their captions."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    save_png(stem.with_name(f"{stem.name}.png"), grid(drawn[:64], columns=8))
    stem.with_name(f"{stem.name}.txt").write_text("\n".join(map(str, captions[:64])) + "\n")


def in_parts(program: Callable[[Model, jax.Array], jax.Array], model: Model) -> Callable[[np.ndarray], np.ndarray]:
    """Turns a function of a model and float images into one of uint8 images, fifty at a time, compiled once."""
    compiled = jax.jit(lambda model, images: program(model, to_float({"image": images})["image"]))

    def run(images: np.ndarray) -> np.ndarray:
        parts = np.array_split(images, -(-len(images) // 50))
        return np.concatenate([np.asarray(compiled(model, part)) for part in parts])

    return run


def classifier_of(trained: TrainedModel) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from uint8 images to the attributes that a trained classifier tells, `[N, 3]`."""
    return in_parts(trained.generator.method.tell, trained.model)


def main(
    workdir: Annotated[str, "a run of latent_diffusion on caption_shapes"],
    num: Annotated[int, "captions of each split"] = 200,
    scales: Annotated[tuple[float, ...], "guidance scales, with commas; the run's own by default"] = (),
    seed: int = 0,
    classifier: Annotated[str, "a run of configs/classifier_shapes.py"] = "",
    out: Annotated[str, "folder of the pictures, <split>_<scale>.png"] = "",
) -> None:
    harness.prepare()
    config = run_config(workdir)
    tellers: dict[str, Tell] = {"pixels": read_attributes}
    if classifier:
        tellers["classifier"] = classifier_of(harness.trained(classifier, run_config(classifier)))
    scales = scales or (float(config.guidance.get("scale", 1.0)),)
    for split in ("test", "unseen"):
        config.data.eval_split = split
        for scale in scales:
            config.guidance.update(name="classifier_free", scale=scale)
            trained = harness.trained(workdir, config)
            real = trained.generator.source(split).take(range(num))
            wanted = real["attributes"]
            sets = {"real": real["image"], "reconstructions": reconstruct(trained)(real["image"])}
            sets = sets if scale == scales[0] else {}
            sets["samples"] = trained.generator.images(trained.model, seed, num).images
            for what, images in sets.items():
                print_row({"split": split, "scale": scale, "what": what}, images, wanted, tellers)
            facts = {"split": split, "scale": scale, "what": "other captions"}
            print_row(facts, sets["samples"], np.roll(wanted, 1, axis=0), tellers)
            if out:
                save_pictures(Path(out) / f"{split}_{scale:g}", sets["samples"], real["caption"])


if __name__ == "__main__":
    sys.exit(harness.run(main))
