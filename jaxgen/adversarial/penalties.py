"""Holds penalties on the discriminator's slope, as functions of an apply function.

`apply` maps images `[B, ...]` to logits, one or more for each image, or a tree of such arrays. The logits of an image
must depend on that image alone: with BatchNorm in training mode there is no slope *at an image*, and the penalties have
no meaning. The slope at an image is the gradient of the sum of its logits. Every penalty gives one number per image,
which the caller weights and averages; if a penalty runs every n-th step only (`Turn.every`), its weight must be n times
as large. The penalties can be differentiated again, with respect to the parameters that `apply` closes over.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from jaxgen.arrays import Array, Tree
from jaxgen.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float, Key

Apply = Callable[[Array], Tree]


def slopes(apply: Apply, images: Float[Array, "B ..."]) -> Float[Array, "B ..."]:
    """Returns the gradient of the sum of each image's logits with respect to that image, in the images' shape."""

    def total(x: Array) -> Array:
        return functools.reduce(operator.add, [leaf.sum() for leaf in jax.tree.leaves(apply(x))])

    return jax.grad(total)(images)


def squared_norms(values: Float[Array, "B ..."]) -> Float[Array, " B"]:
    """Returns the squared Euclidean norm of each row, over all axes but the first."""
    return jnp.square(values).sum(axis=tuple(range(1, values.ndim)))


def norms(values: Float[Array, "B ..."]) -> Float[Array, " B"]:
    """Returns the Euclidean norm of each row, over all axes but the first; the gradient at 0 is 0, not NaN."""
    squared = squared_norms(values)
    zero = squared == 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, squared)))


def interpolates(
    real: Float[Array, "B ..."], fake: Float[Array, "B ..."], key: Key[Array, ""]
) -> Float[Array, "B ..."]:
    """Returns alpha real + (1 - alpha) fake, with one alpha for each image, drawn uniformly from [0, 1).

    Raises:
      UserError: for batches of different shapes.
    """
    if real.shape != fake.shape:
        raise UserError(f"Real and fake images are mixed in pairs, but have shapes {real.shape} and {fake.shape}.")
    alpha = jax.random.uniform(key, (len(real),) + (1,) * (real.ndim - 1), jnp.result_type(real, float))
    return alpha * real + (1 - alpha) * fake


def gradient_penalty(
    apply: Apply,
    real: Float[Array, "B ..."],
    fake: Float[Array, "B ..."],
    key: Key[Array, ""],
    target: float = 1.0,
    one_sided: bool = False,
    per_pixel: bool = False,
) -> Float[Array, " B"]:
    """Returns (|slope| - target)**2 at random points between real and fake images.

    This is the penalty of Gulrajani et al. (2017), Eq. 3, whose weight is 10. The norm is taken over all values of one
    image. If q is p shifted by a vector and the weight is lambda, the best slope is not 1 but 1 + W1 / (2 lambda).

    Args:
      apply: the discriminator, as in the module's docstring.
      real: real images.
      fake: images of the generator, of the same shape.
      key: the random key of the points between them.
      target: the norm of the slope that costs nothing; 0 gives a zero-centred penalty at the same points.
      one_sided: whether only slopes above the target are penalised.
      per_pixel: whether the norm is taken over the channels of each pixel of images `[B, H, W, C]`, and the result is
        the mean over an image's pixels, as for a map of patches that cover all of it (Rott Shaham et al. 2019, SinGAN).

    Raises:
      UserError: for batches of different shapes.
    """
    found = slopes(apply, interpolates(real, fake, key))
    if per_pixel:
        found = found.reshape(-1, found.shape[-1])
    excess = norms(found) - target
    squared = jnp.square(jnp.maximum(excess, 0) if one_sided else excess)
    return squared.reshape(len(real), -1).mean(axis=1) if per_pixel else squared


def zero_centred(apply: Apply, images: Float[Array, "B ..."]) -> Float[Array, " B"]:
    """Returns |slope|**2 at any images."""
    return squared_norms(slopes(apply, images))


def r1(apply: Apply, real: Float[Array, "B ..."]) -> Float[Array, " B"]:
    """Returns |slope|**2 / 2 at real images: R1 of Mescheder et al. (2018), Eq. 9, for gamma 1; gamma is the weight."""
    return zero_centred(apply, real) / 2


def r2(apply: Apply, fake: Float[Array, "B ..."]) -> Float[Array, " B"]:
    """Returns |slope|**2 / 2 at fake images: R2 of Mescheder et al. (2018), Eq. 10, for gamma 1.

    No gradient reaches the generator, so R2 belongs in the discriminator's loss only.
    """
    return zero_centred(apply, jax.lax.stop_gradient(fake)) / 2


def path_lengths(
    paint: Callable[[Array], Array], w: Float[Array, "B L D"], y: Float[Array, "B H W C"]
) -> Float[Array, " B"]:
    """Returns |J^T y| at each style, where J is the slope of the images in w (Karras et al. 2020a, Eq. 4).

    The image is scaled by 1 / sqrt(H W), so that lengths do not grow with the resolution, and the square is averaged
    over the layers, as in the paper's code. The penalty is (length - a)**2, with the lengths' running mean a.

    Args:
      paint: from styles to images, each of its own styles alone.
      w: the styles of each layer.
      y: standard normal values in the images' shape.
    """
    slope = jax.grad(lambda w: (paint(w) * y).sum())(w)
    return norms(slope) / (w.shape[1] * y.shape[1] * y.shape[2]) ** 0.5
