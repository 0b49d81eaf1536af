"""Lets any diffusion method begin its samples with given pictures (SDEdit, Meng et al. 2022) and keep a part of them.

`Edited` is a method around a method: its batches also have the pictures, `edit_image`, and where there is one the mask,
`edit_mask`. For latents, pictures are encoded first, the network holds what the mask keeps in latents, and the kept
pixels are pasted at the end, so that they are exact. Where a batch has `noise`, edits begin with it, and what a mask
keeps has this noise at every time.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Key

from jaxgen.arrays import Array, Batch
from jaxgen.diffusion.noise import per_image_noise
from jaxgen.diffusion.prediction import Denoiser
from jaxgen.diffusion.process import diffuse
from jaxgen.diffusion.samplers.base import Sampler
from jaxgen.diffusion.samplers.ode import ODE
from jaxgen.diffusion.schedules import Schedule
from jaxgen.diffusion.spacing import time_grid
from jaxgen.editing.model import DiffusionModel
from jaxgen.editing.sdedit import hold
from jaxgen.errors import UserError
from jaxgen.methods.base import Method, Model
from jaxgen.methods.tuned import Tuned
from jaxgen.sampling.inputs import Inputs, read_inputs
from jaxgen.sampling.restore import TrainedModel
from jaxgen.sampling.slots import BEGUN, FREE, Files, begun_slots, draws_whole, matched, slots_of, with_legend

log = logging.getLogger("jaxgen")
STRENGTH = 0.6  # of an edit without a mask


@runtime_checkable
class Editable(Protocol):
    """Holds what an edit reads of a method: `DDPM` and what is derived from it have it, and `StableDiffusion`."""

    image_shape: tuple[int, int, int]

    @property
    def sampler(self) -> Sampler: ...

    def walk(self) -> tuple[Schedule, np.ndarray | None]: ...

    def guided(self, model: Model, batch: Batch, keys: Key[Array, " B"] | None = None) -> Denoiser: ...

    def diffused(self, model: Model, batch: Batch) -> jax.Array: ...

    def decode(self, model: Model, z: jax.Array) -> jax.Array: ...


@dataclasses.dataclass(frozen=True)
class Edited(Method):
    """Samples as a diffusion method does, from pictures that are noised to an earlier time; it does not train.

    Attributes:
      method: a method that is `Editable`, or such a one with grafts.
      strength: the share of the sampler's times that is passed through: 0 gives the pictures back, and 1 begins at
        noise alone, as plain sampling. Where the times are even, it is SDEdit's t0.
      masked: whether batches have a mask.
    """

    method: Method
    strength: float
    masked: bool = False

    def __post_init__(self) -> None:
        if editable(self.method) is None:
            name = type(self.method).__name__
            raise UserError(f"{name} is no diffusion model, so that it cannot begin with a picture.")

    @property
    def conditions(self) -> tuple[str, ...]:
        return (*self.method.conditions, BEGUN, *([FREE] if self.masked else []))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self._diffusion.image_shape

    @property
    def sampler(self) -> Sampler:
        return self._diffusion.sampler

    @property
    def limits(self) -> Mapping[str, int]:
        return self.method.limits

    @property
    def _diffusion(self) -> Editable:
        found = editable(self.method)
        assert found is not None  # by __post_init__
        return found

    def times(self) -> Float[np.ndarray, "N"]:
        """Returns the sampler's times from the one that `strength` says, decreasing to 0; one time at strength 0.

        A strength between two of them begins at the schedule's level that is nearest to that share of the way.
        """
        schedule, times = self._diffusion.walk()
        if isinstance(self.sampler, ODE):  # it chooses its own times between the first and the last
            times = np.array([1.0, 0.0])
        elif times is None:
            times = time_grid(self.sampler.spacing, self.sampler.steps, schedule)
        place = (1 - self.strength) * (len(times) - 1)
        if abs(place - round(place)) < 1e-6:
            return times[round(place) :]
        start = schedule.snap_to_levels(np.interp([place], np.arange(len(times)), times))
        return np.append(start, times[times < start - 1e-9])

    def sample(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> Float[Array, "B H W C"]:
        images, times, method = batch[BEGUN], self.times(), self._diffusion
        if len(times) < 2:
            return images
        if isinstance(self.method, Tuned):
            model = dataclasses.replace(model, params=self.method.on(model.params))
        z = method.diffused(model, {"image": images})
        noise = batch["noise"] if "noise" in batch else per_image_noise(keys, 0, z.shape[1:])
        schedule, _ = method.walk()
        start = schedule.prior_std * noise
        if self.strength < 1:
            start = diffuse(schedule, z, jnp.asarray(times[0], z.dtype), noise)
        diffusion = DiffusionModel(method.guided(model, batch, keys), schedule, method.sampler)
        if not self.masked:
            return method.decode(model, diffusion.draw(start, keys, times))
        free = batch[FREE]
        cells = in_cells(free, (z.shape[1], z.shape[2]))[..., None].astype(z.dtype)
        drawn = hold(diffusion, z, cells, keys, batch.get("noise")).draw(start, keys, times)
        drawn = jnp.where(cells == 1, drawn, z)  # the decoder sees the kept part beside what is drawn
        return jnp.where(free[..., None] == 1, method.decode(model, drawn), images)


def in_cells(mask: Int[Array, "B H W"], shape: tuple[int, int]) -> Int[Array, "B h w"]:
    """Returns a mask of latents: a cell may change where any of its pixels may."""
    count, height, width = mask.shape
    rows, columns = shape
    return mask.reshape(count, rows, height // rows, columns, width // columns).max(axis=(2, 4))


def editable(method: Method) -> Editable | None:
    """Returns the diffusion method in a method, without its grafts' place for parameters; None if it is none."""
    inner = method.method if isinstance(method, Tuned) else method
    return inner if isinstance(inner, Editable) and inner.gives == "image" else None


def given_pictures(
    trained: TrainedModel, asked: Files, strength: float | None, num: int, legend: str = ""
) -> tuple[TrainedModel, Inputs]:
    """Returns a model that reads a user's pictures, or begins with them, and the pictures.

    Args:
      trained: the model; its conditions that are not given stay as they are.
      asked: `{entry: files}`, where "image", "mask" and "" have the meaning that `matched` says.
      strength: the share of the pictures that may change; None for 1 with a mask, and else `STRENGTH`.
      num: how many images are drawn.
      legend: a file that says which colour of a painted layout is which class.

    Raises:
      UserError: the model has no use for a picture, for the strength or for the legend, or a file cannot be read.
    """
    generator = trained.generator
    diffusion, slots = editable(generator.method), slots_of(trained)
    begun = begun_slots(diffusion.image_shape) if diffusion is not None else {}
    others = [name for name in generator.method.conditions if name not in slots]
    found = with_legend(matched(asked, slots, begun, others), legend)
    entries = {slot.entry for slot in found.values()}
    if strength is not None and BEGUN not in entries:
        raise UserError(f"--strength was given, but this model reads the image as its {min(entries)}; leave it out.")
    whole = draws_whole(generator, entries)
    inputs, method = read_inputs(asked, found, num), generator.method
    if whole:
        pictures = inputs.rows["condition"]
        inputs = dataclasses.replace(inputs, rows={**inputs.rows, "mask": np.ones(pictures.shape[:3], np.int32)})
        log.info("no --mask: the whole image is drawn")
    if BEGUN in entries:
        masked = FREE in entries
        method = Edited(method, (1.0 if masked else STRENGTH) if strength is None else strength, masked)
        log.info("strength %g: %d of the sampler's times", method.strength, max(len(method.times()) - 1, 0))
    if "tokens" in others and "tokens" not in generator.given:
        log.info("no --prompt: the texts are those of held-out data")
    return dataclasses.replace(trained, generator=generator.changed(method, inputs.rows)), inputs
