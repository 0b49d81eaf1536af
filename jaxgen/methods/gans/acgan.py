"""AC-GAN (Odena et al. 2017): the critic also tells classes, and both players want it right."""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.adversarial.mutual_information import categorical_cross_entropy
from jaxgen.errors import UserError
from jaxgen.methods.base import Batch, Metrics
from jaxgen.methods.gans.gan import GAN, Outputs, Step


@dataclasses.dataclass(frozen=True)
class ACGAN(GAN):
    """The critic's head `label` shares its trunk; cross-entropy from logits, on real and fake images for the critic, on
    fake ones for the generator. The critic itself is not told the label, the generator is.

    Attributes:
      class_weight: of the cross-entropy in both losses. generator_class_weight: in the generator's, if another;
        0 there is the control: the label is then free to mean nothing.
    """

    class_weight: float = 1.0
    generator_class_weight: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.generator.conditional or self.critic.conditional or self.num_classes < 2:
            raise UserError(
                "AC-GAN tells the generator the label and asks the critic for it: set "
                "config.method.generator.conditioning='concat' (or 'batch_norm'), the critic's to 'none', and "
                "config.data.num_classes above 1."
            )

    def judge(self) -> nn.Module:
        return self.critic.clone(heads={"label": self.num_classes})

    def critic_terms(self, real: Outputs, fake: Outputs, batch: Batch) -> tuple[jax.Array, Metrics]:
        entropy = [categorical_cross_entropy(outputs["label"], batch["label"]).mean() for outputs in (real, fake)]
        metrics = {"label_accuracy_on_real": _right(real, batch), "label_accuracy_on_fake": _right(fake, batch)}
        return self.class_weight * (entropy[0] + entropy[1]), metrics

    def generator_terms(self, step: Step) -> tuple[jax.Array, Metrics]:
        weight = self.class_weight if self.generator_class_weight is None else self.generator_class_weight
        entropy = categorical_cross_entropy(step.outputs["label"], step.batch["label"]).mean()
        return weight * entropy, {"label_accuracy": _right(step.outputs, step.batch)}


def _right(outputs: Outputs, batch: Batch) -> jax.Array:
    return jnp.mean(outputs["label"].argmax(axis=1) == batch["label"])
