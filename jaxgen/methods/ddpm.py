"""Denoising diffusion (Ho et al. 2020, Algorithms 1 and 2): one network, one turn, a scan."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.diffusion.grid import noise
from jaxgen.diffusion.loss import Weighting, denoising_loss, sample_times
from jaxgen.diffusion.prediction import Denoiser, Kind, denoiser
from jaxgen.diffusion.samplers import Sampler
from jaxgen.diffusion.schedule import Schedule
from jaxgen.methods.base import Batch, Method, Model, Params, Turn


@dataclasses.dataclass(frozen=True)
class DDPM(Method):
    """Learns to undo the noise of a schedule; samples by undoing it step by step.

    Attributes:
      network: `(x [B, H, W, C], time [B], label?) -> [B, H, W, C]`; its group is `denoiser`.
      schedule: how much noise at which time.
      sampler: how images are drawn; `config.sampler`.
      image_shape: `(H, W, C)`; from the config's data.
      num_classes: 0 for an unconditional model; from the config's data.
      prediction: what the network predicts.
      weighting: of the loss, see `jaxgen.diffusion.loss.weight`.
      frames: how many states a trajectory panel shows.
    """

    network: nn.Module
    schedule: Schedule
    sampler: Sampler
    image_shape: tuple[int, int, int]
    num_classes: int = 0
    prediction: Kind = "epsilon"
    weighting: Weighting = "simple"
    frames: int = 24

    @property
    def conditions(self) -> tuple[str, ...]:
        return ("label",) if self.num_classes else ()

    def init(self, key: jax.Array, batch: Batch, stage: int, given: Params, params: Params, memory: dict):
        image = batch["image"]
        time = jnp.zeros(image.shape[0])
        return {"denoiser": self.network.init(key, image, time, **self._condition(batch))["params"]}, {}

    def turns(self, stage: int) -> tuple[Turn, ...]:
        return (Turn("denoise", ("denoiser",), self.loss),)

    def loss(self, params: Params, batch: Batch, key: jax.Array, state: Any):
        of_time, of_noise, dropout = jax.random.split(key, 3)
        image = batch["image"]
        times = sample_times(of_time, image.shape[0], self.schedule)
        denoise = self.denoiser(params, train=True, rngs={"dropout": dropout})
        losses = self._losses(denoise, batch, times, jax.random.normal(of_noise, image.shape))
        return losses.mean(), ({}, {})

    def sample(self, model: Model, keys: jax.Array, batch: Batch) -> jax.Array:
        return self._sample(model, keys, batch)

    def panels(self, model: Model, keys: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        frames = min(self.frames, self.sampler.steps)
        start = noise(keys, 0, self.image_shape)[None]
        return {"trajectory": jnp.concatenate([start, self._sample(model, keys, batch, frames)[1]])}

    def scores(self, model: Model, keys: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        times = jax.vmap(lambda key: sample_times(jax.random.fold_in(key, 0), 1, self.schedule)[0])(keys)
        noises = noise(keys, 1, batch["image"].shape[1:])
        return {"denoising_loss": self._losses(self.denoiser(model.params), batch, times, noises)}

    def denoiser(self, params: Params, **options: Any) -> Denoiser:
        """The network as a denoiser `(x, t, label?) -> Prediction`; options go to it (`train`, `rngs`)."""
        apply = functools.partial(self.network.apply, {"params": params["denoiser"]}, **options)
        return denoiser(self.schedule, self.prediction, apply)

    def _losses(self, denoise: Denoiser, batch: Batch, times: jax.Array, noises: jax.Array) -> jax.Array:
        condition = self._condition(batch)
        return denoising_loss(
            denoise, self.schedule, batch["image"], times, noises, self.prediction, self.weighting, **condition
        )

    def _sample(self, model: Model, keys: jax.Array, batch: Batch, frames: int = 0):
        denoise, condition = self.denoiser(model.params), self._condition(batch)
        start = noise(keys, 0, self.image_shape)
        return self.sampler(lambda x, t: denoise(x, t, **condition), self.schedule, start, keys, frames)

    def _condition(self, batch: Batch) -> Batch:
        return {name: batch[name] for name in self.conditions}
