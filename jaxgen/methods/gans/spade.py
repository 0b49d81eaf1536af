"""SPADE, of which GauGAN is made (Park et al. 2019), draws pictures of layouts: the class of each pixel.

It is a GAN whose networks read a mask. With a style encoder it is a variational autoencoder too, so that one layout has
many pictures, and a picture lends its style to another layout.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int, Key

from jaxgen.adversarial import losses
from jaxgen.adversarial.losses import GANLoss
from jaxgen.arrays import Array, Batch, Memory, Metrics, Params, Tree, check_entries
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.methods.gans.gan import GAN, GeneratorStep
from jaxgen.methods.segmentation.masks import coloured
from jaxgen.networks.layers.stateful import apply_stateful, init_stateful
from jaxgen.networks.pretrained.perceptual import perceptual_distance
from jaxgen.variational.gaussian import Gaussian

DRAWS = 4  # images of one layout in the panel `layouts`
STYLES = 4  # pictures whose styles the panel `styles` shows


@dataclasses.dataclass(frozen=True)
class SPADE(GAN):
    """Turns `discriminator` and `generator`; the latter also trains the group `encoder`, where there is one.

    The generator minimises its part of the game, `feature_matching` times the distance of the discriminator's
    activations of its images from those of the true ones, `perceptual_weight` times a perceptual distance where there
    is a network for it, and `kl` times the divergence of the encoder's q(z | x) from N(0, 1), summed over z.

    In training z is drawn from q(z | x) of the image that the layout is of; without an encoder, and when images are
    sampled, it is standard normal. A picture that is given as `image` at sampling lends its style: z is then the mean
    of q(z | picture).

    With batch statistics no average of the weights is kept, as in the paper: statistics of averaged weights cannot be
    estimated without layouts. The running statistics of training normalise at sampling.
    """

    loss: GANLoss = losses.Hinge()
    encoder: nn.Module | None = None  # `x -> [B, 2 z_dim]`, such as `style_encoder`; None: z means nothing in training
    kl: float = 0.05
    feature_matching: float = 10.0
    perceptual: nn.Module | None = None  # `lpips`, or a classifier; trained weights: `config.init_from.perceptual`
    perceptual_weight: float = 10.0

    network_needs = {**GAN.network_needs, "generator": ("z_dim", "reads", "classes", "statistics")}
    panel_inputs = ("image", "mask")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("kl", "feature_matching", "perceptual_weight"):
            if getattr(self, name) < 0:
                raise UserError(f"config.method.{name} is {getattr(self, name)}; it must be at least 0.")
        if getattr(self.generator, "classes", 2) < 2:
            raise UserError("A layout has at least two classes: set config.method.generator.classes to their number.")
        if "mask" not in getattr(self.generator, "reads", ("mask",)):
            raise UserError("SPADE draws pictures of masks: name 'mask' in config.method.generator.reads.")
        patches = getattr(self.discriminator, "network", self.discriminator)
        seen, asked = getattr(patches, "classes", 0), getattr(self.generator, "classes", 0)
        if "mask" in getattr(patches, "reads", ()) and seen != asked:
            raise UserError(
                f"The discriminator knows {seen} classes of the mask, and the generator {asked}: set "
                "config.method.discriminator.classes (of a multi_scale: discriminator.network.classes) to the "
                "generator's."
            )

    @property
    def ema_groups(self) -> tuple[str, ...]:
        return () if self.generator.statistics == "batch" else self.generator_groups

    @property
    def generator_groups(self) -> tuple[str, ...]:
        return ("generator",) if self.encoder is None else ("generator", "encoder")

    @property
    def required_groups(self) -> tuple[str, ...]:
        return () if self.perceptual is None else ("perceptual",)

    @property
    def optional(self) -> tuple[str, ...]:
        return () if self.encoder is None else ("image",)

    @property
    def columns(self) -> Mapping[str, int]:
        return {**super().columns, "layouts": DRAWS + 2, "styles": STYLES + 1}

    @property
    def limits(self) -> Mapping[str, int]:
        return {**super().limits, "mask": self.generator.classes}

    @property
    def _encoder(self) -> nn.Module:
        """Returns the encoder for the generator's width of z."""
        if self.encoder is None:
            raise UserError("There is no style encoder: set config.method.encoder.")
        return self.encoder.clone(outputs=2 * self.generator.z_dim)

    def init(
        self, key: Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        check_entries(batch, self.generator.reads, "SPADE", "a config.data.source with masks")
        learned, carried = super().init(key, batch, stage, given, params, memory)
        if self.encoder is not None:
            of_encoder = jax.random.fold_in(key, 1)
            learned["encoder"], carried["encoder"] = init_stateful(self._encoder, of_encoder, batch["image"])
        return learned, carried

    def posterior(
        self, params: Params, memory: Memory, image: Float[Array, "B H W C"], train: bool
    ) -> tuple[Gaussian, Memory]:
        """Returns q(z | image), and the memory after the call."""
        found, carried = apply_stateful(self._encoder, params["encoder"], memory["encoder"], image, train=train)
        return Gaussian.of(found), {**memory, "encoder": carried}

    def training_z(
        self, params: Params, memory: Memory, batch: Batch, keys: Key[Array, " B"]
    ) -> tuple[Tree, Gaussian | None, Memory]:
        noise, _, memory = super().training_z(params, memory, batch, keys)
        if self.encoder is None:
            return noise, None, memory
        posterior, memory = self.posterior(params, memory, batch["image"], train=True)
        return posterior.at(noise), posterior, memory

    def generator_terms(self, step: GeneratorStep) -> tuple[Array | float, Metrics]:
        total: Array | float = 0.0
        metrics: Metrics = {}
        if self.perceptual is not None:
            images = step.batch["image"], step.fake
            metrics["perceptual"] = perceptual_distance(self.perceptual, step.params["perceptual"], *images).mean()
            total = total + self.perceptual_weight * metrics["perceptual"]
        if step.drawn is not None:
            metrics["kl"] = step.drawn.kl().sum(axis=1).mean()
            total = total + self.kl * metrics["kl"]
        return total, metrics

    # sampling

    def sample(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> Float[Array, "B H W C"]:
        if self.encoder is None or "image" not in batch:
            return super().sample(model, keys, batch)
        return self.sample_from_z(model, self.styles(model, batch["image"]), batch)

    def styles(self, model: Model, image: Float[Array, "B H W C"]) -> Float[Array, "B Z"]:
        """Returns the styles of pictures: the means of q(z | image)."""
        return self.posterior(model.params, model.memory, image, train=False)[0].mean

    def panels(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "*F N H W C"]]:
        """Returns `interpolation`, and, where held-out images can be had, pictures of their layouts.

        - `layouts`: a layout, its true image, and images of other z.
        - `styles`: in the first column layouts, in the first row pictures, and elsewhere the layout of the row in the
          style of the picture.
        """
        told = {name: batch[name] for name in self.conditions}
        found = super().panels(model, keys, told)
        if "image" not in batch:
            return found
        image, layouts = batch["image"], self._coloured(batch["mask"])
        rows = min(8, len(keys))
        several = {name: jnp.repeat(values[:rows], DRAWS, axis=0) for name, values in told.items()}
        folded = jax.vmap(lambda key: jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(DRAWS)))(keys[:rows])
        drawn = super().sample(model, folded.reshape(-1), several)
        cells = [layouts[:rows, None], image[:rows, None], drawn.reshape(rows, DRAWS, *image.shape[1:])]
        found["layouts"] = jnp.concatenate(cells, axis=1).reshape(-1, *image.shape[1:])
        if self.encoder is not None and len(image) >= 2 * STYLES:
            found["styles"] = self._style_table(model, told, image, layouts)
        return found

    def _style_table(self, model: Model, told: Batch, image: Array, layouts: Array) -> Float[Array, "N H W C"]:
        z = jnp.tile(self.styles(model, image[STYLES : 2 * STYLES]), (STYLES, 1))
        several = {name: jnp.repeat(values[:STYLES], STYLES, axis=0) for name, values in told.items()}
        drawn = self.sample_from_z(model, z, several).reshape(STYLES, STYLES, *image.shape[1:])
        first = jnp.concatenate([jnp.ones_like(image[:1]), image[STYLES : 2 * STYLES]])[None]
        rest = jnp.concatenate([layouts[:STYLES, None], drawn], axis=1)
        return jnp.concatenate([first, rest]).reshape(-1, *image.shape[1:])

    def _coloured(self, mask: Int[Array, "B H W"]) -> Float[Array, "B H W C"]:
        """Returns layouts in the colours of their classes, with the images' channels."""
        found = coloured(mask, self.generator.classes)
        channels = self.image_shape[-1]
        return found if channels == 3 else jnp.repeat(found.mean(axis=-1, keepdims=True), channels, axis=-1)

    def with_own_statistics(self, model: Model) -> Memory:
        """Returns the memory: with batch statistics the weights are those of training, and else there are none."""
        return model.memory
