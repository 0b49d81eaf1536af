"""Holds a classifier p(y | x_t) of noisy images, for classifier guidance (Dhariwal & Nichol 2021, Section 4.1)."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Key

from jaxgen.arrays import Array, Batch, Memory, Params
from jaxgen.diffusion.noise import per_image_noise
from jaxgen.diffusion.process import append_dims, diffuse
from jaxgen.diffusion.schedules import Schedule
from jaxgen.diffusion.timesteps import uniform_timesteps
from jaxgen.methods.base import LossResult, LossState, Method, Model, Turn
from jaxgen.networks.layers.calls import check_outputs
from jaxgen.networks.layers.stateless import apply_params, init_params

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)  # the times at which `scores` reports the accuracy


@dataclasses.dataclass(frozen=True)
class NoisyClassifier(Method):
    """It has one turn and one group, `classifier`; it has no sampler.

    Its scores are `accuracy` and `cross_entropy` over uniform times, and `accuracy_by_time@t` at five of them.

    Guide a DDPM of the same schedule with it: `config.guidance` of the name `classifier` with this network, and
    `config.init_from.classifier` the work folder of this run.

    Attributes:
      network: `(x_t [B, H, W, C], time [B]) -> (logits [B, num_classes], features [B, D])`.
      schedule: the schedule of the model that is guided.
      num_classes: the number of classes in the config's data.
      label_smoothing: share of the target that all classes get in equal parts.
    """

    network: nn.Module
    schedule: Schedule
    num_classes: int
    label_smoothing: float = 0.0

    def init(
        self, key: Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        image = batch["image"]
        learned = init_params(self.network, key, image, jnp.zeros(image.shape[0]))
        outputs = jax.eval_shape(self.network.apply, {"params": learned}, image, jnp.zeros(image.shape[0]))
        check_outputs(self.network, outputs, 2)
        return {"classifier": learned}, {}

    def turns(self, stage: int) -> tuple[Turn, ...]:
        return (Turn("classify", ("classifier",), self.loss),)

    def loss(self, params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
        of_time, of_noise, dropout = jax.random.split(key, 3)
        image, label = batch["image"], batch["label"]
        t = uniform_timesteps(of_time, image.shape[0], self.schedule)
        x = diffuse(self.schedule, image, t, jax.random.normal(of_noise, image.shape))
        logits = self.logits(params, x, t, train=True, rngs={"dropout": dropout})
        targets = optax.smooth_labels(jax.nn.one_hot(label, self.num_classes), self.label_smoothing)
        accuracy = (logits.argmax(axis=1) == label).mean()
        return optax.softmax_cross_entropy(logits, targets).mean(), ({"accuracy": accuracy}, {})

    def scores(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "B ..."]]:
        image, label = batch["image"], batch["label"]
        z = per_image_noise(keys, 1, image.shape[1:])

        def right(t: Array) -> tuple[Array, Array]:
            logits = self.logits(model.params, diffuse(self.schedule, image, t, z), t)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, label)
            return jnp.asarray(logits.argmax(axis=1) == label, jnp.float32), loss

        t = jax.vmap(lambda key: uniform_timesteps(jax.random.fold_in(key, 0), 1, self.schedule)[0])(keys)
        accuracy, loss = right(t)
        levels = np.asarray(self.schedule.snap_to_levels(np.asarray(LEVELS)), np.float32)
        by_level, _ = jax.lax.map(lambda t: right(jnp.full(image.shape[0], t)), levels)
        found = {f"accuracy_by_time@{t}": by_level[i] for i, t in enumerate(LEVELS)}
        return {"accuracy": accuracy, "cross_entropy": loss, **found}

    def logits(
        self, params: Params, x: Float[Array, "B H W C"], t: Float[Array, " B"], **options: Any
    ) -> Float[Array, "B num_classes"]:
        """Returns `[B, num_classes]` logits of p(y | x_t) at `[B]` times; the network takes the options."""
        scaled = append_dims(self.schedule.input_scale(t), x) * x
        time = self.schedule.conditioning(t)
        return apply_params(self.network, params["classifier"], scaled, time, **options)[0]
