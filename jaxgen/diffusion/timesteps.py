"""Says at which times t a network is trained, and by what the loss at each is multiplied.

A timestep sampler gives `(t [B], weights [B])`, both float32, t in [first level or t_min, 1]; `BetweenLevels` also
draws below the first level. The weights are 1
except for `LossAware`, which draws unevenly only to reduce the variance: the weighted losses have the mean that uniform
times give. The uneven densities of `LogitNormal` and `LogNormal` are part of the objective.

    memory = timesteps.init(schedule)                                  # {} but for LossAware
    t, weights = timesteps.sample(key, count, schedule, memory)
    memory = timesteps.update(memory, t, losses, schedule)             # the unweighted losses [B]
"""

from __future__ import annotations

import abc
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Key

from jaxgen.arrays import Array
from jaxgen.diffusion.schedules import Schedule
from jaxgen.diffusion.schedules.base import vp_log_snr
from jaxgen.errors import UserError

Memory = dict[str, jax.Array]
Draw = tuple[Float[Array, "count"], Float[Array, "count"]]  # times and their weights
# The smallest share of the first step at which `between_levels` trains; a discrete schedule rounds less to no noise
NOISIER_THAN_NONE = 0.002


class TimestepSampler(abc.ABC):
    """This is the contract; see the module's docstring.

    All functions are pure, all shapes static.

    Attributes:
      carries: whether `init` and `update` give anything, which the method then keeps in its state.
      on_levels: whether times under a discrete schedule are its levels.
    """

    carries: ClassVar[bool] = False
    on_levels: ClassVar[bool] = True

    def init(self, schedule: Schedule) -> Memory:
        """Returns the memory at the first step."""
        return {}

    @abc.abstractmethod
    def sample(self, key: Key[Array, ""], count: int, schedule: Schedule, memory: Memory | None = None) -> Draw:
        """Returns `[count]` times and their weights."""

    def update(self, memory: Memory, t: Float[Array, "B"], losses: Float[Array, "B"], schedule: Schedule) -> Memory:
        """Returns the memory after having seen `[B]` losses at `[B]` times."""
        return memory


def uniform_timesteps(key: Key[Array, ""], count: int, schedule: Schedule) -> Float[Array, "count"]:
    """Returns `[count]` uniform times: the levels 1/steps .. 1 of a discrete schedule, else (t_min, 1]."""
    if schedule.steps:
        return jax.random.randint(key, (count,), 1, schedule.steps + 1) / schedule.steps
    return 1.0 - (1 - schedule.t_min) * jax.random.uniform(key, (count,))


@dataclasses.dataclass(frozen=True)
class Uniform(TimestepSampler):
    """The times are independent and uniform (Ho et al. 2020, Algorithm 1)."""

    def sample(self, key: Key[Array, ""], count: int, schedule: Schedule, memory: Memory | None = None) -> Draw:
        return uniform_timesteps(key, count, schedule), jnp.ones(count)


@dataclasses.dataclass(frozen=True)
class Stratified(TimestepSampler):
    """Draws equally spaced times with one random shift, so that each of them is uniform (Kingma et al. 2021, Appendix
    I.1).
    The mean loss of a batch varies less than with independent times."""

    def sample(self, key: Key[Array, ""], count: int, schedule: Schedule, memory: Memory | None = None) -> Draw:
        share = (jax.random.uniform(key) + jnp.arange(count) / count) % 1.0
        return _from_share(share, schedule), jnp.ones(count)


@dataclasses.dataclass(frozen=True)
class BetweenLevels(TimestepSampler):
    """Draws noise levels continuously, for networks that embed them (Saharia et al. 2021, Algorithm 1; `method.embed`).

    Each example draws one step i of a discrete schedule, and alpha_bar uniformly between those of the levels i - 1 and
    i. Under a continuous schedule, which has no steps, times are those of `uniform`. Where the last level has no signal
    at all, the schedule tells levels within 0.4 of log(alpha_bar) of the level before it not apart from that level.
    """

    on_levels: ClassVar[bool] = False

    def sample(self, key: Key[Array, ""], count: int, schedule: Schedule, memory: Memory | None = None) -> Draw:
        if not schedule.steps:
            return uniform_timesteps(key, count, schedule), jnp.ones(count)
        of_step, within = jax.random.split(key)
        below = jax.random.randint(of_step, (count,), 0, schedule.steps)
        logs = 2 * np.log(schedule.alpha(np.arange(schedule.steps + 1) / schedule.steps))  # of alpha_bar at each level
        start, step = (jnp.asarray(x, jnp.float32)[below] for x in (logs[:-1], np.diff(logs)))
        # alpha_bar = (1 - u) above + u below, relative to the cleaner level, so that nothing is lost near alpha_bar = 1
        log_alpha_bar = start + jnp.log1p(jax.random.uniform(within, (count,)) * jnp.expm1(step))
        t = schedule.t_from_log_snr(vp_log_snr(log_alpha_bar))
        return jnp.maximum(t, NOISIER_THAN_NONE / schedule.steps), jnp.ones(count)


@dataclasses.dataclass(frozen=True)
class LogitNormal(TimestepSampler):
    """logit(t) follows N(mean, std**2), so that middle times are likelier (Esser et al. 2024, Section 3.1).

    Attributes:
      mean: mean of logit(t); above 0 it favours noise.
      std: standard deviation of logit(t), above 0.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        _check_std("logit_normal", self.std)

    def sample(self, key: Key[Array, ""], count: int, schedule: Schedule, memory: Memory | None = None) -> Draw:
        t = jax.nn.sigmoid(self.mean + self.std * jax.random.normal(key, (count,)))
        return nearest_trainable(t, schedule), jnp.ones(count)


@dataclasses.dataclass(frozen=True)
class LogNormal(TimestepSampler):
    """log(sigma / alpha) follows N(mean, std**2) under any schedule (Karras et al. 2022, Table 1: P_mean, P_std).

    Noise levels beyond the schedule's ends are moved onto them.
    """

    mean: float = -1.2
    std: float = 1.2

    def __post_init__(self) -> None:
        _check_std("log_normal", self.std)

    def sample(self, key: Key[Array, ""], count: int, schedule: Schedule, memory: Memory | None = None) -> Draw:
        log_sigma = self.mean + self.std * jax.random.normal(key, (count,))
        return nearest_trainable(schedule.t_from_log_snr(-2.0 * log_sigma), schedule), jnp.ones(count)


@dataclasses.dataclass(frozen=True)
class LossAware(TimestepSampler):
    """Draws times by the size of recent losses: importance sampling (Nichol & Dhariwal 2021, Section 3.3, Eq. 18).

    The times are cut into bins of equal width. A bin is drawn with a probability in proportion to sqrt(E[L**2])
    over its last losses, and a time uniformly within it; the weight is the bin's uniform probability divided by that.
    Until every bin has seen `history` losses, draws are uniform.

    Attributes:
      bins: at most the schedule's levels.
      history: losses remembered for each bin.
      uniform: share of uniform draws mixed in, so that no bin is forgotten.
    """

    bins: int = 100
    history: int = 10
    uniform: float = 1e-3

    carries: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.bins < 1 or self.history < 1:
            raise UserError("The timestep sampler loss_aware needs at least one bin and a history of one loss.")
        if not 0 <= self.uniform <= 1:
            raise UserError(f"The timestep sampler loss_aware needs a uniform share in [0, 1], not {self.uniform}.")

    def init(self, schedule: Schedule) -> Memory:
        """Returns `losses` float32 `[bins, history]`, a ring buffer in each row, and `seen` int32 `[bins]`.

        Raises:
          UserError: for more bins than the schedule has levels.
        """
        self._shares(schedule)
        return {"losses": jnp.zeros((self.bins, self.history)), "seen": jnp.zeros(self.bins, jnp.int32)}

    def probabilities(self, memory: Memory, schedule: Schedule) -> Float[Array, "bins"]:
        """Returns `[bins]` probabilities of the bins; they sum to 1."""
        shares = jnp.asarray(self._shares(schedule), jnp.float32)
        # within a bin the mean is over times: a bin with more levels counts for more
        size = shares * jnp.sqrt(jnp.mean(jnp.square(memory["losses"]), axis=1))
        total = size.sum()
        filled = (memory["seen"] >= self.history).all() & (total > 0)
        learned = (1 - self.uniform) * size / jnp.where(total > 0, total, 1.0) + self.uniform * shares
        return jnp.where(filled, learned, shares)

    def sample(self, key: Key[Array, ""], count: int, schedule: Schedule, memory: Memory | None = None) -> Draw:
        if not memory:
            raise UserError("The timestep sampler loss_aware needs its memory; carry what init and update give.")
        of_bin, within = jax.random.split(key)
        probabilities = self.probabilities(memory, schedule)
        chosen = jax.random.categorical(of_bin, jnp.log(probabilities), shape=(count,))
        shares = jnp.asarray(self._shares(schedule), jnp.float32)
        low = jnp.asarray(np.concatenate([[0.0], np.cumsum(self._shares(schedule))[:-1]]), jnp.float32)
        share = low[chosen] + shares[chosen] * jax.random.uniform(within, (count,), maxval=1 - 1e-6)
        weights = shares[chosen] / probabilities[chosen]
        if not schedule.steps:
            return _from_share(share, schedule), weights
        # rounding must not carry a time into the next bin
        first, last = (jnp.asarray(x)[chosen] for x in self._levels(schedule))
        level = jnp.clip(jnp.floor(share * schedule.steps).astype(jnp.int32) + 1, first, last)
        return level / schedule.steps, weights

    def update(self, memory: Memory, t: Float[Array, "B"], losses: Float[Array, "B"], schedule: Schedule) -> Memory:
        bins = self._bin(t, schedule)
        hot = jax.nn.one_hot(bins, self.bins, dtype=jnp.int32)
        place = jnp.take_along_axis(jnp.cumsum(hot, axis=0), bins[:, None], axis=1)[:, 0] - 1  # within its bin
        here = hot.sum(axis=0)
        slot = (memory["seen"][bins] + place) % self.history
        # of more losses than the ring holds, the last ones stay
        row = jnp.where(here[bins] - place <= self.history, bins, self.bins)
        losses = jax.lax.stop_gradient(losses).astype(jnp.float32)
        ring = memory["losses"].at[row, slot].set(losses, mode="drop")
        # kept small without losing the ring's place or that it is full
        seen = memory["seen"] + here
        seen = jnp.where(seen >= 2 * self.history, self.history + seen % self.history, seen)
        return {"losses": ring, "seen": seen}

    def _levels(self, schedule: Schedule) -> tuple[np.ndarray, np.ndarray]:
        """Returns the first and last level of each bin of a discrete schedule."""
        edges = np.arange(self.bins + 1) * schedule.steps // self.bins
        return edges[:-1] + 1, edges[1:]

    def _shares(self, schedule: Schedule) -> np.ndarray:
        """Returns the `[bins]` uniform probability of each bin."""
        if not schedule.steps:
            return np.full(self.bins, 1 / self.bins)
        if self.bins > schedule.steps:
            raise UserError(
                f"The timestep sampler loss_aware has {self.bins} bins for a schedule of {schedule.steps} levels; "
                f"set bins to at most {schedule.steps}."
            )
        first, last = self._levels(schedule)
        return (last - first + 1) / schedule.steps

    def _bin(self, t: jax.Array, schedule: Schedule) -> jax.Array:
        if schedule.steps:
            level = jnp.round(t * schedule.steps).astype(jnp.int32)
            return jnp.searchsorted(jnp.asarray(self._levels(schedule)[1]), level).astype(jnp.int32)
        share = (1.0 - t) / (1 - schedule.t_min)
        return jnp.clip(jnp.floor(share * self.bins), 0, self.bins - 1).astype(jnp.int32)


def _from_share(share: jax.Array, schedule: Schedule) -> jax.Array:
    """Turns uniform numbers in [0, 1) into uniform times: of discrete levels upwards, else from 1 down to t_min."""
    if schedule.steps:
        return jnp.clip(jnp.floor(share * schedule.steps) + 1, 1, schedule.steps) / schedule.steps
    return 1.0 - (1 - schedule.t_min) * share


def nearest_trainable(t: Float[Array, "*shape"], schedule: Schedule) -> Float[Array, "*shape"]:
    """Returns the nearest times at which a network can be trained under the schedule: its levels, or [t_min, 1]."""
    if schedule.steps:
        return jnp.clip(jnp.round(t * schedule.steps), 1, schedule.steps) / schedule.steps
    # a schedule that has noise at 0 may be trained there
    return jnp.clip(t, schedule.t_min, 1.0)


def _check_std(name: str, std: float) -> None:
    if not std > 0:
        raise UserError(f"The std of the timestep sampler {name} must be above 0, not {std}.")
