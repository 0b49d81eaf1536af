"""Differentiable augmentation of what the discriminator sees, for small data.

Real and fake images go through the *same* policy, each with its own draws, in the discriminator's step and in the
generator's; the gradient passes through to the generator, which therefore never learns to augment. Each class is a name
for `config.method.augment`: `DiffAugment` is "diff_augment".

    augment = DiffAugment()
    on_real, on_fake = discriminator(augment(keys_a, real)), discriminator(augment(keys_b, fake))
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxgen.arrays import Array
from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """The contract: a pure function of keys and images, differentiable in the images.

    An image's result depends on its key and itself alone. An augmentation is a frozen dataclass that derives from this
    one and fills in `__call__`.
    """

    def __call__(self, keys: Array, images: Array) -> Array:
        """`(keys [B], images [B, H, W, C] in [-1, 1]) -> [B, H, W, C]`."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class DiffAugment(Augmentation):
    """DiffAugment (Zhao et al. 2020): one draw of each kind for each image, in the order of the fields.

    The defaults are the paper's ("colour, translation, cutout"); 0 leaves a kind out and changes no other draw.

    Raises:
      UserError: for a value outside [0, 1].
    """

    # A number drawn uniformly in +- this is added to all values, on the scale of [-1, 1].
    brightness: float = 0.5
    # A pixel's distance to its mean over channels is multiplied by a factor in 1 +- this; a grey image stays.
    saturation: float = 1.0
    # The distance to the image's mean is multiplied by a factor in 1 +- this.
    contrast: float = 0.5
    # The image is shifted by whole pixels, uniformly in +- this share of the side; 0 (mid-grey) fills the gap.
    translation: float = 0.125
    # A rectangle of this share of each side is set to 0; its centre is anywhere in the image, so it may stick out.
    cutout: float = 0.5

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if not 0 <= value <= 1:
                raise UserError(f"DiffAugment's {name} lies in [0, 1], but is {value}.")

    def __call__(self, keys: Array, images: Array) -> Array:
        return jax.vmap(self._one)(keys, images)

    def _one(self, key: Array, x: Array) -> Array:
        keys = jax.random.split(key, 5)
        if self.brightness:
            x = x + _around(keys[0], 0.0, self.brightness)
        if self.saturation:
            x = _scaled(x, x.mean(axis=2, keepdims=True), _around(keys[1], 1.0, self.saturation))
        if self.contrast:
            x = _scaled(x, x.mean(), _around(keys[2], 1.0, self.contrast))
        if self.translation:
            x = _translated(keys[3], x, self.translation)
        return _cut(keys[4], x, self.cutout) if self.cutout else x


def _around(key: Array, centre: float, reach: float) -> Array:
    return jax.random.uniform(key, minval=centre - reach, maxval=centre + reach)


def _scaled(x: Array, mean: Array, factor: Array) -> Array:
    return mean + factor * (x - mean)


def _share(side: int, share: float) -> int:
    """The nearest number of pixels."""
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
