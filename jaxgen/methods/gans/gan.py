"""The generative adversarial network (Goodfellow et al. 2014): two players, two turns.

One method for every loss of `jaxgen.adversarial.losses`, with or without labels, penalties and augmentation: DCGAN,
LSGAN, hinge, conditional GANs are configs of it. What needs another term is a subclass beside it.
"""

from __future__ import annotations

import dataclasses
import types
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.adversarial import diagnostics, losses, penalties
from jaxgen.adversarial.augment import Augmentation
from jaxgen.adversarial.losses import GANLoss
from jaxgen.data_shards import shard_rows
from jaxgen.errors import UserError
from jaxgen.methods.base import Batch, Method, Metrics, Model, Params, Turn
from jaxgen.networks.layers.stateful import begin, reestimate, run

Outputs = dict[str, jax.Array]  # a critic's, with `logits` and `features`
FRAMES = 8  # images of a walk between two latents
ROWS = 8  # walks


@dataclasses.dataclass(frozen=True)
class Step:
    """A generator's step as its terms see it.

    Attributes:
      params, memory, batch: of the step; memory is that after the fakes were made. key: for further draws.
      z: the generator's input. fake: its images. outputs: the critic's, of these.
    """

    params: Params
    memory: dict[str, Any]
    batch: Batch
    key: jax.Array
    z: jax.Array
    fake: jax.Array
    outputs: Outputs


@dataclasses.dataclass(frozen=True)
class GAN(Method):
    """Turns `critic`, `critic_steps` times on fresh images and fresh z, and `generator`; `r1` where it is due.

    What the networks carry (batch statistics, spectral vectors) is memory, `generator` and `critic`; real and fake
    images go through the critic apart. EMA is kept of the generator, whose batch statistics are estimated anew for the
    averaged weights whenever it draws. Logged: the critic's accuracy on real and on fake images, the gap of its means,
    the diversity of fakes beside that of real images, and, by the update, the norm of the gradient into the generator.

    Attributes:
      generator: `(z [B, Z], label?) -> [B, H, W, C]`, with a field `latents`.
      critic: `(x, label?) -> {"logits": [B], "features": ...}`, high on real.
      loss: of both players.
      critic_steps: critic updates in a step.
      gradient_penalty: weight of (|slope| - 1)**2 between real and fake (WGAN-GP: 10); no BatchNorm in the critic then.
      r1: weight of the squared slope at real images over 2; r1_every: the turn is due at every so-many-th step, with
        so much more weight.
      augment: of what the critic sees, real and fake (DiffAugment, Zhao et al. 2020); None for nothing.
      statistics_batches: batches of noise, of 64 each, that the statistics of averaged weights are estimated from.
    """

    generator: nn.Module
    critic: nn.Module
    image_shape: tuple[int, int, int]
    num_classes: int = 0
    loss: GANLoss = losses.NonSaturating()
    critic_steps: int = 1
    gradient_penalty: float = 0.0
    r1: float = 0.0
    r1_every: int = 1
    augment: Augmentation | None = None
    statistics_batches: int = 8

    ema_groups = ("generator",)
    columns = types.MappingProxyType({"interpolation": FRAMES})

    def __post_init__(self) -> None:
        slopes = self.gradient_penalty or self.r1
        if slopes and getattr(self.critic, "norm", "none") == "batch":
            raise UserError(
                "A gradient penalty wants one image's own slope, which BatchNorm in the critic mixes with its "
                "neighbours': set config.method.critic.norm to 'layer', 'spectral' or 'none'."
            )
        if self.critic_steps < 1 or self.r1_every < 1 or self.statistics_batches < 1:
            raise UserError("config.method: critic_steps, r1_every and statistics_batches are at least 1.")

    @property
    def conditions(self) -> tuple[str, ...]:
        return ("label",) if self.generator.conditional else ()

    def init(self, key: jax.Array, batch: Batch, stage: int, given: Params, params: Params, memory: dict):
        of_generator, of_critic, of_latent = jax.random.split(key, 3)
        image = batch["image"]
        z, _ = self.draw(jax.random.split(of_latent, len(image)))
        generator = begin(self.generator, of_generator, z, **_label(self.generator, batch))
        critic = begin(self.judge(), of_critic, image, **_label(self.critic, batch))
        return {"generator": generator[0], "critic": critic[0]}, {"generator": generator[1], "critic": critic[1]}

    def turns(self, stage: int) -> tuple[Turn, ...]:
        turns = [Turn("critic", ("critic",), self.critic_loss, repeats=self.critic_steps)]
        if self.r1:
            turns.append(Turn("r1", ("critic",), self.r1_loss, every=self.r1_every))
        return (*turns, Turn("generator", ("generator",), self.generator_loss))

    # what subclasses add to

    def judge(self) -> nn.Module:
        """The critic, with the heads that the method needs."""
        return self.critic

    def draw(self, keys: jax.Array) -> tuple[jax.Array, Any]:
        """The generator's input `[B, Z]` from `[B]` keys, and what the losses want to know of it."""
        return jax.vmap(lambda key: jax.random.normal(key, (self.generator.latents,)))(keys), None

    def critic_terms(self, real: Outputs, fake: Outputs, batch: Batch) -> tuple[jax.Array | float, Metrics]:
        """What the critic descends besides the game, from its outputs."""
        return 0.0, {}

    def generator_terms(self, step: Step) -> tuple[jax.Array | float, Metrics]:
        """What the generator descends besides the game."""
        return 0.0, {}

    # the two players

    def critic_loss(self, params: Params, batch: Batch, key: jax.Array, state: Any):
        of_latent, of_real, of_fake, of_place = jax.random.split(key, 4)
        z, _ = shard_rows(self.draw(jax.random.split(of_latent, len(batch["image"]))))
        fake, _ = self.generate(params, state.memory, z, batch, train=True)
        seen = self._seen(of_real, batch["image"]), self._seen(of_fake, jax.lax.stop_gradient(fake))
        on_real, memory = self.look(params, state.memory, seen[0], batch)
        on_fake, memory = self.look(params, memory, seen[1], batch)
        real, fake_logits = on_real["logits"], on_fake["logits"]
        of_reals, of_fakes = self.loss.discriminator(real, fake_logits)
        extra, metrics = self.critic_terms(on_real, on_fake, batch)
        total = of_reals.mean() + of_fakes.mean() + extra
        metrics |= {"gap": real.mean() - fake_logits.mean(), "diversity_of_real": diagnostics.diversity(batch["image"])}
        if self.loss.boundary is not None:  # a Wasserstein critic has none
            right = diagnostics.accuracy(real, fake_logits, self.loss.boundary)
            metrics |= {"accuracy_on_real": right[0], "accuracy_on_fake": right[1]}
        if self.gradient_penalty:
            penalty = penalties.gradient_penalty(self._logits(params, state.memory, batch), *seen, of_place).mean()
            total, metrics = total + self.gradient_penalty * penalty, metrics | {"gradient_penalty": penalty}
        return total, (metrics, {"critic": memory["critic"]})

    def r1_loss(self, params: Params, batch: Batch, key: jax.Array, state: Any):
        seen = self._seen(key, batch["image"])
        penalty = penalties.r1(self._logits(params, state.memory, batch), seen).mean()
        return self.r1 * self.r1_every * penalty, ({}, {})

    def generator_loss(self, params: Params, batch: Batch, key: jax.Array, state: Any):
        of_latent, of_fake, of_terms = jax.random.split(key, 3)
        z, _ = shard_rows(self.draw(jax.random.split(of_latent, len(batch["image"]))))
        fake, memory = self.generate(params, state.memory, z, batch, train=True)
        outputs, _ = self.look(params, memory, self._seen(of_fake, fake), batch)
        extra, metrics = self.generator_terms(Step(params, memory, batch, of_terms, z, fake, outputs))
        metrics |= {"diversity": diagnostics.diversity(fake)}
        return self.loss.generator(outputs["logits"]).mean() + extra, (metrics, {"generator": memory["generator"]})

    def generate(self, params: Params, memory: dict, z: jax.Array, batch: Batch, train: bool):
        """Images of z, and the memory after it."""
        label = _label(self.generator, batch)
        images, carried = run(self.generator, params["generator"], memory["generator"], z, train=train, **label)
        return images, {**memory, "generator": carried}

    def look(self, params: Params, memory: dict, images: jax.Array, batch: Batch, train: bool = True):
        """The critic's outputs for one batch, real or fake, and the memory after it."""
        label = _label(self.critic, batch)
        outputs, carried = run(self.judge(), params["critic"], memory["critic"], images, train=train, **label)
        return outputs, {**memory, "critic": carried}

    def _logits(self, params: Params, memory: dict, batch: Batch):
        return lambda images: self.look(params, memory, images, batch, train=False)[0]["logits"]

    def _seen(self, key: jax.Array, images: jax.Array) -> jax.Array:
        return images if self.augment is None else self.augment(jax.random.split(key, len(images)), images)

    # drawing

    def sample(self, model: Model, keys: jax.Array, batch: Batch) -> jax.Array:
        return self.paint(model, self.draw(keys)[0], batch)

    def paint(self, model: Model, z: jax.Array, batch: Batch) -> jax.Array:
        """Images of z by the averaged generator, with batch statistics that belong to it."""
        images, _ = self.generate(model.params, self._settled(model), z, batch, train=False)
        return jnp.clip(images, -1, 1)

    def panels(self, model: Model, keys: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """`interpolation`: each row walks along the sphere from one z to another, its label kept."""
        rows = min(ROWS, len(keys) // 2)
        if rows == 0 or self.image_shape[0] == 1:
            return {}
        a, b = (self.draw(part)[0] for part in (keys[:rows], keys[rows : 2 * rows]))
        walk = jax.vmap(lambda t: slerp(a, b, t))(jnp.linspace(0, 1, FRAMES)).swapaxes(0, 1)
        labels = {name: jnp.repeat(x[:rows], FRAMES, axis=0) for name, x in batch.items() if name == "label"}
        return {"interpolation": self.paint(model, walk.reshape(rows * FRAMES, -1), labels)}

    def _settled(self, model: Model) -> dict:
        """The memory with batch statistics of the averaged generator, from noise that is always the same."""
        shape = (self.statistics_batches, 64)
        keys = jax.random.split(jax.random.key(0), shape)
        inputs = (jax.vmap(lambda k: self.draw(k)[0])(keys),)
        if self.generator.conditional:
            inputs += (jnp.arange(shape[0] * shape[1]).reshape(shape) % self.num_classes,)
        memory = reestimate(self.generator, model.params["generator"], model.memory["generator"], inputs)
        return {**model.memory, "generator": memory}


def slerp(a: jax.Array, b: jax.Array, t: jax.Array) -> jax.Array:
    """Between `[B, Z]` normal vectors by angle, lengths linearly (Shoemake 1985; White 2016)."""
    length_a, length_b = (jnp.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    cosine = (a * b).sum(axis=1, keepdims=True) / (length_a * length_b)
    angle = jnp.arccos(jnp.clip(cosine, -1 + 1e-6, 1 - 1e-6))
    direction = jnp.sin((1 - t) * angle) * a / length_a + jnp.sin(t * angle) * b / length_b
    return ((1 - t) * length_a + t * length_b) * direction / jnp.sin(angle)


def _label(network: nn.Module, batch: Batch) -> Batch:
    return {"label": batch["label"]} if network.conditional else {}
