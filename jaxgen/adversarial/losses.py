"""Losses of the two networks as functions of logits, one number per example.

The discriminator is high on real: a logit is log D/(1 - D), its sigmoid the probability of real. p is the data's
density, q the generator's. Every loss is *minimised*, each by its network; the discriminator's is the sum of its two
means. Each class is a name for `config.method.loss`: `NonSaturating` is "non_saturating".
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxgen.arrays import Array
from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True)
class GANLoss:
    """The contract of a game: what each network minimises, element by element.

    A game is a frozen dataclass that derives from this one and fills in both methods. Logits have any shape, `[B]` or
    patches `[B, h, w]`.
    """

    def discriminator(self, real: Array, fake: Array) -> tuple[Array, Array]:
        """`(losses of real, losses of fake)`, of the logits' shapes."""
        raise NotImplementedError

    def generator(self, fake: Array, real: Array | None = None) -> Array:
        """The generator's losses, of the logits' shape.

        Args:
          fake: logits of its images.
          real: logits of real images, for a relativistic game; None where the method does not give them.
        """
        raise NotImplementedError

    @property
    def boundary(self) -> float | None:
        """The logit at which the best discriminator holds real and fake for equally likely, for counting how often it
        is right; None for a critic that is known up to a constant only."""
        return 0.0


@dataclasses.dataclass(frozen=True)
class _CrossEntropy(GANLoss):
    def discriminator(self, real: Array, fake: Array) -> tuple[Array, Array]:
        """-log D(real) and -log(1 - D(fake)), from logits: slope -1 and 1 however wrong the discriminator is."""
        return jax.nn.softplus(-real), jax.nn.softplus(fake)


@dataclasses.dataclass(frozen=True)
class Minimax(_CrossEntropy):
    """The saturating game (Goodfellow et al. 2014, Eq. 1): D descends -log D(x) - log(1 - D(G(z))), G log(1 - D(G(z))).

    The best D is p / (p + q), its logit log p - log q; the game's value there, *minus* the discriminator's loss, is
    2 JS(p, q) - log 4 (Theorem 1). G's slope is -sigmoid(logit): it vanishes where D is sure of a fake.
    """

    def generator(self, fake: Array, real: Array | None = None) -> Array:
        return -jax.nn.softplus(fake)


@dataclasses.dataclass(frozen=True)
class NonSaturating(_CrossEntropy):
    """Minimax's discriminator; G descends -log D(G(z)) (Goodfellow et al. 2014, Section 3).

    The same fixed point, and a slope of -sigmoid(-logit): 1 in size where D is sure of a fake.
    """

    def generator(self, fake: Array, real: Array | None = None) -> Array:
        return jax.nn.softplus(-fake)


@dataclasses.dataclass(frozen=True)
class LeastSquares(GANLoss):
    """LSGAN (Mao et al. 2017, Eq. 2): D descends (D(x) - b)**2 / 2 + (D(G(z)) - a)**2 / 2, G (D(G(z)) - c)**2 / 2.

    The best D is (b p + a q) / (p + q). With b - c = 1 and b - a = 2, such as a, b, c = -1, 1, 0, the game is one of
    Pearson's chi-squared divergence between p + q and 2 q; the default is the labels 0 and 1 (ibid., Section 3.2).

    Raises:
      UserError: where the real label b is not above the fake label a, so that the discriminator would be low on real.
    """

    a: float = 0.0  # the discriminator's label of fakes
    b: float = 1.0  # the discriminator's label of real images
    c: float = 1.0  # the label that the generator wants for its images

    def __post_init__(self) -> None:
        if not self.b > self.a:
            raise UserError(f"LSGAN's label of real images, b={self.b}, must be above that of fakes, a={self.a}.")

    def discriminator(self, real: Array, fake: Array) -> tuple[Array, Array]:
        return jnp.square(real - self.b) / 2, jnp.square(fake - self.a) / 2

    def generator(self, fake: Array, real: Array | None = None) -> Array:
        return jnp.square(fake - self.c) / 2

    @property
    def boundary(self) -> float:
        return (self.a + self.b) / 2


@dataclasses.dataclass(frozen=True)
class Hinge(GANLoss):
    """The hinge game (Miyato et al. 2018, Eq. 16 and 17).

    D descends max(0, 1 - D(x)) + max(0, 1 + D(G(z))), G -D(G(z)). The best D is the sign of p - q; its loss is then
    2 - 2 TV(p, q), TV the total variation in [0, 1].
    """

    def discriminator(self, real: Array, fake: Array) -> tuple[Array, Array]:
        return jax.nn.relu(1 - real), jax.nn.relu(1 + fake)

    def generator(self, fake: Array, real: Array | None = None) -> Array:
        return jnp.negative(fake)


@dataclasses.dataclass(frozen=True)
class Wasserstein(GANLoss):
    """WGAN (Arjovsky et al. 2017, Eq. 2 and 3): D descends D(G(z)) - D(x), G -D(G(z)).

    Bounded only over critics of bounded slope (clipping, a gradient penalty, spectral norm): over those of slope at
    most 1 the least is minus the Wasserstein-1 distance, over those of slope K that times K.
    """

    def discriminator(self, real: Array, fake: Array) -> tuple[Array, Array]:
        return -real, fake

    def generator(self, fake: Array, real: Array | None = None) -> Array:
        return jnp.negative(fake)

    @property
    def boundary(self) -> None:
        return None


@dataclasses.dataclass(frozen=True)
class EnergyMargin(GANLoss):
    """EBGAN (Zhao et al. 2017, Eq. 1 and 2), for logits that are *minus* an energy E >= 0.

    D descends E(x) + max(0, margin - E(G(z))), G descends E(G(z)). The best E is 0, but the margin where p < q.

    Raises:
      UserError: for a margin that is not positive.
    """

    margin: float = 1.0  # the energy above which a fake is no longer pushed up

    def __post_init__(self) -> None:
        if not self.margin > 0:
            raise UserError(f"EBGAN's margin must be above 0, not {self.margin}.")

    def discriminator(self, real: Array, fake: Array) -> tuple[Array, Array]:
        return -real, jax.nn.relu(self.margin + fake)

    def generator(self, fake: Array, real: Array | None = None) -> Array:
        return jnp.negative(fake)

    @property
    def boundary(self) -> float:
        return -self.margin / 2
