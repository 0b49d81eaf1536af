"""Tabulates the mean IoU of masks on the features of several models, with few labelled images.

    python -m studies.segmentation_table --diffusion=runs/ddpm_scenes --mae=runs/mae_shapes \\
        --vae=runs/kl_autoencoder_scenes --out=runs/segmentation_table

Each row is one choice of features, each column a number of labelled images; a number is the mean over seeds, which
choose the images and the heads' first weights, with the standard deviation over them. Heads, optimiser and data are
those of a config, configs/segmentation_shapes.py unless `--config` names another. Features of the labelled images are
computed once, and all heads learn from these.
Every number is appended to OUT/table.jsonl as soon as it is known, so that the same command goes on where it stopped.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from studies import harness

if TYPE_CHECKING:
    from jaxgen.methods.base import Model
    from jaxgen.methods.segmentation.segmentation import Segmentation

CHUNK = 25  # images whose features are computed together
MAE_LAYERS = ("block_1", "block_3", "norm_out")
VAE_LAYERS = ("encoder/down_0_block_0", "encoder/down_1_block_0", "encoder/down_2_block_0", "encoder/middle_block_1")


def choices(diffusion: str, mae: str, vae: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Returns `{row: (run, keys of the method)}`; rows of runs that are not given are left out."""
    rows: dict[str, tuple[str, dict[str, Any]]] = {"raw pixels": ("", {"features": {"name": "pixels"}})}
    if vae:
        rows["VAE"] = (vae, {"features": {"name": "encoder_layers", "layers": VAE_LAYERS}})
    if mae:
        rows["MAE"] = (mae, {"features": {"name": "encoder_layers", "layers": MAE_LAYERS}})
    if diffusion:
        rows["random U-Net"] = (diffusion, {"weights": "random"})
        rows["diffusion"] = (diffusion, {})
    return rows


class Harness:
    """Computes features of one row and trains heads on them.

    Args:
      config: the name of the config; `source` takes the place of its `data.source` unless it is "".
      run: the workdir of the trained model; "" for none.
      changes: keys of `config.method` that differ from the config's.
      steps: updates of the heads.
    """

    def __init__(self, config: str, source: str, run: str, changes: Mapping[str, Any], steps: int):
        import jax
        import jax.numpy as jnp

        from jaxgen.config import section
        from jaxgen.config.files import load_config
        from jaxgen.methods.base import Model
        from jaxgen.runs.loaded_groups import load_run
        from jaxgen.runs.pretrained import pretrained_run
        from jaxgen.runs.setup import make_method, open_split

        self.config, _ = load_config(harness.config_path(config))
        self.config.init_from.pretrained, self.steps = run, steps
        self.config.data.source = source or self.config.data.source
        for key, value in changes.items():
            self.config.method[key] = section(**value) if isinstance(value, dict) else value
        self.method: Segmentation = make_method(self.config)
        self.test = open_split(self.config, self.config.data.eval_split)
        found = pretrained_run(self.config)
        given, memory, _ = load_run(found, {}) if found is not None else ({}, {}, {})
        batch = self.batch(self.test, range(CHUNK))
        init = jax.jit(lambda key, given, memory, batch: self.method.init(key, batch, 0, given, {}, memory))
        self.init = functools.partial(init, given=given, memory=memory, batch=batch)
        _, carried = self.init(jax.random.key(0))
        self.frozen = Model(given, carried)
        extract = jax.jit(lambda model, batch: self.method.extract(model, batch))
        self.extract = lambda batch: extract(self.frozen, {"image": batch["image"]})
        self.vote = jax.jit(lambda model, x: self.method.segmented(model, {"features": x})[0])
        self.fit = jax.jit(self._fit)
        self.join = jnp.concatenate

    @staticmethod
    def batch(source: Any, numbers: Any) -> dict[str, Any]:
        from jaxgen.data.transforms import to_float

        return to_float({key: value for key, value in source.take(list(numbers)).items() if key in ("image", "mask")})

    def labelled(self, seed: int, most: int) -> tuple[Any, Any]:
        """Returns features and masks of the images that a seed chooses; the first n are those of n images."""
        from jaxgen.runs.setup import open_split

        self.config.seed, self.config.data.examples = seed, most
        source = open_split(self.config, self.config.data.split)
        parts = [self.batch(source, range(i, min(i + CHUNK, most))) for i in range(0, most, CHUNK)]
        return self.join([self.extract(part) for part in parts]), self.join([part["mask"] for part in parts])

    def _fit(self, heads: Any, statistics: Any, features: Any, mask: Any, key: Any) -> tuple[Any, Any]:
        """Returns the heads and their batch statistics after all updates."""
        import jax
        import optax

        rate = optax.cosine_decay_schedule(self.config.optimizer.learning_rate, self.steps)
        optimizer = optax.adam(rate)

        def step(carried: Any, key: Any) -> tuple[Any, None]:
            heads, statistics, state = carried

            def loss(heads: Any) -> Any:
                return self.method.head_loss(heads, features, mask, key, statistics)

            (_, (_, changed)), slope = jax.value_and_grad(loss, has_aux=True)(heads)
            updates, state = optimizer.update(slope, state, heads)
            return (optax.apply_updates(heads, updates), changed["heads"], state), None

        start = (heads, statistics, optimizer.init(heads))
        return jax.lax.scan(step, start, jax.random.split(key, self.steps))[0][:2]

    def trained(self, features: Any, mask: Any, seed: int) -> Model:
        """Returns a model with heads that learned from these features and masks."""
        import jax

        from jaxgen.methods.base import Model

        learned, memory = self.init(jax.random.key(seed))
        heads, statistics = self.fit(learned["heads"], memory["heads"], features, mask, jax.random.key(seed + 1000))
        return Model({"heads": heads}, {"heads": statistics})

    def mean_iou(self, models: list[Model], num: int) -> list[float]:
        """Returns the mean IoU of each model on `num` held-out images, whose features are computed once."""
        from jaxgen.metrics.analysis.segmentation import confusion_matrix, mean_iou

        totals = [0] * len(models)
        for start in range(0, num, CHUNK):
            part = self.batch(self.test, range(start, min(start + CHUNK, num)))
            features, truth = self.extract(part), np.asarray(part["mask"])
            for i, model in enumerate(models):
                mask = np.asarray(self.vote(model, features))
                totals[i] = totals[i] + confusion_matrix(truth, mask, self.method.classes)
        return [mean_iou(total).value for total in totals]


def main(
    out: Path,
    diffusion: Annotated[str, "the workdir of a diffusion model, such as that of configs/ddpm_scenes.py"] = "",
    mae: Annotated[str, "the workdir of a masked autoencoder, such as that of configs/mae_shapes.py"] = "",
    vae: Annotated[str, "the workdir of an autoencoder, such as that of configs/kl_autoencoder_scenes.py"] = "",
    config: Annotated[str, "the config of the heads and the data"] = "segmentation_shapes",
    source: Annotated[str, "data in the place of the config's data.source"] = "",
    labels: Annotated[tuple[int, ...], "numbers of labelled images"] = (5, 10, 20, 50),
    seeds: Annotated[tuple[int, ...], "what chooses the images"] = (0, 1, 2),
    num: Annotated[int, "held-out images"] = 200,
    steps: Annotated[int, "updates of the heads"] = 150,
) -> None:
    harness.prepare()
    rows = harness.Rows(out / "table.jsonl", config=config, num=num, steps=steps)
    known = choices(diffusion, mae, vae)
    for name, (run, changes) in known.items():
        missing = [(n, seed) for seed in seeds for n in labels if not rows.where(row=name, labels=n, seed=seed)]
        if not missing:
            continue
        begun = time.process_time()
        bench, models = Harness(config, source, run, changes, steps), []
        for seed in sorted({seed for _, seed in missing}):
            features, mask = bench.labelled(seed, max(n for n, s in missing if s == seed))
            models += [bench.trained(features[:n], mask[:n], seed) for n, s in missing if s == seed]
        order = sorted(missing, key=lambda one: one[1])
        seconds = round((time.process_time() - begun) / len(models), 1)
        for (n, seed), value in zip(order, bench.mean_iou(models, num), strict=True):
            rows.add({"row": name, "labels": n, "seed": seed, "mean_iou": round(value, 4), "seconds": seconds})
    print(harness.table(["features", *labels], [
        [name, *(harness.mean_and_deviation([r["mean_iou"] for r in rows.where(row=name, labels=n)]) for n in labels)]
        for name in known
    ]))  # fmt: skip


if __name__ == "__main__":
    sys.exit(harness.run(main))
