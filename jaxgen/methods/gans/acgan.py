"""In AC-GAN (Odena et al. 2017) the discriminator also predicts classes; both networks minimise the cross-entropy."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.adversarial.mutual_information import categorical_cross_entropy
from jaxgen.arrays import Batch, Metrics
from jaxgen.errors import UserError
from jaxgen.methods.gans.gan import GAN, GeneratorStep, Outputs


@dataclasses.dataclass(frozen=True)
class ACGAN(GAN):
    """The discriminator has a further head, `label`, on its own features.

    The discriminator minimises the head's cross-entropy on real and fake images, the generator on fake images. Only the
    generator is given the label.
    """

    class_weight: float = 1.0  # of the cross-entropy, in both losses
    generator_class_weight: float | None = None  # in the generator's loss; 0 is the control: labels may mean nothing

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.generator.conditional or self.discriminator.conditional or self.num_classes < 2:
            raise UserError(
                "AC-GAN tells the generator the label and asks the discriminator for it: set "
                "config.method.generator.conditioning='concat' (or 'batch_norm'), the discriminator's to 'none', and "
                "config.data.num_classes above 1."
            )

    def discriminator_with_heads(self) -> nn.Module:
        return self.discriminator.clone(heads={"label": self.num_classes})

    def discriminator_terms(self, real: Outputs, fake: Outputs, batch: Batch) -> tuple[jax.Array, Metrics]:
        entropy = [categorical_cross_entropy(outputs["label"], batch["label"]).mean() for outputs in (real, fake)]
        metrics = {"label_accuracy_on_real": _accuracy(real, batch), "label_accuracy_on_fake": _accuracy(fake, batch)}
        return self.class_weight * (entropy[0] + entropy[1]), metrics

    def generator_terms(self, step: GeneratorStep) -> tuple[jax.Array, Metrics]:
        weight = self.class_weight if self.generator_class_weight is None else self.generator_class_weight
        entropy = categorical_cross_entropy(step.outputs["label"], step.batch["label"]).mean()
        return weight * entropy, {"label_accuracy": _accuracy(step.outputs, step.batch)}


def _accuracy(outputs: Outputs, batch: Batch) -> jax.Array:
    return jnp.mean(outputs["label"].argmax(axis=1) == batch["label"])
