"""Exponential integrators solve the linear part of the probability-flow ODE over lambda = log(alpha / sigma) exactly.

From time t to s, h = lambda_s - lambda_t (Lu et al. 2022b, Proposition 4.1):

    x_s = sigma_s / sigma_t x_t + alpha_s int_0^h exp(tau - h) x0(tau) dtau

A solver is therefore a choice of weights for the x0 predicted so far. Where no noise is left, h is infinite and the
integral is the newest x0: every solver here then takes a step of first order. An x0 that was predicted where there is
no signal is infinitely far back in lambda and is not used.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxgen.diffusion.samplers.coefficients import Row
from jaxgen.diffusion.schedules.base import Schedule

# below this alpha an image has no signal: lambda is as good as infinite
FAINTEST = 1e-10


class LambdaGrid:
    """Holds times and their values of lambda.

    Attributes:
      t: `[N]` times.
      alpha, sigma: `[N]` signal and noise at these times.
      lam: `[N]` lambda, which is infinite where there is no noise and minus infinite where there is no signal.
    """

    def __init__(self, schedule: Schedule, times: Sequence[float] | Float[np.ndarray, "N"]) -> None:
        self.t = np.asarray(times, np.float64)
        self.alpha, self.sigma = schedule.alpha(self.t), schedule.sigma(self.t)
        lam = np.where(self.sigma > 0, 0.5 * schedule.log_snr(self.t), np.inf)
        self.lam = np.where(self.alpha < FAINTEST, -np.inf, lam)

    def h(self, i: int) -> float:
        """Returns the length of step i."""
        return float(self.lam[i + 1] - self.lam[i])

    def row(self, i: int, weights: Float[np.ndarray, "K"]) -> Row:
        """Returns step i's row of the coefficients, for the weights of the x0 seen, the newest first."""
        step = self.alpha[i + 1] * np.asarray(weights)
        return {"t": self.t[i], "s": self.t[i + 1], "move": self.sigma[i + 1] / self.sigma[i], "step": step}

    def seen(self, i: int, count: int) -> np.ndarray:
        """Returns the places of the newest x0 up to point i, at most `count` of them: lambda from point i in units of
        step i. The newest is at 0, the others are below."""
        back = self.lam[max(i - count + 1, 0) : i + 1][::-1] - self.lam[i]
        h = self.h(i)
        # A step without noise at its end, or of no length, is of first order.
        return np.append(0.0, back[1:][np.isfinite(back[1:])] / h) if math.isfinite(h) and h else np.zeros(1)


def moments(h: float, count: int) -> np.ndarray:
    """Returns `[count]` integrals int_0^1 exp(h (theta - 1)) theta**k h dtheta for k = 0, 1, ..."""
    if h < 1:  # h sum_j (-h)**j k! / (k + 1 + j)!: the recurrence below would cancel
        terms = [[(-h) ** j * math.factorial(k) / math.factorial(k + 1 + j) for j in range(20)] for k in range(count)]
        return h * np.sum(terms, axis=1)
    values = [-math.expm1(-h)]
    for k in range(1, count):
        values.append(1 - k / h * values[-1])
    return np.asarray(values)


def adams(h: float, nodes: np.ndarray) -> np.ndarray:
    """Returns weights of x0 at the nodes (in units of h from the step's start), exact for polynomials through them.

    This is the exponential Adams method (Hochbruck & Ostermann 2010, Section 2.7), explicit or, with a node at 1,
    implicit."""
    if len(nodes) == 1 and nodes[0] == 0:
        return first(h)
    return np.linalg.solve(np.vander(nodes, increasing=True).T, moments(h, len(nodes)))


def first(h: float) -> np.ndarray:
    """Returns the weights of the newest x0 alone: DDIM (Lu et al. 2022b, Section 4.1)."""
    return np.asarray([-math.expm1(-h)])


def second(h: float, node: float) -> np.ndarray:
    """Returns weights of x0 at 0 and at `node`, read half a step along their line (Lu et al. 2022b)."""
    return -math.expm1(-h) * np.asarray([1 - 0.5 / node, 0.5 / node])


def orders(order: int, steps: int, lower_order_final: bool) -> list[int]:
    """Returns each step's order: at most `order`, at most the x0 that there are, and less towards the end where
    `lower_order_final` is set."""
    return [min(order, i + 1, steps - i if lower_order_final else order) for i in range(steps)]
