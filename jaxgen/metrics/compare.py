"""Lets a network see each image set once, and then computes all the numbers that are asked for.

network = open_network("inception")  # of jaxgen.metrics.choice
scores = compare(network(samples), network(real), metrics=("fid", "kid"), network=network, reference_name="mine")
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from jaxgen.build import build
from jaxgen.errors import UserError
from jaxgen.metrics.base import SetMetric
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.networks.base import FeatureNetwork, Features
from jaxgen.metrics.score import Score
from jaxgen.metrics.summary import Summary
from jaxgen.registry import find

# Metrics of image sets, or their names, or sections with a name and options; one of them, or several.
MetricNames = str | SetMetric | Mapping[str, Any] | Iterable[str | SetMetric | Mapping[str, Any]]


def set_metrics(metrics: MetricNames) -> tuple[SetMetric, ...]:
    """Returns the metrics by their names or sections, each once; one name need not be in a tuple.

    Raises:
      UserError: an entry is none of these, or no metric of image sets has the name.
    """
    entries = (metrics,) if isinstance(metrics, str | SetMetric) or hasattr(metrics, "items") else tuple(metrics)
    return tuple({metric.name: metric for metric in map(_set_metric, entries)}.values())


def _set_metric(entry: object) -> SetMetric:
    if isinstance(entry, SetMetric):
        return entry
    section = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(section, Mapping | ConfigDict):
        raise UserError(f"metrics holds {entry!r}; it takes names, sections with a name, and metrics of image sets.")
    find("metric", str(section.get("name", "")), "metrics", among=(SetMetric,))
    return build(section, "metric", "metrics")


def compare(
    samples: Features | Summary,
    reference: Features | Summary,
    floor: Features | Summary | None = None,
    noise: Features | Summary | None = None,
    metrics: MetricNames = ("frechet", "kid"),
    *,
    network: FeatureNetwork,
    reference_name: str,
    labels: Int[np.ndarray, " N"] | None = None,
    reference_labels: Int[np.ndarray, " M"] | None = None,
) -> dict[str, Score]:
    """Returns the chosen numbers of samples beside a reference, in the order asked for.

    The keys are the names in `metrics.json`.

    Args:
      samples, reference: what the network sees of the two sets.
      floor: what it sees of as many further real images, or None.
      noise: what it sees of as many images of noise, or None.
      metrics: metrics of image sets, or their names.
      network: the network that gave the features.
      reference_name: data set and split of the reference.
      labels: int32 `[N]` that the samples were asked for, where `samples` are features; `label_accuracy` needs them.
      reference_labels: the true labels of the reference, or None.

    Raises:
      UserError: for an unknown metric, too few images, or probabilities or labels that are not there.
    """
    known = {"samples": labels, "reference": reference_labels}
    given = {"samples": samples, "reference": reference, "floor": floor, "noise": noise}
    sides = {
        side: Summary.of(seen, known.get(side)) if isinstance(seen, Features) else seen
        for side, seen in given.items()
        if seen is not None
    }
    chosen = set_metrics(metrics)
    for metric in chosen:  # before the first of them takes its time
        metric.check_sides(sides, network)
    return {metric.number(network): metric.score(sides, network, reference_name) for metric in chosen}


def compare_samples(images: EvaluationImages, metrics: MetricNames, network: FeatureNetwork) -> dict[str, Score]:
    """Returns what a network says of a model's samples, beside as many real images (floor) and noise.

    Metrics that the sets hold too few images for are left out. Raises as `compare`.
    """
    scores: dict[str, Score] = {}
    for metric in set_metrics(metrics):
        if images.enough(metric.least):
            scores |= metric.scores(images, network)
    return scores
