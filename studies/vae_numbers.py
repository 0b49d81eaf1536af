"""What a VAE knows: its bounds on held-out images, and which images it finds unlikely.

    python main.py --config=configs/vae_mnist.py --workdir=runs/vae_mnist
    python -m studies.vae_numbers --workdir=runs/vae_mnist --samples=5000 --out=numbers.jsonl \\
        --other=fashion=tfds:fashion_mnist

First table: negative ELBO and importance-weighted bound of --samples samples, in nats, on the first --num held-out
images, with the standard error of their means; active latents; the reconstruction's squared error from the image's own
latents and from another image's.

Second table: AUROC of held-out images against permuted, rotated and cropped ones, noise, and the test images of other
sources, by the negative ELBO, by its distance from the median of training images (typicality, Nalisnick et al. 2019)
and by the reconstruction's error. Below 0.5 outliers look more reasonable than the data: marked with <.

A part of the images is written to --out as soon as it is known, and is not made again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.data import open_source
from jaxgen.errors import UserError
from jaxgen.host import use_compilation_cache, use_cpu_cores
from jaxgen.metrics.outliers import auroc, corrupted, typicality
from jaxgen.runs.workdir import stored_config
from jaxgen.sampling.restore import Trained, restore
from jaxgen.variational.latents import active

KEPT = ("negative_elbo", "negative_log_likelihood", "kl", "squared_error", "squared_error_shuffled", "posterior_mean")


class Scorer:
    """The method's scores of uint8 images, by number: image i's random numbers depend on i alone.

    Args:
      samples: k of the importance-weighted bound; 0 for none.
    """

    def __init__(self, trained: Trained, batch: int, samples: int = 0):
        self.model, self.batch = trained.model, batch
        self._scores = jax.jit(dataclasses.replace(trained.generator.method, importance_samples=samples).scores)

    def __call__(self, images: np.ndarray, labels: np.ndarray | None, first: int = 0) -> dict[str, np.ndarray]:
        """`{name: [N, ...]}`; the last batch is filled up with the first images."""
        parts = []
        for start in range(0, len(images), self.batch):
            index = np.arange(start, start + self.batch) % len(images)
            keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(jnp.asarray(first + index))
            batch = {"image": jnp.asarray(images[index], jnp.float32) / 127.5 - 1}
            if labels is not None:
                batch["label"] = jnp.asarray(labels[index])
            count = min(self.batch, len(images) - start)
            parts.append({k: np.asarray(v)[:count] for k, v in self._scores(self.model, keys, batch).items()})
        return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}


def bounds(scorer: Scorer, source: object, options: argparse.Namespace, step: int) -> dict[str, np.ndarray]:
    """All scores of the first held-out images, from the file where they are there."""
    name = f"negative_iwae_{options.samples}"
    of = {"workdir": options.workdir, "step": step, "samples": options.samples, "batch": options.batch}
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    done = {row["start"]: row for row in rows if all(row.get(k) == v for k, v in of.items())}
    count = min(options.num, len(source))
    for start in range(0, count, options.batch):
        if start in done:
            continue
        found = source.take(list(range(start, min(start + options.batch, count))))
        began = time.process_time()
        scores = scorer(np.asarray(found["image"]), found.get("label"), start)
        kept = {k: np.round(scores[k], 4).tolist() for k in (*KEPT, *([name] if name in scores else []))}
        done[start] = {**of, "start": start, "cpu_seconds": round(time.process_time() - began, 1), **kept}
        with options.out.open("a") as file:
            file.write(json.dumps(done[start]) + "\n")
        print(f"{start + len(kept['kl'])} of {count} images, {done[start]['cpu_seconds']} CPU seconds", flush=True)
    parts = [done[start] for start in range(0, count, options.batch)]
    keys = [k for k in (*KEPT, name) if k in parts[0]]
    print(f"{sum(part['cpu_seconds'] for part in parts):.0f} CPU seconds in all")
    return {k: np.concatenate([np.asarray(part[k]) for part in parts]) for k in keys}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="a run of the method vae")
    parser.add_argument("--samples", type=int, default=50, help="k of the importance-weighted bound; 0 for none")
    parser.add_argument("--num", type=int, default=10_000, help="held-out images that are bounded")
    parser.add_argument("--batch", type=int, default=500, help="images in a part")
    parser.add_argument(
        "--other", action="append", default=[], metavar="NAME=SOURCE", help="outliers: the test split of a source"
    )
    parser.add_argument("--outliers", type=int, default=1000, help="images of each kind; 0 for no second table")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    use_cpu_cores()
    use_compilation_cache()
    config = stored_config(options.workdir)
    if config is None or config.method.name != "vae":
        raise UserError(f"{options.workdir} holds no run of the method vae; train first.")

    trained = restore(config, options.workdir)
    held_out, training = (trained.generator.source(split) for split in (config.data.eval_split, config.data.split))
    scores = bounds(Scorer(trained, options.batch, options.samples), held_out, options, trained.step)
    count = len(scores["kl"])
    print(f"\n{count} images of {held_out.name}/{held_out.split}, model at {trained.images:,} images\n")
    print("| number | value | standard error |\n|---|---|---|")
    for name, values in scores.items():
        if values.ndim == 1:
            print(f"| {name} | {values.mean():.2f} | {values.std() / np.sqrt(count):.2f} |")
    print(f"| active_latents | {active(scores['posterior_mean'])} of {config.method.latents} | |")
    if not options.outliers:
        return

    scorer = Scorer(trained, options.batch)
    sets = {
        name: source.take(list(range(min(options.outliers, len(source)))))
        for name, source in (("data", held_out), ("training", training))
    }
    label = sets["data"].get("label")
    images = {name: np.asarray(found["image"]) for name, found in sets.items()}
    images |= corrupted(images["data"])
    for other in options.other:
        name, _, where = other.partition("=")
        found = open_source(where, "test", images["data"].shape[1:3], images["data"].shape[3])
        images[name] = np.asarray(found.take(list(range(min(len(images["data"]), len(found)))))["image"])
    found = {
        name: scorer(values, sets["training"].get("label") if name == "training" else label)
        for name, values in images.items()
    }
    ways = {
        "ELBO": lambda s: s["negative_elbo"],
        "typicality of the ELBO": lambda s: typicality(s["negative_elbo"], found["training"]["negative_elbo"]),
        "reconstruction": lambda s: s["squared_error"],
    }
    print("\nAUROC (< marks a reversal), and the mean negative ELBO\n")
    print("| outliers | " + " | ".join(ways) + " | nats |\n|" + "---|" * (len(ways) + 2))
    print("| (the data) | | | | " + f"{found['data']['negative_elbo'].mean():.1f} |")
    for name in images:
        if name in ("data", "training"):
            continue
        values = [auroc(way(found["data"]), way(found[name])) for way in ways.values()]
        cells = " | ".join(f"{v:.3f}{' <' if v < 0.5 else ''}" for v in values)
        print(f"| {name} | {cells} | {found[name]['negative_elbo'].mean():.1f} |")


if __name__ == "__main__":
    main()
