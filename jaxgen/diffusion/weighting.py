"""Computes weights of the squared error at each noise level.

All but `Simple` weight the error of the image, for every type that the network predicts: at a fixed x_t the types are
linear in each other, so that the weight of |error of x0|**2, times the factor `PredictionType.x0_error`, is the weight
of the network's own error. SNR is alpha**2 / sigma**2.
"""

from __future__ import annotations

import abc
import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.diffusion.prediction_types import PredictionType
from jaxgen.diffusion.schedules.base import Schedule
from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True)
class Weighting(abc.ABC):
    """This is the contract: `weighting(schedule, t, prediction_type)`."""

    @abc.abstractmethod
    def __call__(self, schedule: Schedule, t: Float[Array, "B"], prediction_type: PredictionType) -> Float[Array, "B"]:
        """Returns `[B]` factors of the squared error of a prediction of this type at times t `[B]`."""


@dataclasses.dataclass(frozen=True)
class Simple(Weighting):
    """The weight is 1, for the type that the network predicts.

    For epsilon this is Ho et al. (2020), Eq. 14; for velocity, the flow-matching loss of Lipman et al. (2023), Eq. 23.
    """

    def __call__(self, schedule: Schedule, t: Float[Array, "B"], prediction_type: PredictionType) -> Float[Array, "B"]:
        return jnp.ones_like(t)


@dataclasses.dataclass(frozen=True)
class WeightingOfX0(Weighting):
    """This weighting says what an error of x0 costs: a class gives `of_x0`."""

    @abc.abstractmethod
    def of_x0(self, schedule: Schedule, log_snr: Float[Array, "B"]) -> Float[Array, "B"]:
        """Returns `[B]` factors of |error of x0|**2, given log(SNR) `[B]`."""

    def __call__(self, schedule: Schedule, t: Float[Array, "B"], prediction_type: PredictionType) -> Float[Array, "B"]:
        return self.of_x0(schedule, schedule.log_snr(t)) * prediction_type.x0_error(schedule, t)


@dataclasses.dataclass(frozen=True)
class SNR(WeightingOfX0):
    """The weight is the SNR for x0, which is 1 for epsilon."""

    def of_x0(self, schedule: Schedule, log_snr: Float[Array, "B"]) -> Float[Array, "B"]:
        return jnp.exp(log_snr)


@dataclasses.dataclass(frozen=True)
class TruncatedSNR(WeightingOfX0):
    """The weight is max(SNR, 1) for x0 (Salimans & Ho 2022, Section 4)."""

    def of_x0(self, schedule: Schedule, log_snr: Float[Array, "B"]) -> Float[Array, "B"]:
        return jnp.maximum(jnp.exp(log_snr), 1.0)


@dataclasses.dataclass(frozen=True)
class MinSNR(WeightingOfX0):
    """The weight is min(SNR, gamma) for x0; for v it is min(SNR, gamma) / (SNR + 1) (Hang et al. 2023, Section 3.4)."""

    gamma: float = 5.0

    def __post_init__(self) -> None:
        if not self.gamma > 0:
            raise UserError(f"The gamma of the weighting min_snr must be above 0, not {self.gamma}.")

    def of_x0(self, schedule: Schedule, log_snr: Float[Array, "B"]) -> Float[Array, "B"]:
        return jnp.minimum(jnp.exp(log_snr), self.gamma)


@dataclasses.dataclass(frozen=True)
class P2(WeightingOfX0):
    """The weight is (k + SNR)**-gamma for epsilon (Choi et al. 2022, Eq. 8)."""

    gamma: float = 1.0
    k: float = 1.0

    def of_x0(self, schedule: Schedule, log_snr: Float[Array, "B"]) -> Float[Array, "B"]:
        snr = jnp.exp(log_snr)
        return snr * (self.k + snr) ** -self.gamma


@dataclasses.dataclass(frozen=True)
class EDM(WeightingOfX0):
    """The weight is SNR + 1 / sigma_data**2 for x0, which is 1 for the type edm (Karras et al. 2022, Table 1)."""

    def of_x0(self, schedule: Schedule, log_snr: Float[Array, "B"]) -> Float[Array, "B"]:
        return jnp.exp(log_snr) + schedule.sigma_data**-2


@dataclasses.dataclass(frozen=True)
class Sigmoid(WeightingOfX0):
    """The weight is sigmoid(bias - log SNR) for epsilon (Kingma & Gao 2023, Section 5; Hoogeboom et al. 2024)."""

    bias: float = 2.0

    def of_x0(self, schedule: Schedule, log_snr: Float[Array, "B"]) -> Float[Array, "B"]:
        return jnp.exp(log_snr) * jax.nn.sigmoid(self.bias - log_snr)
