"""p(x | z): what a decoder's outputs say of an image, in nats summed over all its values.

Each function at the end of this module is a name for `config.method.likelihood.name`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.arrays import Array
from jaxgen.errors import UserError

RAREST = 1e-3  # share of white at which a decoder's pixel may begin, at least, and of black; as Burda et al.'s code


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """Attributes:
    log_prob: (image [B, ...] in [-1, 1], outputs [B, ...]) -> `[B]` nats, summed over all but the first axis.
    mean: outputs -> the expected image, in [-1, 1] for Bernoulli and as it comes for Gaussians.
    prepare: (image, key) -> the image that is explained: as it is, or its values drawn as zeros and ones.
    start: mean values in [-1, 1] -> finite outputs whose `mean` they are, for a decoder that is to begin there.
    """

    log_prob: Callable[[Array, Array], Array]
    mean: Callable[[Array], Array]
    prepare: Callable[[Array, Array], Array]
    start: Callable[[Array], Array] = lambda mean: mean


def _sum(values: Array) -> Array:
    return values.sum(axis=tuple(range(1, values.ndim)))


def bernoulli(draw: bool = True) -> Likelihood:
    """Each value is black or white; outputs are logits of white.

    Args:
      draw: take a pixel of intensity v in [0, 1] for white with probability v, anew each time (Burda et al. 2016,
        Section 5.1; the numbers of papers on *binarised* MNIST). Without, v itself enters the cross-entropy
        v log p + (1 - v) log(1 - p): then no probability of an image, and above what any drawing gives.
    """

    def log_prob(image: Array, outputs: Array) -> Array:
        white = (image + 1) / 2
        return -_sum(jax.nn.softplus(outputs) - white * outputs)

    def prepare(image: Array, key: Array) -> Array:
        if not draw:
            return image
        return 2.0 * jax.random.bernoulli(key, jnp.clip((image + 1) / 2, 0, 1)).astype(image.dtype) - 1

    def start(mean: Array) -> Array:
        return jax.scipy.special.logit(jnp.clip((mean + 1) / 2, RAREST, 1 - RAREST))

    return Likelihood(log_prob, lambda outputs: 2 * jax.nn.sigmoid(outputs) - 1, prepare, start)


def gaussian(std: float = 1.0) -> Likelihood:
    """Each value is normal around the output, in units of [-1, 1], with one standard deviation for all.

    A density, not a probability: log_prob may be above 0. std 1 makes it half the squared error plus a constant, which
    leaves images blurred; the smaller, the less the KL weighs.

    Raises:
      UserError: for a standard deviation that is not positive.
    """
    if not std > 0:
        raise UserError(f"The likelihood's standard deviation must be above 0, not {std}.")

    def log_prob(image: Array, outputs: Array) -> Array:
        return _sum(-jnp.square((image - outputs) / std) / 2 - math.log(std) - math.log(2 * math.pi) / 2)

    return Likelihood(log_prob, lambda outputs: outputs, lambda image, key: image)


def optimal_gaussian() -> Likelihood:
    """A Gaussian whose one standard deviation is each batch's root mean squared error: sigma-VAE (Rybkin et al. 2021).

    The batch's best sigma in closed form (their Section 4.2), no gradient through it needed: the optimum is flat. An
    image's number depends on its batch, so it is for training; judge with `gaussian`.
    """

    def log_prob(image: Array, outputs: Array) -> Array:
        squared = jnp.square(image - outputs)
        variance = jnp.maximum(squared.mean(), 1e-8)
        return _sum(-squared / variance / 2 - jnp.log(variance) / 2 - math.log(2 * math.pi) / 2)

    return Likelihood(log_prob, lambda outputs: outputs, lambda image, key: image)
