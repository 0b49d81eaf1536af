"""Solves the probability-flow ODE with diffrax's adaptive solvers (Song et al. 2021, Section 4.3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeVar

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Int, Key

from jaxgen.arrays import Array
from jaxgen.diffusion.prediction import Denoiser
from jaxgen.diffusion.process import append_dims
from jaxgen.diffusion.samplers.base import Images, Sampler, Times, Trajectory
from jaxgen.diffusion.schedules.base import Array as AnyArray
from jaxgen.diffusion.schedules.base import Schedule, array_module
from jaxgen.errors import UserError

Count = TypeVar("Count", int, jax.Array)

SOLVERS = {"tsit5": diffrax.Tsit5, "dopri5": diffrax.Dopri5, "bosh3": diffrax.Bosh3, "heun": diffrax.Heun}
# the first step that is tried, as a share of the way
FIRST = 0.05
# no logarithm of zero
TINY = 1e-30


class Solution(NamedTuple):
    """Holds what `ODE.solve` returns.

    Attributes:
      images: `[B, ...]` the result; NaN where an image has not `finished`.
      trajectory: `[frames, B, ...]` states on the way.
      evaluations: int32, how often the denoiser was called for the image that took the most steps.
      finished: `[B]` whether an image came to its end within the sampler's `steps`.
    """

    images: jax.Array
    trajectory: jax.Array
    evaluations: Int[Array, ""]
    finished: Bool[Array, "B"]


@dataclasses.dataclass(frozen=True)
class ODE(Sampler):
    """Solves the probability-flow ODE to a tolerance.

    With the angle phi = arctan(sigma / alpha) and z = x / sqrt(alpha**2 + sigma**2), the ODE is

        dz / dphi = cos(phi) epsilon - sin(phi) x0 = v / sqrt(alpha**2 + sigma**2)

    (Salimans & Ho 2022, Appendix D), regular at both ends and for every schedule. It is followed down to the
    schedule's t_min; one step of DDIM leads from there to t = 0. Every image has its own steps, so that it does not
    depend on its batch: the denoiser sees one time per image.

    Attributes:
      steps: the largest number of steps, rejected ones included. An image that needs more is NaN; what samples reads
        that on the host and stops with an error.
      spacing: not used.
      rtol, atol: tolerances of the error of one step, in units of z, close to those of the images. A tolerance
        below the rounding of the network (1e-5 in float32, 1e-2 in bfloat16) makes the steps tiny.
      method: an embedded pair: tsit5 or dopri5, of fifth order; bosh3, of third; heun, of second.
    """

    steps: int = 1000
    rtol: float = 1e-5
    atol: float = 1e-5
    method: Literal["tsit5", "dopri5", "bosh3", "heun"] = "tsit5"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.self_recurrence != 1:
            raise UserError("config.sampler.self_recurrence is for one-step solvers, such as ddim and ddpm.")
        if self.method not in SOLVERS:
            raise UserError(f"config.sampler.method is {self.method!r}; known are {', '.join(SOLVERS)}.")
        if not (self.rtol > 0 and self.atol > 0):
            raise UserError("config.sampler.rtol and config.sampler.atol must be above 0.")

    @property
    def evaluations(self) -> int:
        """Returns an upper bound: the evaluations of `steps` steps. `solve` returns how many a run has used."""
        return self._used(self.steps) + 1

    @property
    def unfinished(self) -> str:
        return (
            f"the sampler ode needs more steps than config.sampler.steps={self.steps}; raise that, or rtol and atol of "
            "config.sampler"
        )

    def _used(self, steps: Count) -> Count:
        """Returns the evaluations of so many steps: a pair whose last slope is the next one's first saves one each."""
        tableau = SOLVERS[self.method].tableau
        assert isinstance(tableau, diffrax.ButcherTableau)  # the others are of implicit-explicit pairs
        return (len(tableau.b_sol) - tableau.fsal) * steps + tableau.fsal

    def trajectory(
        self,
        denoise: Denoiser,
        schedule: Schedule,
        x: Images,
        keys: Key[Array, "B"] | None = None,
        frames: int = 0,
        times: Times | None = None,
    ) -> tuple[Images, Trajectory]:
        """Follows the ODE; see `Sampler.__call__`. Frames are at equal steps of the angle, and only the first and the
        last of `times` matter."""
        found = self.solve(denoise, schedule, x, frames, times)
        return found.images, found.trajectory

    def solve(
        self,
        denoise: Denoiser,
        schedule: Schedule,
        x: Images,
        frames: int = 0,
        times: Times | None = None,
    ) -> Solution:
        """Follows the ODE. Nothing is raised where `steps` do not suffice: the solution says so as data.

        Raises:
          UserError: there are more frames than steps.
        """
        if not 0 <= frames <= self.steps:
            raise UserError(f"A trajectory of {self.steps} steps has no {frames} frames; ask for fewer.")
        first, last = (1.0, 0.0) if times is None else (float(times[0]), float(times[-1]))
        stop = max(last, schedule.t_min)
        found = Solution(x, jnp.zeros((frames, *x.shape), x.dtype), jnp.int32(0), jnp.ones(len(x), bool))
        if first > stop:
            found = self._follow(denoise, schedule, x, frames, first, stop)
        if last < stop:
            x = self._last(denoise, schedule, found.images, min(first, stop), last)
            found = found._replace(images=x, evaluations=found.evaluations + 1)
        return found._replace(trajectory=found.trajectory.at[-1:].set(found.images))

    def _follow(self, denoise: Denoiser, schedule: Schedule, x: jax.Array, frames: int, t: float, s: float) -> Solution:
        start, end = (np.arctan2(schedule.sigma(u), schedule.alpha(u)) for u in (t, s))
        angles = np.linspace(start, end, max(frames, 1) + 1)[1:]

        def solve(z: jax.Array):
            solution = diffrax.diffeqsolve(
                diffrax.ODETerm(_slope(lambda y, time: self.output(denoise(y, time)).v, schedule)),
                SOLVERS[self.method](),
                t0=jnp.asarray(start, x.dtype),
                t1=jnp.asarray(end, x.dtype),
                dt0=jnp.asarray(FIRST * (end - start), x.dtype),
                y0=z,
                saveat=diffrax.SaveAt(ts=jnp.asarray(angles, x.dtype)),
                stepsize_controller=diffrax.PIDController(rtol=self.rtol, atol=self.atol),
                max_steps=self.steps,
                throw=False,
            )
            return solution.ys, solution.stats["num_steps"], solution.result == diffrax.RESULTS.successful

        z, taken, finished = jax.vmap(solve, axis_name="image")(x / _norm(schedule, t))
        states = jnp.swapaxes(jnp.where(append_dims(finished, z), z, jnp.nan), 0, 1)
        states = states * append_dims(jnp.asarray(_norm(schedule, _time(schedule, angles)), x.dtype), states)
        return Solution(states[-1], states[:frames], self._used(taken.max()), finished)

    def _last(self, denoise: Denoiser, schedule: Schedule, x: jax.Array, t: float, s: float) -> jax.Array:
        """Takes a step of DDIM from t to s."""
        now = self.output(denoise(x, jnp.full(x.shape[:1], t, x.dtype)))
        x = jnp.asarray(schedule.alpha(s), x.dtype) * now.x0
        return x + jnp.asarray(schedule.sigma(s), x.dtype) * now.epsilon if schedule.sigma(s) > 0 else x


def _slope(velocity: Callable[[jax.Array, jax.Array], jax.Array], schedule: Schedule):
    """Returns one image's dz / dphi.

    The images of the batch, each at its own angle, meet in one call of the denoiser.
    """

    def slope(phi: jax.Array, z: jax.Array, _: None) -> jax.Array:
        phi, z = jax.lax.all_gather(phi, "image"), jax.lax.all_gather(z, "image")
        t = _time(schedule, phi)
        norm = append_dims(_norm(schedule, t), z)
        return _own(velocity(norm * z, t) / norm, jax.lax.axis_index("image"))

    return slope


@jax.custom_batching.custom_vmap
def _own(values: jax.Array, image: jax.Array) -> jax.Array:
    """Returns the values of one image out of those of the batch."""
    return values[image]


@_own.def_vmap
def _(size: int, batched: list[bool], values: jax.Array, images: jax.Array) -> tuple[jax.Array, bool]:
    """Returns all values for all images; a gather would copy them all to every device."""
    return values, True


def _time(schedule: Schedule, phi: AnyArray) -> AnyArray:
    """Returns the time of an angle, which rounding may have put beyond the schedule's ends."""
    np_ = array_module(phi)
    log_snr = 2 * np_.log(np_.maximum(np_.cos(phi), TINY)) - 2 * np_.log(np_.maximum(np_.sin(phi), TINY))
    return np_.clip(schedule.t_from_log_snr(log_snr), 0.0, 1.0)


def _norm(schedule: Schedule, t: AnyArray) -> AnyArray:
    """Returns sqrt(alpha**2 + sigma**2)."""
    return array_module(t).hypot(schedule.alpha(t), schedule.sigma(t))
