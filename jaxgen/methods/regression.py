"""Predicts an image from its conditions in one pass: the control of diffusion models that are given a picture.

It is the regression baseline of SR3 (Saharia et al. 2021, section 4): the network of the diffusion model and its
conditions, trained by the pixels' error alone. It has the best PSNR that the network can learn, since the mean of all
images that fit a condition minimises the squared error; that mean is blurred where they differ.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Float, Key

from jaxgen.arrays import Array, Batch, Memory, Params
from jaxgen.conditions.base import Condition
from jaxgen.conditions.label import Label
from jaxgen.conditions.parts import Parts
from jaxgen.errors import UserError
from jaxgen.methods.base import LossResult, LossState, Method, Model, Turn
from jaxgen.networks.layers.stateless import apply_params, init_params


@dataclasses.dataclass(frozen=True)
class Regression(Method):
    """Learns the image from its conditions, with the network that a diffusion model of `ddpm` has.

    The network is called as at time 0, and with zeros in place of the noisy image, so that it has the parameters of the
    diffusion model. Nothing is random in a sample but what a condition draws itself.

    Attributes:
      network: `(x [B, H, W, C], time [B], label?, condition?, ...) -> [B, H, W, C]`; its group is `network`. It sees
        labels where it has a `num_classes` above 0.
      image_shape: `(H, W, C)`; from the config's data.
      num_classes: the number of classes of the data; 0 where they have none.
      parts: what the network is told, by name, see `jaxgen.conditions`.
      error: what is minimised, the mean "squared" or "absolute" error of values in [-1, 1].

    Raises:
      UserError: there is no condition to predict an image from.
    """

    network: nn.Module
    image_shape: tuple[int, int, int]
    num_classes: int = 0
    parts: Mapping[str, Condition] = dataclasses.field(default_factory=dict, hash=False)  # a dict has no hash
    error: Literal["squared", "absolute"] = "squared"

    def __post_init__(self) -> None:
        if not self.told.all:
            raise UserError(
                "The method regression predicts an image from what it is told, and is told nothing: add a condition, "
                "such as config.method.parts.low=section(name='image')."
            )
        self.told.check(("network",))

    @property
    def told(self) -> Parts:
        """Returns all conditions: the labels that the network sees, and `parts`."""
        given = any("label" in part.gives for part in self.parts.values())
        own = {"label": Label(self.num_classes)} if getattr(self.network, "num_classes", 0) and not given else {}
        return Parts(own, self.parts)

    @property
    def required_groups(self) -> tuple[str, ...]:
        return tuple(self.told.frozen)

    @property
    def conditions(self) -> tuple[str, ...]:
        return self.told.entries

    @property
    def entries(self) -> Mapping[str, tuple[tuple[int, ...], DTypeLike]]:
        return {entry: shape for part in self.told.all.values() for entry, shape in part.shapes.items()}

    @property
    def limits(self) -> Mapping[str, int]:
        return {**super().limits, **{k: v for part in self.told.all.values() for k, v in part.limits.items()}}

    def untrained(self, key: Array, batch: Batch) -> tuple[Params, Memory]:
        return {group: part.init(key, batch) for group, part in self.told.frozen.items()}, {}

    def init(
        self, key: Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        of_parts = {group: jax.random.fold_in(key, zlib.crc32(group.encode())) for group in self.told.learned}
        learned = self.told.init(of_parts, batch)
        keys = jax.random.split(key, len(batch["image"]))
        inputs = self._inputs({**given, **learned}, batch, keys, train=True)
        learned["network"] = init_params(self.network, key, *self._nothing(len(batch["image"])), **inputs)
        return learned, {}

    def turns(self, stage: int) -> tuple[Turn, ...]:
        return (Turn("regress", ("network", *self.told.learned), self.loss),)

    def loss(self, params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
        of_dropout, of_parts, of_drops = jax.random.split(key, 3)
        keys = jax.random.split(of_parts, len(batch["image"]))
        dropped = self.told.dropped(batch, of_drops)
        found = self.predicted(params, dropped, keys, train=True, rngs={"dropout": of_dropout})
        return self._errors(found, batch["image"]).mean(), ({}, {})

    def sample(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> Float[Array, "B H W C"]:
        return self.predicted(model.params, batch, keys)

    def scores(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "B ..."]]:
        return {f"{self.error}_error": self._errors(self.predicted(model.params, batch, keys), batch["image"])}

    def predicted(
        self, params: Params, batch: Batch, keys: Key[Array, " B"], train: bool = False, **options: Any
    ) -> Float[Array, "B H W C"]:
        """Returns the images `[B, H, W, C]` that a batch's conditions suggest, approximately in [-1, 1].

        Args:
          keys: one random key for each example, which some conditions need.
          train: whether this is training, for the conditions and the network's dropout; `options` go to the network.

        Raises:
          UserError: the network gives an array of another shape than the images.
        """
        nothing, time = self._nothing(len(keys))
        inputs = self._inputs(params, batch, keys, train)
        found = apply_params(self.network, params["network"], nothing, time, **inputs, train=train, **options)
        if found.shape != nothing.shape:
            raise UserError(
                f"The network gives an array of shape {found.shape} for images of shape {nothing.shape}; its "
                "out_channels must be the images' channels."
            )
        return found

    def _inputs(self, params: Params, batch: Batch, keys: Array, train: bool) -> Batch:
        return self.told(params, batch, keys, self.image_shape, train)

    def _nothing(self, count: int) -> tuple[Array, Array]:
        """Returns what stands for the noisy images and for their times."""
        return jnp.zeros((count, *self.image_shape)), jnp.zeros(count)

    def _errors(self, found: Array, image: Array) -> Array:
        """Returns `[B]` means over an example's values."""
        errors = jnp.abs(found - image) if self.error == "absolute" else jnp.square(found - image)
        return errors.reshape(len(image), -1).mean(axis=1)
