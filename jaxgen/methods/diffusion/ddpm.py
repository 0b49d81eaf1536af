"""Holds denoising diffusion (Ho et al. 2020, Algorithms 1 and 2): one network, one turn, a scan."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Key

from jaxgen.arrays import Array, Batch, Memory, Params, Tree
from jaxgen.diffusion.guidance import ClassifierLogits, Guidance, GuidanceInputs
from jaxgen.diffusion.loss import denoising_loss, hybrid_loss
from jaxgen.diffusion.noise import per_image_noise
from jaxgen.diffusion.prediction import Denoiser, check_prediction_type, denoiser
from jaxgen.diffusion.prediction_types import Epsilon, PredictionType
from jaxgen.diffusion.process import append_dims, diffuse
from jaxgen.diffusion.samplers.base import Sampler
from jaxgen.diffusion.schedules import Schedule
from jaxgen.diffusion.timesteps import TimestepSampler, Uniform, uniform_timesteps
from jaxgen.diffusion.weighting import Simple, Weighting
from jaxgen.errors import UserError
from jaxgen.methods.base import LossResult, LossState, Method, Model, Turn
from jaxgen.networks.layers.convolution import gradients_in_loops
from jaxgen.networks.layers.stateless import apply_params, init_params

# The times at which `scores` reports the loss, so that a report can show it over the noise level
PROFILE = tuple(float(x) for x in np.round(np.arange(0.05, 1.0, 0.1), 2))


@dataclasses.dataclass(frozen=True)
class DDPM(Method):
    """Learns to undo the noise of a schedule; samples by undoing it step by step.

    Schedule, prediction type, weighting, timesteps, sampler and guidance are independent choices. The schedule `edm`
    with the prediction type `edm` is the method of Karras et al. (2022), and `rectified_flow` with `velocity` that of
    Liu et al. (2022).

    Attributes:
      network: `(x [B, H, W, C], time [B], label?) -> [B, H, W, C]`; its group is `denoiser`. It sees labels where
        it has a `num_classes` above 0, which the config's data fill in.
      schedule: how much noise at which time.
      sampler: how images are drawn; `config.sampler`.
      image_shape: `(H, W, C)`; from the config's data.
      num_classes: the number of classes of the data; 0 where they have none.
      prediction_type: what the network predicts.
      weighting: what an error costs at each noise level, see `jaxgen.diffusion.weighting`.
      timesteps: how the times t in [0, 1] at which the network is trained are drawn, see `jaxgen.diffusion.timesteps`.
      label_dropout: share of training examples whose label, or other condition of a subclass, is replaced by the null
        class, for classifier-free guidance (Ho & Salimans 2022, Algorithm 1).
      knows_null: the network was taught the null condition before, so that classifier-free guidance needs no
        `label_dropout`, as in the fine-tuning of a pretrained network.
      learned_variance: the network has twice the images' channels and learns the reverse variance too (Nichol &
        Dhariwal 2021), by `vlb_weight` times the variational bound; for uint8 images, not for latents.
      guidance: how sampling is steered; `config.guidance`, which brings the networks of others with it.
      frames: how many states a trajectory panel shows.
    """

    network: nn.Module
    schedule: Schedule
    sampler: Sampler
    image_shape: tuple[int, int, int]
    num_classes: int = 0
    prediction_type: PredictionType = Epsilon()
    weighting: Weighting = Simple()
    timesteps: TimestepSampler = Uniform()
    label_dropout: float = 0.0
    knows_null: bool = False
    learned_variance: bool = False
    vlb_weight: float = 1e-3
    guidance: Guidance | None = None
    frames: int = 24

    def __post_init__(self) -> None:
        check_prediction_type(self.schedule, self.prediction_type)
        if not 0 <= self.label_dropout < 1:
            raise UserError(f"config.method.label_dropout is {self.label_dropout}; it is a share below 1.")
        if self.label_dropout and not self.conditional:
            raise UserError("config.method.label_dropout needs labels: set config.data.num_classes.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Returns `(H, W, C)` of what is diffused: images here."""
        return self.image_shape

    @property
    def labelled(self) -> bool:
        """Returns whether the network sees labels."""
        return getattr(self.network, "num_classes", 0) > 0

    @property
    def conditional(self) -> bool:
        """Returns whether the network sees any condition."""
        return self.labelled

    @property
    def required_groups(self) -> tuple[str, ...]:
        return self.guidance.required_groups if self.guidance else ()

    @property
    def conditions(self) -> tuple[str, ...]:
        return ("label",) if self.labelled or "classifier" in self.required_groups else ()

    @property
    def ignored(self) -> Mapping[str, str]:
        if self.guidance is None:
            return {}
        read = {"label"} if "label" in self.guidance.reads else set()
        if "condition" in self.guidance.reads:
            read |= {name for name in self.conditions if name != "label" or self.labelled}
        return {name: self.guidance.unread for name in self.conditions if name not in read}

    def init(
        self, key: Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        image = batch["image"]
        time = jnp.zeros(image.shape[0])
        learned = {"denoiser": init_params(self.network, key, image, time, **self.condition(given, batch))}
        return learned, {"timesteps": self.timesteps.init(self.schedule)} if self.timesteps.carries else {}

    def turns(self, stage: int) -> tuple[Turn, ...]:
        return (Turn("denoise", ("denoiser",), self.loss),)

    def loss(self, params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
        of_time, of_noise, dropout, of_label = jax.random.split(key, 4)
        image = batch["image"]
        memory = state.memory["timesteps"] if self.timesteps.carries else {}
        t, weights = self.timesteps.sample(of_time, image.shape[0], self.schedule, memory)
        if self.label_dropout:
            dropped = jax.random.bernoulli(of_label, self.label_dropout, image.shape[:1])
            null = self._null(batch)
            batch = {**batch, **{n: jnp.where(append_dims(dropped, x), x, batch[n]) for n, x in null.items()}}
        condition = self.condition(params, batch)
        denoise = self.denoiser(params, train=True, rngs={"dropout": dropout})
        losses = self._losses(denoise, image, condition, t, jax.random.normal(of_noise, image.shape))
        memory = (
            {"timesteps": self.timesteps.update(memory, t, losses, self.schedule)} if self.timesteps.carries else {}
        )
        return (weights * losses).mean(), ({}, memory)

    def sample(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> Float[Array, "B H W C"]:
        schedule, times = self.walk()
        return self.sampler(self.guided(model, batch), schedule, self._start(keys, batch), keys, times=times)

    def panels(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "*F N H W C"]]:
        frames = min(self.frames, self.sampler.steps)
        start = per_image_noise(keys, 0, self.shape)[None]
        schedule, times = self.walk()
        _, found = self.sampler.trajectory(
            self.guided(model, batch), schedule, self._start(keys, batch), keys, frames, times
        )
        return {"trajectory": jnp.concatenate([start, found])}

    def scores(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "B ..."]]:
        """Returns `denoising_loss`, as in training, and the squared error of epsilon at each time of `PROFILE`."""
        image, denoise = batch["image"], self.denoiser(model.params)
        condition = self.condition(model.params, batch)
        t = jax.vmap(lambda key: uniform_timesteps(jax.random.fold_in(key, 0), 1, self.schedule)[0])(keys)
        noises = per_image_noise(keys, 1, image.shape[1:])
        found = {"denoising_loss": self._losses(denoise, image, condition, t, noises)}

        def error(time: Array) -> Array:
            t = jnp.full(image.shape[0], time)
            now = denoise(diffuse(self.schedule, image, t, noises), t, **condition)
            return jnp.square(now.epsilon - noises).reshape(image.shape[0], -1).mean(axis=1)

        errors = jax.lax.map(error, jnp.asarray(self.schedule.snap_to_levels(np.asarray(PROFILE)), jnp.float32))
        return found | {f"denoising_loss_by_time@{t}": errors[i] for i, t in enumerate(PROFILE)}

    def denoiser(
        self,
        params: Params,
        group: str = "denoiser",
        network: nn.Module | None = None,
        schedule: Schedule | None = None,
        **options: Any,
    ) -> Denoiser:
        """Returns the network, or another, as a denoiser `(x, t, label?) -> Prediction`, under the method's schedule or
        another; options go to the network (`train`, `rngs`).
        """
        apply = functools.partial(apply_params, network or self.network, params[group], **options)
        return denoiser(schedule or self.schedule, self.prediction_type, apply, self.learned_variance)

    def condition(self, params: Params, batch: Batch) -> Batch:
        """Returns the network's keyword arguments other than (x, t), from a batch with the entries `conditions`."""
        return {"label": batch["label"]} if self.labelled else {}

    def diffused(self, model: Model, batch: Batch) -> Float[Array, "B h w D"]:
        """Returns what is diffused of a batch: its images here, their latents in a method of latents."""
        return batch["image"]

    def decode(self, model: Model, z: Float[Array, "B h w D"]) -> Float[Array, "B H W C"]:
        """Returns the images, in [-1, 1], of what was diffused."""
        return z

    def walk(self) -> tuple[Schedule, np.ndarray | None]:
        """Returns the schedule to sample with, and the sampler's times; None for those of the sampler's own spacing."""
        return self.schedule, None

    def guided(self, model: Model, batch: Batch) -> Denoiser:
        """Returns the denoiser of samplers: `(x, t) -> Prediction` for a batch's conditions, steered by `guidance`."""
        schedule, _ = self.walk()
        denoise, condition = self.denoiser(model.params, schedule=schedule), self.condition(model.params, batch)
        if self.guidance is None:
            return lambda x, t: denoise(x, t, **condition)
        if "classifier" in self.required_groups:  # gradients inside the sampler's scan
            denoise = gradients_in_loops()(denoise)
        knows = self.knows_null or self.label_dropout > 0
        null = self.condition(model.params, {**batch, **self._null(batch)}) if knows else None
        others: dict[str, Any] = {}
        if "weak" in self.required_groups:
            others["weak"] = self.denoiser(model.params, "weak", self.guidance.weak, schedule)
        if "classifier" in self.required_groups:
            others["classifier"] = self._classifier(model.params["classifier"])
        return self.guidance(GuidanceInputs(denoise, condition, null, label=batch.get("label"), **others))

    def _losses(self, denoise: Denoiser, image: Array, condition: Batch, t: Array, noises: Array) -> Array:
        schedule, weighting = self.schedule, self.weighting
        if self.learned_variance:
            return hybrid_loss(denoise, schedule, image, t, noises, weighting, self.vlb_weight, **condition)
        return denoising_loss(denoise, schedule, image, t, noises, weighting, **condition)

    def _start(self, keys: Array, batch: Batch) -> Array:
        """Returns the noise at the first time, one image for each key; that of the entry `noise` where it is given."""
        start = batch["noise"].astype(jnp.float32) if "noise" in batch else per_image_noise(keys, 0, self.shape)
        return self.walk()[0].prior_std * start

    def _null(self, batch: Batch) -> Batch:
        """Returns entries for the batch that stand for no condition."""
        return {"label": jnp.full_like(batch["label"], self.num_classes)} if self.labelled else {}

    def _classifier(self, params: Tree) -> ClassifierLogits:
        """Returns the guidance's network: of noisy images and times if it `sees_time`, else of clean images."""
        network = None if self.guidance is None else self.guidance.classifier
        if network is None:
            raise UserError("config.guidance.network is missing: the network of the classifier.")

        def logits(x: Array, t: Array) -> Array:
            inputs: tuple[Array, ...] = (x,)
            if getattr(network, "sees_time", False):
                t = jnp.broadcast_to(jnp.asarray(t), x.shape[:1])
                inputs = append_dims(self.schedule.input_scale(t), x) * x, self.schedule.conditioning(t)
            with gradients_in_loops():
                found = apply_params(network, params, *inputs)
            return found[0] if isinstance(found, tuple) else found

        return logits
