"""A classifier on an encoder's latents shows what they contain; it learns by cross-entropy, distances, or both."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int, Key

from jaxgen.arrays import Array, Batch, Memory, Params
from jaxgen.errors import UserError
from jaxgen.methods.autoencoders.autoencoder import unlabelled
from jaxgen.methods.base import LossResult, LossState, Method, Model, Turn, check_loaded
from jaxgen.networks.layers.stateless import apply_params, init_params

KEPT = 0.9  # share of a class's prototype that is kept at each step that has examples of the class


@dataclasses.dataclass(frozen=True)
class Probe(Method):
    """It has one turn and the groups `head` and `encoder`, which is frozen or learns; it has no sampler.

    Its scores are `accuracy` and `cross_entropy` of the logits, where `cross_entropy` is above 0, and
    `accuracy_nearest`, of the class whose prototype is nearest on the sphere, where `contrastive` is. A prototype is
    the running mean of a class's training points, in memory.

    With `tune` the encoder learns too, from the weights that `config.init_from.encoder` gives; from fresh ones where it
    gives none, which is plain supervised learning, the control. Without `tune` weights must be given.
    """

    head: nn.Module  # `[B, D] -> (logits [B, num_classes], points on a sphere [B, E])`
    num_classes: int  # from the config's data
    encoder: nn.Module | None = None  # `x -> [B, outputs]`, of the run in `config.init_from`; None: the raw pixels
    z_dim: int = 16  # D of that run
    variational: bool = False  # the encoder is a VAE's, whose means are the features
    tune: bool = False
    noise: float = 0.0  # standard deviation of normal noise on training images, in units of [-1, 1]
    cross_entropy: float = 1.0  # weight of the cross-entropy
    contrastive: float = 0.0  # weight of the supervised contrastive loss
    temperature: float = 0.1  # of the contrastive loss

    def __post_init__(self) -> None:
        if min(self.cross_entropy, self.contrastive) < 0 or not max(self.cross_entropy, self.contrastive) > 0:
            raise UserError("method.cross_entropy and method.contrastive are weights of losses: one must be above 0.")
        if self.contrastive and not getattr(self.head, "embedding", 0):
            raise UserError("method.contrastive needs points to tell apart: set method.head.embedding above 0.")
        if not self.temperature > 0:
            raise UserError(f"method.temperature must be above 0, not {self.temperature}.")
        if self.encoder is None and self.tune:
            raise UserError("method.tune has no encoder to tune: set method.encoder.")

    @property
    def required_groups(self) -> tuple[str, ...]:
        return ("encoder",) if self.encoder is not None and not self.tune else ()

    def untrained(self, key: Array, batch: Batch) -> tuple[Params, Memory]:
        encoder = self._encoder()
        return {} if encoder is None else {"encoder": init_params(encoder, key, batch["image"])}, {}

    def init(
        self, key: Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        of_encoder, of_head = jax.random.split(key)
        image = batch["image"]
        learned: Params = {}
        groups: Params = {}
        encoder = self._encoder()
        if encoder is not None:
            groups["encoder"] = init_params(encoder, of_encoder, image)
        if self.tune:
            learned["encoder"] = groups["encoder"]
        elif encoder is not None:
            check_loaded("encoder", given["encoder"], groups["encoder"])
        features = jax.eval_shape(self.features, groups, image)
        learned["head"] = init_params(self.head, of_head, jnp.zeros(features.shape))
        if not self.contrastive:
            return learned, {}
        return learned, {"head": {"prototypes": jnp.zeros((self.num_classes, self.head.embedding))}}

    def turns(self, stage: int) -> tuple[Turn, ...]:
        return (Turn("classify", ("encoder", "head") if self.tune else ("head",), self.loss),)

    def loss(self, params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
        of_noise, dropout = jax.random.split(key)
        image, label = batch["image"], batch["label"]
        image = image + self.noise * jax.random.normal(of_noise, image.shape) if self.noise else image
        features = self.features(params, image)
        logits, points = apply_params(self.head, params["head"], features, train=True, rngs={"dropout": dropout})
        entropy = optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()
        total, metrics, memory = self.cross_entropy * entropy, {}, {}
        if self.cross_entropy:
            metrics = {"cross_entropy": entropy, "accuracy": (logits.argmax(axis=1) == label).mean()}
        if self.contrastive:
            apart = supervised_contrastive(points, label, self.temperature)
            total = total + self.contrastive * apart
            metrics["contrastive"] = apart
            memory = {"head": {"prototypes": self._moved(state.memory["head"]["prototypes"], points, label)}}
        return total, (metrics, jax.lax.stop_gradient(memory))

    def features(self, params: Params, image: Float[Array, "B H W C"]) -> Float[Array, "B D"]:
        """Returns the latents of images, or their pixels if there is no encoder."""
        encoder = self._encoder()
        if encoder is None:
            return image.reshape(len(image), -1)
        return apply_params(encoder, params["encoder"], image)[:, : self.z_dim]

    def scores(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "B ..."]]:
        logits, points = apply_params(self.head, model.params["head"], self.features(model.params, batch["image"]))
        label, scores = batch["label"], {}
        if self.cross_entropy:
            scores["accuracy"] = jnp.asarray(logits.argmax(axis=1) == label, jnp.float32)
            scores["cross_entropy"] = optax.softmax_cross_entropy_with_integer_labels(logits, label)
        if self.contrastive:
            prototypes = model.memory["head"]["prototypes"]
            length = jnp.maximum(jnp.linalg.norm(prototypes, axis=1), 1e-6)
            nearest = (points @ prototypes.T / length).argmax(axis=1)
            scores["accuracy_nearest"] = jnp.asarray(nearest == label, jnp.float32)
        return scores

    def _encoder(self) -> nn.Module | None:
        if self.encoder is None:
            return None
        return unlabelled(self.encoder, outputs=self.z_dim * (2 if self.variational else 1))

    def _moved(self, prototypes: Array, points: Array, label: Array) -> Array:
        """Returns the prototypes after a batch; prototypes of classes without an example in it stay."""
        each = jax.nn.one_hot(label, self.num_classes, axis=0)
        count = each.sum(axis=1, keepdims=True)
        moved = KEPT * prototypes + (1 - KEPT) * (each @ points) / jnp.maximum(count, 1)
        return jnp.where(count > 0, moved, prototypes)


def supervised_contrastive(
    points: Float[Array, "B E"], label: Int[Array, " B"], temperature: float
) -> Float[Array, ""]:
    """Returns the supervised contrastive loss of unit vectors, a scalar (Khosla et al. 2020, Eq. 2).

    For each pair of examples of one class the loss is -log softmax of their cosine, over all other examples. It is
    averaged over the partners of an example, then over examples. An example that is alone in its class counts only as a
    negative of others.
    """
    self_pair = jnp.eye(len(points), dtype=bool)
    cosine = jnp.where(self_pair, -jnp.inf, points @ points.T / temperature)
    log_share = jnp.where(self_pair, 0, cosine - jax.nn.logsumexp(cosine, axis=1, keepdims=True))
    same = (label[:, None] == label[None]) & ~self_pair
    count = same.sum(axis=1)
    each = -(same * log_share).sum(axis=1) / jnp.maximum(count, 1)
    return each.sum() / jnp.maximum((count > 0).sum(), 1)
