"""Segments images by one network that learns from many labelled images: the plain, supervised way."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int, Key

from jaxgen.arrays import Array, Batch, Memory, Params
from jaxgen.errors import UserError
from jaxgen.methods.base import LossResult, LossState, Method, Model, Turn
from jaxgen.methods.segmentation.masks import check_classes, check_masks, coloured, counted, right_share
from jaxgen.networks.layers.stateless import apply_params, init_params


@dataclasses.dataclass(frozen=True)
class Segmenter(Method):
    """It has one turn and the group `network`, whose logits of each pixel descend the cross-entropy with its class.

    It samples masks: the class of the highest logit. The score of held-out data with masks is `accuracy`, the share of
    pixels; the mean IoU is a metric.

    Attributes:
      network: `(x [B, H, W, C], time [B]) -> [B, H, W, classes]`, called at time 0, such as `unet`.
      classes: the number of classes of pixels.
      image_shape: `(H, W, C)`; from the config's data.
      ignore: a number in masks that stands for no class; such pixels are neither learned from nor counted.
    """

    network: nn.Module
    classes: int
    image_shape: tuple[int, int, int]
    ignore: int | None = None

    gives = "mask"
    conditions = ("image",)
    panel_inputs = ("image", "mask")
    columns = {"masks": 6}

    def __post_init__(self) -> None:
        check_classes(self.classes, self.ignore)
        outputs = getattr(self.network, "out_channels", self.classes)
        if outputs != self.classes:
            raise UserError(
                f"config.method.network.out_channels is {outputs}, and there are {self.classes} classes; set it to "
                "config.method.classes."
            )

    @property
    def limits(self) -> Mapping[str, int]:
        return {"mask": self.classes}

    @property
    def exempt(self) -> Mapping[str, int]:
        return {} if self.ignore is None else {"mask": self.ignore}

    def init(
        self, key: Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        check_masks(batch)
        return {"network": init_params(self.network, key, batch["image"], jnp.zeros(len(batch["image"])))}, {}

    def turns(self, stage: int) -> tuple[Turn, ...]:
        return (Turn("segment", ("network",), self.loss),)

    def loss(self, params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
        logits = self.logits(params, batch["image"], train=True, rngs={"dropout": key})
        known = counted(batch["mask"], self.ignore)
        label = jnp.where(known, batch["mask"], 0)
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        accuracy = right_share(logits.argmax(axis=-1), batch["mask"], self.ignore).mean()
        return (entropy * known).sum() / jnp.maximum(known.sum(), 1), ({"accuracy": accuracy}, {})

    def logits(
        self, params: Params, image: Float[Array, "B H W C"], train: bool = False, **options: dict[str, Array]
    ) -> Float[Array, "B H W classes"]:
        """Returns the logits of each pixel's classes."""
        time = jnp.zeros(len(image))
        return apply_params(self.network, params["network"], image, time, train=train, **options)

    def segmented(self, model: Model, batch: Batch) -> Int[Array, "B H W"]:
        """Returns the most probable class of each pixel."""
        return self.logits(model.params, batch["image"]).argmax(axis=-1).astype(jnp.int32)

    def sample(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> Int[Array, "B H W"]:
        return self.segmented(model, batch)

    def scores(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "B ..."]]:
        return {"accuracy": right_share(self.segmented(model, batch), batch["mask"], self.ignore)}

    def panels(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "*F N H W C"]]:
        """Returns `masks`: held-out images, their true masks and the network's."""
        if "mask" not in batch or "image" not in batch:
            return {}
        image = jnp.broadcast_to(batch["image"], (*batch["image"].shape[:3], 3))
        masks = (coloured(mask, self.classes) for mask in (batch["mask"], self.segmented(model, batch)))
        cells = jnp.stack([image, *masks], axis=1)
        return {"masks": cells[:8].reshape(-1, *cells.shape[2:])}
