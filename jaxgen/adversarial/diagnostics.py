"""Computes numbers that show how the game goes: the best discriminator and its value, vanishing gradients, collapse.

The functions of logits and images are written in JAX, and a loss may log them. The functions for toy data of known
density use NumPy in float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.adversarial.losses import GANLoss, mean_of
from jaxgen.adversarial.penalties import Apply, norms, slopes
from jaxgen.arrays import Array, Tree
from jaxgen.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float


def optimal_discriminator(p: Float[np.ndarray, "*N"], q: Float[np.ndarray, "*N"]) -> Float[np.ndarray, "*N"]:
    """Returns p / (p + q), the best D for data of density p and fakes of density q.

    This is Proposition 1 of Goodfellow et al. (2014); the logit of the best D is log p - log q. Where both densities
    are 0 every value is best, and the result is 1/2.

    Raises:
      UserError: for negative densities.
    """
    p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
    if (p < 0).any() or (q < 0).any():
        raise UserError("The best discriminator is that of two densities, but some are negative.")
    both = p + q
    return np.where(both > 0, p / np.where(both > 0, both, 1.0), 0.5)


def game_value(real: Float[Array, "*logits"], fake: Float[Array, "*logits"]) -> Float[Array, ""]:
    """Returns mean log D(real) + mean log(1 - D(fake)) from logits: V(D, G) of Goodfellow et al. (2014), Eq. 1.

    For the best D the value is 2 JS(p, q) - log 4: it is -log 4 where p = q, and 0 where p and q do not overlap.
    """
    return -(jax.nn.softplus(-real).mean() + jax.nn.softplus(fake).mean())


def jensen_shannon_from_logits(real: Float[Array, "*logits"], fake: Float[Array, "*logits"]) -> Float[Array, ""]:
    """Returns log 2 + V / 2, which for the best D is the Jensen-Shannon divergence in nats, in [0, log 2].

    This is Theorem 1 of Goodfellow et al. (2014). For any other D the expected value is less, and it is below 0 for a D
    that is worse than D = 1/2. For a D that has memorised its training images the value on those images is too high:
    use held-out ones.
    """
    return jnp.log(2.0) + game_value(real, fake) / 2


def mean_logit(logits: Tree) -> Float[Array, ""]:
    """Returns the mean logit; of a tree of arrays, the mean of the arrays' means."""
    return mean_of(logits) / len(jax.tree.leaves(logits))


def accuracy(real: Tree, fake: Tree, boundary: float = 0.0) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns the share of real logits above `boundary` and that of fake ones below it; ties count half.

    Logits are arrays or trees of arrays; of a tree, the shares of all arrays are averaged.

    `GANLoss.boundary` gives the boundary. A critic that is only defined up to a constant (WGAN) has no boundary, and
    therefore no accuracy.
    """
    above = jax.tree.map(lambda logits: 1 + jnp.sign(logits - boundary), real)
    below = jax.tree.map(lambda logits: 1 - jnp.sign(logits - boundary), fake)
    return mean_logit(above) / 2, mean_logit(below) / 2


def generator_gradient_norm(loss: GANLoss, apply: Apply, fake: Float[Array, "B ..."]) -> Float[Array, " B"]:
    """Returns, for each fake image, the norm of the gradient of the generator's loss with respect to that image.

    The game saturates where this norm is near 0 although the logits are far from the boundary.
    """
    return norms(slopes(lambda x: jax.tree.map(loss.generator, apply(x)), fake))


def diversity(images: Float[Array, "B ..."]) -> Float[Array, ""]:
    """Returns the root mean square difference of a value between two different images of a batch; 0 at collapse.

    It equals the square root of twice the unbiased variance over the batch, averaged over values, so no pairs need to
    be formed. Compare it with the diversity of real images, since two modes that are far apart give a high value too.
    The result is NaN for a single image.
    """
    return jnp.sqrt(2 * jnp.var(images, axis=0, ddof=1).mean())


class Coverage(NamedTuple):
    """Holds what `modes_covered` finds of a mixture's K modes."""

    covered: int  # the number of modes with at least `least` good samples
    high_quality: float  # the share of good samples, in [0, 1]
    counts: np.ndarray  # int [K], the number of good samples of each mode


def modes_covered(
    samples: Float[np.ndarray, "N ..."],
    centres: Float[np.ndarray, "K D"],
    std: float,
    least: int = 1,
    within: float = 3.0,
) -> Coverage:
    """Counts the modes of a mixture of isotropic Gaussians that samples reach, and the share of samples near a mode.

    A sample is good if its Euclidean distance to the nearest centre is at most `within` standard deviations. For
    `within` 3 and two dimensions, the share of good samples among the data themselves is 1 - exp(-9/2) = 0.9889. The
    result depends on N; 2,500 samples are usual.

    Args:
      samples: `[N, D]`, or a shape that can be reshaped to it, such as images `[N, 1, D, 1]`.
      centres: `[K, D]`, the means of the modes.
      std: the standard deviation of each mode, in the units of the samples.
      least: the number of good samples from which on a mode counts as covered.
      within: the largest distance of a good sample, in standard deviations.

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
