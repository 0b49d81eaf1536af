"""Losses of the two networks are functions of logits and give one number per logit.

The discriminator is high on real images: a logit is log(D / (1 - D)), and its sigmoid D is the probability of "real".
p is the density of the data and q that of the generator's images. Each network *minimises* its own loss; the
discriminator's loss is the mean over real logits plus the mean over fake ones. `config.method.loss` names a class in
snake case: `NonSaturating` is "non_saturating".

A discriminator may have several maps of logits, such as one for each scale (Wang et al. 2018, "pix2pixHD", Eq. 2): its
logits are then a tree of arrays, and `game` and `mean_of` add up the means of its leaves.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from typing import TYPE_CHECKING, ClassVar

import jax
import jax.numpy as jnp

from jaxgen.arrays import Array, Tree
from jaxgen.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float

    Logits = Float[Array, "*logits"]


@dataclasses.dataclass(frozen=True)
class GANLoss:
    """This is the contract of a game: it says what each network minimises, element by element.

    A game is a frozen dataclass that derives from this class and implements both methods. Logits may have any shape,
    such as `[B]`, or `[B, h, w]` for a discriminator of patches.
    """

    uses_real: ClassVar[bool] = False  # whether the generator's loss reads the logits of real images

    def discriminator(self, real: Logits, fake: Logits) -> tuple[Logits, Logits]:
        """Returns `(losses of real, losses of fake)`, each of the shape of its logits."""
        raise NotImplementedError

    def generator(self, fake: Logits, real: Logits | None = None) -> Logits:
        """Returns the generator's losses, of the shape of the logits.

        Args:
          fake: logits of the generator's images.
          real: logits of real images, for a game whose `uses_real` is true; None for all others.
        """
        raise NotImplementedError

    @property
    def boundary(self) -> float | None:
        """Returns the logit at which the best discriminator takes real and fake as equally likely.

        The accuracy counts logits on either side of it. It is None where logits are only defined up to a constant, as
        those of a Wasserstein critic are.
        """
        return 0.0


def mean_of(tree: Tree) -> Float[Array, ""]:
    """Returns the sum, over the arrays of a tree, of their means."""
    return functools.reduce(operator.add, [leaf.mean() for leaf in jax.tree.leaves(tree)])


def game(loss: GANLoss, real: Tree, fake: Tree) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Returns what the discriminator minimises, in its two parts: of real images and of fake ones.

    Args:
      loss: the game.
      real: the logits of real images, an array or a tree of arrays.
      fake: the logits of fake images, a tree of the same structure.
    """
    pairs = jax.tree.map(loss.discriminator, real, fake)
    reals, fakes = jax.tree.transpose(jax.tree.structure(real), jax.tree.structure((0, 0)), pairs)
    return mean_of(reals), mean_of(fakes)


def generator_loss(loss: GANLoss, fake: Tree, real: Tree | None = None) -> Float[Array, ""]:
    """Returns what the generator minimises, for logits as `game` takes them.

    Args:
      real: the logits of real images, which a game reads whose `uses_real` is true.
    """
    if not loss.uses_real:
        return mean_of(jax.tree.map(loss.generator, fake))
    return mean_of(jax.tree.map(loss.generator, fake, real))


def feature_matching(real: Tree, fake: Tree) -> Float[Array, ""]:
    """Returns how far a discriminator's activations of fake images are from those of real ones (ibid., Eq. 4).

    It is the sum, over the layers, of the mean absolute differences; with several discriminators, the mean of these
    sums. No gradient passes through the activations of real images.

    Args:
      real: the activations of real images, a tuple `([B, ...], ...)`, or a tuple of those, one for each discriminator.
      fake: those of fake images, of the same structure.
    """
    far = jax.tree.map(lambda a, b: jnp.abs(jax.lax.stop_gradient(a) - b).mean(), real, fake)
    return mean_of(far) / (len(real) if isinstance(real[0], tuple) else 1)


@dataclasses.dataclass(frozen=True)
class _CrossEntropy(GANLoss):
    def discriminator(self, real: Logits, fake: Logits) -> tuple[Logits, Logits]:
        """Returns -log D(real) and -log(1 - D(fake)); their slopes in the logits never exceed 1 in size."""
        return jax.nn.softplus(-real), jax.nn.softplus(fake)


@dataclasses.dataclass(frozen=True)
class Minimax(_CrossEntropy):
    """This is the saturating game (Goodfellow et al. 2014, Eq. 1).

    D minimises -log D(x) - log(1 - D(G(z))) and G minimises log(1 - D(G(z))). The best D is p / (p + q), whose logit is
    log p - log q. The value of the game, *minus* the discriminator's loss, is then 2 JS(p, q) - log 4 (Theorem 1). The
    slope of G's loss in the logit is -sigmoid(logit): it vanishes where D is sure that an image is fake.
    """

    def generator(self, fake: Logits, real: Logits | None = None) -> Logits:
        return -jax.nn.softplus(fake)


@dataclasses.dataclass(frozen=True)
class NonSaturating(_CrossEntropy):
    """Joins Minimax's discriminator with a generator that minimises -log D(G(z)) (Goodfellow et al. 2014, Section 3).

    The fixed point is that of `Minimax`. The slope of G's loss in the logit is -sigmoid(-logit): its size is 1 where D
    is sure that an image is fake.
    """

    def generator(self, fake: Logits, real: Logits | None = None) -> Logits:
        return jax.nn.softplus(-fake)


@dataclasses.dataclass(frozen=True)
class LeastSquares(GANLoss):
    """LSGAN plays with squared errors (Mao et al. 2017, Eq. 2).

    D minimises (D(x) - b)**2 / 2 + (D(G(z)) - a)**2 / 2 and G minimises (D(G(z)) - c)**2 / 2. The best D is
    (b p + a q) / (p + q). Where b - c = 1 and b - a = 2, as for a, b, c = -1, 1, 0, G minimises Pearson's chi-squared
    divergence between p + q and 2 q. The defaults are the labels 0 and 1 (ibid., Section 3.2).

    Raises:
      UserError: where the real label b is not above the fake label a, so that the discriminator would be low on real.
    """

    a: float = 0.0  # the discriminator's label of fakes
    b: float = 1.0  # the discriminator's label of real images
    c: float = 1.0  # the label that the generator wants for its images

    def __post_init__(self) -> None:
        if not self.b > self.a:
            raise UserError(f"LSGAN's label of real images, b={self.b}, must be above that of fakes, a={self.a}.")

    def discriminator(self, real: Logits, fake: Logits) -> tuple[Logits, Logits]:
        return jnp.square(real - self.b) / 2, jnp.square(fake - self.a) / 2

    def generator(self, fake: Logits, real: Logits | None = None) -> Logits:
        return jnp.square(fake - self.c) / 2

    @property
    def boundary(self) -> float:
        return (self.a + self.b) / 2


@dataclasses.dataclass(frozen=True)
class Hinge(GANLoss):
    """This is the hinge game (Miyato et al. 2018, Eq. 16 and 17).

    D minimises max(0, 1 - D(x)) + max(0, 1 + D(G(z))) and G minimises -D(G(z)). The best D is the sign of p - q; its
    loss is then 2 - 2 TV(p, q), where TV is the total variation, in [0, 1].
    """

    def discriminator(self, real: Logits, fake: Logits) -> tuple[Logits, Logits]:
        return jax.nn.relu(1 - real), jax.nn.relu(1 + fake)

    def generator(self, fake: Logits, real: Logits | None = None) -> Logits:
        return jnp.negative(fake)


@dataclasses.dataclass(frozen=True)
class Wasserstein(GANLoss):
    """In WGAN (Arjovsky et al. 2017, Eq. 2 and 3), D minimises D(G(z)) - D(x) and G minimises -D(G(z)).

    The loss of D has a minimum only if the slope of D is bounded, by clipping, a gradient penalty or spectral
    normalisation. Over all D of slope at most K the minimum is -K times the Wasserstein-1 distance of p and q.
    """

    def discriminator(self, real: Logits, fake: Logits) -> tuple[Logits, Logits]:
        return -real, fake

    def generator(self, fake: Logits, real: Logits | None = None) -> Logits:
        return jnp.negative(fake)

    @property
    def boundary(self) -> None:
        return None


@dataclasses.dataclass(frozen=True)
class Relativistic(GANLoss):
    """This is the relativistic average GAN (Jolicoeur-Martineau 2019, Section 4.2 and Eq. 8).

    D estimates whether an image is more real than the *average* image of the other kind: with C the logits,
    D(x_real) = sigmoid(C(x_real) - mean C(x_fake)) and D(x_fake) = sigmoid(C(x_fake) - mean C(x_real)). Both networks
    minimise cross-entropies of these, D with the true answers and G with the opposite ones, so that the generator's
    gradient comes from real images too. The means are taken over the whole batch. Logits are only defined up to a
    constant, so there is no boundary.
    """

    uses_real: ClassVar[bool] = True

    def discriminator(self, real: Logits, fake: Logits) -> tuple[Logits, Logits]:
        return jax.nn.softplus(-(real - fake.mean())), jax.nn.softplus(fake - real.mean())

    def generator(self, fake: Logits, real: Logits | None = None) -> Logits:
        """Returns the losses of fake logits, each plus the mean loss of the real ones.

        Raises:
          UserError: where the method gives no logits of real images.
        """
        if real is None:
            raise UserError("A relativistic game needs the logits of real images in the generator's loss.")
        return jax.nn.softplus(-(fake - real.mean())) + jax.nn.softplus(real - fake.mean()).mean()

    @property
    def boundary(self) -> None:
        return None


@dataclasses.dataclass(frozen=True)
class EnergyMargin(GANLoss):
    """EBGAN (Zhao et al. 2017, Eq. 1 and 2) takes logits that are *minus* an energy E >= 0.

    D minimises E(x) + max(0, margin - E(G(z))) and G minimises E(G(z)). The best E is the margin where p < q, and 0
    elsewhere.

    Raises:
      UserError: for a margin that is not positive.
    """

    margin: float = 1.0  # the energy above which a fake is no longer pushed up

    def __post_init__(self) -> None:
        if not self.margin > 0:
            raise UserError(f"EBGAN's margin must be above 0, not {self.margin}.")

    def discriminator(self, real: Logits, fake: Logits) -> tuple[Logits, Logits]:
        return -real, jax.nn.relu(self.margin + fake)

    def generator(self, fake: Logits, real: Logits | None = None) -> Logits:
        return jnp.negative(fake)

    @property
    def boundary(self) -> float:
        return -self.margin / 2
