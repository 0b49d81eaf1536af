"""Holds small classifiers of one data set whose weights come with the package.

The Fréchet distance in their features is not the FID: the features are others, and so is the data set.
"""

from __future__ import annotations

import abc
import functools
from importlib import resources
from typing import ClassVar

import jax
import numpy as np
from jaxtyping import UInt8

from jaxgen.arrays import Tree
from jaxgen.errors import UserError
from jaxgen.files.arrays import read_npz
from jaxgen.metrics.networks.base import FeatureNetwork, Features, digest
from jaxgen.metrics.networks.extractor import Extractor
from jaxgen.networks.classifier import Classifier
from jaxgen.networks.layers.stateless import apply_params
from jaxgen.registry import find


class PackagedClassifier(FeatureNetwork):
    """A packaged classifier gives p(y | x) and the features of its penultimate layer.

    Its weights are `<name>.npz` beside this file.

    Attributes:
      network: its architecture, the one that `configs/classifier_<...>.py` trains.
    """

    gives: ClassVar[frozenset[str]] = FeatureNetwork.gives | {"probabilities"}
    network: ClassVar[Classifier]

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """Returns `(H, W, C)` of the images that it sees."""

    @property
    def file(self) -> str:
        """Returns the name of the weights' file in `jaxgen/metrics/networks`."""
        return f"{self.name}.npz"

    @property
    def width(self) -> int:
        """Returns the width of the penultimate layer."""
        return self.network.features

    def weights(self) -> Tree:
        """Returns the parameters in the package, float32."""
        return _weights(self.file)

    @property
    def digest(self) -> str:
        """Returns the digest of the parameters in the package."""
        return _digest(self.file)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raises a UserError for images of another shape than the classifier's."""
        if tuple(shape) != self.shape:
            raise UserError(f"The network {self.name!r} sees images of shape {self.shape}, not {tuple(shape)}.")

    def __call__(self, images: UInt8[np.ndarray, "N H W C"], batch: int = 500) -> Features:
        """Returns `[N, D]` features and `[N, classes]` class probabilities, float64, of uint8 images `[N, H, W, C]`.

        Raises:
          UserError: for images of another shape.
        """
        self.check_shape(images.shape[1:])
        found, probabilities = _extractor(self.network, self.file)(images, batch)
        return Features(found.astype(np.float64), probabilities.astype(np.float64))


def packaged(name: str, path: str) -> PackagedClassifier:
    """Returns the classifier of that name.

    `path` says where the name stands, for messages.

    Raises:
      UserError: where the package has no such classifier.
    """
    return find("feature_network", name, path, among=(PackagedClassifier,))()


@functools.cache
def _weights(file: str) -> Tree:
    with resources.as_file(resources.files("jaxgen.metrics.networks") / file) as path:
        flat = read_npz(path)
    params: Tree = {}
    for name, values in flat.items():
        layer, leaf = name.split("/")
        params.setdefault(layer, {})[leaf] = values.astype(np.float32)
    return params


@functools.cache
def _digest(file: str) -> str:
    return digest(_weights(file))


@functools.cache
def _extractor(network: Classifier, file: str) -> Extractor:
    def see(params: Tree, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits, found = apply_params(network, params, images.astype(np.float32) / 127.5 - 1)
        return found, jax.nn.softmax(logits)

    return Extractor(see, _weights(file))
