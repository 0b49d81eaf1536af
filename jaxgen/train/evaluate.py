"""Judging a model: held-out scores of the method, and the config's metrics on fresh samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxgen.build import lookup
from jaxgen.data import Source
from jaxgen.methods.base import Model
from jaxgen.metrics.evidence import Evidence, Score
from jaxgen.train.generate import Generator
from jaxgen.train.setup import open_split

# Seed of the samples that are judged; not the one of a run's sample grids.
SEED = 1_000_003

# Real images that judges look at, at most.
MOST = 50_000


def metric_functions(config: ConfigDict) -> dict[str, Callable[[Evidence], dict[str, Score]]]:
    """The functions that `config.evaluate.metrics` names, each of `Evidence`.

    Raises:
      UserError: for an unknown one.
    """
    return {name: lookup(name, "jaxgen.metrics", "config.evaluate.metrics") for name in config.evaluate.metrics}


def check_held_out(config: ConfigDict) -> None:
    """Finds before training what would stop the judging after it.

    Raises:
      UserError: for held-out data that are needed and cannot be opened.
    """
    if config.evaluate.at_end or config.train.evaluate_every_images:
        open_split(config, config.data.eval_split)


def evaluate(generator: Generator, model: Model, seed: int = SEED) -> dict[str, dict[str, Any]]:
    """All numbers of a model, `{name: entry}` as in `metrics.json`."""
    config = generator.config
    functions = metric_functions(config)
    source = generator.source(config.data.eval_split)
    name = f"{source.name}/{source.split} ({len(source)})"
    scores = {
        key: Score(value, len(source), name, better="higher" if key == "accuracy" else "lower")
        for key, value in generator.scores(model, seed, source).items()
    }
    if functions:
        samples = generator.images(model, seed, config.evaluate.num)
        train = generator.source(config.data.split)
        evidence = Evidence(samples.images, samples.labels, _images(train), _images(source), name)
        for function in functions.values():
            scores |= function(evidence)
    return {key: score.to_dict() for key, score in scores.items()}


def _images(source: Source) -> np.ndarray:
    """All images of a source, or `MOST` of them, evenly spread."""
    return source.take(np.linspace(0, len(source) - 1, min(len(source), MOST)).astype(int))["image"]
