"""Shows the states that a diffusion sampler passes through while its compiled program runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.diffusion.prediction import Prediction
from jaxgen.diffusion.samplers.base import Images, Sampler, Times, Trajectory
from jaxgen.diffusion.samplers.ode import ODE
from jaxgen.diffusion.schedules.base import Schedule
from jaxgen.methods.base import Method
from jaxgen.methods.tuned import Tuned

SHOWN = 4  # images of a batch whose states are seen
# (the time t of the states, from 1 (noise) to 0; states [N, ...])
See = Callable[[Float[np.ndarray, ""], Float[np.ndarray, "N *shape"]], None]


@dataclasses.dataclass(frozen=True)
class WatchedSampler(Sampler):
    """Draws what another sampler draws, and hands a part of each state to a function on the host.

    Attributes:
      sampler: the other one.
      see: is called before each evaluation of the denoiser, in a thread of JAX's; it must be quick and call nothing
        of JAX.
    """

    sampler: Sampler = dataclasses.field(kw_only=True)
    see: See = dataclasses.field(kw_only=True)

    @property
    def evaluations_per_step(self) -> int:
        return self.sampler.evaluations_per_step

    @property
    def evaluations(self) -> int:
        return self.sampler.evaluations

    def trajectory(
        self,
        denoise: Callable[[Array, Array], Prediction],
        schedule: Schedule,
        x: Images,
        keys: Array | None = None,
        frames: int = 0,
        times: Times | None = None,
    ) -> tuple[Images, Trajectory]:
        def watched(x: Array, t: Array) -> Prediction:
            jax.debug.callback(self.see, t, x[:SHOWN])
            return denoise(x, t)

        return self.sampler.trajectory(watched, schedule, x, keys, frames, times)


def watchable(method: Method) -> bool:
    """Returns whether a method samples by a diffusion sampler whose images share their times."""
    sampler = getattr(getattr(method, "method", method), "sampler", None)  # of one with grafts
    return isinstance(sampler, Sampler) and not isinstance(sampler, ODE)


def watched(method: Method, see: See) -> Method:
    """Returns a `watchable` method that lets `see` see the first images' states; what it draws is the same."""
    made: Any = method
    if isinstance(method, Tuned):
        return dataclasses.replace(made, method=watched(method.method, see))
    of = {field.name: getattr(made.sampler, field.name) for field in dataclasses.fields(Sampler)}
    return dataclasses.replace(made, sampler=WatchedSampler(**of, sampler=made.sampler, see=see))


def pictured(states: Float[np.ndarray, "N *shape"]) -> Float[np.ndarray, "N H W C"]:
    """Returns states as pictures in [-1, 1]: noisy ones are divided by their standard deviation where it is above 1,
    and of latents with other than 1 or 3 channels the first three (or one) are taken as colours."""
    states = np.asarray(states, np.float32)
    channels = states.shape[-1]
    shown = states if channels in (1, 3) else states[..., : 3 if channels > 2 else 1]
    return np.clip(shown / max(1.0, float(shown.std())), -1, 1)
