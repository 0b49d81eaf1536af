"""Holds InfoGAN's codes: their distribution, how they enter a generator, and a bound on what an image tells of them.

`Codes` is the distribution of c: some categorical codes, each uniform over its classes, and some continuous codes, each
uniform in [-1, 1]. Q is a head on the discriminator's trunk that gives `head_width` numbers for an image. The turns of
both networks draw codes from this distribution, and G and Q both minimise the negative log-likelihood.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jaxgen.arrays import Array
from jaxgen.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Key


def categorical_cross_entropy(logits: Float[Array, "B K"], labels: Int[Array, " B"]) -> Float[Array, " B"]:
    """Returns -log softmax(logits)[label] in nats, for logits of K classes (not probabilities)."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]


def gaussian_nll(
    mean: Float[Array, "B D"], log_std: Float[Array, "B D"] | float, values: Float[Array, "B D"]
) -> Float[Array, " B"]:
    """Returns -log N(values; mean, std**2) in nats, summed over the D values; `log_std` broadcasts to their shape."""
    scaled = (values - mean) * jnp.exp(-jnp.asarray(log_std))
    return (jnp.square(scaled) / 2 + log_std + math.log(2 * math.pi) / 2).sum(axis=1)


@dataclasses.dataclass(frozen=True)
class Codes:
    """Describes the distribution of InfoGAN's codes (Chen et al. 2016, Section 7), and the form of Q's posterior.

    Codes are a dict of `categorical`, int32 `[B, len(categorical)]`, and `continuous`, float32 `[B, continuous]`.

    Attributes:
      categorical: the number of classes of each categorical code.
      continuous: the number of continuous codes.
      std: the standard deviation of Q's Gaussians; None where Q gives its logarithm for each continuous code.

    Raises:
      UserError: where there are no codes, a categorical one has fewer than two classes, or `std` is not positive.
    """

    categorical: tuple[int, ...] = (10,)
    continuous: int = 2
    std: float | None = 1.0

    def __post_init__(self) -> None:
        some = self.categorical or self.continuous
        if not some or self.continuous < 0 or any(classes < 2 for classes in self.categorical):
            raise UserError(
                f"InfoGAN needs codes: categorical ones of two or more classes, continuous ones, or both, not "
                f"categorical={self.categorical}, continuous={self.continuous}."
            )
        if self.std is not None and not self.std > 0:
            raise UserError(f"The standard deviation of the continuous codes must be above 0, not {self.std}.")

    @property
    def width(self) -> int:
        """Returns how many numbers enter the generator next to z."""
        return sum(self.categorical) + self.continuous

    @property
    def head_width(self) -> int:
        """Returns how many numbers Q gives: logits of categorical codes, means, and learned log standard deviations."""
        return self.width + (self.continuous if self.std is None else 0)

    @property
    def entropy(self) -> float:
        """Returns H(c) in nats: log K for each categorical code of K classes, and log 2 for each continuous one."""
        return sum(math.log(classes) for classes in self.categorical) + self.continuous * math.log(2)

    def sample(self, keys: Key[Array, " B"]) -> dict[str, Array]:
        """Draws codes from one random key for each image."""
        classes = jnp.asarray(self.categorical, jnp.int32)

        def one(key: Array) -> dict[str, Array]:
            first, second = jax.random.split(key)
            uniform = jax.random.uniform(second, (self.continuous,), minval=-1.0, maxval=1.0)
            return {"categorical": jax.random.randint(first, classes.shape, 0, classes), "continuous": uniform}

        return jax.vmap(one)(keys)

    def encode(self, codes: dict[str, Array]) -> Float[Array, "B width"]:
        """Returns a one-hot vector for each categorical code, followed by the continuous codes."""
        hot = [jax.nn.one_hot(codes["categorical"][:, i], classes) for i, classes in enumerate(self.categorical)]
        return jnp.concatenate([*hot, codes["continuous"]], axis=1)

    def negative_log_likelihoods(
        self, outputs: Float[Array, "B head_width"], codes: dict[str, Array]
    ) -> dict[str, Float[Array, " B"]]:
        """Returns -log Q(c given x) in nats, summed over codes: `{"categorical": [B], "continuous": [B]}`.

        Args:
          outputs: what Q gives for the images.
          codes: the codes that the images were generated from.

        Raises:
          UserError: for outputs of another width.
        """
        if outputs.shape[1:] != (self.head_width,):
            raise UserError(f"Q must give {self.head_width} numbers for these codes, not {outputs.shape[1:]}.")
        categorical = jnp.zeros(len(outputs), outputs.dtype)
        at = 0
        for i, classes in enumerate(self.categorical):
            logits = outputs[:, at : at + classes]
            categorical += categorical_cross_entropy(logits, codes["categorical"][:, i])
            at += classes
        mean, learned = outputs[:, at : at + self.continuous], outputs[:, at + self.continuous :]
        log_std = learned if self.std is None else math.log(self.std)
        return {"categorical": categorical, "continuous": gaussian_nll(mean, log_std, codes["continuous"])}

    def bound(self, outputs: Float[Array, "B head_width"], codes: dict[str, Array]) -> Float[Array, " B"]:
        """Returns log Q(c given x) + H(c) in nats, whose mean is at most I(c; x) (Chen et al. 2016, Eq. 5)."""
        losses = self.negative_log_likelihoods(outputs, codes)
        return self.entropy - (losses["categorical"] + losses["continuous"])
