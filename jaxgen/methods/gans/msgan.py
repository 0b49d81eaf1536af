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
        return seek_modes(self, step, self.mode_seeking)


def seek_modes(method: GAN, step: GeneratorStep, weight: float) -> tuple[jax.Array, Metrics]:
    """Returns the two terms that a second z adds to a generator's loss: the ratio of distances, and the game.

    Args:
      method: the method, which draws z, makes fakes and judges them.
      step: the generator's step with the first z.
      weight: the weight of 1 / (mean|dI| / mean|dz| + 1e-5).
    """
    of_z, of_fake = jax.random.split(step.key)
    other_z, _ = shard_rows(method.sample_z(jax.random.split(of_z, len(step.fake))))
    other, memory = method.generate(step.params, step.memory, other_z, step.batch, train=True)
    on_other, _ = method.discriminate(step.params, memory, method.augmented(of_fake, other, memory), step.batch)
    term = mode_seeking(step.fake, other, step.z, other_z)
    of_other = losses.generator_loss(method.loss, on_other["logits"], step.real_logits)
    return weight * term + method.adversarial * of_other, {"mode_seeking": term}
