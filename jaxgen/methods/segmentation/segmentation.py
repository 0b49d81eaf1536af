"""Segments images by small networks on a trained model's features of pixels, which learn from few labelled images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int, Key

from jaxgen.arrays import Array, Batch, Memory, Params, Tree, check_entries
from jaxgen.errors import UserError
from jaxgen.methods.base import LossResult, LossState, Method, Model, Turn
from jaxgen.methods.segmentation.features import Features, per_pixel
from jaxgen.methods.segmentation.masks import check_classes, check_masks, coloured, counted, right_share
from jaxgen.methods.tuned import groups_of
from jaxgen.networks.head import PixelHead
from jaxgen.networks.layers.stateful import apply_stateful, init_stateful


@dataclasses.dataclass(frozen=True)
class Segmentation(Method):
    """It has one turn and the group `heads`, several classifiers of pixels that learn apart; all else is frozen.

    It samples masks: the class that most heads choose, with the `uncertainty` of each pixel, the Jensen-Shannon
    divergence of the heads' probabilities in nats (Baranchuk et al. 2022, section 4; Zhang et al. 2021, DatasetGAN).
    Scores of held-out data with masks are `accuracy`, the share of pixels, and `uncertainty`; the mean IoU is a metric.

    Attributes:
      features: what is known of each pixel, see `jaxgen.methods.segmentation.features`.
      classes: the number of classes of pixels.
      image_shape: `(H, W, C)`; from the config's data.
      trained: the method of the run that `config.init_from.pretrained` names; None where features need none.
      weights: "trained", or "random" for the control: the same network with fresh weights, and with random ones where
        it starts with zeros, since those would leave the most of it out.
      head: the network of each head, `[P, D] -> [P, classes]`.
      members: the number of heads.
      pixels: how many pixels of the batch each head learns from in a step; it draws its own.
      ignore: a number in masks that stands for no class; such pixels are neither learned from nor counted.
    """

    features: Features
    classes: int
    image_shape: tuple[int, int, int]
    trained: Method | None = None
    weights: Literal["trained", "random"] = "trained"
    head: PixelHead = PixelHead()
    members: int = 10
    pixels: int = 512
    ignore: int | None = None

    gives = "mask"
    panel_inputs = ("image", "mask")
    ema_groups = ()  # batch statistics belong to the weights themselves, and not to an average of them
    columns = {"masks": 8}

    def __post_init__(self) -> None:
        self.features.check(self.trained)
        check_classes(self.classes, self.ignore)
        if self.members < 1 or self.pixels < 2:
            raise UserError("config.method.members is at least 1, and config.method.pixels at least 2.")
        if self.weights == "random" and self.trained is None:
            raise UserError("config.method.weights='random' needs a network: set config.init_from.pretrained to a run.")

    @property
    def conditions(self) -> tuple[str, ...]:
        return self.features.reads(self.trained)

    @property
    def required_groups(self) -> tuple[str, ...]:
        return () if self.trained is None else groups_of(self.trained)

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
        of_random, of_heads = jax.random.split(key)
        carried = dict(memory)
        if self.weights == "random":
            carried["random"] = self._random(of_random, batch)
        features = jax.eval_shape(lambda: self.extract(Model(given, carried), batch)[:, 0, 0])
        example = jnp.zeros(features.shape)
        heads = [init_stateful(self._head, one, example) for one in jax.random.split(of_heads, self.members)]
        learned, statistics = jax.tree.map(lambda *leaves: jnp.stack(leaves), *heads)
        return {"heads": learned}, {**carried, "heads": statistics}

    def untrained(self, key: Array, batch: Batch) -> tuple[Params, Memory]:
        if self.trained is None:
            return {}, {}
        given, memory = self.trained.untrained(key, batch)
        learned, carried = self.trained.init(key, batch, self.trained.stages[0][1], given, {}, memory)
        return {**given, **learned}, {**memory, **carried}

    def _random(self, key: Array, batch: Batch) -> Params:
        """Returns fresh weights of the trained method, without kernels of zeros."""
        params, _ = self.untrained(key, batch)
        leaves, structure = jax.tree.flatten(params)
        keys = jax.random.split(jax.random.fold_in(key, 1), len(leaves))
        draw = nn.initializers.lecun_normal()
        drawn = [
            jnp.where(jnp.any(leaf), leaf, draw(one, leaf.shape)) if leaf.ndim > 1 else leaf
            for one, leaf in zip(keys, leaves, strict=True)
        ]
        return jax.tree.unflatten(structure, drawn)

    def turns(self, stage: int) -> tuple[Turn, ...]:
        return (Turn("segment", ("heads",), self.loss),)

    def loss(self, params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
        features = self.extract(Model(params, state.memory), batch)
        return self.head_loss(params["heads"], features, batch["mask"], key, state.memory["heads"])

    def head_loss(
        self, heads: Tree, features: Float[Array, "B H W D"], mask: Int[Array, "B H W"], key: Array, statistics: Tree
    ) -> LossResult:
        """Returns the mean cross-entropy of all heads, each on pixels of its own, and the new batch statistics."""
        chosen = jax.random.randint(key, (self.members, self.pixels), 0, mask.size)
        x, label = features.reshape(mask.size, -1)[chosen], mask.reshape(-1)[chosen]
        known = counted(label, self.ignore)
        label = jnp.where(known, label, 0)

        def logits(head: Tree, carried: Tree, x: Array) -> tuple[Array, Tree]:
            return apply_stateful(self._head, head, carried, x, train=True)

        found, carried = jax.vmap(logits)(heads, statistics, x)
        entropy = optax.softmax_cross_entropy_with_integer_labels(found, label)
        count = jnp.maximum(known.sum(), 1)
        right = ((found.argmax(axis=2) == label) & known).sum() / count
        memory = jax.lax.stop_gradient({"heads": carried})
        return (entropy * known).sum() / count, ({"accuracy": right}, memory)

    def extract(self, model: Model, batch: Batch) -> Float[Array, "B H W D"]:
        """Returns the features of all pixels: the entry `features` of the batch, if it has one, or those of its images.

        Raises:
          MissingEntry: the batch lacks what the features are computed of.
        """
        if "features" in batch:
            return batch["features"]
        if self.weights == "random":
            model = Model(model.memory["random"], model.memory, model.stage)
        check_entries(batch, self.conditions, "config.method.features", "a config.data.source that has it")
        height, width, _ = batch["image"].shape[1:] if "image" in batch else self.image_shape
        return jax.lax.stop_gradient(per_pixel(self.features.maps(self.trained, model, batch), (height, width)))

    def probabilities(self, model: Model, features: Float[Array, "*P D"]) -> Float[Array, "K *P C"]:
        """Returns each head's probabilities of the classes."""
        flat = features.reshape(-1, features.shape[-1])

        def one(head: Tree, carried: Tree) -> Array:
            return nn.softmax(apply_stateful(self._head, head, carried, flat, train=False)[0])

        found = jax.vmap(one)(model.params["heads"], model.memory["heads"])
        return found.reshape(self.members, *features.shape[:-1], self.classes)

    def segmented(self, model: Model, batch: Batch) -> tuple[Int[Array, "B H W"], Float[Array, "B H W"]]:
        """Returns the class that most heads choose, of equally many the lower one, and the uncertainty."""
        # the heads see one image at a time: their hidden layers of all pixels of a batch would take much memory
        return jax.lax.map(lambda x: _vote(self.probabilities(model, x)), self.extract(model, batch))

    def sample(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Array]:
        mask, uncertainty = self.segmented(model, batch)
        return {"mask": mask, "uncertainty": uncertainty}

    def scores(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "B ..."]]:
        mask, uncertainty = self.segmented(model, batch)
        right = right_share(mask, batch["mask"], self.ignore)
        return {"accuracy": right, "uncertainty": uncertainty.mean(axis=(1, 2))}

    def better(self, score: str) -> str | None:
        return None if score == "uncertainty" else super().better(score)

    def panels(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "*F N H W C"]]:
        """Returns `masks`: held-out images, their true masks, the masks of the vote, and the uncertainty, whose highest
        value in these images is white.
        """
        if "mask" not in batch or "image" not in batch:
            return {}
        mask, uncertainty = self.segmented(model, batch)
        image = jnp.broadcast_to(batch["image"], (*batch["image"].shape[:3], 3))
        highest = jnp.maximum(uncertainty.max(), 1e-6)
        doubt = jnp.broadcast_to(2 * uncertainty[..., None] / highest - 1, image.shape)
        cells = jnp.stack([image, *(coloured(one, self.classes) for one in (batch["mask"], mask)), doubt], axis=1)
        return {"masks": cells[:8].reshape(-1, *cells.shape[2:])}

    @property
    def _head(self) -> PixelHead:
        return self.head.clone(num_classes=self.classes)


def _vote(probabilities: Float[Array, "K *P C"]) -> tuple[Int[Array, "*P"], Float[Array, "*P"]]:
    """Returns the class that most of K members choose, and the Jensen-Shannon divergence of their distributions."""
    classes = probabilities.shape[-1]
    votes = jax.nn.one_hot(probabilities.argmax(axis=-1), classes).sum(axis=0)
    divergence = _entropy(probabilities.mean(axis=0)) - _entropy(probabilities).mean(axis=0)
    return votes.argmax(axis=-1).astype(jnp.int32), jnp.maximum(divergence, 0.0)


def _entropy(probabilities: Float[Array, "*P C"]) -> Float[Array, "*P"]:
    return -jax.scipy.special.xlogy(probabilities, probabilities).sum(axis=-1)
