"""Says how a trained generator's inputs are drawn when images are sampled; training is not touched by it.

A GAN's `config.sampler` names one of these classes. It may differ each time that images are sampled, as a diffusion
model's solver may.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

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


@dataclasses.dataclass(frozen=True)
class Truncation(GANSampler):
    """Draws the styles of a style-based generator: how far they are from their mean, and with which noise inputs.

    Styles are `truncation` times as far from the mean of w as they were drawn (Karras et al. 2019, appendix B): 1
    leaves them, 0 shows the mean image alone, and above 1 images become rarer.

    Raises:
      UserError: `truncation` is not a number from 0 on, or `layers` is negative.
    """

    truncation: float = 1.0  # psi; 0.7 gives typical images, 1 those of training
    layers: int | None = None  # layers, from the coarsest on, that are truncated; None for all
    noise_inputs: Literal["random", "fixed", "none"] = "random"  # "fixed": one noise for all images; "none": without

    def __post_init__(self) -> None:
        if not (self.truncation >= 0 and math.isfinite(self.truncation)):
            raise UserError(f"config.sampler.truncation is {self.truncation}; it is a number from 0 on, such as 0.7.")
        if self.layers is not None and self.layers < 0:
            raise UserError(f"config.sampler.layers is {self.layers}; it counts truncated layers, from 0 on.")


@dataclasses.dataclass(frozen=True)
class Pyramid:
    """Draws with a model that has learned one picture at several scales (SinGAN), at any size, or from any scale on.

    Raises:
      UserError: a side is below 1 pixel, `start` is negative, or both are given: scales that are kept are those of the
        picture itself, and have its size.
    """

    size: tuple[int, int] | None = None  # height and width of the images; None for those of the picture
    start: int = 0  # scales, from the coarsest on, that are kept as they are in the picture; 0 draws all of them

    def __post_init__(self) -> None:
        if self.size is not None and min(self.size) < 1:
            raise UserError(f"config.sampler.size is {self.size}; height and width are at least 1 pixel.")
        if self.start < 0:
            raise UserError(f"config.sampler.start is {self.start}; it counts scales that are kept, from 0 on.")
        if self.size is not None and self.start:
            raise UserError(
                f"config.sampler.start={self.start} keeps scales of the picture, which have its own size: leave "
                "config.sampler.size out, or start at 0."
            )


@dataclasses.dataclass(frozen=True)
class TranslationSampler(TruncatedNormal):
    """Says whether a generator drops values in use too, as pix2pix does, and how its noise is drawn.

    The dropout is the only random part of pix2pix (Isola et al. 2017, section 2.1): without it one picture always has
    one result.
    """

    config_name = ""  # no config names it: `config.sampler.dropout` is a key of methods that translate alone

    dropout: bool = True  # whether values are dropped when images are sampled


def slerp(a: Float[Array, "B Z"], b: Float[Array, "B Z"], t: Float[Array, ""]) -> Float[Array, "B Z"]:
    """Interpolates between normal vectors: directions by angle, lengths linearly (Shoemake 1985; White 2016)."""
    length_a, length_b = (jnp.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    cosine = (a * b).sum(axis=1, keepdims=True) / (length_a * length_b)
    angle = jnp.arccos(jnp.clip(cosine, -1 + 1e-6, 1 - 1e-6))
    direction = jnp.sin((1 - t) * angle) * a / length_a + jnp.sin(t * angle) * b / length_b
    return ((1 - t) * length_a + t * length_b) * direction / jnp.sin(angle)


def between_corners(
    between: Callable[[Any, Any, Array], Any], corners: Sequence[Any], place: Float[Array, "... 2"]
) -> Any:
    """Returns the point of a plane between four: across from left to right at both edges, and then upwards.

    Args:
      between: `(a, b, t) -> point`, such as `slerp`: a at t = 0, b at t = 1.
      corners: left below, right below, left above, right above.
      place: x (to the right) and y (upwards) in [0, 1].
    """
    left_below, right_below, left_above, right_above = corners
    x, y = place[..., 0], place[..., 1]
    return between(between(left_below, right_below, x), between(left_above, right_above, x), y)
