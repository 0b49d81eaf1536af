"""A pool of past fakes: a discriminator sees an older fake half the time, so that it does not forget.

The idea is that of Shrivastava et al. (2017, "Learning from Simulated and Unsupervised Images", section 2.3). CycleGAN
keeps 50 of them (Zhu et al. 2017, section 4). The pool is memory of the state, and a checkpoint holds it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array, Tree


def empty_pool(size: int, shape: tuple[int, ...]) -> dict[str, Array]:
    """Returns a pool for so many images `[H, W, C]`: `images` and the `count` of those that are there."""
    return {"images": jnp.zeros((size, *shape)), "count": jnp.zeros((), jnp.int32)}


def exchanged(pool: Tree, fakes: Float[Array, "B H W C"], key: Array) -> tuple[Float[Array, "B H W C"], Tree]:
    """Returns what the discriminator sees in place of new fakes, and the pool after them.

    The fakes are taken one after the other. One that finds the pool not full is kept there and is seen itself. Later,
    with probability 1/2, a fake is seen itself and not kept; otherwise an image of the pool, drawn evenly, is seen, and
    the fake takes its place.

    Args:
      pool: as `empty_pool` gives it; one of size 0 changes nothing.
      fakes: the new fakes, in their order.
      key: decides which are exchanged.
    """
    size = len(pool["images"])
    if not size:
        return fakes, pool

    def one(pool: Tree, inputs: tuple[Array, Array]) -> tuple[Tree, Array]:
        fake, key = inputs
        of_choice, of_place = jax.random.split(key)
        full = pool["count"] >= size
        swapped = full & jax.random.bernoulli(of_choice)
        place = jnp.where(full, jax.random.randint(of_place, (), 0, size), pool["count"])
        old = pool["images"][place]
        images = pool["images"].at[place].set(jnp.where(full & ~swapped, old, fake))
        return {"images": images, "count": jnp.minimum(pool["count"] + 1, size)}, jnp.where(swapped, old, fake)

    pool, seen = jax.lax.scan(one, pool, (fakes, jax.random.split(key, len(fakes))))
    return seen, pool
