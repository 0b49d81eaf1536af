"""p(x | z): what a decoder's outputs say of an image, in nats summed over all its values.

Each class is a name for `config.method.likelihood.name`: `OptimalGaussian` is "optimal_gaussian".
"""

from __future__ import annotations

import abc
import dataclasses
import math

import jax
import jax.numpy as jnp

from jaxgen.arrays import Array
from jaxgen.errors import UserError

RAREST = 1e-3  # share of white at which a decoder's pixel may begin, at least, and of black; as Burda et al.'s code


@dataclasses.dataclass(frozen=True)
class Likelihood(abc.ABC):
    """The contract of a likelihood. As it stands, outputs are the expected image itself, as in a Gaussian."""

    @abc.abstractmethod
    def log_prob(self, image: Array, outputs: Array) -> Array:
        """`[B]` nats of images `[B, ...]` in [-1, 1] under outputs `[B, ...]`, summed over all but the first axis."""

    def mean(self, outputs: Array) -> Array:
        """The expected image."""
        return outputs

    def prepare(self, image: Array, key: Array) -> Array:
        """The image that is explained: as it is, or its values drawn as black and white."""
        return image

    def start(self, mean: Array) -> Array:
        """Finite outputs whose `mean` has these values, in [-1, 1], for a decoder that is to begin there."""
        return mean


def _sum(values: Array) -> Array:
    return values.sum(axis=tuple(range(1, values.ndim)))


@dataclasses.dataclass(frozen=True)
class Bernoulli(Likelihood):
    """Each value is black or white; outputs are logits of white.

    With `draw` the image that is explained is drawn at each call: a pixel of intensity v in [0, 1] is white with
    probability v (Burda et al. 2016, Section 5.1; the numbers of papers on *binarised* MNIST). Without, v itself enters
    the cross-entropy v log p + (1 - v) log(1 - p). That is no probability of an image, and is above what drawn images
    give.
    """

    draw: bool = True

    def log_prob(self, image: Array, outputs: Array) -> Array:
        white = (image + 1) / 2
        return -_sum(jax.nn.softplus(outputs) - white * outputs)

    def mean(self, outputs: Array) -> Array:
        return 2 * jax.nn.sigmoid(outputs) - 1

    def prepare(self, image: Array, key: Array) -> Array:
        if not self.draw:
            return image
        return 2.0 * jax.random.bernoulli(key, jnp.clip((image + 1) / 2, 0, 1)).astype(image.dtype) - 1

    def start(self, mean: Array) -> Array:
        return jax.scipy.special.logit(jnp.clip((mean + 1) / 2, RAREST, 1 - RAREST))


@dataclasses.dataclass(frozen=True)
class Gaussian(Likelihood):
    """Each value is normal with the output as its mean and one standard deviation for all.

    This is a density, not a probability: log_prob may be above 0. std 1 makes it half the squared error plus a
    constant, which leaves images blurred; the smaller std is, the less the KL weighs.

    Raises:
      UserError: for a standard deviation that is not positive.
    """

    std: float = 1.0  # in units of [-1, 1]

    def __post_init__(self) -> None:
        if not self.std > 0:
            raise UserError(f"The likelihood's standard deviation must be above 0, not {self.std}.")

    def log_prob(self, image: Array, outputs: Array) -> Array:
        return _sum(-jnp.square((image - outputs) / self.std) / 2 - math.log(self.std) - math.log(2 * math.pi) / 2)


@dataclasses.dataclass(frozen=True)
class OptimalGaussian(Likelihood):
    """A Gaussian whose one standard deviation is each batch's root mean squared error: sigma-VAE (Rybkin et al. 2021).

    That is the batch's best sigma in closed form (their Section 4.2); at an optimum no gradient through it is needed.
    An image's number depends on its batch, so use it for training and `gaussian` for evaluation.
    """

    def log_prob(self, image: Array, outputs: Array) -> Array:
        squared = jnp.square(image - outputs)
        variance = jnp.maximum(squared.mean(), 1e-8)
        return _sum(-squared / variance / 2 - jnp.log(variance) / 2 - math.log(2 * math.pi) / 2)
