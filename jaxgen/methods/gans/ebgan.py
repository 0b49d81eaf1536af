"""EBGAN (Zhao et al. 2017): the discriminator is an autoencoder whose error is an energy, low on real images."""

from __future__ import annotations

import dataclasses

import jax

from jaxgen.adversarial import losses
from jaxgen.adversarial.losses import GANLoss
from jaxgen.adversarial.regularisers import pull_away
from jaxgen.arrays import Batch, Metrics
from jaxgen.errors import UserError
from jaxgen.methods.gans.gan import GAN, GeneratorStep, Outputs


@dataclasses.dataclass(frozen=True)
class EBGAN(GAN):
    """`loss` is `energy_margin`; the generator's loss also pulls codes of different fakes apart.

    The gradient reaches the generator through both sides of the reconstruction error: the target is not held fixed.
    """

    loss: GANLoss = losses.EnergyMargin()
    pull_away: float = 0.1  # weight of the pulling-away term of the discriminator's codes, in the generator's loss

    def __post_init__(self) -> None:
        super().__post_init__()
        if not hasattr(self.discriminator, "codes"):
            raise UserError("EBGAN needs an autoencoder: set config.method.discriminator.name='energy_autoencoder'.")

    def discriminator_terms(self, real: Outputs, fake: Outputs, batch: Batch) -> tuple[float, Metrics]:
        return 0.0, {"energy_of_real": real["energy"].mean(), "energy_of_fake": fake["energy"].mean()}

    def generator_terms(self, step: GeneratorStep) -> tuple[jax.Array, Metrics]:
        term = pull_away(step.outputs["codes"])
        return self.pull_away * term, {"pull_away": term}
