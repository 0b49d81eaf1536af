"""Which score tells outliers from digits: the variational bound, the exact likelihood, a classifier's confidence.

    python main.py --config=configs/ddpm_digits.py --workdir=runs/ddpm_digits
    python -m studies.outliers --workdir=runs/ddpm_digits --other=fashion=t10k-images-idx3-ubyte.gz

Held-out images of the model's own data against permuted, rotated and cropped ones, noise, and other data, shrunk to
the model's size. Prints the AUROC of each score, high for outliers: below 0.5 it is a reversal, marked with <. A second
table gives the classifier's accuracy on what each score accepts of data and outliers mixed in equal parts: a label
given to an outlier is wrong. Bits per dimension are tested in both directions: |bits - median on training images| asks
whether an image is as probable as the data are, not whether it is improbable (typicality; Nalisnick et al. 2019).

The other direction, where reversals are famous: clothes at 8x8 as an npz file (`--shrink=IN.gz,LABELS.gz,OUT.npz` makes
one), configs/ddpm_digits.py and configs/judge_digits.py trained on it (`--config.data.source=npz:OUT.npz`), then

    python -m studies.outliers --workdir=runs/ddpm_clothes --classifier=runs/judge_clothes --other=digits
"""

from __future__ import annotations

import argparse
import gzip
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.host import use_compilation_cache, use_cpu_cores

REJECTED = np.array([0.0, 0.1, 0.25, 0.5, 0.75])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", default="", help="a trained unconditional diffusion run of grey images")
    parser.add_argument("--classifier", default="", help="a classifier's run on the same data; else the digits judge")
    parser.add_argument(
        "--other", action="append", default=[], metavar="NAME[=FILE]", help="outliers: .npz, idx or idx.gz; or digits"
    )
    parser.add_argument("--num", type=int, default=200, help="images, and outliers of each kind")
    parser.add_argument("--shrink", default="", metavar="IMAGES,LABELS,OUT", help="write an 8x8 npz file and stop")
    parser.add_argument("--levels", type=int, default=100, help="evaluations of the bound; 0 for all levels")
    parser.add_argument("--steps", type=int, default=16, help="Runge-Kutta steps of the flow")
    parser.add_argument("--probes", type=int, default=4, help="of Hutchinson's estimate; 0 for the exact trace")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.shrink:
        images, labels, out = map(pathlib.Path, options.shrink.split(","))
        np.savez_compressed(out, images=shrunk(_idx(images), 8), labels=_idx(labels).astype(np.int32))
        return
    use_cpu_cores()
    use_compilation_cache()

    from jaxgen.data import open_source
    from jaxgen.diffusion.likelihood import image_bits, variational_bound
    from jaxgen.errors import UserError
    from jaxgen.metrics import digits as digits_judge
    from jaxgen.metrics.outliers import accuracy_rejection, auroc, corrupted
    from jaxgen.runs.workdir import stored_config
    from jaxgen.sampling.restore import restore

    config = stored_config(options.workdir)
    if config is None:
        raise UserError(f"{options.workdir} holds no run; train first.")
    trained = restore(config, options.workdir)
    method, schedule = trained.generator.method, trained.generator.method.schedule
    side, _, channels = method.image_shape
    if channels != 1 or getattr(method.network, "num_classes", 0):
        raise UserError("This table is made for an unconditional model of grey images, such as configs/ddpm_digits.py.")

    held_out, training = (trained.generator.source(split) for split in ("test", "train"))
    chosen = held_out.take(list(range(min(options.num, len(held_out)))))
    inside, labels = np.asarray(chosen["image"]), np.asarray(chosen["label"])
    outliers = corrupted(inside, options.seed)
    for other in options.other:
        name, _, path = other.partition("=")
        found = _images(pathlib.Path(path)) if path else open_source(name, "test", 8, 1).arrays["image"][..., 0]
        outliers[name] = shrunk(found[: len(inside)], side)
    # what is typical is learned from training images
    sets = {"data": inside, **outliers, "training": np.asarray(training.take(list(range(len(inside))))["image"])}

    def probabilities(images):
        if not options.classifier:
            return digits_judge.JUDGE(images).probabilities
        logits, _ = classifier.network.apply({"params": weights}, images.astype(np.float32) / 127.5 - 1)
        return np.asarray(jax.nn.softmax(logits), np.float64)

    if options.classifier:
        run = restore(stored_config(options.classifier), options.classifier)
        classifier, weights = run.generator.method, run.model.params["classifier"]

    def bound(params, images, keys):
        x0 = images.astype(jnp.float32) / 127.5 - 1
        return variational_bound(method.denoiser(params), schedule, x0, keys, levels=options.levels).total

    def flow(params, images, keys):
        denoise = method.denoiser(params)
        return image_bits(denoise, schedule, images, keys, steps=options.steps, probes=options.probes)

    print(f"{len(inside)} held-out images of {held_out.name}, as many outliers of each kind; "
          f"model at {trained.images:,} images")
    scores = {"confidence": {name: 1 - probabilities(images).max(axis=1) for name, images in sets.items()}}
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
        values = [auroc(scores[name]["data"], scores[name][kind]) for name in order]
        print(f"| {kind} | " + " | ".join(f"{v:.3f}{' <' if v < 0.5 else ''}" for v in values) + " |")
    right = probabilities(inside).argmax(axis=1) == labels
    print("\nAccuracy on what is accepted, data and outliers mixed one to one, by the share rejected\n")
    print("| outliers | score | " + " | ".join(f"{r:.0%}" for r in REJECTED) + " |\n|" + "---|" * (len(REJECTED) + 2))
    for kind, images in outliers.items():
        correct = np.concatenate([right, np.zeros(len(images), bool)])
        for name in order:
            both = np.concatenate([scores[name]["data"], scores[name][kind]])
            curve = accuracy_rejection(both, correct, REJECTED)
            print(f"| {kind} | {name} | " + " | ".join(f"{v:.3f}" for v in curve) + " |")


def _images(path: pathlib.Path) -> np.ndarray:
    """uint8 `[N, H, W]` from an idx file, gzipped or not, or the largest array of an npz."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            found = max((file[name] for name in file.files), key=np.size)
        return found.reshape(found.shape[:3])
    return _idx(path)


def _idx(path: pathlib.Path) -> np.ndarray:
    """The uint8 array of an idx file, gzipped or not."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    axes = data[3]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(np.frombuffer(data, ">i4", axes, offset=4))


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
