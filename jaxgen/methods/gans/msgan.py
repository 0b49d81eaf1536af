"""MSGAN (Mao et al. 2019): images of two z must differ as the z do, so that a condition keeps its modes."""

from __future__ import annotations

import dataclasses

import jax

from jaxgen.adversarial.regularisers import mode_seeking
from jaxgen.data_shards import shard_rows
from jaxgen.methods.base import Metrics
from jaxgen.methods.gans.gan import GAN, Step


@dataclasses.dataclass(frozen=True)
class MSGAN(GAN):
    """Each generator step draws two z for the same conditions; both fakes play the game.

    Attributes:
      mode_seeking: weight of 1 / (mean|dI| / mean|dz| + 1e-5); 0 is the control.
    """

    mode_seeking: float = 1.0

    def generator_terms(self, step: Step) -> tuple[jax.Array, Metrics]:
        of_latent, of_fake = jax.random.split(step.key)
        other_z, _ = shard_rows(self.draw(jax.random.split(of_latent, len(step.z))))
        other, memory = self.generate(step.params, step.memory, other_z, step.batch, train=True)
        on_other, _ = self.look(step.params, memory, self._seen(of_fake, other), step.batch)
        term = mode_seeking(step.fake, other, step.z, other_z)
        return self.mode_seeking * term + self.loss.generator(on_other["logits"]).mean(), {"mode_seeking": term}
