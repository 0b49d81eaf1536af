"""A likelihood p(x | z) is the log-probability that a decoder's outputs give to an image, in nats.

`config.method.likelihood.name` names a class in snake case: `OptimalGaussian` is "optimal_gaussian".
"""

from __future__ import annotations

import abc
import dataclasses
import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jaxgen.arrays import Array
from jaxgen.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float, Key

RAREST = 1e-3  # the least probability of white, and of black, that a decoder begins with, as in Burda et al.'s code


@dataclasses.dataclass(frozen=True)
class Likelihood(abc.ABC):
    """This is the contract of a likelihood. By default the decoder's outputs are the expected image itself."""

    @abc.abstractmethod
    def log_prob(self, image: Float[Array, "B ..."], outputs: Float[Array, "B ..."]) -> Float[Array, " B"]:
        """Returns the log-probability in nats of images in [-1, 1], summed over all axes but the first."""

    def mean(self, outputs: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
        """Returns the expected image, in the range of the images."""
        return outputs

    def prepare(self, image: Float[Array, "B ..."], key: Key[Array, ""]) -> Float[Array, "B ..."]:
        """Returns the image that the loss explains: the given one, or one whose values are drawn as black or white."""
        return image

    def start(self, mean: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
        """Returns finite outputs whose `mean` has the given values in [-1, 1], for a decoder's initial bias."""
        return mean


def _sum(values: Array) -> Array:
    return values.sum(axis=tuple(range(1, values.ndim)))


@dataclasses.dataclass(frozen=True)
class Bernoulli(Likelihood):
    """Each value is black or white, and the outputs are the logits of white."""

    # Whether the image is drawn at each call: a pixel of intensity v in [0, 1] is white with probability v (Burda et
    # al. 2016, Section 5.1), as in papers on *binarised* MNIST. If not, v itself enters the cross-entropy
    # v log p + (1 - v) log(1 - p), which is not the probability of an image and is higher than for drawn images.
    draw: bool = True

    def log_prob(self, image: Float[Array, "B ..."], outputs: Float[Array, "B ..."]) -> Float[Array, " B"]:
        white = (image + 1) / 2
        return -_sum(jax.nn.softplus(outputs) - white * outputs)

    def mean(self, outputs: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
        return 2 * jax.nn.sigmoid(outputs) - 1

    def prepare(self, image: Float[Array, "B ..."], key: Key[Array, ""]) -> Float[Array, "B ..."]:
        if not self.draw:
            return image
        return 2.0 * jax.random.bernoulli(key, jnp.clip((image + 1) / 2, 0, 1)).astype(image.dtype) - 1

    def start(self, mean: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
        return jax.scipy.special.logit(jnp.clip((mean + 1) / 2, RAREST, 1 - RAREST))


@dataclasses.dataclass(frozen=True)
class Gaussian(Likelihood):
    """Each value is normally distributed, with the output as its mean and one standard deviation for all values.

    This is a density and not a probability, so `log_prob` may be above 0. For `std` 1 the negative of it is half the
    squared error plus a constant, which leaves images blurred. The smaller `std` is, the less weight the KL has.

    Raises:
      UserError: for a standard deviation that is not positive.
    """

    std: float = 1.0  # the standard deviation, for values in [-1, 1]

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise UserError(f"The likelihood's standard deviation must be above 0, not {self.std}.")

    def log_prob(self, image: Float[Array, "B ..."], outputs: Float[Array, "B ..."]) -> Float[Array, " B"]:
        return _sum(-jnp.square((image - outputs) / self.std) / 2 - math.log(self.std) - math.log(2 * math.pi) / 2)


@dataclasses.dataclass(frozen=True)
class OptimalGaussian(Likelihood):
    """This is a Gaussian whose standard deviation is the root mean squared error of the batch: sigma-VAE (Rybkin et al.
    2021).

    This is the best sigma for the batch, in closed form (ibid., Section 4.2). The result for an image depends on its
    batch, so use this class for training and `gaussian` for evaluation.
    """

    def log_prob(self, image: Float[Array, "B ..."], outputs: Float[Array, "B ..."]) -> Float[Array, " B"]:
        squared = jnp.square(image - outputs)
        variance = jnp.maximum(squared.mean(), 1e-8)
        return _sum(-squared / variance / 2 - jnp.log(variance) / 2 - math.log(2 * math.pi) / 2)
