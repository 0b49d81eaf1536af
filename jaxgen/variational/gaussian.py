"""Diagonal Gaussians over latents: their density, their divergence, and samples that can be differentiated."""

from __future__ import annotations

import math

import flax.struct
import jax.numpy as jnp

from jaxgen.arrays import Array

LOG_VARIANCE = (-30.0, 20.0)  # limits of a network's log variance; exp of more overflows in float32 products


@flax.struct.dataclass
class Gaussian:
    """N(mean, diag exp(log_variance)).

    Attributes:
      mean, log_variance: `[..., D]` float32.
    """

    mean: Array
    log_variance: Array

    @classmethod
    def of(cls, outputs: Array) -> Gaussian:
        """From a network's `[..., 2 D]`: first the means, then the log variances, which are cut to `LOG_VARIANCE`."""
        mean, log_variance = jnp.split(jnp.asarray(outputs, jnp.float32), 2, axis=-1)
        return cls(mean, jnp.clip(log_variance, *LOG_VARIANCE))

    @property
    def std(self) -> Array:
        """`[..., D]`."""
        return jnp.exp(self.log_variance / 2)

    def at(self, noise: Array) -> Array:
        """mean + std noise: a sample whose gradient reaches both (Kingma & Welling 2014, Section 2.4)."""
        return self.mean + self.std * noise

    def log_prob(self, z: Array) -> Array:
        """log N(z), summed over the last axis, in nats."""
        scaled = jnp.square(z - self.mean) * jnp.exp(-self.log_variance)
        return -(scaled + self.log_variance + math.log(2 * math.pi)).sum(axis=-1) / 2

    def kl(self) -> Array:
        """KL(self || N(0, 1)) of each latent, `[..., D]`, in nats (Kingma & Welling 2014, Appendix B)."""
        return (jnp.square(self.mean) + jnp.exp(self.log_variance) - 1 - self.log_variance) / 2


def standard_log_prob(z: Array) -> Array:
    """log N(z; 0, 1), summed over the last axis, in nats."""
    return -(jnp.square(z) + math.log(2 * math.pi)).sum(axis=-1) / 2
