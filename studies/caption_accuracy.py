"""Does a text-to-image model draw what its captions say, in combinations that it was trained on and in others?

    python main.py --config=configs/kl_autoencoder_shapes.py --workdir=runs/kl_autoencoder_shapes
    python main.py --config=configs/latent_diffusion_shapes.py --workdir=runs/latent_diffusion_shapes
    python -m studies.caption_accuracy runs/latent_diffusion_shapes

Draws an image for each of the first captions of `test` (combinations of training, other scenes) and of `unseen`, and
tells shape, colour and place twice: from its pixels (`jaxgen.metrics.shape_attributes`), and, with --judge, a run of
configs/judge_shapes.py, by a classifier that was trained on real shapes. Beside the samples stand real images, their
reconstructions by the autoencoder, the most that can be had, and the same samples held against the captions of
others. Chance is 1/8, 1/8 and 1/9. Prints one JSON line per row, and writes a picture of samples with --out.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxgen.data.transforms import to_float, to_uint8
from jaxgen.host import use_compilation_cache, use_cpu_cores
from jaxgen.methods.base import Model
from jaxgen.sampling.restore import Trained, restore


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", help="a run of latent_diffusion on caption_shapes")
    parser.add_argument("--num", type=int, default=200, help="captions of each split")
    parser.add_argument(
        "--scales", default="", help="of classifier-free guidance, with commas; the run's own where empty"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--judge", default="", help="a run of configs/judge_shapes.py")
    parser.add_argument("--out", type=pathlib.Path, help="folder of the pictures, <split>_<scale>.png")
    options = parser.parse_args()
    use_cpu_cores()
    use_compilation_cache()

    from jaxgen.errors import UserError
    from jaxgen.metrics.shape_attributes import agreement, read_attributes
    from jaxgen.report.images import grid, save_png
    from jaxgen.runs.workdir import stored_config

    def run(workdir: str) -> ConfigDict:
        config = stored_config(workdir)
        if config is None:
            raise UserError(f"{workdir} holds no run that can be used (it has no config.json).")
        config.data.source = "caption_shapes"  # the run's own may be latents, without the split `unseen`
        return config

    try:
        config = run(options.workdir)
        judges = {"pixels": read_attributes}
        if options.judge:
            judges["classifier"] = classifier(restore(run(options.judge), options.judge))

        def row(split: str, scale: float, what: str, images: np.ndarray, wanted: np.ndarray) -> None:
            for judge, tell in judges.items():
                found = dataclasses.asdict(agreement(images, wanted, tell))
                numbers = {name: round(value, 4) for name, value in found.items()}
                facts = {"split": split, "scale": scale, "what": what, "judge": judge, "n": len(images)}
                print(json.dumps(facts | numbers), flush=True)

        scales = [float(x) for x in options.scales.split(",") if x] or [float(config.guidance.get("scale", 1.0))]
        for split in ("test", "unseen"):
            config.data.eval_split = split
            for scale in scales:
                config.guidance.update(name="classifier_free", scale=scale)
                trained = restore(config, options.workdir)
                method, model = trained.generator.method, trained.model
                real = trained.generator.source(split).take(range(options.num))
                wanted = real["attributes"]
                if scale == scales[0]:
                    row(split, scale, "real", real["image"], wanted)

                    def again(model: Model, image: jax.Array, method=method) -> jax.Array:
                        return to_uint8(method.decode(model, method.mean(model, {"image": image})))

                    row(split, scale, "reconstructions", in_parts(again, model)(real["image"]), wanted)
                drawn = trained.generator.images(model, options.seed, options.num).images
                row(split, scale, "samples", drawn, wanted)
                row(split, scale, "other captions", drawn, np.roll(wanted, 1, axis=0))
                if options.out:
                    options.out.mkdir(parents=True, exist_ok=True)
                    save_png(options.out / f"{split}_{scale:g}.png", grid(drawn[:64], columns=8))
                    lines = "\n".join(str(caption) for caption in real["caption"][:64])
                    (options.out / f"{split}_{scale:g}.txt").write_text(lines + "\n")
    except UserError as error:
        print(f"caption_accuracy: {error}", file=sys.stderr)
        return 2
    return 0


def in_parts(program: Callable[[Model, jax.Array], jax.Array], model: Model) -> Callable[[np.ndarray], np.ndarray]:
    """A function of a model and float images as one of uint8 images, fifty at a time, compiled once."""
    compiled = jax.jit(lambda model, images: program(model, to_float({"image": images})["image"]))

    def run(images: np.ndarray) -> np.ndarray:
        parts = np.array_split(images, -(-len(images) // 50))
        return np.concatenate([np.asarray(compiled(model, part)) for part in parts])

    return run


def classifier(trained: Trained) -> Callable[[np.ndarray], np.ndarray]:
    """uint8 images -> the attributes that a trained classifier tells, `[N, 3]`."""
    return in_parts(trained.generator.method.tell, trained.model)


if __name__ == "__main__":
    sys.exit(main())
