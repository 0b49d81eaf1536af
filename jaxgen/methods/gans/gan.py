"""The generative adversarial network (Goodfellow et al. 2014) has two networks and two turns.

One method for every loss of `jaxgen.adversarial.losses`, with or without labels, penalties and augmentation: DCGAN,
LSGAN, hinge and conditional GANs are configs of it. A GAN whose losses have another term is a subclass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Key

from jaxgen.adversarial import diagnostics, losses, penalties
from jaxgen.adversarial.augment import Augmentation
from jaxgen.adversarial.losses import GANLoss
from jaxgen.adversarial.sampling import NORMAL, GANSampler, TruncatedNormal, between_corners, slerp
from jaxgen.arrays import Array, Batch, Memory, Metrics, Params, Tree
from jaxgen.data_shards import shard_rows
from jaxgen.errors import UserError
from jaxgen.methods.base import LossResult, LossState, Method, Model, Turn
from jaxgen.networks.gans.gan_layers import told
from jaxgen.networks.layers.stateful import apply_stateful, init_stateful, reestimate_statistics

Outputs = dict[str, Array]  # a discriminator's, with `logits` and `features`
FRAMES = 8  # images of a walk from one z to another
ROWS = 8  # walks


@dataclasses.dataclass(frozen=True)
class GeneratorStep:
    """Holds what the further terms of a generator's loss may read."""

    params: Params
    memory: Memory  # as it is after the fakes were made
    batch: Batch
    key: Array  # for further draws
    z: Tree  # the generator's input
    fake: Array  # its images
    outputs: Outputs  # the discriminator's, of these images
    real_outputs: Outputs | None = None  # those of the batch's images, where the method's `uses_real` is true
    drawn: Any = None  # what `training_z` gave beside z, such as codes, or the distribution that z was drawn from

    @property
    def real_logits(self) -> Tree | None:
        """Returns the logits of the batch's images, where they are known."""
        return None if self.real_outputs is None else self.real_outputs["logits"]


@dataclasses.dataclass(frozen=True)
class GAN(Method):
    """Trains a generator against a discriminator: the turns `discriminator` and `generator`, and `r1` between them.

    With an `r1_every` above 1, `r1` is lazy and comes before both (`Turn.every`).

    The turn `discriminator` runs `discriminator_steps` times, each on fresh images and fresh z.

    What the networks carry (batch statistics, spectral vectors) is memory, `generator` and `discriminator`. Real and
    fake images go through the discriminator in separate calls. EMA is kept of the generator; the batch statistics of
    the averaged weights are estimated whenever images are sampled. The logged metrics are the discriminator's accuracy
    on real and on fake images, the gap between its mean logits, the diversity of fakes beside that of real images, and,
    by the update, the norm of the gradient into the generator.
    """

    generator: nn.Module  # `(z, **told) -> [B, H, W, C]`; z is [B, z_dim], or what `sample_z` draws
    discriminator: nn.Module  # `(x, **told) -> {"logits": [B] or a tree of maps, "features": ...}`, high on real
    image_shape: tuple[int, int, int]
    num_classes: int = 0
    loss: GANLoss = losses.NonSaturating()
    discriminator_steps: int = 1  # discriminator updates in a step
    gradient_penalty: float = 0.0  # weight of (|slope| - 1)**2 between real and fake (WGAN-GP: 10); forbids BatchNorm
    r1: float = 0.0  # weight of the squared slope at real images, over 2
    r1_every: int = 1  # the turn `r1` is due at steps divisible by this, with as many times the weight
    adversarial: float = 1.0  # weight of the game in the generator's loss; 0 leaves its further terms alone
    feature_matching: float = 0.0  # weight of the distance of the discriminator's layers (pix2pixHD: 10)
    augment: Augmentation | None = None  # of all that the discriminator sees (DiffAugment, Zhao et al. 2020)
    sampler: GANSampler = TruncatedNormal()  # `config.sampler`: how z is drawn when images are sampled
    statistics_batches: int = 8  # batches of 64 z that the statistics of averaged weights are estimated from

    network_needs = {"generator": ("z_dim", "reads"), "discriminator": ("reads",)}

    def __post_init__(self) -> None:
        slopes = self.gradient_penalty or self.r1
        if slopes and getattr(self.discriminator, "norm", "none") == "batch":
            raise UserError(
                "A gradient penalty wants one image's own slope, which BatchNorm in the discriminator mixes with its "
                "neighbours': set config.method.discriminator.norm to 'layer', 'spectral' or 'none'."
            )
        if self.discriminator_steps < 1 or self.r1_every < 1 or self.statistics_batches < 1:
            raise UserError("config.method: discriminator_steps, r1_every and statistics_batches are at least 1.")
        if self.augment is not None and self.augment.adapts and self.loss.boundary is None:
            raise UserError(
                "config.method.augment adapts to the signs of logits, and a Wasserstein critic has no boundary between "
                "real and fake; name another config.method.loss, or config.method.augment='diff_augment'."
            )

    @property
    def ema_groups(self) -> tuple[str, ...]:
        return self.generator_groups

    @property
    def columns(self) -> Mapping[str, int]:
        return {"interpolation": FRAMES}

    @property
    def conditions(self) -> tuple[str, ...]:
        return self.generator.reads

    def init(
        self, key: Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        self._check_augmentation(batch)
        of_generator, of_discriminator, of_z = jax.random.split(key, 3)
        z, _ = self.sample_z(jax.random.split(of_z, len(batch["image"])))
        fresh = {
            "generator": init_stateful(self.generator, of_generator, z, **told(self.generator, batch)),
            "discriminator": init_stateful(
                self.discriminator_with_heads(), of_discriminator, batch["image"], **told(self.discriminator, batch)
            ),
        }
        carried = {group: found[1] for group, found in fresh.items()}
        if self.augment is not None and self.augment.adapts:
            carried["augment"] = self.augment.begin()
        return {group: found[0] for group, found in fresh.items()}, carried

    def turns(self, stage: int) -> tuple[Turn, ...]:
        turns = [Turn("discriminator", ("discriminator",), self.discriminator_loss, repeats=self.discriminator_steps)]
        if self.r1:
            turns.append(Turn("r1", ("discriminator",), self.r1_loss, every=self.r1_every))
        return (*turns, Turn("generator", self.generator_groups, self.generator_loss))

    # what subclasses extend

    @property
    def generator_groups(self) -> tuple[str, ...]:
        """Returns the groups that the turn `generator` trains; their memory is the generator's loss's to change."""
        return ("generator",)

    def discriminator_with_heads(self) -> nn.Module:
        """Returns the discriminator with the heads that the method needs."""
        return self.discriminator

    @property
    def uses_real(self) -> bool:
        """Returns whether the generator's loss reads the discriminator's outputs of real images."""
        return self.loss.uses_real or self.feature_matching > 0

    def sample_z(self, keys: Key[Array, " B"], sampler: GANSampler = NORMAL) -> tuple[Tree, dict[str, Array] | None]:
        """Returns the generator's input from one key per image, and its parts that a loss reads, such as codes.

        The input is an array or a tree of arrays with a leading batch axis. Random keys may be among them, one for each
        image, so that dropout, noise maps and style mixing of an image do not depend on the batch.

        Args:
          sampler: what draws the noise: the standard one in training, and the method's `sampler` for images.
        """
        return jax.vmap(lambda key: sampler.noise(key, (self.generator.z_dim,)))(keys), None

    def training_z(
        self, params: Params, memory: Memory, batch: Batch, keys: Key[Array, " B"]
    ) -> tuple[Tree, Any, Memory]:
        """Returns the generator's input in training, what a loss reads beside it, and the memory after the call.

        Here it is that of `sample_z`. A method that encodes the batch's images draws it around their codes.
        """
        z, drawn = shard_rows(self.sample_z(keys))
        return z, drawn, memory

    def between(self, a: Tree, b: Tree, t: Float[Array, ""]) -> Tree:
        """Returns inputs between two batches of them, for the panel `interpolation`; t is 0 at a and 1 at b.

        Arrays of numbers move along the sphere (`slerp`), and everything else, such as random keys, stays as in a.
        """
        return jax.tree.map(lambda x, y: slerp(x, y, t) if jnp.issubdtype(x.dtype, jnp.floating) else x, a, b)

    def discriminator_terms(self, real: Outputs, fake: Outputs, batch: Batch) -> tuple[Array | float, Metrics]:
        """Returns a further term of the discriminator's loss, computed from its outputs, and metrics."""
        return 0.0, {}

    def generator_terms(self, step: GeneratorStep) -> tuple[Array | float, Metrics]:
        """Returns a further term of the generator's loss, and metrics."""
        return 0.0, {}

    # the two losses

    def discriminator_loss(self, params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
        of_z, of_real, of_fake, of_place = jax.random.split(key, 4)
        keys = jax.random.split(of_z, len(batch["image"]))
        z, _, memory = self.training_z(params, state.memory, batch, keys)
        fake, _ = self.generate(params, memory, z, batch, train=True)
        seen = (
            self.augmented(of_real, batch["image"], memory),
            self.augmented(of_fake, jax.lax.stop_gradient(fake), memory),
        )
        on_real, memory = self.discriminate(params, state.memory, seen[0], batch)
        on_fake, memory = self.discriminate(params, memory, seen[1], batch)
        real, fake_logits = on_real["logits"], on_fake["logits"]
        of_reals, of_fakes = losses.game(self.loss, real, fake_logits)
        extra, metrics = self.discriminator_terms(on_real, on_fake, batch)
        total = of_reals + of_fakes + extra
        metrics |= {
            "gap": diagnostics.mean_logit(real) - diagnostics.mean_logit(fake_logits),
            "diversity_of_real": diagnostics.diversity(batch["image"]),
        }
        if self.loss.boundary is not None:  # a Wasserstein critic has none
            right = diagnostics.accuracy(real, fake_logits, self.loss.boundary)
            metrics |= {"accuracy_on_real": right[0], "accuracy_on_fake": right[1]}
        if self.gradient_penalty:
            penalty = penalties.gradient_penalty(self._logits(params, state.memory, batch), *seen, of_place).mean()
            total, metrics = total + self.gradient_penalty * penalty, metrics | {"gradient_penalty": penalty}
        adapted, of_augmentation = self._adapted(state.memory, real)
        return total, (metrics | of_augmentation, {"discriminator": memory["discriminator"], **adapted})

    def r1_loss(self, params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
        seen = self.augmented(key, batch["image"], state.memory)
        penalty = penalties.r1(self._logits(params, state.memory, batch), seen).mean()
        return self.r1 * self.r1_every * penalty, ({}, {})

    def generator_loss(self, params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
        of_z, of_fake, of_terms, _ = jax.random.split(key, 4)  # z as in the discriminator's loss, if the keys are equal
        keys = jax.random.split(of_z, len(batch["image"]))
        z, drawn, memory = self.training_z(params, state.memory, batch, keys)
        fake, memory = self.generate(params, memory, z, batch, train=True)
        outputs, _ = self.discriminate(params, memory, self.augmented(of_fake, fake, memory), batch)
        real_outputs = None
        if self.uses_real:
            seen = self.augmented(jax.random.fold_in(of_fake, 1), batch["image"], memory)
            real_outputs, _ = self.discriminate(params, memory, seen, batch)
        step = GeneratorStep(params, memory, batch, of_terms, z, fake, outputs, real_outputs, drawn)
        extra, metrics = self.generator_terms(step)
        metrics |= {"diversity": diagnostics.diversity(fake)}
        if self.feature_matching:
            matching = losses.feature_matching(_layers(real_outputs), _layers(outputs))
            extra, metrics = extra + self.feature_matching * matching, metrics | {"feature_matching": matching}
        total = self.adversarial * losses.generator_loss(self.loss, outputs["logits"], step.real_logits) + extra
        return total, (metrics, {group: memory[group] for group in self.generator_groups})

    def generate(self, params: Params, memory: Memory, z: Tree, batch: Batch, train: bool) -> tuple[Array, Memory]:
        """Returns the images of z, and the memory after the call."""
        options = told(self.generator, batch)
        images, carried = apply_stateful(
            self.generator, params["generator"], memory["generator"], z, train=train, **options
        )
        return images, {**memory, "generator": carried}

    def discriminate(
        self, params: Params, memory: Memory, images: Array, batch: Batch, train: bool = True
    ) -> tuple[Outputs, Memory]:
        """Returns the discriminator's outputs for one batch, real or fake, and the memory after the call."""
        network, options = self.discriminator_with_heads(), told(self.discriminator, batch)
        outputs, carried = apply_stateful(
            network, params["discriminator"], memory["discriminator"], images, train=train, **options
        )
        return outputs, {**memory, "discriminator": carried}

    def _logits(self, params: Params, memory: Memory, batch: Batch) -> Callable[[Array], Tree]:
        return lambda images: self.discriminate(params, memory, images, batch, train=False)[0]["logits"]

    def augmented(self, key: Array, images: Array, memory: Memory) -> Array:
        """Returns images as the discriminator sees them."""
        if self.augment is None:
            return images
        return self.augment.at(memory.get("augment", {}))(jax.random.split(key, len(images)), images)

    def _adapted(self, memory: Memory, logits: Tree) -> tuple[Memory, Metrics]:
        """Returns what the augmentation carries after the logits of real images, as memory and as metrics."""
        if self.augment is None or not self.augment.adapts:
            return {}, {}
        leaves = jax.tree.leaves(logits)
        signs = jnp.stack([jnp.sign(leaf - self.loss.boundary).mean() for leaf in leaves])
        carried = self.augment.adapted(memory["augment"], signs.mean(), len(leaves[0]))
        return {"augment": carried}, {"augmentation": carried["probability"]}

    def _check_augmentation(self, batch: Batch) -> None:
        """Raises a UserError where augmented images would be compared with pictures that stay as they are."""
        pictures = [name for name in self.discriminator.reads if batch[name].ndim >= 3]
        if self.augment is not None and pictures:
            raise UserError(
                f"config.method.augment moves the image but not {pictures[0]!r}, which the discriminator compares with "
                "it; remove config.method.augment."
            )

    # sampling

    def sample(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> Float[Array, "B H W C"]:
        return self.sample_from_z(model, self.sample_z(keys, self.sampler)[0], batch)

    def sample_from_z(self, model: Model, z: Tree, batch: Batch) -> Float[Array, "B H W C"]:
        """Returns the images of z by the averaged generator, with batch statistics that fit its weights."""
        images, _ = self.generate(model.params, self.with_own_statistics(model), z, batch, train=False)
        return jnp.clip(images, -1, 1)

    def panels(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "*F N H W C"]]:
        """Returns `interpolation`: each row moves along the sphere from one z to another, under the same conditions."""
        rows = min(ROWS, len(keys) // 2)
        if rows == 0 or self.image_shape[0] == 1:
            return {}
        a, b = (self.sample_z(part, self.sampler)[0] for part in (keys[:rows], keys[rows : 2 * rows]))
        walk = jax.vmap(lambda t: self.between(a, b, t))(jnp.linspace(0, 1, FRAMES))
        walk = jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(rows * FRAMES, *x.shape[2:]), walk)
        kept = {name: jnp.repeat(batch[name][:rows], FRAMES, axis=0) for name in self.conditions}
        return {"interpolation": self.sample_from_z(model, walk, kept)}

    def latent_plane(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> Float[Array, "B H W C"]:
        """Returns the images at places between four z, which are at the corners of the plane."""
        return self.sample_from_z(model, self.plane_z(keys, batch["place"]), batch)

    def plane_z(self, keys: Key[Array, " B"], place: Float[Array, "B 2"]) -> Tree:
        """Returns z at places in [0, 1] between the four that each key draws; what is no number is the first's."""

        def of_one(key: Array, place: Array) -> Tree:
            z, _ = self.sample_z(jax.random.split(key, 4), self.sampler)
            corners = [jax.tree.map(lambda x, i=i: x[i : i + 1], z) for i in range(4)]
            return jax.tree.map(lambda x: x[0], between_corners(self.between, corners, place))

        return jax.vmap(of_one)(keys, place)

    def with_own_statistics(self, model: Model) -> Memory:
        """Returns the memory with batch statistics of the averaged generator, estimated from z that never change.

        They are drawn as those of images are: truncated z have statistics of their own (Brock et al. 2018, appendix B).
        """
        others = [name for name in self.generator.reads if name != "label"]
        if others and "batch_stats" in model.memory["generator"]:
            raise UserError(
                f"The generator reads {others[0]!r} and has BatchNorm, whose statistics for the averaged weights "
                "cannot be estimated without batches of it; give config.method.generator another normalisation."
            )
        shape = (self.statistics_batches, 64)
        keys = jax.random.split(jax.random.key(0), shape)
        inputs: tuple[Tree, ...] = (jax.vmap(lambda k: self.sample_z(k, self.sampler)[0])(keys),)
        if self.generator.conditional:
            inputs += (jnp.arange(shape[0] * shape[1]).reshape(shape) % self.num_classes,)
        memory = reestimate_statistics(self.generator, model.params["generator"], model.memory["generator"], inputs)
        return {**model.memory, "generator": memory}


def _layers(outputs: Outputs | None) -> Tree:
    """Returns a discriminator's activations. Raises a UserError where it gives none."""
    if outputs is None or "layers" not in outputs:
        raise UserError(
            "config.method.feature_matching compares the discriminator's layers, which this one does not give: name "
            "'patch_discriminator', or 'multi_scale' of it, as config.method.discriminator."
        )
    return outputs["layers"]
