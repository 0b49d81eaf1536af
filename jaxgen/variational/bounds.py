"""Computes bounds on log p(x), from samples of an encoder."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jaxgen.arrays import Array

if TYPE_CHECKING:
    from jaxtyping import Float


def elbo(
    log_likelihood: Float[Array, "*batch"], kl: Float[Array, "*batch D"], beta: Float[Array, ""] | float = 1.0
) -> Float[Array, "*batch"]:
    """Returns log p(x|z) - beta KL(q(z|x) || p(z)) in nats (Kingma & Welling 2014, Eq. 3).

    A beta above 1 (Higgins et al. 2017) still gives a lower bound on log p(x), a looser one.

    Args:
      log_likelihood: log p(x|z) in nats.
      kl: the KL divergence of each latent, in nats.
      beta: the weight of the KL.
    """
    return log_likelihood - beta * kl.sum(axis=-1)


def free_bits(kl: Float[Array, "B D"], least: Float[Array, ""] | float) -> Float[Array, " D"]:
    """Returns the KL that enters the loss: for each latent the mean over the batch, but at least `least` nats.

    This is Eq. 15 of Kingma et al. (2016), where each latent is a group of its own. Below `least` a latent does not get
    cheaper, so that nothing pushes its information to 0.
    """
    return jnp.maximum(kl.mean(axis=0), least)


def importance_bound(log_weights: Float[Array, " K *batch"]) -> Float[Array, "*batch"]:
    """Returns log mean_k w_k, the bound of IWAE (Burda et al. 2016, Eq. 8).

    `log_weights` are log p(x, z_k) - log q(z_k | x) in nats, of K samples z_k. For K = 1 the bound estimates the ELBO;
    its expectation rises with K, towards log p(x).
    """
    return jax.nn.logsumexp(log_weights, axis=0) - math.log(len(log_weights))
