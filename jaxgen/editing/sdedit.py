"""SDEdit (Meng et al. 2022): noise an image to time t0, denoise it from there.

A small t0 keeps the input, a large one keeps the model's idea of an image: a stroke drawing becomes a picture
somewhere between. A mask leaves the rest of the image as it is.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.diffusion.noise import per_image_noise
from jaxgen.diffusion.prediction import Denoiser, Prediction
from jaxgen.diffusion.process import append_dims
from jaxgen.diffusion.samplers.base import Sampler
from jaxgen.diffusion.schedules import Schedule
from jaxgen.diffusion.spacing import time_grid
from jaxgen.errors import UserError


def sdedit(
    denoise: Denoiser,
    schedule: Schedule,
    sampler: Sampler,
    images: jax.Array,
    keys: jax.Array,
    strength: float = 0.5,
    mask: jax.Array | None = None,
    repeats: int = 1,
) -> jax.Array:
    """`[B, ...]` edited images (Meng et al. 2022, Algorithms 1 and 2).

    Args:
      images: `[B, ...]` in [-1, 1], the guide. sampler: any; its grid is cut at `strength`.
      strength: the paper's t0, in [0, 1]: 0 gives the guide back, 1 a fresh sample.
      mask: broadcasts against images: 1 where the image may change, 0 where it is kept; see `hold`.
      repeats: how often the whole is done, on its own result (the paper's K).

    Raises:
      UserError: for a strength outside [0, 1] or no repeats.
    """
    if repeats < 1:
        raise UserError(f"SDEdit is done at least once, not {repeats} times.")
    times = times_from(sampler, schedule, strength)
    if len(times) < 2:
        return images
    edited = images
    for repeat in range(repeats):
        own = jax.vmap(lambda key, number=repeat: jax.random.fold_in(key, number))(keys)
        start = at_level(schedule, edited, times[0], per_image_noise(own, 0, images.shape[1:]))
        step = denoise if mask is None else hold(denoise, schedule, images, mask, own)
        edited = sampler(step, schedule, start, own, times=times)
        if mask is not None:
            edited = mask * edited + (1 - mask) * images
    return edited


def times_from(sampler: Sampler, schedule: Schedule, t0: float) -> np.ndarray:
    """The part of the sampler's grid below t0, begun at t0 itself, or at the noise level nearest to it.

    Raises:
      UserError: for a t0 outside [0, 1].
    """
    if not 0 <= t0 <= 1:
        raise UserError(f"The strength of an edit lies in [0, 1], not {t0}.")
    start = float(schedule.snap_to_levels(np.asarray([t0]))[0])
    whole = time_grid(sampler.spacing, sampler.steps, schedule)
    return np.append(start, whole[whole < start - 1e-9])


def at_level(schedule: Schedule, images: jax.Array, t: Any, z: jax.Array) -> jax.Array:
    """A draw of q(x_t | x_0 = images) from standard normals z: alpha(t) images + sigma(t) z."""
    t = jnp.asarray(t, images.dtype)
    return append_dims(schedule.alpha(t), images) * images + append_dims(schedule.sigma(t), images) * z


def hold(denoise: Denoiser, schedule: Schedule, images: jax.Array, mask: jax.Array, keys: jax.Array) -> Denoiser:
    """A denoiser that sees the known part of images in place of its own wherever `mask` is 0.

    The known part is noised afresh to time t at each evaluation at time t, the level of the rest: a scheme that
    noises it once a step, after the step, must take care not to be a step behind. What a solver does to its own
    known part does not matter: the network never sees it, and the caller pastes the image at the end. Works with
    any solver, of any number of evaluations a step.

    Args:
      images: `[B, ...]`. mask: broadcasts against them, 1 where the model may draw. keys: `[B]`.
    """

    def held(x: jax.Array, t: jax.Array) -> Prediction:
        time = jnp.asarray(t, jnp.float32).reshape(-1)[0]
        # the bits of t number its noise: no two times share one, and samplers' own numbers are far smaller
        number = jax.lax.bitcast_convert_type(time, jnp.uint32)
        known = at_level(schedule, images, t, per_image_noise(keys, number, images.shape[1:]).astype(x.dtype))
        return denoise(mask * x + (1 - mask) * known, t)

    return held
