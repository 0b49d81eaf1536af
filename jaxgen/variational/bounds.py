"""Bounds on log p(x), from samples of an encoder."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxgen.arrays import Array


def elbo(log_likelihood: Array, kl: Array, beta: Array | float = 1.0) -> Array:
    """log p(x|z) - beta KL(q(z|x) || p(z)), of `[...]` and `[..., D]` nats: `[...]` (Kingma & Welling 2014, Eq. 3).

    With beta above 1 (Higgins et al. 2017) it is still below log p(x), and looser.
    """
    return log_likelihood - beta * kl.sum(axis=-1)


def free_bits(kl: Array, least: Array | float) -> Array:
    """The KL that is charged for, `[D]` from `[B, D]`: at least `least` nats for each latent, over the batch's mean.

    Kingma et al. (2016), Eq. 15 with each latent a group of its own: below `least` a latent costs no more, so nothing
    drives it to carry nothing.
    """
    return jnp.maximum(kl.mean(axis=0), least)


def importance_bound(log_weights: Array) -> Array:
    """log mean_k w_k of `[K, ...]` log weights log p(x, z_k) - log q(z_k | x): IWAE (Burda et al. 2016, Eq. 8).

    K = 1 is the ELBO, by sampling; it rises with K, in expectation, to log p(x).
    """
    return jax.nn.logsumexp(log_weights, axis=0) - math.log(len(log_weights))
