"""Augments what the discriminator sees with a probability that follows its overfitting (Karras et al. 2020b: ADA)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar

import jax
import jax.numpy as jnp

from jaxgen.adversarial.augment import Augmentation
from jaxgen.arrays import Array
from jaxgen.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float, Key

    Images = Float[Array, "B H W C"]


@dataclasses.dataclass(frozen=True)
class AdaptiveAugment(Augmentation):
    """Applies each transformation with one probability p, which rises while the discriminator overfits.

    The sign of overfitting is r = E[sign(D(real))], from the boundary of the loss: near 0 where real and fake look
    alike, 1 where all training images are known. p moves by batch / `images` towards more where r, averaged over
    `every` steps, is above `target`, and towards less where it is below; it stays in [0, 1]. p, the sum of signs and
    their number are carried in the method's memory, so that a resumed run goes on with them.

    The transformations are those of the paper, in its order: mirrored, turned by 90 degrees, shifted by whole pixels
    (`pixels`); scaled, turned, stretched and shifted (`geometry`), in one resampling by bilinear interpolation with
    mirrored borders, without the paper's wavelet filter; brightness, contrast, inverted lightness, hue and saturation
    (`colour`; of images that have not three channels the first two). At p = 0 images are left as they are.

    Raises:
      UserError: for a target outside of (-1, 1), a probability outside of [0, 1], or intervals below 1.
    """

    adapts: ClassVar[bool] = True

    target: float = 0.6  # of r; the paper's
    images: int = 500_000  # in which p can move from 0 to 1
    every: int = 4  # steps between changes of p
    probability: float = 0.0  # p at the start
    pixels: bool = True
    geometry: bool = True
    colour: bool = True

    def __post_init__(self) -> None:
        if not -1 < self.target < 1:
            raise UserError(f"AdaptiveAugment's target is a mean sign in (-1, 1), not {self.target}.")
        if not 0 <= self.probability <= 1:
            raise UserError(f"AdaptiveAugment's probability is in [0, 1], not {self.probability}.")
        if self.images < 1 or self.every < 1:
            raise UserError(f"AdaptiveAugment's images and every are at least 1, not {self.images} and {self.every}.")

    def __call__(self, keys: Key[Array, " B"], images: Images) -> Images:
        """Returns images augmented with the probability of the start."""
        return self.at(self.begin())(keys, images)

    def begin(self) -> dict[str, Array]:
        return {"probability": jnp.float32(self.probability), "signs": jnp.float32(0), "steps": jnp.int32(0)}

    def at(self, carried: Mapping[str, Array]) -> Callable[[Key[Array, " B"], Images], Images]:
        return lambda keys, images: jax.vmap(lambda key, x: self._one(key, x, carried["probability"]))(keys, images)

    def adapted(self, carried: Mapping[str, Array], sign: Float[Array, ""], images: int) -> dict[str, Array]:
        signs, steps = carried["signs"] + jax.lax.stop_gradient(sign), carried["steps"] + 1
        due = steps >= self.every
        change = jnp.sign(signs / steps - self.target) * (images * self.every / self.images)
        moved = jnp.clip(carried["probability"] + change, 0.0, 1.0)
        return {
            "probability": jnp.where(due, moved, carried["probability"]),
            "signs": jnp.where(due, 0.0, signs),
            "steps": jnp.where(due, 0, steps),
        }

    def _one(self, key: Array, x: Array, p: Array) -> Array:
        of_place, of_colour = jax.random.split(key)
        if self.pixels or self.geometry:
            x = warped(x, self._place(of_place, p, x.shape[0], x.shape[1]))
        return _coloured(of_colour, x, p) if self.colour else x

    def _place(self, key: Array, p: Array, height: int, width: int) -> Array:
        """Returns the 3x3 map from a pixel of the result to its place in the image, both from their centres, (x, y)."""
        draw = _Draws(key, 9)
        place, side = jnp.eye(3), jnp.array([width, height])
        if self.pixels:
            place = place @ _scale(draw.gated(p, 1 - 2 * draw.integer(2), 1.0), 1.0)
            place = place @ _rotation(draw.gated(p, draw.integer(4) * (jnp.pi / 2), 0.0))
            shift = jnp.round(draw.uniform((2,), 0.125) * side)
            place = place @ _shift(draw.gated(p, shift, 0.0))
        if self.geometry:
            factor = draw.gated(p, 2 ** (0.2 * draw.normal()), 1.0)
            place = place @ _scale(1 / factor, 1 / factor)
            turn = 1 - jnp.sqrt(1 - p)  # either of two turns is made with the probability p
            place = place @ _rotation(draw.gated(turn, draw.uniform((), jnp.pi), 0.0))
            factor = draw.gated(p, 2 ** (0.2 * draw.normal()), 1.0)
            place = place @ _scale(1 / factor, factor)
            place = place @ _rotation(draw.gated(turn, draw.uniform((), jnp.pi), 0.0))
            place = place @ _shift(draw.gated(p, 0.125 * draw.normal((2,)) * side, 0.0))
        return place


class _Draws:
    """Gives random numbers, each from a key of its own."""

    def __init__(self, key: Array, most: int) -> None:
        self._keys = iter(jax.random.split(key, 2 * most))

    def uniform(self, shape: tuple[int, ...], reach: float) -> Array:
        return jax.random.uniform(next(self._keys), shape, minval=-reach, maxval=reach)

    def normal(self, shape: tuple[int, ...] = ()) -> Array:
        return jax.random.normal(next(self._keys), shape)

    def integer(self, count: int) -> Array:
        return jax.random.randint(next(self._keys), (), 0, count)

    def gated(self, p: Array, value: Array, otherwise: float) -> Array:
        """Returns the value with probability p."""
        return jnp.where(jax.random.uniform(next(self._keys)) < p, value, otherwise)


def _scale(x: Array | float, y: Array | float) -> Array:
    return jnp.diag(jnp.stack([jnp.float32(x), jnp.float32(y), jnp.float32(1)]))


def _rotation(angle: Array) -> Array:
    # whole quarters have exact zeros and ones, so that pixels stay pixels
    near = jnp.round(angle / (jnp.pi / 2)) * (jnp.pi / 2)
    angle = jnp.where(jnp.abs(angle - near) < 1e-6, near, angle)
    c, s = (jnp.where(jnp.abs(v) < 1e-6, 0.0, v) for v in (jnp.cos(angle), jnp.sin(angle)))
    return jnp.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])


def _shift(by: Array) -> Array:
    return jnp.eye(3).at[:2, 2].set(-by)


def warped(x: Float[Array, "H W C"], place: Float[Array, "3 3"]) -> Float[Array, "H W C"]:
    """Resamples an image: each pixel is what the image has, between pixels, at the place that the map gives.

    Args:
      x: the image, mirrored at its borders.
      place: from the homogeneous coordinates (x, y, 1) of the result to those of the image, both from the centre.
    """
    height, width, _ = x.shape
    rows, columns = jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2
    grid = jnp.stack([*jnp.meshgrid(columns, rows), jnp.ones((height, width))], -1)
    at = jnp.einsum("ij,hwj->hwi", place, grid, precision="highest")
    u, v = at[..., 0] + (width - 1) / 2, at[..., 1] + (height - 1) / 2
    left, top = jnp.floor(u), jnp.floor(v)
    share_x, share_y = (u - left)[..., None], (v - top)[..., None]

    def pixel(dy: int, dx: int) -> Array:
        return x[_mirrored(top + dy, height), _mirrored(left + dx, width)]

    upper = (1 - share_x) * pixel(0, 0) + share_x * pixel(0, 1)
    lower = (1 - share_x) * pixel(1, 0) + share_x * pixel(1, 1)
    return (1 - share_y) * upper + share_y * lower


def _mirrored(index: Array, size: int) -> Array:
    """Returns the pixel that stands at a place outside of an image: the border's own pixel is not repeated."""
    if size == 1:
        return jnp.zeros_like(index, jnp.int32)
    period = 2 * (size - 1)
    inside = jnp.mod(index.astype(jnp.int32), period)
    return jnp.where(inside >= size, period - inside, inside)


def _coloured(key: Array, x: Array, p: Array) -> Array:
    """Changes the colours by one affine map; grey is the axis of lightness, hue and saturation."""
    draw = _Draws(key, 8)
    brightness = draw.gated(p, 0.2 * draw.normal(), 0.0)
    contrast = draw.gated(p, 2 ** (0.5 * draw.normal()), 1.0)
    if x.shape[-1] != 3:
        return (x + brightness) * contrast
    axis = jnp.full((3,), 3**-0.5)
    along, eye = jnp.outer(axis, axis), jnp.eye(3)
    inverted = draw.gated(p, draw.integer(2), 0.0)
    angle = draw.gated(p, draw.uniform((), jnp.pi), 0.0)
    cross = jnp.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) * 3**-0.5
    hue = along + jnp.cos(angle) * (eye - along) + jnp.sin(angle) * cross
    saturation = draw.gated(p, 2 ** draw.normal(), 1.0)
    matrix = (along + saturation * (eye - along)) @ hue @ (eye - 2 * inverted * along)
    changed = jnp.einsum("ij,hwj->hwi", matrix, (x + brightness) * contrast, precision="highest")
    return jnp.where(jnp.all(matrix == eye), (x + brightness) * contrast, changed)
