"""Losses of the two players as functions of logits, one number per example.

The critic is high on real: a logit is log D/(1 - D), its sigmoid the probability of real. p is the data's density, q
the generator's. Every loss is *minimised*, each by its player; the discriminator's is the sum of its two means.
Each function at the end of this module is a name for `config.method.loss.name`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.errors import UserError

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class GANLoss:
    """A game: what each player minimises, element by element (logits of any shape, `[B]` or patches `[B, h, w]`).

    Attributes:
      discriminator: (logits of real, logits of fake) -> (losses of real, losses of fake), of the logits' shapes.
      generator: logits of fake -> losses.
      boundary: the logit at which the best discriminator holds real and fake for equally likely, for counting how often
        it is right; None for a critic that is known up to a constant only.
    """

    discriminator: Callable[[Array, Array], tuple[Array, Array]]
    generator: Callable[[Array], Array]
    boundary: float | None = 0.0


def _cross_entropy(real: Array, fake: Array) -> tuple[Array, Array]:
    """-log D(real) and -log(1 - D(fake)), from logits: slope -1 and 1 however wrong the discriminator is."""
    return jax.nn.softplus(-real), jax.nn.softplus(fake)


def _saturating(fake: Array) -> Array:
    return -jax.nn.softplus(fake)


def _confident(fake: Array) -> Array:
    return jax.nn.softplus(-fake)


def _hinges(real: Array, fake: Array) -> tuple[Array, Array]:
    return jax.nn.relu(1 - real), jax.nn.relu(1 + fake)


def _difference(real: Array, fake: Array) -> tuple[Array, Array]:
    return -real, fake


def minimax() -> GANLoss:
    """The saturating game (Goodfellow et al. 2014, Eq. 1): D descends -log D(x) - log(1 - D(G(z))), G log(1 - D(G(z))).

    The best D is p / (p + q), its logit log p - log q; the game's value there, *minus* the discriminator's loss, is
    2 JS(p, q) - log 4 (Theorem 1). G's slope is -sigmoid(logit): it vanishes where D is sure of a fake.
    """
    return GANLoss(_cross_entropy, _saturating)


def non_saturating() -> GANLoss:
    """The same discriminator; G descends -log D(G(z)) (Goodfellow et al. 2014, Section 3).

    The same fixed point, and a slope of -sigmoid(-logit): 1 in size where D is sure of a fake.
    """
    return GANLoss(_cross_entropy, _confident)


def least_squares(a: float = 0.0, b: float = 1.0, c: float = 1.0) -> GANLoss:
    """LSGAN (Mao et al. 2017, Eq. 2): D descends (D(x) - b)**2 / 2 + (D(G(z)) - a)**2 / 2, G (D(G(z)) - c)**2 / 2.

    The best D is (b p + a q) / (p + q). With b - c = 1 and b - a = 2, such as a, b, c = -1, 1, 0, the game is one of
    Pearson's chi-squared divergence between p + q and 2 q; the default is the labels 0 and 1 (ibid., Section 3.2).

    Raises:
      UserError: where the real label b is not above the fake label a, so that the critic would be low on real.
    """
    if not b > a:
        raise UserError(f"LSGAN's label of real images, b={b}, must be above that of fakes, a={a}.")

    def discriminator(real: Array, fake: Array) -> tuple[Array, Array]:
        return jnp.square(real - b) / 2, jnp.square(fake - a) / 2

    return GANLoss(discriminator, lambda fake: jnp.square(fake - c) / 2, (a + b) / 2)


def hinge() -> GANLoss:
    """The hinge game (Miyato et al. 2018, Eq. 16 and 17).

    D descends max(0, 1 - D(x)) + max(0, 1 + D(G(z))), G -D(G(z)). The best D is the sign of p - q; its loss is then
    2 - 2 TV(p, q), TV the total variation in [0, 1].
    """
    return GANLoss(_hinges, jnp.negative)


def wasserstein() -> GANLoss:
    """WGAN (Arjovsky et al. 2017, Eq. 2 and 3): D descends D(G(z)) - D(x), G -D(G(z)).

    Bounded only over critics of bounded slope (clipping, a gradient penalty, spectral norm): over those of slope at
    most 1 the least is minus the Wasserstein-1 distance, over those of slope K that times K.
    """
    return GANLoss(_difference, jnp.negative, None)


def energy_margin(margin: float = 1.0) -> GANLoss:
    """EBGAN (Zhao et al. 2017, Eq. 1 and 2), for logits that are *minus* an energy E >= 0.

    D descends E(x) + max(0, margin - E(G(z))), G descends E(G(z)). The best E is 0, but the margin where p < q.

    Raises:
      UserError: for a margin that is not positive.
    """
    if not margin > 0:
        raise UserError(f"EBGAN's margin must be above 0, not {margin}.")

    def discriminator(real: Array, fake: Array) -> tuple[Array, Array]:
        return -real, jax.nn.relu(margin + fake)

    return GANLoss(discriminator, jnp.negative, -margin / 2)
