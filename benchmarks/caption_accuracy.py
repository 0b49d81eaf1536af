"""Does a text-to-image model draw what its captions say, in combinations that it was trained on and in others?

    python main.py --config=configs/kl_autoencoder_shapes.py --workdir=runs/kl_autoencoder_shapes
    python main.py --config=configs/latent_diffusion_shapes.py --workdir=runs/latent_diffusion_shapes
    python benchmarks/caption_accuracy.py runs/latent_diffusion_shapes

Draws an image for each of the first captions of `test` (combinations of training, other scenes) and of `unseen`, and
reads shape, colour and place from its pixels (`jaxgen.metrics.shape_attributes`). Beside it stand the autoencoder's
reconstructions of the real images, the most that can be had, and the same samples held against other captions, which
is chance. Prints one JSON line per row.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.host import use_compilation_cache, use_cpu_cores


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", help="a run of latent_diffusion on caption_shapes")
    parser.add_argument("--num", type=int, default=200, help="captions of each split")
    parser.add_argument(
        "--scales", default="", help="of classifier-free guidance, with commas; the run's own where empty"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    use_cpu_cores()
    use_compilation_cache()

    from jaxgen.data.transforms import to_float, to_uint8
    from jaxgen.errors import UserError
    from jaxgen.metrics.shape_attributes import agreement
    from jaxgen.train.restore import restore
    from jaxgen.train.workdir import stored_config

    def row(split: str, scale: float, what: str, images: np.ndarray, wanted: np.ndarray) -> None:
        numbers = {name: round(value, 4) for name, value in dataclasses.asdict(agreement(images, wanted)).items()}
        print(json.dumps({"split": split, "scale": scale, "what": what, "n": len(images), **numbers}), flush=True)

    try:
        config = stored_config(options.workdir)
        if config is None:
            raise UserError(f"{options.workdir} holds no run that can be used (it has no config.json).")
        scales = [float(x) for x in options.scales.split(",") if x] or [float(config.guidance.get("scale", 1.0))]
        for split in ("test", "unseen"):
            config.data.eval_split = split
            for scale in scales:
                config.guidance.update(name="classifier_free", scale=scale)
                trained = restore(config, options.workdir)
                method, model = trained.generator.method, trained.model
                real = trained.generator.source(split).take(range(options.num))
                if scale == scales[0]:
                    again = jax.jit(lambda model, image, m=method: m.decode(model, m.mean(model, {"image": image})))
                    parts = np.array_split(np.arange(options.num), -(-options.num // 50))
                    images = [
                        to_uint8(again(model, to_float({"x": jnp.asarray(real["image"][p])})["x"])) for p in parts
                    ]
                    row(split, scale, "reconstructions", np.concatenate(images), real["attributes"])
                drawn = trained.generator.images(model, options.seed, options.num).images
                row(split, scale, "samples", drawn, real["attributes"])
                row(split, scale, "other captions", drawn, np.roll(real["attributes"], 1, axis=0))
    except UserError as error:
        print(f"caption_accuracy: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
