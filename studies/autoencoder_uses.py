"""What an autoencoder of digits is good for: few labels, and outliers.

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

import argparse
import json
import pathlib
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxgen.commandline import load_config
from jaxgen.config import section
from jaxgen.data import open_source
from jaxgen.host import use_compilation_cache, use_cpu_cores
from jaxgen.metrics.outliers import auroc
from jaxgen.metrics.subspace import Subspace
from jaxgen.runs.workdir import stored_config
from jaxgen.train.loop import Trainer

CONFIGS = pathlib.Path(__file__).resolve().parents[1] / "configs"
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
    """Indices of `count` examples of each class."""
    order = np.random.default_rng(draw).permutation(len(labels))
    return np.concatenate([order[labels[order] == label][:count] for label in np.unique(labels)])


def train(config: ConfigDict, folder: pathlib.Path, train_set: dict, test_set: dict) -> Trainer:
    """A finished run on these images and labels, in a folder of its own."""
    arrays = {"train_images": train_set["image"], "train_labels": train_set["label"]}
    np.savez(folder / "data.npz", **arrays, test_images=test_set["image"], test_labels=test_set["label"])
    config.data.source = f"npz:{folder / 'data.npz'}"
    config.train.tensorboard = False
    config.train.checkpoint_every_images = 0
    trainer = Trainer(config, folder / "run")
    trainer.train()
    return trainer


def probe(way: dict, autoencoder: str, folder: pathlib.Path, train_set: dict, test_set: dict) -> dict[str, float]:
    """Held-out scores of a classifier."""
    config, _ = load_config(CONFIGS / "autoencoder_probe_digits.py")
    begun = stored_config(autoencoder).method
    if "encoder" in way:
        del config.method["encoder"], config.init_from["encoder"]
    else:
        config.method.update(encoder=begun.encoder, latents=begun.latents)
        config.init_from.encoder = "" if way.get("fresh") else autoencoder
    if "rate" in way:
        config.optimizers.encoder = section(learning_rate=way["rate"])
    config.method.update({k: v for k, v in way.items() if k not in ("encoder", "fresh", "rate")})
    trainer = train(config, folder, train_set, test_set)
    return trainer.generator.scores(trainer.model(), 0, trainer.generator.source("test"))


def anomalies(label: int, of: dict, folder: pathlib.Path, train_set: dict, test_set: dict) -> dict[str, float]:
    """AUROC of the autoencoder's and of the subspace's error, with one class left out of training."""
    config, _ = load_config(CONFIGS / "autoencoder_digits.py")
    config.train.total_images = of["images"]
    config.method.update(latents=of["width"], noise=of["noise"])
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--autoencoder", required=True, help="a run of configs/autoencoder_digits.py")
    parser.add_argument("--labels", type=int, default=10, help="of each class")
    parser.add_argument("--draws", type=int, default=10, help="of labels")
    parser.add_argument("--width", type=int, default=8, help="latents where a class is left out, and components")
    parser.add_argument("--noise", type=float, default=0.3, help="on the images of that training")
    parser.add_argument("--images", type=int, default=50_000, help="that it sees")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    use_cpu_cores()
    use_compilation_cache()
    rows = [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    train_set, test_set = (open_source("digits", split, 8, 1).arrays for split in ("train", "test"))

    def known(**row: object) -> bool:
        return any(all(r.get(k) == v for k, v in row.items()) for r in rows)

    def note(row: dict, numbers: dict[str, float], began: float) -> None:
        rows.append({**row, **numbers, "cpu_seconds": round(time.process_time() - began, 1)})
        with options.out.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        print(rows[-1], flush=True)

    left_out = {"width": options.width, "noise": options.noise, "images": options.images}
    for draw in range(options.draws):
        chosen = few_labels(train_set["label"], options.labels, draw)
        few = {key: train_set[key][chosen] for key in ("image", "label")}
        for name, way in WAYS.items():
            row = {"way": name, "labels": options.labels, "draw": draw}
            if known(**row):
                continue
            began = time.process_time()
            with tempfile.TemporaryDirectory() as folder:
                note(row, probe(way, options.autoencoder, pathlib.Path(folder), few, test_set), began)
    for label in range(10):
        row = {"without": label, **left_out}
        if known(**row):
            continue
        began = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            note(row, anomalies(label, left_out, pathlib.Path(folder), train_set, test_set), began)

    print(f"\nAccuracy on {len(test_set['label'])} held-out digits, {options.labels} labels a class\n")
    print("| on | logits | nearest prototype | better than raw pixels |\n|---|---|---|---|")
    base = {r["draw"]: r["accuracy"] for r in rows if r.get("way") == "raw pixels" and r["labels"] == options.labels}
    for name in WAYS:
        mine = [r for r in rows if r.get("way") == name and r["labels"] == options.labels]
        cells = [_spread([r[key] for r in mine if key in r]) for key in ("accuracy", "accuracy_nearest")]
        wins = sum(r.get("accuracy", r.get("accuracy_nearest")) > base[r["draw"]] for r in mine)
        print(f"| {name} | {cells[0]} | {cells[1]} | {wins} of {len(mine)} |")
    mine = [r for r in rows if "without" in r and left_out.items() <= r.items()]
    print("\nAUROC of a class that was left out of training\n")
    print("| error of | " + " | ".join(str(r["without"]) for r in mine) + " | mean |\n|" + "---|" * (len(mine) + 2))
    for name in ("autoencoder", "subspace"):
        values = [r[name] for r in mine]
        print(f"| {name} | " + " | ".join(f"{v:.3f}" for v in values) + f" | {np.mean(values):.3f} |")


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ({np.std(values, ddof=1):.3f})" if len(values) > 1 else "-"


if __name__ == "__main__":
    main()
