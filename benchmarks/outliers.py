"""Which score tells outliers from digits: the variational bound, the exact likelihood, a classifier's confidence.

    python main.py --config=configs/ddpm_digits.py --workdir=runs/ddpm_digits
    python benchmarks/outliers.py --workdir=runs/ddpm_digits [--fashion=train-images-idx3-ubyte.gz]

Held-out digits against permuted, rotated and cropped ones, noise, and Fashion-MNIST shrunk to 8x8. Prints the AUROC of
each score, high for outliers: below 0.5 it is a reversal, marked with <. A second table gives the judge's accuracy on
what each score accepts of digits and outliers mixed in equal parts: a label given to an outlier is wrong. Bits per
dimension are tested in both directions: |bits - median on training digits| asks whether an image is as probable as
digits are, not whether it is improbable (typicality; Nalisnick et al. 2019).
"""

from __future__ import annotations

import argparse
import gzip
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.train.mesh import use_cpu_cores
from jaxgen.train.xla import use_compilation_cache

REJECTED = np.array([0.0, 0.1, 0.25, 0.5, 0.75])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="a trained run of 8x8 digits")
    parser.add_argument("--fashion", default="", help="images of Fashion-MNIST: .npz, idx or idx.gz")
    parser.add_argument("--num", type=int, default=200, help="digits, and outliers of each kind")
    parser.add_argument("--levels", type=int, default=100, help="evaluations of the bound; 0 for all levels")
    parser.add_argument("--steps", type=int, default=16, help="Runge-Kutta steps of the flow")
    parser.add_argument("--probes", type=int, default=4, help="of Hutchinson's estimate; 0 for the exact trace")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    use_cpu_cores()
    use_compilation_cache()

    from jaxgen.diffusion.likelihood import image_bits, variational_bound
    from jaxgen.errors import UserError
    from jaxgen.metrics.digits import judge
    from jaxgen.metrics.outliers import accuracy_rejection, auroc, corrupted
    from jaxgen.train.restore import restore
    from jaxgen.train.workdir import stored_config

    config = stored_config(options.workdir)
    if config is None:
        raise UserError(f"{options.workdir} holds no run; train first.")
    trained = restore(config, options.workdir)
    method, schedule = trained.generator.method, trained.generator.method.schedule
    if method.image_shape != (8, 8, 1) or method.num_classes:
        raise UserError("This table is made for an unconditional model of 8x8 digits, such as configs/ddpm_digits.py.")

    held_out, training = (trained.generator.source(split) for split in ("test", "train"))
    chosen = held_out.take(list(range(min(options.num, len(held_out)))))
    digits, labels = np.asarray(chosen["image"]), np.asarray(chosen["label"])
    outliers = corrupted(digits, options.seed)
    if options.fashion:
        outliers["fashion"] = shrunk(_images(pathlib.Path(options.fashion))[: len(digits)], 8)
    # what is typical is learned from training images
    sets = {"digits": digits, **outliers, "training": np.asarray(training.take(list(range(len(digits))))["image"])}

    def bound(params, images, keys):
        x0 = images.astype(jnp.float32) / 127.5 - 1
        return variational_bound(method.denoiser(params), schedule, x0, keys, levels=options.levels).total

    def flow(params, images, keys):
        denoise = method.denoiser(params)
        return image_bits(denoise, schedule, images, keys, steps=options.steps, probes=options.probes)

    print(f"{len(digits)} held-out digits, as many outliers of each kind; model at {trained.images:,} images")
    scores = {"confidence": {name: 1 - judge(images)[0].max(axis=1) for name, images in sets.items()}}
    for name, function in (("bound", bound), ("flow", flow)):
        run = jax.jit(function)
        start = time.perf_counter()
        scores[name] = {}
        for which, (kind, images) in enumerate(sets.items()):
            root = jax.random.fold_in(jax.random.key(options.seed), which)
            keys = jax.vmap(lambda i, root=root: jax.random.fold_in(root, i))(jnp.arange(len(images)))
            parts = np.array_split(np.arange(len(images)), -(-len(images) // 50))
            found = [run(trained.model.params, jnp.asarray(images[p]), keys[p]) for p in parts]
            scores[name][kind] = np.concatenate([np.asarray(x) for x in found])
        means = ", ".join(f"{kind} {values.mean():.2f}" for kind, values in scores[name].items())
        seconds = time.perf_counter() - start
        print(f"{name}: {seconds:.0f} s with compilation; mean bits per dimension: {means}", flush=True)
        typical = np.median(scores[name]["training"])
        scores[f"{name}, typicality"] = {k: np.abs(v - typical) for k, v in scores[name].items()}

    order = ["bound", "bound, typicality", "flow", "flow, typicality", "confidence"]
    print("\nAUROC (< marks a reversal)\n")
    print("| outliers | " + " | ".join(order) + " |\n|" + "---|" * (len(order) + 1))
    for kind in outliers:
        values = [auroc(scores[name]["digits"], scores[name][kind]) for name in order]
        print(f"| {kind} | " + " | ".join(f"{v:.3f}{' <' if v < 0.5 else ''}" for v in values) + " |")
    right = judge(digits)[0].argmax(axis=1) == labels
    print("\nAccuracy on what is accepted, digits and outliers mixed one to one, by the share rejected\n")
    print("| outliers | score | " + " | ".join(f"{r:.0%}" for r in REJECTED) + " |\n|" + "---|" * (len(REJECTED) + 2))
    for kind, images in outliers.items():
        correct = np.concatenate([right, np.zeros(len(images), bool)])
        for name in order:
            both = np.concatenate([scores[name]["digits"], scores[name][kind]])
            curve = accuracy_rejection(both, correct, REJECTED)
            print(f"| {kind} | {name} | " + " | ".join(f"{v:.3f}" for v in curve) + " |")


def _images(path: pathlib.Path) -> np.ndarray:
    """uint8 `[N, H, W]` from an idx file, gzipped or not, or the largest array of an npz."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            found = max((file[name] for name in file.files), key=np.size)
        return found.reshape(found.shape[:3])
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    shape = np.frombuffer(data, ">i4", 3, offset=4)
    return np.frombuffer(data, np.uint8, offset=16).reshape(shape)


def shrunk(images: np.ndarray, side: int) -> np.ndarray:
    """uint8 `[N, H, W]` images as `[N, side, side, 1]`, by means over equal areas."""

    def shares(size: int) -> np.ndarray:
        edges, pixel = np.linspace(0, size, side + 1), np.arange(size)
        low, high = edges[:-1, None], edges[1:, None]
        return np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, 1) * side / size

    height, width = (shares(n) for n in images.shape[1:])
    small = np.einsum("ih,nhw,jw->nij", height, images.astype(np.float64), width)
    return np.round(small).astype(np.uint8)[..., None]


if __name__ == "__main__":
    main()
