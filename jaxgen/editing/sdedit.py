"""SDEdit (Meng et al. 2022) noises an image to a time t0 and denoises it from there.

A small t0 keeps the input, a large one gives a sample of the model; a value between turns a stroke drawing into a
picture. Where there is a mask, the rest of the image stays as it is.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Key

from jaxgen.arrays import Array
from jaxgen.diffusion.noise import per_image_noise
from jaxgen.diffusion.prediction import Prediction
from jaxgen.diffusion.process import diffuse
from jaxgen.diffusion.samplers.ode import ODE
from jaxgen.editing.model import DiffusionModel
from jaxgen.errors import UserError


def sdedit(
    model: DiffusionModel,
    images: Float[Array, "B *shape"],
    keys: Key[Array, "B"],
    strength: float = 0.5,
    mask: Float[Array, "..."] | None = None,
    repeats: int = 1,
) -> Float[Array, "B *shape"]:
    """Returns `[B, ...]` edited images (Meng et al. 2022, Algorithms 1 and 2).

    Args:
      model: a model with any sampler, whose times are cut at `strength`.
      images: `[B, ...]` in [-1, 1], the guide.
      keys: `[B]` random keys, one for each image.
      strength: the paper's t0, in [0, 1]: 0 gives the guide back, 1 a fresh sample.
      mask: broadcasts against images: 1 where the image may change, 0 where it is kept; see `hold`.
      repeats: how often the edit is done, each time on the result before (the paper's K).

    Raises:
      UserError: the strength is outside [0, 1], or there are no repeats.
    """
    if repeats < 1:
        raise UserError(f"SDEdit is done at least once, not {repeats} times.")
    times = times_from(model, strength)
    if len(times) < 2:
        return images
    edited = images
    for repeat in range(repeats):
        own = jax.vmap(lambda key, number=repeat: jax.random.fold_in(key, number))(keys)
        start = diffuse(model.schedule, edited, _as(times[0], images), per_image_noise(own, 0, images.shape[1:]))
        held = model if mask is None else hold(model, images, mask, own)
        edited = held.draw(start, own, times)
        if mask is not None:
            edited = mask * edited + (1 - mask) * images
    return edited


def times_from(model: DiffusionModel, t0: float) -> Float[np.ndarray, "N"]:
    """Returns t0, moved to the nearest noise level, followed by the sampler's times below it.

    Raises:
      UserError: t0 is outside [0, 1].
    """
    if not 0 <= t0 <= 1:
        raise UserError(f"The strength of an edit must be in [0, 1], not {t0}.")
    start = float(model.schedule.snap_to_levels(np.asarray([t0]))[0])
    times = model.times
    return np.append(start, times[times < start - 1e-9])


def hold(
    model: DiffusionModel,
    images: Float[Array, "B *shape"],
    mask: Float[Array, "..."],
    keys: Key[Array, "B"],
    noise: Float[Array, "B *shape"] | None = None,
) -> DiffusionModel:
    """Returns the model whose denoiser sees the known part of images in place of its own where `mask` is 0.

    The known part is noised to time t at each evaluation at time t, the level of the rest. What a solver
    does to its own known part does not matter: the network never sees it, and the caller pastes the image at the end.
    This works with any solver, with any number of evaluations a step; `ode` has the same noise at all times.

    Args:
      images: `[B, ...]` the images whose part is kept.
      mask: broadcasts against images: 1 where the model may draw.
      keys: `[B]` random keys, one for each image.
      noise: `[B, ...]` the noise of the known part at all times; None draws it from the keys, anew for each time.
    """

    def held(x: jax.Array, t: jax.Array) -> Prediction:
        number: jax.Array | int = 0  # a solver with its own steps needs a smooth path, which one noise gives
        if not isinstance(model.sampler, ODE):
            time = jnp.asarray(t, jnp.float32).reshape(-1)[0]
            # the bits of t number its noise: no two times share one, and samplers' own numbers are far smaller
            number = jax.lax.bitcast_convert_type(time, jnp.uint32)
        own = per_image_noise(keys, number, images.shape[1:]) if noise is None else noise
        known = diffuse(model.schedule, images, _as(t, images), own.astype(x.dtype))
        return model.denoise(mask * x + (1 - mask) * known, t)

    return dataclasses.replace(model, denoise=held)


def _as(t: jax.Array | float, images: jax.Array) -> jax.Array:
    """Returns the time in the images' dtype."""
    return jnp.asarray(t, images.dtype)
