"""Judging a model: held-out scores of the method, and the config's metrics on fresh samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxgen.build import lookup
from jaxgen.data import Source
from jaxgen.methods.base import Model
from jaxgen.metrics.evidence import EvaluationImages, Score
from jaxgen.metrics.features import FeatureNetwork
from jaxgen.metrics.judges import NAMES, open_judge
from jaxgen.runs.setup import open_split
from jaxgen.sampling.generator import Generator

# Seed of the samples that are judged; not the one of a run's sample grids.
SEED = 1_000_003


# Where a network's class bears its module's name, its numbers are made elsewhere.
ELSEWHERE = {"inception": "judges:inception", "clip": "judges:clip"}


class Evaluation(dict[str, dict[str, Any]]):
    """All numbers of a model, `{name: entry}` as in `metrics.json`, and what they were seen on.

    Attributes:
      evidence: images of the model and of the data, or None where no metric looked at images.
      network: the first judge that the config names, or None.
    """

    def __init__(
        self, scores: dict[str, Score], evidence: EvaluationImages | None = None, network: FeatureNetwork | None = None
    ):
        super().__init__({name: score.to_dict() for name, score in scores.items()})
        self.evidence, self.network = evidence, network


def metric_functions(config: ConfigDict) -> dict[str, Callable[[EvaluationImages], dict[str, Score]]]:
    """The functions that `config.evaluate.metrics` names, each of `EvaluationImages`.

    Raises:
      UserError: for an unknown one.
    """
    room, path = "jaxgen.metrics", "config.evaluate.metrics"
    return {name: lookup(ELSEWHERE.get(name, name), room, path) for name in config.evaluate.metrics}


def check_held_out(config: ConfigDict) -> None:
    """Finds before training what would stop the judging after it.

    Raises:
      UserError: for held-out data, or published weights, that are needed and cannot be had.
    """
    if config.evaluate.at_end or config.train.evaluate_every_images:
        open_split(config, config.data.eval_split)
        _networks(config)


def _networks(config: ConfigDict) -> list[FeatureNetwork]:
    """The judges that the config names, in its order."""
    asked = config.evaluate
    return [
        open_judge(name, asked.weights if name in ELSEWHERE else "", asked.resize if name == "inception" else "legacy")
        for name in asked.metrics
        if name in NAMES
    ]


def evaluate(generator: Generator, model: Model, seed: int = SEED) -> Evaluation:
    """All numbers of a model."""
    config = generator.config
    functions = metric_functions(config)
    source = generator.source(config.data.eval_split)
    count = min(len(source), config.evaluate.real)
    name = f"{source.name}/{source.split} ({count})"
    train = generator.source(config.data.split)
    floor_count = min(count, len(train))
    seen = generator.scores(model, seed, train, limit=floor_count)
    scores = {
        key: Score(
            value,
            count,
            name,
            floor=seen[key],
            reference_n=count,
            floor_n=floor_count,
            better=generator.method.better(key),
            note=f"On held-out images; floor: on {floor_count} training images.",
        )
        for key, value in generator.scores(model, seed, source, limit=count).items()
    }
    evidence, networks = None, []
    if functions:
        samples = generator.images(model, seed, config.evaluate.num)
        held_out = _spread(source, count)
        evidence = EvaluationImages(
            samples.images,
            samples.labels,
            _spread(train, config.evaluate.real)["image"],
            held_out["image"],
            held_out.get("label"),
            name,
            config.evaluate.weights,
            config.evaluate.resize,
        )
        for function in functions.values():
            scores |= function(evidence)
        networks = _networks(config)
    return Evaluation(scores, evidence, networks[0] if networks else None)


def _spread(source: Source, most: int) -> dict[str, np.ndarray]:
    """Images and labels of all examples of a source, or of so many, evenly spread."""
    if source.arrays is not None and len(source) <= most:
        return source.arrays
    chosen = np.linspace(0, len(source) - 1, min(len(source), most)).astype(int)
    parts = [source.take(part) for part in np.array_split(chosen, -(-len(chosen) // 1000))]
    return {key: np.concatenate([part[key] for part in parts]) for key in ("image", "label") if key in parts[0]}
