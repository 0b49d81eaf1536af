"""Augments what the discriminator sees, differentiably, for small data.

Real and fake images go through the *same* policy, each with its own draws, in the discriminator's step and in the
generator's. The gradient passes through the augmentation, so the generator does not learn to produce augmented images.
`config.method.augment` names a class in snake case: `DiffAugment` is "diff_augment".

    augment = DiffAugment()
    on_real, on_fake = discriminator(augment(keys_a, real)), discriminator(augment(keys_b, fake))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar

import jax
import jax.numpy as jnp

from jaxgen.arrays import Array
from jaxgen.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float, Key

    Images = Float[Array, "B H W C"]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """This is the contract: an augmentation is a pure function of keys and images, differentiable in the images.

    The result for an image depends on that image and its key alone. An augmentation is a frozen dataclass that derives
    from this class and implements `__call__`. One that adapts during training carries numbers in the method's memory,
    `augment`, and overrides `begin`, `at` and `adapted` too.
    """

    adapts: ClassVar[bool] = False  # whether it carries numbers

    def __call__(self, keys: Key[Array, " B"], images: Images) -> Images:
        """Returns the augmented images, for images in [-1, 1] and one random key for each."""
        raise NotImplementedError

    def begin(self) -> dict[str, Array]:
        """Returns the numbers that are carried, as they are at the start."""
        return {}

    def at(self, carried: Mapping[str, Array]) -> Callable[[Key[Array, " B"], Images], Images]:
        """Returns the augmentation with the numbers that are carried."""
        return self

    def adapted(self, carried: Mapping[str, Array], sign: Float[Array, ""], images: int) -> dict[str, Array]:
        """Returns the numbers after a step of the discriminator.

        Args:
          carried: the numbers before it.
          sign: the mean sign of its logits of real images, from the loss's boundary between real and fake.
          images: the number of real images.
        """
        return dict(carried)


@dataclasses.dataclass(frozen=True)
class DiffAugment(Augmentation):
    """DiffAugment (Zhao et al. 2020) transforms each image at random, in the order of the fields.

    The defaults are those of the paper ("colour, translation, cutout"). A field of 0 leaves its transformation out and
    does not change the random numbers of the others.

    Raises:
      UserError: for a value outside [0, 1].
    """

    # A number drawn uniformly from [-brightness, brightness] is added to all values of the image.
    brightness: float = 0.5
    # The distance of a pixel to its mean over channels is multiplied by a factor drawn from 1 +- saturation; a grey
    # image does not change.
    saturation: float = 1.0
    # The distance of all values to the image's mean is multiplied by a factor drawn from 1 +- contrast.
    contrast: float = 0.5
    # The image is shifted along each axis by a whole number of pixels, up to this share of the side; 0 (mid-grey) fills
    # the gap.
    translation: float = 0.125
    # A rectangle of this share of each side is set to 0. Its centre is anywhere in the image, so a part of it may lie
    # outside.
    cutout: float = 0.5

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not 0 <= value <= 1:
                raise UserError(f"DiffAugment's {name} must lie in [0, 1], but is {value}.")

    def __call__(self, keys: Key[Array, " B"], images: Images) -> Images:
        return jax.vmap(self._one)(keys, images)

    def _one(self, key: Array, x: Array) -> Array:
        keys = jax.random.split(key, 5)
        if self.brightness:
            x = x + _uniform(keys[0], 0.0, self.brightness)
        if self.saturation:
            x = _scaled(x, x.mean(axis=2, keepdims=True), _uniform(keys[1], 1.0, self.saturation))
        if self.contrast:
            x = _scaled(x, x.mean(), _uniform(keys[2], 1.0, self.contrast))
        if self.translation:
            x = _translated(keys[3], x, self.translation)
        return _cut(keys[4], x, self.cutout) if self.cutout else x


def _uniform(key: Array, centre: float, reach: float) -> Array:
    return jax.random.uniform(key, minval=centre - reach, maxval=centre + reach)


def _scaled(x: Array, mean: Array, factor: Array) -> Array:
    return mean + factor * (x - mean)


def _share(side: int, share: float) -> int:
    """Returns the nearest number of pixels."""
    return int(side * share + 0.5)


def _translated(key: Array, x: Array, share: float) -> Array:
    reach = jnp.array([_share(side, share) for side in x.shape[:2]])
    start = jax.random.randint(key, (2,), 0, 2 * reach + 1)
    border = [(_share(side, share),) * 2 for side in x.shape[:2]]
    return jax.lax.dynamic_slice(jnp.pad(x, [*border, (0, 0)]), (start[0], start[1], 0), x.shape)


def _cut(key: Array, x: Array, share: float) -> Array:
    inside = []
    for axis, axis_key in enumerate(jax.random.split(key)):
        side = x.shape[axis]
        length = _share(side, share)
        first = jax.random.randint(axis_key, (), 0, side + 1 - length % 2) - length // 2
        place = jnp.arange(side)
        inside.append((place >= first) & (place < first + length))
    return jnp.where((inside[0][:, None] & inside[1])[..., None], 0.0, x)
