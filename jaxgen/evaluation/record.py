"""Writes what an evaluation leaves in a workdir: its numbers, and pictures of what they saw."""

from __future__ import annotations

from typing import TypedDict

from etils import epath

from jaxgen.evaluation.evaluate import Evaluation
from jaxgen.evaluation.examine import examine
from jaxgen.files import read_json, write_json
from jaxgen.report.images import save_png


class _About(TypedDict, total=False):
    step: int


class _Scores(TypedDict, total=False):
    _meta: _About


def scored_step(workdir: epath.Path) -> int | None:
    """Returns the step of the checkpoint that the numbers in `metrics.json` are of; None if there are no numbers.

    Raises:
      UserError: the file is damaged.
    """
    path = workdir / "metrics.json"
    return read_json(path, _Scores).get("_meta", {}).get("step") if path.exists() else None


def write_scores(workdir: epath.Path, entries: Evaluation, step: int, images: int) -> None:
    """Writes `metrics.json` and the pictures of what the numbers saw.

    `metrics.json` has the entries, their step, and which one to show first. The pictures are `samples/<figure>.png`,
    and `samples/seen.json` has a title, a sentence and scores for each."""
    if entries.images is not None:
        figures = examine(entries.images, entries.network)
        for figure in figures:
            save_png(workdir / "samples" / f"{figure.name}.png", figure.picture)
        seen = {s.name: {"title": s.title, "text": s.text, "scores": s.scores} for s in figures}
        write_json(workdir / "samples" / "seen.json", seen)
    _write_numbers(workdir / "metrics.json", entries, step, images)


def write_best(workdir: epath.Path, entries: Evaluation, step: int, images: int) -> None:
    """Writes `metrics_best.json`: the numbers of the best checkpoint beside those of the last in `metrics.json`."""
    _write_numbers(workdir / "metrics_best.json", entries, step, images)


def _write_numbers(path: epath.Path, entries: Evaluation, step: int, images: int) -> None:
    headline = next((k for k, v in entries.items() if v["excess"] is not None), next(iter(entries), None))
    write_json(path, {**entries, "_meta": {"step": step, "images": images, "headline": headline}})
