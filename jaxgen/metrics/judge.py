"""A judge: a small classifier of one data set whose weights come with the package, and what it says of samples.

Its Fréchet distance is not the FID: other features, another data set.
"""

from __future__ import annotations

import dataclasses
import functools
from importlib import resources
from typing import Any

import jax
import numpy as np

from jaxgen.errors import UserError
from jaxgen.metrics.evidence import Evidence, Score
from jaxgen.metrics.frechet import frechet_distance
from jaxgen.metrics.kernel import kid
from jaxgen.networks.classifier import Classifier


@dataclasses.dataclass(frozen=True)
class Judge:
    """A classifier p(y | x) and its penultimate layer's features.

    Attributes:
      name: of the data set; in scores, `frechet_<name>`, and in the file of the weights.
      shape: `(H, W, C)` of the images that it sees.
      network: its architecture, the one that `configs/judge_<...>.py` trains.
    """

    name: str
    shape: tuple[int, int, int]
    network: Classifier

    @property
    def file(self) -> str:
        """The name of the weights' file in `jaxgen/metrics`."""
        return f"{self.name}_judge.npz"

    def weights(self) -> dict[str, Any]:
        """The shipped parameters, float32."""
        return _weights(self.file)

    def __call__(self, images: np.ndarray, batch: int = 500) -> tuple[np.ndarray, np.ndarray]:
        """`[N, classes]` class probabilities and `[N, D]` features, float64, of uint8 images `[N, H, W, C]`.

        Raises:
          UserError: for images of another shape.
        """
        if images.shape[1:] != self.shape:
            raise UserError(f"The {self.name} judge sees images of shape {self.shape}, not {images.shape[1:]}.")
        padded = np.concatenate([images, np.zeros((-len(images) % batch, *self.shape), np.uint8)])
        weights = self.weights()
        parts = [_apply(self.network, weights, padded[i : i + batch]) for i in range(0, len(padded), batch)]
        probabilities, features = (np.concatenate(x)[: len(images)] for x in zip(*parts, strict=True))
        return probabilities, features

    def scores(self, evidence: Evidence) -> dict[str, Score]:
        """`frechet_<name>` and `kid_<name>` in the judge's features, class entropy, mean confidence; label accuracy
        where labels were asked for."""
        probabilities, features = self(evidence.samples)
        real_probabilities, real = self(evidence.held_out)
        _, floor = self(evidence.floor)
        noise_probabilities, noise = self(evidence.noise)
        common = {"n": len(evidence.samples), "reference": evidence.held_out_name}
        distance = kid(features, real)
        scores = {
            f"frechet_{self.name}": Score(
                frechet_distance(features, real),
                floor=frechet_distance(floor, real),
                noise=frechet_distance(noise, real),
                note=f"In the features of the {self.name} judge; floor: {len(floor)} training images.",
                **common,
            ),
            f"kid_{self.name}": Score(
                distance.mean,
                floor=kid(floor, real).mean,
                noise=kid(noise, real).mean,
                note=f"Kernel distance in the same features; {distance.std:.2g} is one subset's standard deviation.",
                **common,
            ),
            "class_entropy": Score(
                entropy(probabilities),
                floor=entropy(real_probabilities),
                better="higher",
                note="Share of the maximum: 1 if all classes are equally frequent.",
                **common,
            ),
            "confidence": Score(
                float(probabilities.max(axis=1).mean()),
                floor=float(real_probabilities.max(axis=1).mean()),
                noise=float(noise_probabilities.max(axis=1).mean()),
                better="higher",
                note="Mean probability of the judge's choice.",
                **common,
            ),
        }
        if evidence.labels is not None:
            scores["label_accuracy"] = Score(
                accuracy(probabilities, evidence.labels),
                floor=accuracy(real_probabilities, evidence.held_out_labels),
                better="higher",
                note="Share of samples in which the judge sees the class that was asked for.",
                **common,
            )
        return scores


def entropy(probabilities: np.ndarray) -> float:
    """Entropy of how often each class is the likeliest one, as a share of its maximum log(classes)."""
    classes = probabilities.shape[1]
    share = np.bincount(probabilities.argmax(axis=1), minlength=classes) / len(probabilities)
    return float(-(share * np.log(np.maximum(share, 1e-12))).sum() / np.log(classes))


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Share of examples whose likeliest class is their label."""
    return float((probabilities.argmax(axis=1) == labels).mean())


@functools.cache
def _weights(file: str) -> dict[str, Any]:
    with resources.files("jaxgen.metrics").joinpath(file).open("rb") as opened:
        flat = np.load(opened, allow_pickle=False)
        params: dict[str, Any] = {}
        for name in flat.files:
            layer, leaf = name.split("/")
            params.setdefault(layer, {})[leaf] = flat[name].astype(np.float32)
    return params


@functools.partial(jax.jit, static_argnums=0)
def _forward(network: Classifier, params: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    logits, features = network.apply({"params": params}, images.astype(np.float32) / 127.5 - 1)
    return jax.nn.softmax(logits), features


def _apply(network: Classifier, params: Any, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    probabilities, features = jax.block_until_ready(_forward(network, params, images))
    return np.asarray(probabilities, np.float64), np.asarray(features, np.float64)
