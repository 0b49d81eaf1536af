"""Penalties on the discriminator's slope, as functions of an apply function.

`apply` maps images [B, ...] to logits, one or more an image, and treats each image by itself: with BatchNorm in
training mode there is no slope *at an image*, and the penalties mean nothing. A slope is that of the sum of an image's
logits. All are one number per image, to be weighted and averaged by the caller; run every n-th step (`Turn.every`), the
weight is n times as large. They may be differentiated again, in the parameters that `apply` closes over.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.arrays import Array
from jaxgen.errors import UserError

Apply = Callable[[Array], Array]


def slopes(apply: Apply, images: Array) -> Array:
    """The gradient of each image's logit in that image, `[B, ...]` like the images."""
    return jax.grad(lambda x: apply(x).sum())(images)


def squared_norms(values: Array) -> Array:
    """`[B]` squared Euclidean norms of `[B, ...]`."""
    return jnp.square(values).sum(axis=tuple(range(1, values.ndim)))


def norms(values: Array) -> Array:
    """`[B]` Euclidean norms of `[B, ...]`, whose gradient at 0 is 0 and not NaN."""
    squared = squared_norms(values)
    zero = squared == 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, squared)))


def interpolates(real: Array, fake: Array, key: Array) -> Array:
    """alpha real + (1 - alpha) fake, one alpha for each image, uniform in [0, 1).

    Raises:
      UserError: for batches of different shapes.
    """
    if real.shape != fake.shape:
        raise UserError(f"Real and fake images are mixed in pairs, but have shapes {real.shape} and {fake.shape}.")
    alpha = jax.random.uniform(key, (len(real),) + (1,) * (real.ndim - 1), jnp.result_type(real, float))
    return alpha * real + (1 - alpha) * fake


def gradient_penalty(
    apply: Apply, real: Array, fake: Array, key: Array, target: float = 1.0, one_sided: bool = False
) -> Array:
    """`[B]` (|slope| - target)**2 between real and fake (Gulrajani et al. 2017, Eq. 3; their weight is 10).

    The norm is one image's own, over all its values. Between a law and its translation by a vector, and with weight
    lambda, the best slope is not 1 but 1 + W1 / (2 lambda).

    Args:
      real, fake: `[B, ...]` of one shape.
      key: of the places between them.
      target: 0 gives a zero-centred penalty at the same places.
      one_sided: only slopes above the target count.

    Raises:
      UserError: for batches of different shapes.
    """
    excess = norms(slopes(apply, interpolates(real, fake, key))) - target
    return jnp.square(jnp.maximum(excess, 0) if one_sided else excess)


def zero_centred(apply: Apply, images: Array) -> Array:
    """`[B]` |slope|**2 at any images."""
    return squared_norms(slopes(apply, images))


def r1(apply: Apply, real: Array) -> Array:
    """`[B]` |slope|**2 / 2 at real images: R1 of Mescheder et al. (2018), Eq. 9, at gamma 1; weight it with gamma."""
    return zero_centred(apply, real) / 2


def r2(apply: Apply, fake: Array) -> Array:
    """`[B]` |slope|**2 / 2 at fakes, held fixed: R2 (ibid., Eq. 10) at gamma 1; in the discriminator's loss only."""
    return zero_centred(apply, jax.lax.stop_gradient(fake)) / 2
