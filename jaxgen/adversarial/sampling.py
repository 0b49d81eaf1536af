"""Says how a trained generator's inputs are drawn when images are sampled; training is not touched by it.

A GAN's `config.sampler` names one of these classes. It may differ each time that images are sampled, as a diffusion
model's solver may.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Float, Key

from jaxgen.arrays import Array
from jaxgen.errors import UserError


class GANSampler:
    """This is the contract: a frozen dataclass whose fields are the options of sampling.

    A GAN that is steered in another way, such as in the space of its styles, reads the fields of a class of its own.
    """

    def noise(self, key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "*shape"]:
        """Returns one image's noise; it is standard normal if a subclass does not override this."""
        return jax.random.normal(key, shape)


NORMAL = GANSampler()


@dataclasses.dataclass(frozen=True)
class TruncatedNormal(GANSampler):
    """Keeps every value of z within a threshold: images become more typical and less diverse (the truncation trick).

    z follows the normal distribution, cut off at plus and minus the threshold, as if values outside of it were drawn
    again (Brock et al. 2018, section 3.1). One random key gives values that move steadily towards 0 as the threshold
    falls, so that one seed shows the same images, each more or less typical.

    Raises:
      UserError: the threshold is not above 0.
    """

    threshold: float | None = None  # in standard deviations, such as 0.5; None does not truncate

    def __post_init__(self) -> None:
        if self.threshold is not None and not self.threshold > 0:
            raise UserError(f"config.sampler.threshold is {self.threshold}; it must be above 0, or None.")

    def noise(self, key: Key[Array, ""], shape: tuple[int, ...]) -> Float[Array, "*shape"]:
        if self.threshold is None:
            return super().noise(key, shape)
        limit = jnp.float32(self.threshold)
        return jax.random.truncated_normal(key, -limit, limit, shape)
