"""One look of a network at each image set, then all the numbers that are asked for.

    network = open_judge("inception")
    scores = compare(network(samples), network(real), metrics=("fid", "kid"), network=network, reference_name="mine")
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from jaxgen.errors import UserError, nearest
from jaxgen.metrics.classification import class_accuracy
from jaxgen.metrics.evidence import EvaluationImages, Score
from jaxgen.metrics.features import FeatureNetwork, Features
from jaxgen.metrics.frechet import frechet_distance, frechet_from_moments
from jaxgen.metrics.inception_score import inception_score
from jaxgen.metrics.infinity import extrapolate
from jaxgen.metrics.judge import entropy
from jaxgen.metrics.kernel import kid
from jaxgen.metrics.manifold import density_coverage, precision_recall
from jaxgen.metrics.summary import Summary

BALLS = 3  # k of precision and recall, the paper's
NEAR = 5  # k of density and coverage, the paper's

# (value, standard deviation over subsets or splits, or None)
Value = tuple[float, float | None]
Family = Callable[[Summary, Summary], dict[str, Value]]


def _frechet(samples: Summary, reference: Summary) -> dict[str, Value]:
    return {"fid": (frechet_from_moments(samples.moments, reference.moments), None)}


def _kernel(samples: Summary, reference: Summary) -> dict[str, Value]:
    return {"kid": tuple(kid(samples.features, reference.features))}


def _score(samples: Summary, _: Summary) -> dict[str, Value]:
    return {"inception_score": tuple(inception_score(samples.probabilities))}


def _balls(samples: Summary, reference: Summary) -> dict[str, Value]:
    found = precision_recall(samples.features, reference.features, k=BALLS)
    return {"precision": (found.precision, None), "recall": (found.recall, None)}


def _near(samples: Summary, reference: Summary) -> dict[str, Value]:
    found = density_coverage(samples.features, reference.features, k=NEAR)
    return {"density": (found.density, None), "coverage": (found.coverage, None)}


def _infinity(samples: Summary, reference: Summary) -> dict[str, Value]:
    return {"fid_infinity": (extrapolate(frechet_distance, samples.features, reference.features).value, None)}


def _classes(samples: Summary, _: Summary) -> dict[str, Value]:
    confidence = float(samples.probabilities.max(axis=1).mean())
    return {"class_entropy": (entropy(samples.probabilities), None), "confidence": (confidence, None)}


@dataclasses.dataclass(frozen=True)
class Metric:
    """Attributes:
    family: what computes it, with its siblings. better: as in `Score`. note: a sentence for readers.
    features: whether all features are needed, not their moments alone. probabilities: whether those are needed.
    against: whether the reference has a part in it. least: images that each side needs.
    """

    family: Family
    better: str
    note: str
    features: bool = True
    probabilities: bool = False
    against: bool = True
    least: int = 2


_CLASSES = {"features": False, "probabilities": True}
METRICS = {
    "fid": Metric(_frechet, "lower", "It falls as n grows: compare equal n only.", features=False),
    "kid": Metric(_kernel, "lower", "Unbiased in n; the standard deviation is that of one subset."),
    "inception_score": Metric(_score, "higher", "Mean of ten splits.", **_CLASSES, against=False, least=10),
    "precision": Metric(_balls, "higher", f"Balls reach to neighbour {BALLS}; compare equal n only.", least=4),
    "recall": Metric(_balls, "higher", f"Balls reach to neighbour {BALLS}; compare equal n only.", least=4),
    "density": Metric(_near, "higher", f"Balls reach to neighbour {NEAR}.", least=6),
    "coverage": Metric(_near, "higher", f"Balls reach to neighbour {NEAR}.", least=6),
    "fid_infinity": Metric(
        _infinity, "lower", "Extrapolated to infinitely many samples; the reference stays as it is.",
        least=20,
    ),
    "class_entropy": Metric(
        _classes, "higher", "Share of the maximum: 1 if all classes are equally frequent.", **_CLASSES, least=1
    ),
    "confidence": Metric(_classes, "higher", "Mean probability of the judge's choice.", **_CLASSES, least=1),
    "label_accuracy": Metric(
        _classes, "higher", "Share of samples in which the judge sees the class asked for.", **_CLASSES, least=1
    ),
}
# Called alike whatever the network.
PLAIN = ("class_entropy", "confidence", "label_accuracy")
# What a judge of one data set says where nothing is asked for.
OF_JUDGES = ("fid", "kid", *PLAIN, "precision", "recall", "density", "coverage")


def published(network: FeatureNetwork) -> bool:
    """Whether `fid` in these features is what others call FID: Inception's published weights, its 2048 features."""
    return (
        network.name == "inception"
        and getattr(network, "given", network) is None
        and getattr(network, "tap", "") == "2048"
        and network.resize in ("legacy", "clean")
    )


def name_of(metric: str, network: FeatureNetwork) -> str:
    """The name in `metrics.json`: `fid`, and `frechet_digits` where the features are not the published Inception's."""
    if metric in PLAIN or published(network):
        return metric
    return f"{metric.replace('fid', 'frechet')}_{network.name}"


def check_metrics(metrics: Iterable[str]) -> tuple[str, ...]:
    """The names, each once. Raises a UserError for an unknown one."""
    metrics = tuple(dict.fromkeys(metrics))
    for name in metrics:
        if name not in METRICS:
            raise UserError(f"There is no metric {name!r} of image sets; {nearest(name, METRICS)}")
    return metrics


def compare(
    samples: Features | Summary,
    reference: Features | Summary,
    floor: Features | Summary | None = None,
    noise: Features | Summary | None = None,
    metrics: Iterable[str] = ("fid", "kid"),
    *,
    network: FeatureNetwork,
    reference_name: str,
    labels: np.ndarray | None = None,
    reference_labels: np.ndarray | None = None,
) -> dict[str, Score]:
    """The chosen numbers of samples held against a reference, under their names of `name_of`, in the order asked for.

    Args:
      samples, reference: what the network sees of them. floor: of as many further real images, or None.
      noise: of as many images of noise, or None.
      metrics: names in `METRICS`. network: whose features they are. reference_name: data set and split.
      labels: int32 `[N]` that the samples were asked for; `label_accuracy` needs them. reference_labels: the true
        ones, or None.

    Raises:
      UserError: for an unknown metric, too few images, or probabilities or labels that are not there.
    """
    metrics = check_metrics(metrics)
    sides = {"samples": samples, "reference": reference, "floor": floor, "noise": noise}
    sides = {k: Summary.of(v) if isinstance(v, Features) else v for k, v in sides.items() if v is not None}
    for name in metrics:
        _check(name, sides, network, labels)
    found: dict[tuple[str, Family], dict[str, Value]] = {}

    def value(name: str, side: str) -> Value | tuple[None, None]:
        if side not in sides:
            return None, None
        if name == "label_accuracy":
            wanted = {"samples": labels, "reference": reference_labels}.get(side)
            return (None, None) if wanted is None else (class_accuracy(sides[side].probabilities, wanted).value, None)
        family = METRICS[name].family
        if (side, family) not in found:
            found[side, family] = family(sides[side], sides["reference"])
        return found[side, family][name]

    scores = {}
    for name in metrics:
        metric = METRICS[name]
        # how classes come is judged by held-out images themselves
        of_reference = metric.family is _classes
        floor_side = "reference" if of_reference else "floor"
        measured, std = value(name, "samples")
        real, empty = value(name, floor_side)[0], None if name == "class_entropy" else value(name, "noise")[0]
        same = real is not None and real == empty
        scores[name_of(name, network)] = Score(
            measured,
            n=sides["samples"].n,
            reference=reference_name if metric.against else "",
            floor=real,
            noise=None if same else empty,
            better=metric.better,
            note=metric.note + (f" Noise scores {real:.3g} as well." if same else ""),
            std=std,
            reference_n=sides["reference"].n if metric.against else None,
            floor_n=sides[floor_side].n if real is not None else None,
            network=network.name,
            digest=network.digest,
            resize=network.resize,
            published=published(network),
        )
    return scores


def _check(name: str, sides: dict[str, Summary], network: FeatureNetwork, labels: np.ndarray | None) -> None:
    metric = METRICS[name]
    for side, summary in sides.items():
        if summary.n < metric.least and (metric.against or side == "samples"):
            raise UserError(f"{name} needs at least {metric.least} images on each side; the {side} are {summary.n}.")
        if metric.probabilities and summary.probabilities is None:
            raise UserError(f"{name} needs class probabilities, which the network {network.name!r} does not give.")
        if metric.features and summary.features is None:
            raise UserError(f"{name} needs the features themselves; only the moments of the {side} were kept.")
    if name == "label_accuracy" and labels is None:
        raise UserError("label_accuracy needs the labels that the samples were asked for.")


def judge_scores(
    network: FeatureNetwork, evidence: EvaluationImages, metrics: Iterable[str] = OF_JUDGES
) -> dict[str, Score]:
    """What a network says of a model's samples, beside as many real images (floor) and noise.

    `label_accuracy` is left out where no labels were asked for; what takes more neighbours than there are images too.
    """
    least = min(len(evidence.samples), len(evidence.held_out), len(evidence.floor))
    chosen = [m for m in metrics if METRICS[m].least <= max(least, 2)]
    if evidence.labels is None:
        chosen = [m for m in chosen if m != "label_accuracy"]
    return compare(
        *(evidence.features(network, side) for side in ("samples", "held_out", "floor", "noise")),
        chosen,
        network=network,
        reference_name=evidence.held_out_name,
        labels=evidence.labels,
        reference_labels=evidence.held_out_labels,
    )
