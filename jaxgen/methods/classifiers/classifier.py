"""Holds a classifier p(y | x), which learns by cross-entropy with label smoothing.

Small data sets are evaluated by one of these.

It predicts one label, or several attributes at once, each by a softmax over its own part of the logits.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Int, Key

from jaxgen.arrays import Array, Batch, Memory, Params
from jaxgen.errors import UserError
from jaxgen.methods.base import LossResult, LossState, Method, Model, Turn
from jaxgen.networks.layers.calls import check_call, check_outputs
from jaxgen.networks.layers.stateless import apply_params


@dataclasses.dataclass(frozen=True)
class Classifier(Method):
    """It has one turn and one group, `classifier`; it has no sampler.

    Its scores are `accuracy` and `cross_entropy`.

    With attributes, `cross_entropy` is summed over them, `accuracy` is 1 if all of them are right, and
    `accuracy_<name>` is 1 if that one is right. The network's `num_classes` is then the sum of their numbers of
    classes.

    Raises:
      UserError: `lacking` names no attribute.
    """

    network: nn.Module  # `x [B, H, W, C] -> (logits [B, num_classes], features [B, D])`
    num_classes: int  # from the config's data
    # `((name, classes), ...)` of the columns of the batch's `attributes` [B, K], which are told in place of `label`
    attributes: tuple[tuple[str, int], ...] = ()
    lacking: tuple[str, ...] = ()  # attributes that an example may lack: -1 in the batch is their last class
    label_smoothing: float = 0.0  # share of the target that all classes get in equal parts
    noise: float = 0.0  # standard deviation of normal noise on training images, in units of [-1, 1]

    def __post_init__(self) -> None:
        names = [name for name, _ in self.attributes]
        unknown = [name for name in self.lacking if name not in names]
        if unknown:
            raise UserError(f"config.method.lacking names {unknown[0]!r}, and config.method.attributes are {names}.")

    @property
    def entries(self) -> Mapping[str, tuple[tuple[int, ...], DTypeLike]]:
        return {"attributes": ((len(self.attributes),), np.int32)} if self.attributes else {}

    def init(
        self, key: Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        check_call(self.network, (batch["image"],), {})
        outputs, variables = self.network.init_with_output(key, batch["image"])
        check_outputs(self.network, outputs, 2)
        logits, _ = outputs
        wanted = sum(classes for _, classes in self.attributes) or self.num_classes
        if logits.shape[-1] != wanted:
            raise UserError(
                f"The classifier's network tells {logits.shape[-1]} classes and should tell {wanted}: set "
                f"config.method.network.num_classes={wanted}."
            )
        return {"classifier": variables["params"]}, {}

    def turns(self, stage: int) -> tuple[Turn, ...]:
        return (Turn("classify", ("classifier",), self.loss),)

    def loss(self, params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
        of_noise, dropout = jax.random.split(key)
        image = batch["image"] + self.noise * jax.random.normal(of_noise, batch["image"].shape)
        rngs = {"dropout": dropout}
        logits, _ = apply_params(self.network, params["classifier"], image, train=True, rngs=rngs)
        loss, right = self._told(logits, batch, self.label_smoothing)
        return loss.mean(), ({"accuracy": right.all(axis=1).mean()}, {})

    def scores(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "B ..."]]:
        logits, _ = apply_params(self.network, model.params["classifier"], batch["image"])
        loss, right = self._told(logits, batch)
        each = {f"accuracy_{name}": right[:, i] for i, (name, _) in enumerate(self.attributes)}
        found = {"accuracy": right.all(axis=1), **each}
        return {name: x.astype(jnp.float32) for name, x in found.items()} | {"cross_entropy": loss}

    def tell(self, model: Model, image: Float[Array, "B H W C"]) -> Int[Array, "B K"]:
        """Returns the most probable class of each attribute, int32 `[B, K]`, or of the label `[B, 1]`.

        It is -1 where an example lacks the attribute, as in the batch.
        """
        logits, _ = apply_params(self.network, model.params["classifier"], image)
        found = jnp.stack([part.argmax(axis=1) for part in self._parts(logits)], axis=1)
        return jnp.where(self._lacks & (found == self._counts - 1), -1, found)

    def _told(self, logits: Array, batch: Batch, smoothing: float = 0.0) -> tuple[Array, Array]:
        """Returns the cross-entropy `[B]`, summed over attributes, and whether each prediction is right `[B, K]`."""
        truth = batch["attributes"] if self.attributes else batch["label"][:, None]
        truth = jnp.where(self._lacks & (truth < 0), self._counts - 1, truth)
        loss, right = jnp.zeros(len(logits)), []
        for part, wanted in zip(self._parts(logits), truth.T, strict=True):
            targets = optax.smooth_labels(jax.nn.one_hot(wanted, part.shape[1]), smoothing)
            loss = loss + optax.softmax_cross_entropy(part, targets)
            right.append(part.argmax(axis=1) == wanted)
        return loss, jnp.stack(right, axis=1)

    @property
    def _lacks(self) -> Bool[np.ndarray, " K"]:
        """Returns which attributes an example may lack."""
        return np.array([name in self.lacking for name, _ in self.attributes] or [False])

    @property
    def _counts(self) -> Int[np.ndarray, " K"]:
        """Returns the number of classes of each attribute, or of the label."""
        return np.array([classes for _, classes in self.attributes] or [self.num_classes])

    def _parts(self, logits: Array) -> list[Array]:
        """Returns the logits of each attribute."""
        ends = np.cumsum([classes for _, classes in self.attributes])
        return jnp.split(logits, ends[:-1], axis=1) if self.attributes else [logits]
