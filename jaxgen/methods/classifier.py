"""A classifier p(y | x): cross-entropy with label smoothing. The judge of small data sets is one of these."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxgen.methods.base import Batch, Method, Model, Params, Turn


@dataclasses.dataclass(frozen=True)
class Classifier(Method):
    """One turn, one group, `classifier`; no sampler. Scores: `accuracy`, `cross_entropy`.

    Attributes:
      network: `x [B, H, W, C] -> (logits [B, num_classes], features [B, D])`.
      num_classes: from the config's data.
      label_smoothing: share of the target spread evenly over all classes.
      noise: standard deviation of normal noise added to training images, in units of [-1, 1].
    """

    network: nn.Module
    num_classes: int
    label_smoothing: float = 0.0
    noise: float = 0.0

    def init(self, key: jax.Array, batch: Batch, stage: int, given: Params, params: Params, memory: dict):
        return {"classifier": self.network.init(key, batch["image"])["params"]}, {}

    def turns(self, stage: int) -> tuple[Turn, ...]:
        return (Turn("classify", ("classifier",), self.loss),)

    def loss(self, params: Params, batch: Batch, key: jax.Array, state: Any):
        of_noise, dropout = jax.random.split(key)
        image = batch["image"] + self.noise * jax.random.normal(of_noise, batch["image"].shape)
        variables = {"params": params["classifier"]}
        logits, _ = self.network.apply(variables, image, train=True, rngs={"dropout": dropout})
        targets = optax.smooth_labels(jax.nn.one_hot(batch["label"], self.num_classes), self.label_smoothing)
        accuracy = (logits.argmax(axis=1) == batch["label"]).mean()
        return optax.softmax_cross_entropy(logits, targets).mean(), ({"accuracy": accuracy}, {})

    def scores(self, model: Model, keys: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        logits, _ = self.network.apply({"params": model.params["classifier"]}, batch["image"])
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        return {"accuracy": jnp.asarray(logits.argmax(axis=1) == batch["label"], jnp.float32), "cross_entropy": loss}
