"""The progressive GAN (Karras et al. 2018) grows: each stage doubles the resolution of both networks.

A new resolution is faded in. For the first images of a stage, both networks mix it with what they were, and the real
images are mixed with their own smaller copies; alpha, the share of what is new, rises from 0 to 1. Then the networks
are stabilised, without a mixture, until the next stage begins.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.adversarial import losses
from jaxgen.arrays import Array, Batch, Entries, Memory, Metrics, Params, Tree, carry_over
from jaxgen.errors import UserError
from jaxgen.methods.base import Loss, LossResult, LossState, Model, Turn
from jaxgen.methods.gans.gan import Outputs
from jaxgen.methods.gans.wgan_gp import WGANGP
from jaxgen.networks.gans.progressive import mixed, size_at
from jaxgen.networks.layers.convolution import downsample, upsample


@dataclasses.dataclass(frozen=True)
class ProGAN(WGANGP):
    """Trains networks that have levels, such as `progressive_generator`, one level more at each stage.

    A stage's number is the highest level that its networks have. The game is that of WGAN-GP with one discriminator
    step, and `drift` keeps the logits of real images near 0, which the Wasserstein loss does not. The optimisers begin
    afresh at each stage, and the average of the generator goes on for layers that it has already.

    Images are drawn at the resolution of the last stage at any time: those of an earlier stage have larger pixels, and
    within a fade they are mixed as in the newest step. Memory holds `alpha`, which is also logged.

    Raises:
      UserError: a number is out of its range, or the networks do not fit the images or each other.
    """

    discriminator_steps: int = 1
    drift: float = 1e-3  # weight of the mean square of the logits of real images
    coarsest: int = 0  # pixels of the shorter side at the first stage, that of the images for no growth; 0: of level 0
    images_per_stage: tuple[int, int] = (800_000, 800_000)  # over which a stage fades in, and then is stabilised

    network_needs = {
        "generator": ("z_dim", "reads", "widths", "level", "fading"),
        "discriminator": ("reads", "widths", "level", "fading"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        fade, stable = self.images_per_stage
        if self.drift < 0 or fade < 0 or stable < 1:
            raise UserError(
                f"config.method: drift={self.drift} and the first of images_per_stage={self.images_per_stage} must not "
                "be negative, and the second is at least 1."
            )
        networks = self.generator, self.discriminator
        if not all(hasattr(network, "widths") for network in networks):
            return  # networks of another kind are refused by what the method needs of them
        ours, theirs = (len(network.widths) for network in networks)
        if ours != theirs:
            raise UserError(
                f"config.method.generator has {ours} widths and config.method.discriminator {theirs}: both grow "
                "together, so give them as many levels."
            )
        self.first  # noqa: B018  # it is checked

    # the stages

    def _sides(self) -> list[int]:
        """Returns the shorter side of the images of each level."""
        widths = self.generator.widths
        return [min(size_at(self.image_shape, widths, level)) for level in range(len(widths))]

    @property
    def first(self) -> int:
        """Returns the first stage, the level of the resolution `coarsest`."""
        sides = self._sides()
        if self.coarsest and self.coarsest not in sides:
            raise UserError(
                f"config.method.coarsest={self.coarsest} is no side of the networks' levels, which have "
                f"{', '.join(map(str, sides))} pixels."
            )
        return sides.index(self.coarsest) if self.coarsest else 0

    @property
    def stages(self) -> tuple[tuple[int, int], ...]:
        fade, stable = self.images_per_stage
        later = range(1, len(self.generator.widths) - self.first)
        return ((0, self.first), *((n * stable + (n - 1) * fade, self.first + n) for n in later))

    def at(self, stage: int) -> ProGAN:
        """Returns the method with its networks at a stage."""
        fading = stage > self.first
        generator, discriminator = (
            network.clone(level=stage, fading=fading) for network in (self.generator, self.discriminator)
        )
        return dataclasses.replace(self, generator=generator, discriminator=discriminator)

    def alpha(self, stage: int, images: Array | int) -> Float[Array, ""]:
        """Returns the share of a stage's new layers, in [0, 1], when so many images were seen."""
        fade, start = self.images_per_stage[0], {stage: start for start, stage in self.stages}[stage]
        if stage == self.first or not fade:
            return jnp.ones(())
        return jnp.clip((jnp.asarray(images, jnp.uint32) - jnp.uint32(start)) / jnp.float32(fade), 0, 1)

    def seen(self, batch: Batch, stage: int, alpha: Float[Array, ""]) -> Batch:
        """Returns a batch as a stage's networks see it: its images are small, and fade as the networks do.

        The images `[B, H, W, C]` become means of blocks of pixels `[B, h, w, C]`, mixed with their halves' pixels.
        """
        images = batch["image"]
        for _ in range(len(self.generator.widths) - 1 - stage):
            images = downsample(images)
        if stage > self.first:
            images = mixed(upsample(downsample(images)), images, alpha)
        return Entries({**batch, "image": images, "alpha": alpha})

    # training

    def init(
        self, key: Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        alpha = self.alpha(stage, {stage: start for start, stage in self.stages}[stage])
        batch = self.seen(batch, stage, alpha)
        fresh, memory = WGANGP.init(self.at(stage), key, batch, stage, given, params, memory)
        return carry_over(params, fresh), {**memory, "alpha": alpha}

    def turns(self, stage: int) -> tuple[Turn, ...]:
        turns = WGANGP.turns(self.at(stage), stage)
        return tuple(dataclasses.replace(turn, loss=functools.partial(self._faded, stage, turn.loss)) for turn in turns)

    def _faded(self, stage: int, loss: Loss, params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
        """Computes a turn's loss on what the stage's networks see, and remembers alpha."""
        alpha = self.alpha(stage, state.images)
        value, (metrics, changed) = loss(params, self.seen(batch, stage, alpha), key, state)
        return value, ({**metrics, "alpha": alpha}, {**changed, "alpha": alpha})

    def discriminator_terms(self, real: Outputs, fake: Outputs, batch: Batch) -> tuple[Array | float, Metrics]:
        drift = losses.mean_of(jax.tree.map(jnp.square, real["logits"]))
        return self.drift * drift, {"drift": drift}

    # sampling

    def told_at(self, stage: int) -> str:
        last = len(self.generator.widths) - 1
        if stage == last:
            return ""
        (height, width), times = size_at(self.image_shape, self.generator.widths, stage), 2 ** (last - stage)
        return (
            f"the run is in its stage of {height}x{width} pixels, so that each of these is {times}x{times} pixels of "
            f"the {self.image_shape[0]}x{self.image_shape[1]} that are sampled: train it longer for finer ones"
        )

    def sample_from_z(self, model: Model, z: Tree, batch: Batch) -> Float[Array, "B H W C"]:
        batch = Entries({**batch, "alpha": model.memory["alpha"]})
        images = WGANGP.sample_from_z(self.at(model.stage), model, z, batch)
        for _ in range(len(self.generator.widths) - 1 - model.stage):
            images = upsample(images)
        return images
