"""Wasserstein GANs: with clipped weights (Arjovsky et al. 2017), or, as `wgan_gp`, a gradient penalty."""

from __future__ import annotations

import dataclasses

from jaxgen.adversarial import losses
from jaxgen.adversarial.losses import GANLoss
from jaxgen.methods.gans.gan import GAN


@dataclasses.dataclass(frozen=True)
class WGAN(GAN):
    """Five critic steps to one of the generator. The critic's slope is bounded by its optimiser:
    `config.optimizers.critic` with `clip_weights=0.01`, RMSProp at 5e-5 (Algorithm 1). Without it nothing holds it.

    `critic/gap` is an estimate of the Wasserstein-1 distance up to the critic's slope: over that of its slope, of W1.
    """

    loss: GANLoss = losses.Wasserstein()
    critic_steps: int = 5
