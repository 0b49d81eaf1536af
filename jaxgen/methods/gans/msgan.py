"""MSGAN (Mao et al. 2019): images of two z must differ as the z do, so that a condition keeps its modes."""

from __future__ import annotations

import dataclasses

import jax

from jaxgen.adversarial import losses
from jaxgen.adversarial.regularisers import mode_seeking
from jaxgen.arrays import Metrics
from jaxgen.data_shards import shard_rows
from jaxgen.methods.gans.gan import GAN, GeneratorStep


@dataclasses.dataclass(frozen=True)
class MSGAN(GAN):
    """Each generator step draws two z for the same conditions; the discriminator sees the fakes of both."""

    mode_seeking: float = 1.0  # weight of 1 / (mean|dI| / mean|dz| + 1e-5); 0 is the control

    def generator_terms(self, step: GeneratorStep) -> tuple[jax.Array, Metrics]:
        of_z, of_fake = jax.random.split(step.key)
        other_z, _ = shard_rows(self.sample_z(jax.random.split(of_z, len(step.fake))))
        other, memory = self.generate(step.params, step.memory, other_z, step.batch, train=True)
        on_other, _ = self.discriminate(step.params, memory, self._augmented(of_fake, other), step.batch)
        term = mode_seeking(step.fake, other, step.z, other_z)
        of_other = losses.generator_loss(self.loss, on_other["logits"], step.real_logits)
        return self.mode_seeking * term + of_other, {"mode_seeking": term}
