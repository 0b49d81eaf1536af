"""InfoGAN's codes: their law, how they enter a generator, and the bound on what an image tells of them.

`Codes` is the law of c: some categorical codes, each uniform over its classes, and continuous ones, each uniform in
[-1, 1]. Q, a head on the discriminator's trunk, gives `head_width` numbers for an image. The steps of both networks
draw codes from the one law, and both G and Q descend the negative log-likelihood.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from jaxgen.arrays import Array
from jaxgen.errors import UserError


def categorical_cross_entropy(logits: Array, labels: Array) -> Array:
    """`[B]` -log softmax(logits)[label], of logits `[B, K]` (not probabilities) and int32 `[B]`."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]


def gaussian_nll(mean: Array, log_std: Array | float, values: Array) -> Array:
    """`[B]` -log N(values; mean, std**2) in nats, summed over the D values of `[B, D]`; log_std broadcasts to them."""
    scaled = (values - mean) * jnp.exp(-jnp.asarray(log_std))
    return (jnp.square(scaled) / 2 + log_std + math.log(2 * math.pi) / 2).sum(axis=1)


@dataclasses.dataclass(frozen=True)
class Codes:
    """The law of InfoGAN's codes (Chen et al. 2016, Section 7), and Q's form of their posterior.

    Codes are a dict: `categorical` int32 `[B, len(categorical)]`, `continuous` float32 `[B, continuous]`.

    Attributes:
      categorical: the number of classes of each categorical code.
      continuous: how many continuous codes.
      std: of Q's Gaussians; None where Q gives a log standard deviation for each continuous code.
    """

    categorical: tuple[int, ...] = (10,)
    continuous: int = 2
    std: float | None = 1.0

    def __post_init__(self):
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
        """Numbers that enter the generator beside z."""
        return sum(self.categorical) + self.continuous

    @property
    def head_width(self) -> int:
        """Numbers that Q gives: logits of each categorical code, means, and log standard deviations where learned."""
        return self.width + (self.continuous if self.std is None else 0)

    @property
    def entropy(self) -> float:
        """H(c) in nats: log K of each categorical code and log 2 of each continuous one."""
        return sum(math.log(classes) for classes in self.categorical) + self.continuous * math.log(2)

    def sample(self, keys: Array) -> dict[str, Array]:
        """Codes from `[B]` keys, one for each image."""
        classes = jnp.asarray(self.categorical, jnp.int32)

        def one(key: Array) -> dict[str, Array]:
            first, second = jax.random.split(key)
            uniform = jax.random.uniform(second, (self.continuous,), minval=-1.0, maxval=1.0)
            return {"categorical": jax.random.randint(first, classes.shape, 0, classes), "continuous": uniform}

        return jax.vmap(one)(keys)

    def encode(self, codes: dict[str, Array]) -> Array:
        """`[B, width]`: a one-hot vector for each categorical code, then the continuous ones."""
        hot = [jax.nn.one_hot(codes["categorical"][:, i], classes) for i, classes in enumerate(self.categorical)]
        return jnp.concatenate([*hot, codes["continuous"]], axis=1)

    def negative_log_likelihoods(self, outputs: Array, codes: dict[str, Array]) -> dict[str, Array]:
        """-log Q(c given x) in nats, summed over codes: `{"categorical": [B], "continuous": [B]}`.

        Args:
          outputs: Q's, `[B, head_width]`. codes: what the images were drawn with.

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

    def bound(self, outputs: Array, codes: dict[str, Array]) -> Array:
        """`[B]` log Q(c given x) + H(c) in nats, whose mean is at most I(c; x) (Chen et al. 2016, Eq. 5)."""
        return self.entropy - sum(self.negative_log_likelihoods(outputs, codes).values())
