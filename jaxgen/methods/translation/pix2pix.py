"""pix2pix (Isola et al. 2017) translates a picture of one kind into one of another, and learns from pairs of both.

With a discriminator of several scales and feature matching it is pix2pixHD (Wang et al. 2018), and with mode seeking it
is MSGAN's setting of paired images (Mao et al. 2019), which gives several results for one picture.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Float, Key

from jaxgen.adversarial.sampling import NORMAL, GANSampler, TranslationSampler
from jaxgen.arrays import Array, Batch, Metrics
from jaxgen.errors import UserError
from jaxgen.methods.base import Model, Turn
from jaxgen.methods.gans.gan import GAN, GeneratorStep
from jaxgen.methods.gans.msgan import seek_modes
from jaxgen.methods.translation.panel import as_picture, side_by_side

ROWS = 16  # examples of the panel
DRAWS = 2  # of each, where the generator has noise


@dataclasses.dataclass(frozen=True)
class Pix2Pix(GAN):
    """Learns as `GAN` does, and the generator is also pulled to the true image by the L1 distance (Eq. 4).

    The generator reads the batch entries that it names, such as `condition`, and gives `image`; any two entries can be
    the pair, by `config.data.rename`. A discriminator with the same `reads` judges pictures and image together, one
    without judges the image alone. Random numbers are the dropout of the generator, which the paper keeps in use, and
    noise where its `z_dim` is above 0. An L1-only control is `adversarial=0`, a GAN-only one `l1=0`.

    Raises:
      UserError: the generator has BatchNorm, or mode seeking has no noise.
    """

    l1: float = 100.0  # weight of mean|G(x) - y| in the generator's loss; pix2pixHD has none
    mode_seeking: float = 0.0  # weight of MSGAN's term, whose second fake also plays the game; it needs z_dim above 0
    sampler: TranslationSampler = TranslationSampler()  # `config.sampler`: whether dropout is on, how noise is drawn

    panel_inputs = ("image",)
    network_needs = {"generator": ("z_dim", "reads", "dropout"), "discriminator": ("reads",)}

    def __post_init__(self) -> None:
        super().__post_init__()
        if getattr(self.generator, "norm", "none") == "batch":
            raise UserError(
                "config.method.generator.norm='batch' would normalise a translation by the other images of its batch: "
                "set it to 'affine_instance', which is BatchNorm with the paper's batches of one image, or 'instance'."
            )
        if self.mode_seeking and not self.generator.z_dim:
            raise UserError(
                "config.method.mode_seeking compares results of two draws of noise, and the generator has none: set "
                "config.method.generator.z_dim, for example to 8."
            )

    def turns(self, stage: int) -> tuple[Turn, ...]:
        """Returns the turns of a GAN; with one step of the discriminator both players see one fake, as in the paper's
        code, and it is drawn once."""
        turns = super().turns(stage)
        if self.discriminator_steps > 1:
            return turns
        players = ("discriminator", "generator")
        return tuple(dataclasses.replace(turn, keys="fake") if turn.name in players else turn for turn in turns)

    @property
    def columns(self) -> Mapping[str, int]:
        return {"translation": len(self.generator.reads) + self._draws + 1}

    @property
    def limits(self) -> Mapping[str, int]:
        classes = getattr(self.generator, "classes", 0)
        return {**super().limits, **({"mask": classes} if classes and "mask" in self.generator.reads else {})}

    @property
    def _draws(self) -> int:
        return DRAWS if self.generator.z_dim else 1

    def sample_z(self, keys: Key[Array, " B"], sampler: GANSampler = NORMAL) -> tuple[dict[str, Array], None]:
        """Returns what the generators of `jaxgen.networks.translation` take as z: noise, and keys of dropout."""
        z = {}
        if self.generator.z_dim:
            z["noise"] = super().sample_z(keys, sampler)[0]
        if self.generator.dropout and getattr(sampler, "dropout", True):
            z["dropout"] = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
        return z, None

    def generator_terms(self, step: GeneratorStep) -> tuple[Array | float, Metrics]:
        error = jnp.abs(step.fake - step.batch["image"]).mean()
        total, metrics = self.l1 * error, {"l1": error}
        if self.mode_seeking:
            term, more = seek_modes(self, step, self.mode_seeking)
            total, metrics = total + term, metrics | more
        return total, metrics

    def panels(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "N H W C"]]:
        """Returns `translation`: in each line the pictures that are read, the results and, if known, the true image."""
        rows = min(ROWS, len(keys))
        read = {name: batch[name][:rows] for name in self.generator.reads}
        cells = [as_picture(name, entry, self.generator.classes) for name, entry in read.items()]
        for number in range(self._draws):
            own = jax.vmap(lambda key, number=number: jax.random.fold_in(key, number))(keys[:rows])
            cells.append(self.sample(model, own, read))
        true = batch.get("image")
        cells.append(jnp.ones_like(cells[-1]) if true is None else true[:rows])
        return {"translation": side_by_side(cells, self.image_shape)}
