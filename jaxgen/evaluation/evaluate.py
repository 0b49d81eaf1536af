"""Computes the numbers of a trained model: held-out scores of its method, and the config's metrics of fresh samples."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from jaxgen.config import image_shape
from jaxgen.data import Source
from jaxgen.data.corruptions import shapes_of
from jaxgen.errors import UserError, nearest
from jaxgen.methods.base import Method, Model
from jaxgen.metrics.base import RunFacts, RunMetric, SetMetric
from jaxgen.metrics.choice import Chosen, Words, choose, open_network
from jaxgen.metrics.images import EvaluationImages
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.score import Score
from jaxgen.metrics.statistics import Statistics, need_images, read_statistics, suffice
from jaxgen.registry import classes
from jaxgen.runs.setup import make_corruptions, open_split
from jaxgen.sampling.finite import NotFinite
from jaxgen.sampling.generator import Generator
from jaxgen.sampling.kinds import output_of
from jaxgen.sampling.samples import Samples

log = logging.getLogger("jaxgen")

# Seed of the samples that are evaluated; not the one of a run's sample grids.
SEED = 1_000_003
METRICS = "config.evaluate.metrics"
ON_SETS = "sample from it, and use python -m jaxgen.metrics A B --metrics={name}"


class Evaluation(dict[str, dict[str, Any]]):
    """Holds all numbers of a model, `{name: entry}` as in `metrics.json`, and what they were seen on.

    Attributes:
      images: images of the model and of the data, or None where no metric saw images.
      network: the first feature network that a metric looked through, or None.
    """

    def __init__(
        self, scores: dict[str, Score], images: EvaluationImages | None = None, network: FeatureNetwork | None = None
    ):
        super().__init__({name: score.to_dict() for name, score in scores.items()})
        self.images, self.network = images, network


def metrics_of(config: ConfigDict, method: Method) -> tuple[Chosen[RunMetric], ...]:
    """Returns the metrics that `config.evaluate` names, each checked against what the method's runs can give. Reads no
    weights.

    Raises:
      UserError: for a name that is unknown, or a number that this run cannot give; the sentence says what to do.
    """
    asked = config.evaluate
    if not asked.metrics:
        return ()
    if not method.has_sampler:
        raise UserError(f"{METRICS} is set, but {config.method.name!r} draws no samples to measure; leave it empty.")
    offers = {"images", "training images"} | ({"labels"} if "label" in method.conditions else set())
    offers |= {"pairs", "captions", "truth", "labels"} if _of_examples(config, method) else set()
    offers |= {"hints"} if hints_of(config, method) else set()
    offers |= {"mask"} if is_masked(config, method) else set()
    offers |= {"conditions"} if method.conditions else set()
    offers |= {"video"} if method.gives == "video" else set()
    who = f"this {config.method.name!r}"
    elsewhere = {
        "labels": f"the samples of {who} are asked for none, so leave it out",
        "pairs": f"the samples of {who} are drawn for no held-out example; {ON_SETS}",
        "captions": f"the samples of {who} are drawn for no held-out example; {ON_SETS}",
        "video": f"{who} gives none, so leave it out",
        "truth": f"the samples of {who} are drawn for none, so leave it out",
        "hints": f"config.data.corruptions makes none that {who} reads, so leave it out",
        "mask": f"config.data.corruptions makes none for {who}, so leave it out",
        "conditions": f"{who} is told none, so leave it out",
    }
    words = Words(METRICS, "config.evaluate.network", RunMetric, frozenset(offers), elsewhere, method.gives, who)
    network = None
    if asked.network:
        network = open_network(asked.network, words.network, weights=asked.weights, resize=asked.resize)
    found: list[Chosen[RunMetric]] = []
    for one in choose(asked.metrics, network, words):
        metric = one.metric
        if not isinstance(metric, RunMetric):
            raise UserError(f"{METRICS}: {metric.name!r} is no metric of samples (no RunMetric); leave it out.")
        if one.every_images and not config.train.evaluate_every_images:
            raise UserError(
                f"{METRICS}: {metric.name!r} has every_images={one.every_images}, but nothing is evaluated during "
                "training: set config.train.evaluate_every_images."
            )
        found.append(Chosen(metric, one.network, one.every_images))
    return tuple(found)


def _of_examples(config: ConfigDict, method: Method) -> bool:
    """Returns whether samples are drawn for held-out examples: whether a condition beside the label is of the data."""
    extra = tuple(f"{name}_" for name in config.data.extra)
    return any(name != "label" and not name.startswith(extra) for name in method.conditions)


def hints_of(config: ConfigDict, method: Method) -> tuple[str, ...]:
    """Returns the conditions of a method that `config.data.corruptions` make as pictures."""
    made = shapes_of(make_corruptions(config), image_shape(config))
    return tuple(name for name in method.conditions if name in made and made[name][1] == np.float32)


def is_masked(config: ConfigDict, method: Method) -> bool:
    """Returns whether a corruption gives the conditions of a method with a mask of what is unknown."""
    return bool(hints_of(config, method)) and "mask" in shapes_of(make_corruptions(config), image_shape(config))


def check_before_training(config: ConfigDict, method: Method) -> None:
    """Finds before training what would stop the evaluation after it.

    Raises:
      UserError: for held-out data, or weights, that are needed and cannot be had.
    """
    if config.evaluate.at_end or config.train.evaluate_every_images:
        held_out = open_split(config, config.data.eval_split)
        chosen = metrics_of(config, method)
        for one in chosen:
            _check_count(config, one.metric, held_out)
            try:
                one.metric.check_run(_facts(config, method, held_out))
            except UserError as error:
                raise UserError(f"{METRICS}: {error}") from error
            if one.network is not None:
                _open(one.network, image_shape(config))
        statistics_of(config, chosen)


def _facts(config: ConfigDict, method: Method, held_out: Source) -> RunFacts:
    entries = frozenset(held_out[0]) if len(held_out) else frozenset()
    truth = output_of(method.gives, type(method).__name__).entry()
    hints, masked, labelled = hints_of(config, method), is_masked(config, method), "label" in method.conditions
    return RunFacts(image_shape(config), truth, held_out.name, entries, hints, masked, labelled)


def _check_count(config: ConfigDict, metric: RunMetric, held_out: Source) -> None:
    """Says that a metric will be left out for want of images.

    Raises:
      UserError: there are so few that it would end the evaluation.
    """
    count = min(len(held_out), config.evaluate.real)
    if len(held_out) < 2 <= metric.least:
        raise UserError(
            f"{METRICS}: {metric.name!r} needs at least {metric.least} held-out images, and "
            f"config.data.eval_split={config.data.eval_split!r} of {held_out.name} has {len(held_out)}: name a larger "
            "split, or leave the metric out."
        )
    if metric.least > max(min(count, config.evaluate.num), 2):
        log.warning(
            "%s will be left out: it needs %d images of each set, and there are %d held-out images and %d samples",
            metric.name, metric.least, count, config.evaluate.num,
        )  # fmt: skip


def check_best_metric(config: ConfigDict, generator: Generator, model: Model, logged: Sequence[str]) -> None:
    """Checks that a run will have the number by which its best checkpoints are kept.

    Args:
      model: the model, or its shapes.
      logged: the names in the training log, or beginnings of them that end in a slash.

    Raises:
      UserError: the run will not have it; the sentence names the nearest number.
    """
    name = config.train.best_metric
    if not name or name in logged or any(one.endswith("/") and name.startswith(one) for one in logged):
        return
    known = [f"{one}loss" if one.endswith("/") else one for one in logged]
    if config.train.evaluate_every_images:
        chosen = metrics_of(config, generator.method)
        others = [one.metric for one in chosen if not isinstance(one.metric, SetMetric)]
        if not all(metric.numbers for metric in others):
            return  # such a metric alone knows the names of its numbers
        facts = _facts(config, generator.method, generator.source(config.data.eval_split))
        known += [number for metric in others for number in metric.numbers_of(facts)]
        sets = [(one.metric, one.network) for one in chosen if isinstance(one.metric, SetMetric)]
        known += [metric.number(network) for metric, network in sets if network is not None]
        known += generator.score_names(model, generator.source(config.data.eval_split))
        if name in known:
            return
    during = bool(config.train.evaluate_every_images)
    elsewhere = "" if during else "; the numbers of an evaluation need evaluate_every_images"
    raise UserError(f"config.train.best_metric={name!r} is no number of this run{elsewhere}: {nearest(name, known)}")


def statistics_of(config: ConfigDict, chosen: Sequence[Chosen[RunMetric]]) -> Statistics | None:
    """Returns the statistics that `config.evaluate.reference` names, or None.

    Raises:
      UserError: for a file that cannot be used, features of another network, or a metric that needs the images.
    """
    key, path = "config.evaluate.reference", config.evaluate.reference
    if not path:
        return None
    found = read_statistics(path, key)
    for one in chosen:
        if suffice(one.metric) and one.network is not None:
            found.check_network(one.network)
        elif isinstance(one.metric, SetMetric) and one.metric.against:
            raise need_images(one.metric, f"{key}={path}")
    if not any(suffice(one.metric) for one in chosen):
        raise UserError(f"{key} is set, but {METRICS} names no metric that statistics are enough for, such as 'fid'.")
    return found


def _open(network: FeatureNetwork, shape: tuple[int, int, int]) -> None:
    """Reads a network's weights, now, and checks that it sees images of the data's shape.

    Raises:
      UserError: for weights that cannot be had; it names the package's own classifier of such images, if there is one.
    """
    network.check_shape(shape)
    try:
        network.open()
    except UserError as error:
        known = [name for name, cls in classes("feature_network").items() if getattr(cls, "shape", None) == shape]
        if not known:
            raise
        raise UserError(
            f"{str(error).rstrip('.')}; or measure 'frechet' with config.evaluate.network={known[0]!r}, whose weights "
            "are here."
        ) from error


def due(chosen: Sequence[Chosen[RunMetric]], every: int, images: int) -> tuple[Chosen[RunMetric], ...]:
    """Returns the metrics that an evaluation during training computes.

    Args:
      every: training images between two evaluations.
      images: the number of training images seen. The evaluation is the one of the last multiple of `every` that
        was reached.

    A metric with a cadence of its own is due when a multiple of that was passed since the evaluation before.
    """
    now = images // every * every
    return tuple(
        one for one in chosen if not one.every_images or now // one.every_images != (now - every) // one.every_images
    )


def evaluate(generator: Generator, model: Model, seed: int = SEED, images: int | None = None) -> Evaluation:
    """Returns all numbers of a model.

    Args:
      images: training images seen, where this is one of the evaluations during training: only the metrics that are due
        then are computed. None computes all.

    Raises:
      NotFinite: where no sample is finite. Where some are not, or during training, a warning says so, and the metrics
        of samples are left out.
      UserError: for data or weights that cannot be had, and what `config.evaluate.metrics` cannot name.
    """
    config = generator.config
    chosen = metrics_of(config, generator.method)
    if images is not None:
        chosen = due(chosen, config.train.evaluate_every_images, images)
    statistics = statistics_of(config, metrics_of(config, generator.method)) if chosen else None
    source = generator.source(config.data.eval_split)
    count = min(len(source), config.evaluate.real)
    name = f"{source.name}/{source.split} ({count})"
    scores = _held_out(generator, model, seed, source, count, name)
    seen = None
    if chosen:
        try:
            samples = generator.draw(model, seed, config.evaluate.num, asked=True)
        except NotFinite as error:
            if images is None:
                raise
            log.warning("no metrics of samples at %d images: %s", images, error)
            return Evaluation(scores)
        if not samples.finite.all():
            log.warning("the metrics of samples are left out: they would take values that are not finite for black")
            return Evaluation(scores)
        draws = _draws(generator, model, seed, samples, chosen)
        seen = _images(generator, samples, seed, source, count, name)
        seen = dataclasses.replace(seen, statistics=statistics, draws=draws)
        for one in chosen:
            if not seen.enough(one.metric.least):
                log.info("%s is left out: it needs %d images of each set", one.metric.name, one.metric.least)
                continue
            scores |= one.metric.scores(seen, one.network)
    pictures = seen if generator.method.samples_images else None
    return Evaluation(scores, pictures, next((one.network for one in chosen if one.network is not None), None))


def _draws(
    generator: Generator, model: Model, seed: int, samples: Samples, chosen: Sequence[Chosen[RunMetric]]
) -> np.ndarray | None:
    """Returns `[P, D, ...]` samples under the conditions of the first P, those first; None where no metric needs them.

    Raises:
      NotFinite: where one of the further samples is not finite.
    """
    wanted = [one.metric.repeated for one in chosen]
    count, most = min(max(count for count, _ in wanted), len(samples.main)), max(draws for _, draws in wanted)
    if not count or most < 2:
        return None
    use = "the distances between samples under one condition cannot be computed"
    further = (generator.draw(model, seed, count, again=k).need_finite(use) for k in range(1, most))
    return np.stack([samples.main[:count], *(one.main for one in further)], axis=1)


def _held_out(generator: Generator, model: Model, seed: int, source: Source, count: int, name: str) -> dict[str, Score]:
    """Returns the method's own scores on `count` held-out images, beside those on as many training images."""
    if type(generator.method).scores is Method.scores:
        return {}
    train = generator.source(generator.config.data.split)
    floor_count = min(count, len(train))
    floor = generator.scores(model, seed, train, limit=floor_count)
    return {
        key: Score(
            value,
            count,
            name,
            floor=floor[key],
            reference_n=count,
            floor_n=floor_count,
            better=generator.method.better(key),
            note=f"On held-out images; floor: on {floor_count} training images.",
        )
        for key, value in generator.scores(model, seed, source, limit=count).items()
    }


def _images(
    generator: Generator, samples: Samples, seed: int, source: Source, count: int, name: str
) -> EvaluationImages:
    """Returns the samples with what they were drawn for, training images, and `count` images of the held-out source."""
    config, held = generator.config, generator.held_out
    corrupted = functools.partial(held.corrupted, seed=seed) if held.made else None
    train = evenly_spaced(generator.source(config.data.split), config.evaluate.real)
    held_out = evenly_spaced(source, count)
    labels = samples.labels if samples.labels is not None else samples.asked.get("label")
    return EvaluationImages(
        samples.main, labels, train["image"], held_out["image"], held_out.get("label"), name,
        asked=samples.asked, entry=samples.output.entry(), corrupted=corrupted, train_labels=train.get("label"),
        hints=hints_of(config, generator.method), masked=is_masked(config, generator.method),
    )  # fmt: skip


def evenly_spaced(source: Source, most: int) -> dict[str, np.ndarray]:
    """Returns images and labels of all examples of a source, or of `most` of them at equal distances."""
    if source.arrays is not None and len(source) <= most:
        return source.arrays
    chosen = np.linspace(0, len(source) - 1, min(len(source), most)).astype(int)
    parts = [source.take(part.tolist()) for part in np.array_split(chosen, -(-len(chosen) // 1000))]
    return {key: np.concatenate([part[key] for part in parts]) for key in ("image", "label") if key in parts[0]}
