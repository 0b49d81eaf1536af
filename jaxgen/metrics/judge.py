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
from jaxgen.metrics import features
from jaxgen.metrics.features import Extractor, Features
from jaxgen.networks.classifier import Classifier


@dataclasses.dataclass(frozen=True)
class Judge:
    """A classifier p(y | x) and its penultimate layer's features: a `FeatureNetwork`.

    Attributes:
      name: of the data set; in scores, `frechet_<name>`, and in the file of the weights.
      shape: `(H, W, C)` of the images that it sees; others are refused.
      network: its architecture, the one that `configs/judge_<...>.py` trains.
    """

    name: str
    shape: tuple[int, int, int]
    network: Classifier
    resize: str = dataclasses.field(default="none", init=False)

    @property
    def file(self) -> str:
        """The name of the weights' file in `jaxgen/metrics`."""
        return f"{self.name}_judge.npz"

    def weights(self) -> dict[str, Any]:
        """The shipped parameters, float32."""
        return _weights(self.file)

    @property
    def digest(self) -> str:
        """Of the shipped parameters."""
        return _digest(self.file)

    def __call__(self, images: np.ndarray, batch: int = 500) -> Features:
        """`[N, D]` features and `[N, classes]` class probabilities, float64, of uint8 images `[N, H, W, C]`.

        Raises:
          UserError: for images of another shape.
        """
        if images.shape[1:] != self.shape:
            raise UserError(f"The {self.name} judge sees images of shape {self.shape}, not {images.shape[1:]}.")
        found, probabilities = _extractor(self.network, self.file)(images, batch)
        return Features(found.astype(np.float64), probabilities.astype(np.float64))


def entropy(probabilities: np.ndarray) -> float:
    """Entropy of how often each class is the likeliest one, as a share of its maximum log(classes)."""
    classes = probabilities.shape[1]
    share = np.bincount(probabilities.argmax(axis=1), minlength=classes) / len(probabilities)
    return float(-(share * np.log(np.maximum(share, 1e-12))).sum() / np.log(classes))


@functools.cache
def _weights(file: str) -> dict[str, Any]:
    with resources.files("jaxgen.metrics").joinpath(file).open("rb") as opened:
        flat = np.load(opened, allow_pickle=False)
        params: dict[str, Any] = {}
        for name in flat.files:
            layer, leaf = name.split("/")
            params.setdefault(layer, {})[leaf] = flat[name].astype(np.float32)
    return params


@functools.cache
def _digest(file: str) -> str:
    return features.digest(_weights(file))


@functools.cache
def _extractor(network: Classifier, file: str) -> Extractor:
    def see(params: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits, found = network.apply({"params": params}, images.astype(np.float32) / 127.5 - 1)
        return found, jax.nn.softmax(logits)

    return Extractor(see, _weights(file))
