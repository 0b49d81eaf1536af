"""Quantises vectors by a codebook that follows them as a running mean (van den Oord et al. 2017, Appendix A.1).

No gradient reaches the codebook: each code is the mean of the vectors that chose it over about the last hundred
batches, as in online k-means. Codes that hardly any vector chooses begin again at a vector of the batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.struct
import jax
import jax.numpy as jnp

from jaxgen.arrays import Array

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Key

EPS = 1e-5  # added to each code's share, so that no mean divides by zero


@flax.struct.dataclass
class Codebook:
    """Holds K codes of D values, float32, and the running sums that they are the quotient of.

    Attributes:
      codes: `[K, D]`.
      count: `[K]`, the running mean over batches of how many vectors chose each code.
      total: `[K, D]`, the running mean over batches of the sum of these vectors.
    """

    codes: Array
    count: Array
    total: Array

    @classmethod
    def of(cls, vectors: Float[Array, "N D"], size: int, key: Key[Array, ""]) -> Codebook:
        """Returns `size` codes at random vectors, each taken to be chosen equally often.

        A hundredth of the vectors' standard deviation is added as noise, so that codes of one vector differ.
        """
        of_rows, of_noise = jax.random.split(key)
        rows = vectors[jax.random.randint(of_rows, (size,), 0, len(vectors))]
        codes = rows + 0.01 * vectors.std() * jax.random.normal(of_noise, rows.shape)
        count = jnp.full(size, len(vectors) / size, jnp.float32)
        return cls(codes, count, codes * count[:, None])

    def updated(self, vectors: Float[Array, "N D"], chosen: Int[Array, " N"], kept: float) -> Codebook:
        """Returns the codebook after a batch; `kept` is the share of the running sums that is kept."""
        one_hot = jax.nn.one_hot(chosen, len(self.codes), dtype=jnp.float32)
        count = kept * self.count + (1 - kept) * one_hot.sum(axis=0)
        total = kept * self.total + (1 - kept) * jnp.matmul(one_hot.T, vectors, precision="highest")
        # Laplace smoothing: a code that none chose stays finite
        whole = count.sum()
        smooth = (count + EPS) / (whole + len(count) * EPS) * whole
        return Codebook(total / smooth[:, None], count, total)

    def revived(
        self, vectors: Float[Array, "N D"], key: Key[Array, ""], least: float
    ) -> tuple[Codebook, Float[Array, ""]]:
        """Returns the codebook with its dead codes begun again at random vectors of the batch, and how many there were.

        A code is dead if it is chosen less often than `least` times the mean of all codes (Dhariwal et al. 2020,
        "Jukebox", section 3.1, who compare with a number). It is then taken to be chosen as often as that mean, so that
        it has some hundred batches to find its place.
        """
        again = Codebook.of(vectors, len(self.codes), key)
        dead = self.count < least * len(vectors) / len(self.codes)

        def choose(new: Array, old: Array) -> Array:
            return jnp.where(dead.reshape(-1, *[1] * (old.ndim - 1)), new, old)

        return jax.tree.map(choose, again, self), dead.sum().astype(jnp.float32)


def nearest(codes: Float[Array, "K D"], vectors: Float[Array, "*batch D"]) -> Int[Array, "*batch"]:
    """Returns the number of each vector's nearest code, int32 (van den Oord et al. 2017, Eq. 1).

    The products are computed in full precision on every device, so that an image has the same codes wherever it is
    encoded, but for ties.
    """
    products = jnp.matmul(vectors.astype(jnp.float32), codes.T, precision="highest")
    return (jnp.square(codes).sum(axis=1) - 2 * products).argmin(axis=-1).astype(jnp.int32)


def straight_through(
    vectors: Float[Array, "*batch D"], quantised: Float[Array, "*batch D"]
) -> Float[Array, "*batch D"]:
    """Returns the quantised vectors, whose gradient is that of the vectors."""
    return vectors + jax.lax.stop_gradient(quantised - vectors)


def counts(chosen: Int[Array, "B *grid"], size: int) -> Float[Array, "B K"]:
    """Returns how often each code was chosen in each example."""
    return jax.nn.one_hot(chosen.reshape(len(chosen), -1), size, dtype=jnp.float32).sum(axis=1)


def perplexity(counts: Float[Array, " K"]) -> Float[Array, ""]:
    """Returns exp of the entropy of a code's choice: K where all are chosen equally often, 1 where one alone is."""
    shares = counts / jnp.maximum(counts.sum(), 1e-12)
    return jnp.exp(jax.scipy.special.entr(shares).sum())
