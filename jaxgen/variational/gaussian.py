"""Holds diagonal Gaussians over latents: their density, their divergence, and samples that can be differentiated."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import flax.struct
import jax.numpy as jnp

from jaxgen.arrays import Array

if TYPE_CHECKING:
    from jaxtyping import Float

LOG_VARIANCE = (-30.0, 20.0)  # limits of a network's log variance; larger variances overflow in float32 products


@flax.struct.dataclass
class Gaussian:
    """This is the normal distribution N(mean, diag exp(log_variance))."""

    mean: Array  # float32 [..., D]
    log_variance: Array  # float32 [..., D]

    @classmethod
    def of(cls, outputs: Float[Array, "*batch 2*D"]) -> Gaussian:
        """Reads a network's outputs: first D means, then D log variances, which are clipped to `LOG_VARIANCE`."""
        mean, log_variance = jnp.split(jnp.asarray(outputs, jnp.float32), 2, axis=-1)
        return cls(mean, jnp.clip(log_variance, *LOG_VARIANCE))

    @property
    def std(self) -> Float[Array, "*batch D"]:
        """Returns the standard deviation of each latent."""
        return jnp.exp(self.log_variance / 2)

    def at(self, noise: Float[Array, "*batch D"]) -> Float[Array, "*batch D"]:
        """Returns the sample mean + std noise, which can be differentiated (Kingma & Welling 2014, Section 2.4)."""
        return self.mean + self.std * noise

    def log_prob(self, z: Float[Array, "*batch D"]) -> Float[Array, "*batch"]:
        """Returns the log density of z in nats, summed over the last axis."""
        scaled = jnp.square(z - self.mean) * jnp.exp(-self.log_variance)
        return -(scaled + self.log_variance + math.log(2 * math.pi)).sum(axis=-1) / 2

    def kl(self) -> Float[Array, "*batch D"]:
        """Returns KL(self || N(0, 1)) of each latent, in nats (Kingma & Welling 2014, Appendix B)."""
        return (jnp.square(self.mean) + jnp.exp(self.log_variance) - 1 - self.log_variance) / 2


def standard_log_prob(z: Float[Array, "*batch D"]) -> Float[Array, "*batch"]:
    """Returns log N(z; 0, 1) in nats, summed over the last axis."""
    return -(jnp.square(z) + math.log(2 * math.pi)).sum(axis=-1) / 2
