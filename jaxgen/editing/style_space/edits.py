"""Changes styles [..., layers, D]: a walk between two, the coarse ones of one with the fine ones of another, a move.

A code that was embedded with one style for all layers stays such a code under each of them but mixing.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.editing.interpolation import slerp_noise

Styles = Float[Array, "*N L D"]


def morph(a: Styles, b: Styles, count: int = 9) -> Float[Array, "count *N L D"]:
    """Returns `count` styles on the straight line from a to b, both included (Abdal et al. 2019, section 4.1)."""
    shares = jnp.linspace(0.0, 1.0, count).reshape(-1, *(1 for _ in a.shape))
    return a + shares * (b - a)


def morph_noise(
    a: tuple[Array, ...] | None, b: tuple[Array, ...] | None, count: int = 9
) -> tuple[Float[Array, "count B h w 1"], ...] | None:
    """Returns noise maps on arcs from a to b, which keep their variance; None where there is no noise."""
    if a is None or b is None:
        return None
    shares = jnp.linspace(0.0, 1.0, count)
    return tuple(jnp.stack([slerp_noise(x, y, share) for share in shares]) for x, y in zip(a, b, strict=True))


def mix(coarse: Styles, fine: Styles, layer: int) -> Styles:
    """Returns the styles of `coarse` below a layer, and those of `fine` from it on (Karras et al. 2019, section 3.1).

    With a picture as `coarse` and a painting as `fine` it is style transfer (Abdal et al. 2019, section 4.2).
    """
    return jnp.where(jnp.arange(coarse.shape[-2])[:, None] < layer, coarse, fine)


def transfer(code: Styles, before: Styles, after: Styles, strength: float = 1.0) -> Styles:
    """Returns a code that is changed as `after` differs from `before`: expression transfer (Abdal et al. 2019, 4.3)."""
    return code + strength * (after - before)


def move(
    styles: Styles, direction: Float[Array, "*L D"], amounts: Float[Array, " F"], layers: tuple[int, int] | None = None
) -> Float[Array, "F *N L D"]:
    """Returns styles that are moved along a direction, once for each amount.

    Args:
      styles: of a picture or of several.
      direction: in W, [D], or for each layer, [L, D].
      amounts: how far, in lengths of the direction.
      layers: (first, end) of the layers that are moved; None moves all.
    """
    count = styles.shape[-2]
    first, end = layers or (0, count)
    inside = (jnp.arange(count) >= first) & (jnp.arange(count) < end)
    shift = jnp.where(inside[:, None], direction, 0.0)
    return styles + amounts.reshape(-1, *(1 for _ in styles.shape)) * shift
