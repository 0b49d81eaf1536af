"""Holds the feature network of a classifier that a user has trained, for data that the package has no classifier of.

Its file is made by

    python main.py --config=configs/classifier_shapes.py --workdir=runs/classifier_shapes
    python -m jaxgen.evaluation.export_classifier runs/classifier_shapes --out=shapes.npz
"""

from __future__ import annotations

import dataclasses
import functools
import os
from typing import ClassVar, NamedTuple

import jax
import numpy as np
from jaxtyping import UInt8

from jaxgen.arrays import Tree
from jaxgen.errors import UserError, first_line
from jaxgen.files.arrays import read_npz
from jaxgen.metrics.networks.base import FeatureNetwork, Features, digest
from jaxgen.metrics.networks.extractor import Extractor
from jaxgen.networks.classifier import Classifier
from jaxgen.networks.layers.stateless import apply_params

SHAPE, CLASSES = "shape", "classes"  # of the images, and of the labels: the file's arrays beside the parameters


class ClassifierFile(NamedTuple):
    """Holds what a file of `export_classifier` says.

    Attributes:
      network: the network.
      params: its parameters, float32.
      shape: `(H, W, C)` of the images that it sees.
      classes: how many of its first logits are the classes of the label; others are of further attributes.
    """

    network: Classifier
    params: Tree
    shape: tuple[int, int, int]
    classes: int


@dataclasses.dataclass(frozen=True)
class TrainedClassifier(FeatureNetwork):
    """A classifier of a run gives p(y | x) and the features of its penultimate layer; `weights` is its file.

    Raises:
      UserError: there is no name of a file; the file itself is read when it is first needed.
    """

    weights: str  # what `python -m jaxgen.evaluation.export_classifier RUN --out=FILE` wrote

    config_name: ClassVar[str] = "classifier"
    name: ClassVar[str] = "classifier"
    gives: ClassVar[frozenset[str]] = FeatureNetwork.gives | {"probabilities"}

    @functools.cached_property
    def file(self) -> ClassifierFile:
        """Returns what the file holds. Raises a UserError as `read_classifier`."""
        return read_classifier(self.weights)

    @functools.cached_property
    def digest(self) -> str:
        """Returns the digest of the parameters in the file."""
        return digest(self.file.params)

    @property
    def width(self) -> int:
        """Returns the width of the penultimate layer."""
        return self.file.network.features

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raises a UserError for images of another shape than the classifier's."""
        if tuple(shape) != self.file.shape:
            raise UserError(
                f"The classifier of {self.weights!r} sees images of shape {self.file.shape}, not {tuple(shape)}."
            )

    def __call__(self, images: UInt8[np.ndarray, "N H W C"], batch: int = 500) -> Features:
        """Returns `[N, D]` features and `[N, classes]` class probabilities, float64, of uint8 images `[N, H, W, C]`.

        Raises:
          UserError: for images of another shape.
        """
        self.check_shape(images.shape[1:])
        found, probabilities = self._extractor(images, batch)
        return Features(found.astype(np.float64), probabilities.astype(np.float64))

    @functools.cached_property
    def _extractor(self) -> Extractor:
        network, params, _, classes = self.file

        def see(params: Tree, images: jax.Array) -> tuple[jax.Array, jax.Array]:
            logits, found = apply_params(network, params, images.astype(np.float32) / 127.5 - 1)
            return found, jax.nn.softmax(logits[:, :classes])

        return Extractor(see, params)


def read_classifier(path: str) -> ClassifierFile:
    """Returns the classifier of a file.

    Raises:
      UserError: there is no such file, or it holds no classifier that `export_classifier` wrote.
    """
    flat = read_npz(path, "the weights of 'classifier'")
    try:
        shape, classes = tuple(int(side) for side in flat.pop(SHAPE)), int(flat.pop(CLASSES))
        params: Tree = {}
        for name, values in flat.items():
            layer, leaf = name.split("/")
            params.setdefault(layer, {})[leaf] = values.astype(np.float32)
        network = network_of(params)
        check = jax.ShapeDtypeStruct((1, *shape), np.float32)
        logits, _ = jax.eval_shape(lambda p, x: apply_params(network, p, x), params, check)
        if len(shape) != 3 or not 2 <= classes <= logits.shape[-1]:
            raise ValueError(f"shape {shape} and {classes} classes")
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{os.fspath(path)!r} holds no classifier ({first_line(error)}); write it by python -m "
            "jaxgen.evaluation.export_classifier RUN --out=FILE."
        ) from error
    return ClassifierFile(network, params, (shape[0], shape[1], shape[2]), classes)


def is_classifier(network: object) -> bool:
    """Returns whether a network is one that a file can hold."""
    return isinstance(network, Classifier)


def network_of(params: Tree) -> Classifier:
    """Returns the `Classifier` whose parameters these are. Raises a KeyError for those of another network."""
    convolutions = sorted((name for name in params if name.startswith("conv_")), key=lambda name: int(name[5:]))
    widths = tuple(params[name]["kernel"].shape[-1] for name in convolutions)
    features, classes = (params[name]["bias"].shape[0] for name in ("features", "classes"))
    return Classifier(num_classes=classes, widths=widths, features=features)
