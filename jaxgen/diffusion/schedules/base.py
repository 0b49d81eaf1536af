"""Holds the contract of a noise schedule, and what its classes share.

A schedule is alpha(t), sigma(t), log_snr(t) and the inverse of log_snr. Time runs from 0 (data) to 1 (noise):
`x_t = alpha x_0 + sigma epsilon`, and `log_snr = log(alpha**2 / sigma**2)` (Kingma et al. 2021, Eq. 4). Where
alpha**2 + sigma**2 = 1, `alpha**2` is `alpha_bar` of Ho et al. (2020), Eq. 4.

Given JAX arrays the functions return JAX arrays, float32 at least; given NumPy arrays or numbers they return NumPy
arrays in float64. Samplers compute their coefficients in NumPy, once, so these do not depend on the type that a network
computes in.
"""

from __future__ import annotations

import abc
from typing import Any, TypeVar, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxgen.errors import UserError

# What goes in comes out: a JAX array gives a JAX array, a NumPy array a NumPy array, a number a number of NumPy.
Array = TypeVar("Array", jax.Array, np.ndarray, float)


class Schedule(abc.ABC):
    """This is the contract of a schedule.

    `t` is any shape of floats in [0, 1]; results have its shape.

    Attributes:
      steps: number of discrete noise levels; 0 for a continuous schedule.
      t_min: the smallest time above 0 that training draws, and at which the spacings that are even in the noise level
        end; 0 where the schedule still has noise at t = 0.
      prior_std: standard deviation of the noise that sampling starts from, close to that of x_1.
      sigma_data: the standard deviation of the data that the EDM preconditioning assumes (Karras et al. 2022).
    """

    steps: int = 0
    t_min: float = 0.0
    prior_std: float = 1.0
    sigma_data: float = 0.5

    @abc.abstractmethod
    def log_snr(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Returns log(alpha**2 / sigma**2), which decreases in t."""

    @abc.abstractmethod
    def t_from_log_snr(self, log_snr: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Returns the time t at which `log_snr` has this value."""

    def alpha(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Returns the signal's factor, by default sqrt(sigmoid(log_snr)), which preserves the variance."""
        log_snr = self.log_snr(t)
        np_ = array_module(log_snr)
        return np_.exp(-0.5 * np_.logaddexp(0.0, -log_snr))

    def sigma(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Returns the standard deviation of the noise in x_t, by default sqrt(sigmoid(-log_snr))."""
        log_snr = self.log_snr(t)
        np_ = array_module(log_snr)
        return np_.exp(-0.5 * np_.logaddexp(0.0, log_snr))

    def rates(self, t: Float[jax.Array, "*shape"]) -> tuple[Float[jax.Array, "*shape"], Float[jax.Array, "*shape"]]:
        """Returns d alpha / dt and d sigma / dt, so that d x_t / dt = alpha' x_0 + sigma' epsilon along a path."""
        t = at_least_float32(jnp.asarray(t))
        one = jnp.ones_like(t)
        return jax.jvp(self.alpha, (t,), (one,))[1], jax.jvp(self.sigma, (t,), (one,))[1]

    def conditioning(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Returns the `time` that a network embeds for t: 0..999 under every schedule, as published weights expect."""
        return 1000.0 * at_least_float32(t)

    def input_scale(self, t: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Returns the factor of x_t before it enters a network; it is 1 where the variance of x_t is bounded."""
        return 0.0 * at_least_float32(t) + 1.0

    def snap_to_levels(self, times: Float[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
        """Returns a sampler's times, each moved to the nearest level of the schedule."""
        return times


def vp_log_snr(log_alpha_bar: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns log_snr of a variance-preserving schedule from log(alpha**2)."""
    np_ = array_module(log_alpha_bar)
    with np.errstate(divide="ignore"):
        return log_alpha_bar - np_.log(-np_.expm1(log_alpha_bar))


def vp_log_alpha_bar(log_snr: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns log(alpha**2) of a variance-preserving schedule: the inverse of `vp_log_snr`."""
    log_snr = at_least_float32(log_snr)
    return -array_module(log_snr).logaddexp(0.0, -log_snr)


def array_module(values: jax.Array | np.ndarray | float) -> Any:
    """Returns jax.numpy for JAX arrays, else numpy."""
    return jnp if isinstance(values, jax.Array) else np


@overload
def at_least_float32(t: jax.Array) -> jax.Array: ...
@overload
def at_least_float32(t: np.ndarray) -> np.ndarray: ...
@overload
def at_least_float32(t: float) -> float: ...
def at_least_float32(t: jax.Array | np.ndarray | float) -> jax.Array | np.ndarray | float:
    """Converts JAX arrays to float32 or wider, also where networks compute in bfloat16; the rest to NumPy's float64."""
    if isinstance(t, jax.Array):
        return jnp.asarray(t, jnp.promote_types(t.dtype, jnp.float32))
    return np.asarray(t, np.float64)


def check_t_min(t_min: float) -> None:
    """Raises a UserError for a t_min outside (0, 1)."""
    if not 0 < t_min < 1:
        raise UserError(f"A schedule's t_min must be above 0 and below 1, not {t_min}.")
