"""What tells how the game stands: the best discriminator and its value, vanishing gradients, collapse.

The functions of logits and images are JAX and may be logged from inside a loss; those of toys with a known density are
NumPy in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.adversarial.losses import GANLoss
from jaxgen.adversarial.penalties import norms
from jaxgen.arrays import Array
from jaxgen.errors import UserError


def optimal_discriminator(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """p / (p + q), the best D for data of density p and fakes of density q (Goodfellow et al. 2014, Proposition 1).

    1/2 where both are 0, as any value is best there; from log densities, its logit is log p - log q.

    Raises:
      UserError: for negative densities.
    """
    p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
    if (p < 0).any() or (q < 0).any():
        raise UserError("The best discriminator is that of two densities, but some are negative.")
    both = p + q
    return np.where(both > 0, p / np.where(both > 0, both, 1.0), 0.5)


def game_value(real: Array, fake: Array) -> Array:
    """mean log D(real) + mean log(1 - D(fake)) from logits: V(D, G) of Goodfellow et al. (2014), Eq. 1.

    At the best D it is 2 JS(p, q) - log 4, so -log 4 where the generator has won and 0 where the two never meet.
    """
    return -(jax.nn.softplus(-real).mean() + jax.nn.softplus(fake).mean())


def jensen_shannon_from_logits(real: Array, fake: Array) -> Array:
    """log 2 + V / 2: the Jensen-Shannon divergence in nats, in [0, log 2], for the best D (ibid., Theorem 1).

    For any other D it is less on average, below 0 for one that is worse than D = 1/2. A D that has learned its training
    images by heart shows more than there is: take held-out ones.
    """
    return jnp.log(2.0) + game_value(real, fake) / 2


def accuracy(real: Array, fake: Array, boundary: float = 0.0) -> tuple[Array, Array]:
    """The shares of real logits above the boundary (`GANLoss.boundary`) and of fake ones below it; ties count half.

    A critic that is known up to a constant only (WGAN) has no such boundary, and no accuracy.
    """
    return (1 + jnp.sign(real - boundary)).mean() / 2, (1 - jnp.sign(fake - boundary)).mean() / 2


def generator_gradient_norm(loss: GANLoss, apply: Callable[[Array], Array], fake: Array) -> Array:
    """`[B]` norms of the gradient of the generator's loss in its images `[B, ...]`: what it is told about each.

    Near 0 at logits far from the boundary, the game saturates.
    """
    return norms(jax.grad(lambda x: loss.generator(apply(x)).sum())(fake))


def diversity(images: Array) -> Array:
    """The root mean square difference of a value between two different images of a batch `[B, ...]`; 0 at collapse.

    It equals sqrt(2 x the unbiased variance over the batch, averaged over values), so it costs no pairs. Read it beside
    that of real images: two modes far apart are diverse too. NaN for a single image.
    """
    return jnp.sqrt(2 * jnp.var(images, axis=0, ddof=1).mean())


class Coverage(NamedTuple):
    """Attributes:
    covered: modes with at least `least` good samples. high_quality: share of good samples. counts: int `[K]` good
    samples of each mode.
    """

    covered: int
    high_quality: float
    counts: np.ndarray


def modes_covered(
    samples: np.ndarray, centres: np.ndarray, std: float, least: int = 1, within: float = 3.0
) -> Coverage:
    """How many modes of a mixture of round Gaussians the samples reach, and which share of them lies at a mode.

    A sample is good within `within` standard deviations of its nearest centre, by Euclidean distance; a mode is
    covered by `least` good samples. In two dimensions the data themselves have a share of 1 - exp(-9/2) = 0.9889
    within 3. Numbers depend on N: 2,500 is usual.

    Args:
      samples: `[N, D]`, or of another shape that reshapes to it, such as images [N, 1, D, 1]. centres: `[K, D]`.
      std: of each mode, in the samples' units.

    Raises:
      UserError: for samples of another width, values that are not finite, or a standard deviation that is not positive.
    """
    samples, centres = np.asarray(samples, np.float64), np.asarray(centres, np.float64)
    if centres.ndim != 2 or not len(samples) or samples.size != len(samples) * centres.shape[1]:
        raise UserError(f"Samples [N, D] and centres [K, D] do not fit in shapes {samples.shape} and {centres.shape}.")
    samples = samples.reshape(len(samples), -1)
    if not np.isfinite(samples).all():
        raise UserError("Some samples are NaN or infinite; modes cannot be counted.")
    if not std > 0:
        raise UserError(f"The modes' standard deviation must be above 0, not {std}.")
    distances = np.linalg.norm(samples[:, None] - centres, axis=2)
    nearest = distances.argmin(axis=1)
    good = distances[np.arange(len(samples)), nearest] <= within * std
    counts = np.bincount(nearest[good], minlength=len(centres))
    return Coverage(int((counts >= least).sum()), float(good.mean()), counts)
