"""The networks that image sets are seen through, by name, and what `config.evaluate.metrics` may ask of published ones.

`inception` and `clip` carry weights that others publish numbers with; `digits` and `fashion` come with the package.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np
import scipy.special

from jaxgen.errors import UserError, nearest
from jaxgen.metrics import reference
from jaxgen.metrics.evidence import EvaluationImages, Score
from jaxgen.metrics.features import Extractor, FeatureNetwork, Features
from jaxgen.metrics.suite import judge_scores

NAMES = ("inception", "digits", "fashion", "clip")
OF_INCEPTION = ("fid", "kid", "inception_score", "precision", "recall", "density", "coverage")
OF_CLIP = ("fid", "kid", "precision", "recall", "density", "coverage")


@functools.lru_cache(maxsize=4)
def open_judge(name: str, weights: str = "", resize: str = "legacy") -> FeatureNetwork:
    """A network by its name; published weights are read, and fetched where they are nowhere on this machine.

    Args:
      weights: a file or folder of published weights, see `jaxgen.downloads.locate`.
      resize: how images come to Inception's size, "legacy" or "clean".

    Raises:
      UserError: for an unknown name, weights that cannot be had, or an option that the network does not take.
    """
    if name not in NAMES:
        raise UserError(f"There is no network {name!r} to judge by; {nearest(name, NAMES)}")
    if resize not in ("legacy", "clean"):
        raise UserError(f"Images come to a network's size by 'legacy' or 'clean', not by {resize!r}.")
    if name == "inception":
        from jaxgen.metrics.inception import Inception

        network: Any = Inception(weights, resize)
        network.digest  # reads the weights now, not after the images  # noqa: B018
        return network
    if resize != "legacy":
        raise UserError(f"Only the network 'inception' has a choice of resizes; {name!r} does not take {resize!r}.")
    if name == "clip":
        from jaxgen.metrics.clip_score import Clip

        return Clip(weights)
    if weights:
        raise UserError(f"The {name} judge comes with its weights; leave out {weights}.")
    if name == "digits":
        from jaxgen.metrics.digits import JUDGE
    else:
        from jaxgen.metrics.fashion import JUDGE
    return JUDGE


def inception(evidence: EvaluationImages) -> dict[str, Score]:
    """`fid`, `kid`, `inception_score`, `precision`, `recall`, `density`, `coverage` in the published Inception."""
    return _published("inception", evidence, OF_INCEPTION)


def clip(evidence: EvaluationImages) -> dict[str, Score]:
    """`frechet_clip`, `kid_clip`, `precision_clip`, `recall_clip`, `density_clip`, `coverage_clip`."""
    return _published("clip", evidence, OF_CLIP)


def _published(name: str, evidence: EvaluationImages, metrics: Iterable[str]) -> dict[str, Score]:
    network = open_judge(name, evidence.weights, evidence.resize if name == "inception" else "legacy")
    # these networks are slow, and held-out images the same in every run
    seen = reference.of_array(network, evidence.held_out, evidence.held_out_name)
    evidence.remember(network, "held_out", Features(seen.features, seen.probabilities))
    return judge_scores(network, evidence, metrics)


def looker(network: FeatureNetwork, batch: int) -> Callable[[np.ndarray | list[np.ndarray]], Features]:
    """A function of one batch: an array `[B, H, W, C]`, or a list of `[H, W, C]` whose sizes differ.

    The second is for networks that resize; each image comes to the network's size on its own, so that no program is
    compiled twice.
    """

    def see(images: np.ndarray | list[np.ndarray]) -> Features:
        if not isinstance(images, list):
            return network(images, batch)
        if network.name == "inception":
            return _inception_of_any_size(network, images, batch)
        if network.name == "clip":
            from jaxgen.metrics.clip_score import crop_square

            side = network.network.image.size
            return network(np.concatenate([crop_square(image[None], side) for image in images]), batch)
        raise UserError(f"The network {network.name!r} sees images of one size only; give --resolution.")

    return see


def _inception_of_any_size(network: Any, images: list[np.ndarray], batch: int) -> Features:
    from jaxgen.metrics.inception import colour
    from jaxgen.metrics.resize import clean

    shrink = clean if network.resize == "clean" else _legacy
    resized = np.concatenate([np.asarray(shrink(colour(image[None]))) for image in images])
    found, logits = _resized(network, network.digest)(resized, batch)
    return Features(found, scipy.special.softmax(logits.astype(np.float64), axis=1))


@functools.lru_cache(maxsize=2)
def _resized(network: Any, digest: str) -> Extractor:
    """Inception from float images of its own size; the digest tells apart what has equal settings."""
    from jaxgen.metrics.resize import centred
    from jaxgen.networks.pretrained.inception import Inception

    def function(params: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        taps = Inception().apply({"params": params}, centred(images), (network.tap, "logits_unbiased"))
        return taps[network.tap], taps["logits_unbiased"]

    return Extractor(function, network.params)


@jax.jit
def _legacy(images: jax.Array) -> jax.Array:
    from jaxgen.metrics.resize import legacy

    return legacy(images)
