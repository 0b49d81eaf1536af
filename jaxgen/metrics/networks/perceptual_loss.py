"""Lets feature networks be parts of a loss: differentiable, of float images, with the parameters as arguments."""

from __future__ import annotations

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxgen.arrays import Array, Tree
from jaxgen.errors import UserError, nearest
from jaxgen.interop.feature_networks.lpips import load_lpips
from jaxgen.metrics.networks.classifier import packaged
from jaxgen.metrics.networks.filters import Filters
from jaxgen.metrics.networks.trained import read_classifier
from jaxgen.networks.classifier import Classifier
from jaxgen.networks.layers.stateless import apply_params
from jaxgen.networks.pretrained.lpips import LPIPS, check_size
from jaxgen.networks.pretrained.perceptual import activations

TRUNKS = {"lpips_alex": "alex", "lpips_vgg": "vgg"}
PACKAGED = ("digits", "fashion")
NAMES = ("filters", "classifier", *PACKAGED, *TRUNKS)

Maps = tuple[Float[Array, "B h w D"], ...]  # of an image, at one or several depths


@flax.struct.dataclass
class PerceptualLoss:
    """Compares images in the features of a network; it is a pytree, whose leaves are the network's parameters.

    Of a classifier, the result of every convolution is scaled to unit length at each position (Zhang et al. 2018); its
    distance, and that of LPIPS, is the one of `perceptual_distance`. The distance in `filters`, which have no
    parameters, is the mean squared difference of their maps.

    Attributes:
      params: the parameters.
      network: the network.
    """

    params: Tree
    network: LPIPS | Classifier | Filters = flax.struct.field(pytree_node=False)

    def features(self, images: Float[Array, "B H W C"]) -> Maps:
        """Returns the maps of images in [-1, 1]. Values outside are allowed."""
        if isinstance(self.network, Filters):
            return (filtered(images, self.network.widths),)
        if isinstance(self.network, Classifier):
            return tuple(activations(self.network, self.params, images))
        rgb = jnp.repeat(images, 3, -1) if images.shape[-1] == 1 else images
        return apply_params(self.network, self.params, rgb, method="features")

    def compare(self, a: Maps, b: Maps) -> Float[Array, " B"]:
        """Returns the distances, at least 0, of the images that two results of `features` are of."""
        if isinstance(self.network, LPIPS):
            return apply_params(self.network, self.params, a, b, method="compare")
        mean = isinstance(self.network, Filters)
        layers = [jnp.square(x - y) for x, y in zip(a, b, strict=True)]
        return jnp.stack([(x.mean(-1) if mean else x.sum(-1)).mean((1, 2)) for x in layers]).mean(0)

    def __call__(self, a: Float[Array, "B H W C"], b: Float[Array, "B H W C"]) -> Float[Array, " B"]:
        """Returns the distances of images in [-1, 1]."""
        return self.compare(self.features(a), self.features(b))


def filtered(images: Float[Array, "B H W C"], widths: tuple[float, ...]) -> Float[Array, "B H W D"]:
    """Returns the maps that `Filters` gives of images in [-1, 1], as products with matrices.

    These are compiled, with their gradient, in a fraction of the time that sums of shifted images take.
    """
    height, width = images.shape[1:3]
    found = []
    for deviation in widths:
        smooth = _down(_blur(height, deviation), _across(_blur(width, deviation), images))
        slopes = _down(_slope(height), smooth), _across(_slope(width), smooth)
        found += [smooth, *(deviation * jnp.abs(slope) for slope in slopes)]
    return jnp.concatenate(found, axis=-1)


def _down(matrix: np.ndarray, x: Array) -> Array:
    return jnp.einsum("ij,bjwc->biwc", matrix, x)


def _across(matrix: np.ndarray, x: Array) -> Array:
    return jnp.einsum("ij,bhjc->bhic", matrix, x)


def _blur(side: int, deviation: float) -> Float[np.ndarray, "side side"]:
    """Returns the matrix of a Gaussian that is cut off at three deviations; borders are reflected."""
    reach = max(1, round(3 * deviation))
    shares = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / deviation))
    matrix, seen = np.zeros((side, side), np.float32), np.pad(np.arange(side), reach, mode="symmetric")
    for i in range(side):
        np.add.at(matrix[i], seen[i : i + len(shares)], shares / shares.sum())
    return matrix


def _slope(side: int) -> Float[np.ndarray, "side side"]:
    """Returns the matrix of half the difference of two neighbours; a border pixel is its own neighbour."""
    matrix = np.zeros((side, side), np.float32)
    for i in range(side):
        matrix[i, min(i + 1, side - 1)] += 0.5
        matrix[i, max(i - 1, 0)] -= 0.5
    return matrix


def open_perceptual(name: str, shape: tuple[int, int, int], weights: str = "") -> PerceptualLoss:
    """Returns the loss in a network's features.

    Args:
      name: "filters", without weights; "classifier", of a file that `jaxgen.evaluation.export_classifier` wrote;
        "digits" or "fashion", of the package; "lpips_alex" or "lpips_vgg".
      shape: (H, W, C) of the images that are compared.
      weights: the classifier's file, or a folder with the published files of LPIPS.

    Raises:
      UserError: the name is unknown, weights are missing or of another network, or images of this shape are not seen.
    """
    if name == "classifier":
        if not weights:
            raise UserError("The network 'classifier' needs its file: name it as weights.")
        file = read_classifier(weights)
        if file.shape != tuple(shape):
            raise UserError(f"The classifier of {weights!r} sees images of shape {file.shape}, not {tuple(shape)}.")
        return PerceptualLoss(jax.tree.map(jnp.asarray, file.params), file.network)
    if name in TRUNKS:
        if shape[2] not in (1, 3):
            raise UserError(f"LPIPS sees grey images and RGB, not {shape[2]} channels: use the network 'filters'.")
        check_size(TRUNKS[name], *shape[:2])
        return PerceptualLoss(jax.tree.map(jnp.asarray, load_lpips(TRUNKS[name], weights)), LPIPS(TRUNKS[name]))
    if weights:
        raise UserError(f"The network {name!r} takes no weights; leave out {weights!r}.")
    if name in PACKAGED:
        known = packaged(name, "the network")
        known.check_shape(shape)
        return PerceptualLoss(jax.tree.map(jnp.asarray, known.weights()), known.network)
    if name == "filters":
        return PerceptualLoss({}, Filters())
    raise UserError(f"There is no network {name!r} to compare images in; {nearest(name, NAMES)}")
