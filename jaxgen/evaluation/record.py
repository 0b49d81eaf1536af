"""What a run leaves beside its checkpoints: who ran what on what, pictures, samples, numbers."""

from __future__ import annotations

import datetime
import io
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from jaxgen.config import to_json
from jaxgen.evaluation.evaluate import Judgement
from jaxgen.evaluation.examine import examine
from jaxgen.files import read_json, write_bytes, write_json
from jaxgen.methods.base import Model
from jaxgen.parallel.distributed import is_first
from jaxgen.report.images import animation, grid, save_gif, save_png
from jaxgen.runs.logs import hardware, run_record, versions
from jaxgen.sampling.generator import Generator, Samples


def record(workdir: epath.Path, flags: Any, config: ConfigDict, params: Any) -> None:
    """Writes `config.json`, as resolved, and `run.json`: command, method, versions, hardware, parameter counts."""
    write_bytes(workdir / "config.json", to_json(config).encode())
    known = read_json(workdir / "run.json") if (workdir / "run.json").exists() else {}
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    run_record(
        workdir,
        command=flags.command,
        method=config.method.name,
        summary=flags.summary,
        versions=versions(),
        hardware=hardware(),
        started=known.get("started", now),
        parameters={g: sum(x.size for x in jax.tree.leaves(p)) for g, p in params.items()},
    )


def write_samples(folder: epath.Path, samples: Samples, shown: int = 400, prompts: Sequence[str] = ()) -> None:
    """`samples.png`, a grid of up to `shown`, and `samples.npz` with all `images` and, where there are, `labels` and
    `prompts`, of which image i has number i, around."""
    arrays = {"images": samples.images}
    if samples.labels is not None:
        arrays["labels"] = samples.labels
    if prompts:
        arrays["prompts"] = np.asarray([prompts[i % len(prompts)] for i in range(len(samples.images))])
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_bytes(folder / "samples.npz", buffer.getvalue())
    save_png(folder / "samples.png", grid(samples.images[:shown]))


def write_panels(
    folder: epath.Path,
    generator: Generator,
    model: Model,
    seed: int,
    labels: Sequence[int] | None = None,
    samples: int | None = None,
) -> None:
    """The method's pictures: `<name>.gif` of what moves (`[F, N, H, W, C]`), `panel_<name>.png` of the rest. All
    processes draw them, the first one writes.

    Args:
      samples: also a grid of samples, `step_<samples>.png`, so many images into training.
    """
    if samples is not None and generator.method.samples_images:
        drawn = generator.images(model, seed, 64, labels).images
        if is_first():
            save_png(folder / f"step_{samples:010d}.png", grid(drawn))
    for name, value in generator.panels(model, seed, 16, labels).items():
        if not is_first():
            continue
        if value.ndim == 5:
            save_gif(folder / f"{name}.gif", animation(value))
        else:
            save_png(folder / f"panel_{name}.png", grid(value, generator.method.columns.get(name)))


def write_scores(workdir: epath.Path, entries: Judgement, step: int, images: int) -> None:
    """`metrics.json`: the entries, of which step they are, and which one to show first; and what they saw:
    `samples/<sight>.png` with `samples/seen.json`, a title, a sentence and scores for each."""
    if entries.evidence is not None:
        sights = examine(entries.evidence, entries.network)
        for sight in sights:
            save_png(workdir / "samples" / f"{sight.name}.png", sight.picture)
        seen = {s.name: {"title": s.title, "text": s.text, "scores": s.scores} for s in sights}
        write_json(workdir / "samples" / "seen.json", seen)
    _write_numbers(workdir / "metrics.json", entries, step, images)


def write_best(workdir: epath.Path, entries: Judgement, step: int, images: int) -> None:
    """`metrics_best.json`, the numbers of the best checkpoint beside those of the last in `metrics.json`."""
    _write_numbers(workdir / "metrics_best.json", entries, step, images)


def _write_numbers(path: epath.Path, entries: Judgement, step: int, images: int) -> None:
    headline = next((k for k, v in entries.items() if v["excess"] is not None), next(iter(entries), None))
    write_json(path, {**entries, "_meta": {"step": step, "images": images, "headline": headline}})
