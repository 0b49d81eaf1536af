"""Branching follows one trajectory down to time t, and many from there.

How much they differ shows where the noise matters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Key

from jaxgen.arrays import Array
from jaxgen.editing.model import DiffusionModel
from jaxgen.errors import UserError

Features = Callable[[Float[Array, "B *shape"]], Float[Array, "B D"]]


class Branching(NamedTuple):
    """Holds the result of `branching`.

    Attributes:
      times: `[T]` times of the sampler at which the trajectories part.
      images: `[T, branches, B, ...]`.
      diversity: `[T, B]` variance over the branches, see `diversity`.
    """

    times: np.ndarray
    images: jax.Array
    diversity: jax.Array


def branch(
    model: DiffusionModel,
    x: Float[Array, "B *shape"],
    keys: Key[Array, "B"],
    t: float,
    branches: int = 8,
) -> Float[Array, "branches B *shape"]:
    """Returns `[branches, B, ...]` images that share their trajectory down to time t and draw their own noise below.

    At t = 1 only the starting noise is shared; at t = 0 all branches are one image. A deterministic sampler, such as
    DDIM with eta = 0, gives one image at any t.

    Args:
      x: `[B, ...]` starting noise, `model.start`.
      keys: `[B]`; the shared part draws from these, branch j from fold_in(key, j).
      t: moved onto the nearest of the sampler's times.

    Raises:
      UserError: for a t outside [0, 1] or no branches.
    """
    if branches < 1:
        raise UserError(f"A trajectory parts into at least one branch, not {branches}.")
    shared, own = _parts(model, t)
    if len(shared) > 1:
        x = model.draw(x, keys, shared)
    return _fork(model, x, keys, own, branches)


def branching(
    model: DiffusionModel,
    x: Float[Array, "B *shape"],
    keys: Key[Array, "B"],
    times: Sequence[float] = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0),
    branches: int = 8,
    features: Features | None = None,
) -> Branching:
    """Calls `branch` at several times, computing the shared trajectory once, and measures the diversity at each time.

    Args:
      times: decreasing times in [0, 1].
      features: see `diversity`. The other arguments are those of `branch`.
    """
    at = np.asarray(times, np.float64)
    if (np.diff(at) >= 0).any():
        raise UserError("Branching times must decrease: the shared trajectory is walked once, from noise to data.")
    parted, images, begun = [], [], 0
    for t in at:
        shared, own = _parts(model, t)
        if len(shared) - 1 > begun:
            between = jax.vmap(lambda key, here=begun: jax.random.fold_in(key, here))(keys)
            x = model.draw(x, between, shared[begun:])
            begun = len(shared) - 1
        parted.append(own[0])
        images.append(_fork(model, x, keys, own, branches))
    stacked = jnp.stack(images)
    return Branching(np.asarray(parted), stacked, jnp.stack([diversity(i, features) for i in stacked]))


def diversity(images: Float[Array, "branches B *shape"], features: Features | None = None) -> Float[Array, "B"]:
    """Returns `[B]` unbiased variances over the branches of `[branches, B, ...]`, the mean over pixels or features.

    Args:
      features: `[B, ...]` images to `[B, D]`; the pixels themselves where None.
    """
    if len(images) < 2:
        raise UserError("Diversity needs at least two branches.")
    values = images if features is None else jnp.stack([features(branch) for branch in images])
    return jnp.var(values.reshape(*values.shape[:2], -1), axis=0, ddof=1).mean(axis=1)


def _parts(model: DiffusionModel, t: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the sampler's times down to the one nearest to t, and those from there."""
    if not 0 <= t <= 1:
        raise UserError(f"A branching time must be in [0, 1], not {t}.")
    times = model.times
    cut = int(np.abs(times - t).argmin())
    return times[: cut + 1], times[cut:]


def _fork(model: DiffusionModel, x: jax.Array, keys: Key[Array, "B"], own: np.ndarray, count: int) -> jax.Array:
    """Returns `[count, B, ...]` branches from x along the times `own`."""
    if len(own) < 2:
        return jnp.repeat(x[None], count, axis=0)

    def one(j: jax.Array) -> jax.Array:
        # far from the numbers that the trunk's parts fold in
        apart = jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, 2**31), j))(keys)
        return model.draw(x, apart, own)

    return jax.lax.map(one, jnp.arange(count, dtype=jnp.uint32))
