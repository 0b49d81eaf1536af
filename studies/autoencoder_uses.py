"""Shows what an autoencoder of digits is good for: few labels, and outliers.

    python main.py --config=configs/autoencoder_digits.py --workdir=runs/autoencoder_digits
    python -m studies.autoencoder_uses --autoencoder=runs/autoencoder_digits --out=uses.jsonl

First table: accuracy on the held-out digits of configs/autoencoder_probe_digits.py with 10 labels a class, each time
others: the same dense layers on raw pixels, on the frozen encoder, and with the encoder learning too, from its weights
(slowly: at a tenth of the rate) and from none; by cross-entropy, with a contrastive loss beside it, and by that alone
(the nearest class's prototype).

Second table: each class in turn is left out of training, and is to be told from the others by the error of the
reconstruction; AUROC, with a principal subspace of the same width beside it.

A row is written to --out as soon as it is known, and is not made again.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxgen.config import section
from jaxgen.config.files import load_config
from jaxgen.data import open_source
from jaxgen.metrics.analysis.outliers import auroc
from jaxgen.metrics.analysis.subspace import Subspace
from jaxgen.train.loop import Trainer
from studies import harness

WAYS = {
    "raw pixels": {"encoder": None},
    "raw pixels, contrastive beside": {"encoder": None, "contrastive": 1.0},
    "frozen encoder": {},
    "frozen encoder, contrastive beside": {"contrastive": 1.0},
    "frozen encoder, contrastive alone": {"contrastive": 1.0, "cross_entropy": 0.0},
    "fine-tuned encoder": {"tune": True},
    "fine-tuned encoder, contrastive beside": {"tune": True, "contrastive": 1.0},
    "fine-tuned encoder, slowly": {"tune": True, "rate": 2e-4},
    "the same network from scratch": {"tune": True, "fresh": True},
}


def few_labels(labels: np.ndarray, count: int, draw: int) -> np.ndarray:
    """Returns the indices of `count` examples of each class."""
    order = np.random.default_rng(draw).permutation(len(labels))
    return np.concatenate([order[labels[order] == label][:count] for label in np.unique(labels)])


def train(config: ConfigDict, folder: Path, train_set: dict, test_set: dict) -> Trainer:
    """Returns a finished run on these images and labels, in a folder of its own."""
    arrays = {"train_images": train_set["image"], "train_labels": train_set["label"]}
    np.savez(folder / "data.npz", **arrays, test_images=test_set["image"], test_labels=test_set["label"])
    config.data.source = f"npz:{folder / 'data.npz'}"
    config.train.tensorboard = False
    config.train.checkpoint_every_images = 0
    trainer = Trainer(config, folder / "run")
    trainer.train()
    return trainer


def probe(way: dict, autoencoder: str, folder: Path, train_set: dict, test_set: dict) -> dict[str, float]:
    """Returns held-out scores of a classifier."""
    config, _ = load_config(harness.config_path("autoencoder_probe_digits"))
    begun = harness.run_config(autoencoder).method
    if "encoder" in way:
        del config.method["encoder"], config.init_from["encoder"]
    else:
        config.method.update(encoder=begun.encoder, z_dim=begun.z_dim)
        config.init_from.encoder = "" if way.get("fresh") else autoencoder
    if "rate" in way:
        config.optimizers.encoder = section(learning_rate=way["rate"])
    config.method.update({k: v for k, v in way.items() if k not in ("encoder", "fresh", "rate")})
    trainer = train(config, folder, train_set, test_set)
    return trainer.generator.scores(trainer.model(), 0, trainer.generator.source("test"))


def anomalies(label: int, of: dict, folder: Path, train_set: dict, test_set: dict) -> dict[str, float]:
    """Returns the AUROC of the autoencoder's and of the subspace's error, with one class left out of training."""
    config, _ = load_config(harness.config_path("autoencoder_digits"))
    config.train.total_images = of["images"]
    config.method.update(z_dim=of["width"], noise=of["noise"])
    kept = train_set["label"] != label
    known = {key: train_set[key][kept] for key in ("image", "label")}
    trainer = train(config, folder, known, test_set)
    images = test_set["image"]
    scores = jax.jit(trainer.method.scores)
    found = scores(trainer.model(), jax.random.split(jax.random.key(0), len(images)), {"image": _floats(images)})
    error = np.asarray(found["squared_error"])
    linear = Subspace.fit(known["image"], of["width"]).error(images)
    inside = test_set["label"] != label
    values = {"autoencoder": error, "subspace": linear}
    return {name: auroc(value[inside], value[~inside]) for name, value in values.items()}


def _floats(images: np.ndarray) -> jax.Array:
    return jnp.asarray(images, jnp.float32) / 127.5 - 1


def timed(function: Callable[[Path], dict[str, float]]) -> dict[str, float]:
    """Returns what a function of an empty folder returns, with the CPU seconds that it took."""
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        numbers = function(Path(folder))
    return {**numbers, "cpu_seconds": round(time.process_time() - began, 1)}


def labels_table(rows: harness.Rows, labels: int) -> str:
    """Makes a table of accuracies with few labels, with a row for each way."""
    base = {row["draw"]: row["accuracy"] for row in rows.where(way="raw pixels", labels=labels)}
    lines = []
    for name in WAYS:
        mine = rows.where(way=name, labels=labels)
        found = ([row[key] for row in mine if key in row] for key in ("accuracy", "accuracy_nearest"))
        cells = [harness.mean_and_deviation(values, ddof=1, empty="-") for values in found]
        wins = sum(row.get("accuracy", row.get("accuracy_nearest")) > base[row["draw"]] for row in mine)
        lines.append([name, *cells, f"{wins} of {len(mine)}"])
    return harness.table(["on", "logits", "nearest prototype", "better than raw pixels"], lines)


def anomalies_table(rows: list[dict]) -> str:
    """Makes a table of AUROCs of classes that were left out: a row for each reconstruction, a column for each class."""
    lines = []
    for name in ("autoencoder", "subspace"):
        values = [row[name] for row in rows]
        lines.append([name, *(f"{value:.3f}" for value in (*values, np.mean(values)))])
    return harness.table(["error of", *(row["without"] for row in rows), "mean"], lines)


def main(
    autoencoder: Annotated[str, "a run of configs/autoencoder_digits.py"],
    out: Path,
    labels: Annotated[int, "labels of each class"] = 10,
    draws: Annotated[int, "how often labels are drawn"] = 10,
    width: Annotated[int, "latents where a class is left out, and components"] = 8,
    noise: Annotated[float, "noise on the images of that training"] = 0.3,
    images: Annotated[int, "images that it sees"] = 50_000,
) -> None:
    harness.prepare()
    rows = harness.Rows(out)
    train_set, test_set = (open_source("digits", split, 8, 1).arrays for split in ("train", "test"))

    def few(way: dict, draw: int) -> dict[str, float]:
        chosen = few_labels(train_set["label"], labels, draw)
        some = {key: train_set[key][chosen] for key in ("image", "label")}
        return timed(lambda folder: probe(way, autoencoder, folder, some, test_set))

    def without(label: int, of: dict) -> dict[str, float]:
        return timed(lambda folder: anomalies(label, of, folder, train_set, test_set))

    for draw in range(draws):
        for name, way in WAYS.items():
            key = {"way": name, "labels": labels, "draw": draw}
            rows.get(key, lambda way=way, draw=draw: few(way, draw))
    of = {"width": width, "noise": noise, "images": images}
    for label in range(10):
        rows.get({"without": label, **of}, lambda label=label: without(label, of))
    print(f"\nAccuracy on {len(test_set['label'])} held-out digits, {labels} labels a class\n")
    print(labels_table(rows, labels))
    print("\nAUROC of a class that was left out of training\n")
    print(anomalies_table([row for row in rows.where(**of) if "without" in row]))


if __name__ == "__main__":
    sys.exit(harness.run(main))
