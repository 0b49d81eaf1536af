"""Holds Wasserstein GANs: with clipped weights (Arjovsky et al. 2017), or, as `wgan_gp`, with a gradient penalty."""

from __future__ import annotations

import dataclasses

from jaxgen.adversarial import losses
from jaxgen.adversarial.losses import GANLoss
from jaxgen.methods.gans.gan import GAN


@dataclasses.dataclass(frozen=True)
class WGAN(GAN):
    """The discriminator is what the paper calls the critic; it is updated five times for each generator update.

    The optimiser bounds the critic's slope: set `config.optimizers.discriminator` to `clip_weights=0.01` and RMSProp at
    5e-5 (Algorithm 1). Without `clip_weights` the slope is not bounded. `discriminator/gap` divided by the critic's
    slope is an estimate of the Wasserstein-1 distance.
    """

    loss: GANLoss = losses.Wasserstein()
    discriminator_steps: int = 5
