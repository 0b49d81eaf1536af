"""Draws the next token from logits: temperature, the k most likely, the most likely ones of a total probability."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key

from jaxgen.arrays import Array
from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True)
class TokenSampler:
    """Draws from softmax(logits / temperature) over the tokens that `top_k` and `top_p` leave.

    Raises:
      UserError: an option is outside of its range.
    """

    temperature: float = 1.0  # below 1 the likely tokens are drawn more often; 0 takes the most likely one
    top_k: int = 0  # draws from so many tokens, the most likely ones (Fan et al. 2018); 0 for all
    # Draws from the fewest tokens, the most likely ones, whose probabilities are at least this together (Holtzman et
    # al. 2020); 1 for all.
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0 or self.top_k < 0:
            raise UserError("config.sampler.temperature and config.sampler.top_k must be at least 0.")
        if not 0 < self.top_p <= 1:
            raise UserError(f"config.sampler.top_p is {self.top_p}; it is a probability above 0, and at most 1.")

    def __call__(self, logits: Float[Array, "B K"], keys: Key[Array, " B"]) -> Int[Array, " B"]:
        """Returns a token for each row, int32, drawn by that row's key."""
        if self.temperature == 0:
            return logits.argmax(axis=-1).astype(jnp.int32)
        return jax.vmap(jax.random.categorical)(keys, self.left(logits)).astype(jnp.int32)

    def left(self, logits: Float[Array, "B K"]) -> Float[Array, "B K"]:
        """Returns the logits that are drawn from, which are minus infinity at tokens that are left out.

        Tokens that are as likely as the last one left stay too.
        """
        logits = logits / self.temperature
        if not self.top_k and self.top_p == 1:
            return logits
        ordered = jnp.sort(logits, axis=-1, descending=True)
        if self.top_k:
            last = ordered[:, min(self.top_k, logits.shape[-1]) - 1, None]
            logits = jnp.where(logits >= last, logits, -jnp.inf)
            ordered = jnp.where(ordered >= last, ordered, -jnp.inf)
        if self.top_p < 1:
            shares = jax.nn.softmax(ordered, axis=-1)
            before = jnp.cumsum(shares, axis=-1) - shares  # of the more likely ones
            last = jnp.where(before < self.top_p, ordered, jnp.inf).min(axis=-1, keepdims=True)
            logits = jnp.where(logits >= last, logits, -jnp.inf)
        return logits
