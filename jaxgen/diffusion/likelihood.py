"""Computes how probable a model finds an image: the variational bound, and the exact density through the flow.

All numbers are per image; those of image i depend on its own key alone, not on the batch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Key, UInt8

from jaxgen.arrays import Array
from jaxgen.diffusion.bound import LOG_2, Variance, level_term, prior_term
from jaxgen.diffusion.noise import per_image_noise
from jaxgen.diffusion.prediction import Denoiser
from jaxgen.diffusion.process import diffuse
from jaxgen.diffusion.schedules import Schedule
from jaxgen.diffusion.spacing import DARKEST
from jaxgen.errors import UserError

Solver = Literal["heun", "rk4"]
Carry = tuple[jax.Array, jax.Array]  # z [B, ...] and the log-determinant [B] that it has gained
Slope = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]  # (z, t, norm)


@flax.struct.dataclass
class Bound:
    """Holds the variational bound in bits per dimension (Ho et al. 2020, Eq. 5).

    Attributes:
      terms: `[B, N]` L_0, then the KLs upwards. Where levels were drawn, column n is the sum over levels
        edges[n] .. edges[n + 1] - 1, estimated without bias from one of them.
      prior: `[B]` L_T.
      edges: `[N + 1]` from 1 to steps + 1.
    """

    terms: jax.Array
    prior: jax.Array
    edges: tuple[int, ...] = flax.struct.field(pytree_node=False)

    @property
    def total(self) -> Float[Array, "B"]:
        """Returns `[B]` upper bounds of -log2 p(x_0) per dimension."""
        return self.rate + self.distortion

    @property
    def rate(self) -> Float[Array, "B"]:
        """Returns `[B]` sums L_1 + ... + L_T (Ho et al. 2020, Table 2)."""
        return self.terms[:, 1:].sum(axis=1) + self.prior

    @property
    def distortion(self) -> Float[Array, "B"]:
        """Returns `[B]` values of L_0."""
        return self.terms[:, 0]


def variational_bound(
    denoise: Denoiser,
    schedule: Schedule,
    x0: Float[Array, "B *shape"],
    keys: Key[Array, "B"],
    variance: Variance = "small",
    levels: int = 0,
    clip: bool = True,
) -> Bound:
    """Returns the bound of every image, with one noise and one evaluation of the network for each level.

    Args:
      denoise: `(x, t) -> Prediction`, with its conditions filled in.
      x0: `[B, ...]` float32; a uint8 value v is v / 127.5 - 1.
      keys: `[B]` random keys, one for each image.
      variance: which variance p(x_s | x_t) has: small, large or learned; see `jaxgen.diffusion.samplers.ddpm.DDPM`.
      levels: 0 for all; else the number of evaluations: level 1 always, and one level drawn from each of levels - 1
        ranges of the others. The ranges are short near the data, where the terms are large.
      clip: whether x0 is clipped to [-1, 1] at each level, as Ho et al. do.

    Raises:
      UserError: the schedule has no discrete levels, or fewer than `levels`.
    """
    edges = _edges(schedule.steps, levels)
    starts, sizes = jnp.asarray(edges[:-1]), jnp.asarray(np.diff(edges))

    def term(row: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        index, start, size = row
        share = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 2 * index)))(keys)
        level = jnp.minimum(start + jnp.floor(share * size).astype(jnp.int32), start + size - 1)
        t = level / schedule.steps
        x = diffuse(schedule, x0, t, per_image_noise(keys, 2 * index + 1, x0.shape[1:]).astype(x0.dtype))
        now = denoise(x, t)
        now = now.clip() if clip else now
        return size * level_term(now, x0, (level - 1) / schedule.steps, variance)

    terms = jax.lax.map(term, (jnp.arange(len(starts)), starts, sizes)).T
    return Bound(terms, prior_term(schedule, x0), tuple(int(edge) for edge in edges))


def _edges(steps: int, levels: int) -> np.ndarray:
    """Returns the first levels of the ranges, and steps + 1: all ranges of one level, or widths that grow evenly."""
    if not steps:
        raise UserError("The variational bound is a sum over levels; use a discrete schedule, or log_likelihood.")
    if not (levels == 0 or 2 <= levels <= steps):
        raise UserError(f"The bound of {steps} levels is estimated from 2 to {steps} of them, not {levels}.")
    if levels in (0, steps):
        return np.arange(1, steps + 2)
    share = np.arange(levels) / (levels - 1)
    rest = np.round((steps - 1) * share**2).astype(int)
    return np.concatenate([[1], 2 + np.maximum(rest, np.arange(levels))])


@flax.struct.dataclass
class Density:
    """Holds the result of `log_likelihood`.

    Attributes:
      log_prob: `[B]` log densities in nats.
      latent: `[B, ...]` the point to which the flow takes each image; its values are close to standard normal.
    """

    log_prob: jax.Array
    latent: jax.Array


def log_likelihood(
    denoise: Denoiser,
    schedule: Schedule,
    x0: Float[Array, "B *shape"],
    keys: Key[Array, "B"] | None = None,
    steps: int = 64,
    solver: Solver = "rk4",
    probes: int = 0,
    chunk: int = 16,
    darkest: float = DARKEST,
) -> Density:
    """Returns the density of the probability-flow ODE at x0 (Song et al. 2021, Section 4.3, Eq. 39), in equal steps.

    It is the density of data blurred by the schedule's least noise, sigma / alpha at t_min. With
    `x = r (cos u x_0 + sin u epsilon)`, `r**2 = alpha**2 + sigma**2`, the flow is dz/du = v / r for z = x / r under
    every schedule; the steps are equal in log u, up to u = pi / 2 at most. All derivatives are taken in forward mode.

    Args:
      denoise: `(x, t) -> Prediction`, with its conditions filled in.
      x0: `[B, ...]` float32 images.
      keys: `[B]` random keys; only probes need them.
      steps: the number of steps; Heun evaluates the network 2 times in each, Runge-Kutta 4 times.
      solver: heun or rk4.
      probes: 0 takes the exact trace, with one tangent for each dimension. Another number draws so many Rademacher
        vectors for each image and keeps them in all steps (Hutchinson; Grathwohl et al. 2019, Section 3.1): the
        estimate is unbiased and noisy.
      chunk: how many tangents are pushed forward at a time.
      darkest: the flow ends at this log_snr, even where the schedule goes on below it, since an error of epsilon is
        exp(-darkest / 2) times as large in x0. With the prediction types x0, v, velocity or edm, -20 is more exact.

    Raises:
      UserError: probes are asked for without keys, a number is out of range, or the solver does not exist.
    """
    if solver not in get_args(Solver):
        raise UserError(f"The likelihood's solver {solver!r} is unknown; known are {', '.join(get_args(Solver))}.")
    if steps < 1 or chunk < 1 or probes < 0:
        raise UserError("The likelihood needs at least one step, a chunk of at least one, and no fewer than 0 probes.")
    if probes and keys is None:
        raise UserError("Hutchinson's estimate draws probes; give one key for each image.")
    size = x0[0].size
    table, first, last = _angles(schedule, steps, solver, darkest)
    slope = functools.partial(_slope, denoise, *_tangents(x0, keys, probes), chunk)
    step = functools.partial(_heun if solver == "heun" else _rk4, slope)
    rows = {name: jnp.asarray(value, x0.dtype) for name, value in table.items()}
    start = (math.cos(first) * x0, jnp.full(len(x0), size * math.log(math.cos(first)), x0.dtype))
    (z, gained), _ = jax.lax.scan(step, start, rows)
    # what is left at the end is noise of this standard deviation
    std = math.sin(last)
    normal = -0.5 * jnp.square(z / std) - 0.5 * math.log(2 * math.pi) - math.log(std)
    return Density(normal.reshape(len(z), -1).sum(axis=1) + gained, z / std)


def _tangents(x0: Float[Array, "B *shape"], keys: Key[Array, "B"] | None, probes: int) -> tuple[jax.Array, float]:
    """Returns `[N, B or 1, ...]` directions e, and the factor that turns the sum of e' J e into the trace of J."""
    if not probes:
        return jnp.eye(x0[0].size, dtype=x0.dtype).reshape(x0[0].size, 1, *x0.shape[1:]), 1.0
    draw = jax.vmap(lambda key: jax.random.rademacher(key, (probes, *x0.shape[1:]), x0.dtype), out_axes=1)
    return draw(keys), 1 / probes


def _slope(
    denoise: Denoiser, tangents: jax.Array, factor: float, chunk: int, z: jax.Array, t: jax.Array, norm: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns dz / du `[B, ...]` at time t and its divergence `[B]`."""

    def field(z: jax.Array) -> jax.Array:
        return denoise(norm * z, t).v / norm

    value, push = jax.linearize(field, z)

    def along(e: jax.Array) -> jax.Array:
        e = jnp.broadcast_to(e, z.shape)
        return (e * push(e)).reshape(len(z), -1).sum(axis=1)

    return value, factor * jax.lax.map(along, tangents, batch_size=min(chunk, len(tangents))).sum(axis=0)


def _heun(slope: Slope, carry: Carry, row: dict[str, jax.Array]) -> tuple[Carry, None]:
    """Takes a step of Heun's method for the state and the log-determinant that it has gained."""
    (z, gained), width, (t, norm) = carry, row["width"], (row["t"], row["norm"])
    k1, d1 = slope(z, t[0], norm[0])
    k2, d2 = slope(z + width * k1, t[1], norm[1])
    k, d = (k1 + k2) / 2, (d1 + d2) / 2
    return (z + width * k, gained + width * d), None


def _rk4(slope: Slope, carry: Carry, row: dict[str, jax.Array]) -> tuple[Carry, None]:
    """Takes the same step with the classical Runge-Kutta method."""
    (z, gained), width, (t, norm) = carry, row["width"], (row["t"], row["norm"])
    k1, d1 = slope(z, t[0], norm[0])
    k2, d2 = slope(z + width / 2 * k1, t[1], norm[1])
    k3, d3 = slope(z + width / 2 * k2, t[1], norm[1])
    k4, d4 = slope(z + width * k3, t[2], norm[2])
    k, d = (k1 + 2 * k2 + 2 * k3 + k4) / 6, (d1 + 2 * d2 + 2 * d3 + d4) / 6
    return (z + width * k, gained + width * d), None


def _angles(
    schedule: Schedule, steps: int, solver: Solver, darkest: float
) -> tuple[dict[str, np.ndarray], float, float]:
    """Returns each step's width, times and norms of (alpha, sigma) at its points, and the first and last angle."""
    ends = np.asarray([schedule.t_min, 1.0])
    if schedule.log_snr(1.0) < darkest:
        ends[1] = schedule.t_from_log_snr(darkest)
    first, last = np.arctan2(schedule.sigma(ends), schedule.alpha(ends))
    grid = np.geomspace(first, last, steps + 1)
    grid[[0, -1]] = first, last
    points = [grid[:-1], grid[1:]] if solver == "heun" else [grid[:-1], (grid[:-1] + grid[1:]) / 2, grid[1:]]
    angles = np.stack(points, axis=1)
    times = np.clip(schedule.t_from_log_snr(-2 * np.log(np.tan(angles))), ends[0], ends[1])
    times[0, 0], times[-1, -1] = ends
    norms = np.hypot(schedule.alpha(times), schedule.sigma(times))
    return {"width": np.diff(grid), "t": times, "norm": norms}, float(first), float(last)


def dequantise(images: UInt8[Array, "B *shape"], keys: Key[Array, "B"]) -> Float[Array, "B *shape"]:
    """Turns uint8 `[B, ...]` into float32, uniform over the bin of each value v, whose middle is v / 127.5 - 1."""
    offset = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 0), images.shape[1:]))(keys)
    return (images.astype(jnp.float32) + offset - 0.5) / 127.5 - 1


def bits_per_dimension(log_prob: Float[Array, "B"], size: int, bin_width: float = 1.0) -> Float[Array, "B"]:
    """Returns -log2 of a density's mass over bins of this width, for each of `size` dimensions, from nats `[B]`."""
    return -(log_prob / size + math.log(bin_width)) / LOG_2


def image_bits(
    denoise: Denoiser,
    schedule: Schedule,
    images: UInt8[Array, "B *shape"],
    keys: Key[Array, "B"],
    draws: int = 1,
    **options: Any,
) -> Float[Array, "B"]:
    """Returns `[B]` bits per dimension of uint8 images `[B, ...]`, by the flow and uniform dequantisation.

    But for the errors of the solver and of probes, the mean over `draws` is an upper bound of -log2 P(image)
    (Theis et al. 2016, Section 3.1).

    Args:
      options: options of `log_likelihood`.
    """
    if images.dtype != jnp.uint8:
        raise UserError(f"Bits per dimension are those of uint8 images, not of {images.dtype}.")

    def once(index: jax.Array) -> jax.Array:
        mine = jax.vmap(lambda key: jax.random.fold_in(key, index))(keys)
        log_prob = log_likelihood(denoise, schedule, dequantise(images, mine), mine, **options).log_prob
        return bits_per_dimension(log_prob, images[0].size, 1 / 127.5)

    return jax.lax.map(once, jnp.arange(draws)).mean(axis=0)
