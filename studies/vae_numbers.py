"""Says what a VAE knows: its bounds on held-out images, and which images it finds unlikely.

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

import dataclasses
import sys
import time
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.data import Source, open_source
from jaxgen.metrics.analysis.outliers import auroc, corrupted, typicality
from jaxgen.sampling.restore import TrainedModel
from jaxgen.variational.latents import active
from studies import harness

KEPT = ("negative_elbo", "negative_log_likelihood", "kl", "squared_error", "squared_error_shuffled", "posterior_mean")


class Scorer:
    """Holds the method's scores of uint8 images, by number: image i's random numbers depend on i alone.

    Args:
      samples: k of the importance-weighted bound; 0 for none.
    """

    def __init__(self, trained: TrainedModel, batch: int, samples: int = 0):
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


def bounds(scorer: Scorer, source: Source, num: int, samples: int, rows: harness.Rows) -> dict[str, np.ndarray]:
    """Returns all scores of the first `num` held-out images, a part at a time, from the rows where they are kept."""
    name = f"negative_iwae_{samples}"
    count = min(num, len(source))

    def part(start: int) -> dict[str, object]:
        found = source.take(list(range(start, min(start + scorer.batch, count))))
        began = time.process_time()
        scores = scorer(np.asarray(found["image"]), found.get("label"), start)
        kept = {k: np.round(scores[k], 4).tolist() for k in (*KEPT, *([name] if name in scores else []))}
        return {"cpu_seconds": round(time.process_time() - began, 1), **kept}

    parts = [rows.get({"start": start}, lambda s=start: part(s)) for start in range(0, count, scorer.batch)]
    keys = [k for k in (*KEPT, name) if k in parts[0]]
    print(f"{sum(part['cpu_seconds'] for part in parts):.0f} CPU seconds in all")
    return {k: np.concatenate([np.asarray(part[k]) for part in parts]) for k in keys}


def bounds_table(scores: dict[str, np.ndarray], latents: int) -> str:
    """Makes a table with a row for each number, with the standard error of its mean."""
    rows = [
        (name, f"{values.mean():.2f}", f"{values.std() / np.sqrt(len(values)):.2f}")
        for name, values in scores.items()
        if values.ndim == 1
    ]
    active_latents = f"{active(scores['posterior_mean'])} of {latents}"
    return harness.table(["number", "value", "standard error"], [*rows, ("active_latents", active_latents, None)])


def outlier_scores(
    scorer: Scorer, held_out: Source, training: Source, other: list[str], num: int
) -> dict[str, dict[str, np.ndarray]]:
    """Returns `{set: scores}` of held-out images ("data"), training images, corrupted ones and other sources."""
    sets = {
        name: source.take(list(range(min(num, len(source)))))
        for name, source in (("data", held_out), ("training", training))
    }
    label = sets["data"].get("label")
    images = {name: np.asarray(found["image"]) for name, found in sets.items()}
    images |= corrupted(images["data"])
    for name, where in harness.named(other, "--other", "fashion=fashion_mnist").items():
        found = open_source(where, "test", images["data"].shape[1:3], images["data"].shape[3])
        images[name] = np.asarray(found.take(list(range(min(len(images["data"]), len(found)))))["image"])
    return {
        name: scorer(values, sets["training"].get("label") if name == "training" else label)
        for name, values in images.items()
    }


def outlier_table(found: dict[str, dict[str, np.ndarray]]) -> str:
    """Makes a table of AUROCs: a row for each kind of outlier, a column for each way to tell it."""
    ways = {
        "ELBO": lambda s: s["negative_elbo"],
        "typicality of the ELBO": lambda s: typicality(s["negative_elbo"], found["training"]["negative_elbo"]),
        "reconstruction": lambda s: s["squared_error"],
    }
    rows = [["(the data)", None, None, None, f"{found['data']['negative_elbo'].mean():.1f}"]]
    for name in found:
        if name in ("data", "training"):
            continue
        values = [auroc(way(found["data"]), way(found[name])) for way in ways.values()]
        cells = [f"{v:.3f}{' <' if v < 0.5 else ''}" for v in values]
        rows.append([name, *cells, f"{found[name]['negative_elbo'].mean():.1f}"])
    return harness.table(["outliers", *ways, "nats"], rows)


def main(
    workdir: Annotated[str, "a run of the method vae"],
    out: Path,
    samples: Annotated[int, "k of the importance-weighted bound; 0 for none"] = 50,
    num: Annotated[int, "held-out images that are bounded"] = 10_000,
    batch: Annotated[int, "images in a part"] = 500,
    other: Annotated[list[str], "NAME=SOURCE, outliers: the test split of a source; may be given again"] = (),
    outliers: Annotated[int, "images of each kind; 0 for no second table"] = 1000,
) -> None:
    harness.prepare()
    config = harness.run_config(workdir, method="vae")
    trained = harness.trained(workdir, config)
    held_out, training = (trained.generator.source(split) for split in (config.data.eval_split, config.data.split))
    rows = harness.Rows(out, workdir=workdir, step=trained.step, samples=samples, batch=batch, quiet=True)
    scores = bounds(Scorer(trained, batch, samples), held_out, num, samples, rows)
    count = len(scores["kl"])
    print(f"\n{count} images of {held_out.name}/{held_out.split}, model at {trained.images:,} images\n")
    print(bounds_table(scores, config.method.z_dim))
    if outliers:
        found = outlier_scores(Scorer(trained, batch), held_out, training, other, outliers)
        print(f"\nAUROC (< marks a reversal), and the mean negative ELBO\n\n{outlier_table(found)}")


if __name__ == "__main__":
    sys.exit(harness.run(main))
