"""Holds the sizes of one picture at several scales, from coarse to fine, and the resizing between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax

from jaxgen.arrays import Array
from jaxgen.errors import UserError

if TYPE_CHECKING:
    from jaxtyping import Float

Size = tuple[int, int]  # height and width in pixels


def ratio(size: Size, coarsest: int, scales: int) -> float:
    """Returns the ratio of the sides of a scale to those of the next finer one, in (0, 1]; 1 for a single scale.

    The shorter side falls from that of `size` to `coarsest` pixels in `scales - 1` equal ratios; SinGAN's paper has
    25 pixels and ratios of about 3/4 (Rott Shaham et al. 2019, section 2).
    """
    return 1.0 if scales == 1 else (coarsest / min(size)) ** (1 / (scales - 1))


def sizes(size: Size, ratio: float, scales: int) -> tuple[Size, ...]:
    """Returns the height and width at each scale, the coarsest first; the last is `size`. No side is below 1 pixel."""
    shares = [ratio**n for n in reversed(range(scales))]
    return tuple((max(1, round(size[0] * share)), max(1, round(size[1] * share))) for share in shares)


def check_sizes(size: Size, coarsest: int, scales: int) -> None:
    """Raises a UserError, in the words of a config, where a picture cannot be seen at so many scales."""
    shorter, what = min(size), f"the picture has {size[0]}x{size[1]} pixels (config.data.resolution, height x width)"
    if scales > 1 and shorter <= coarsest:
        raise UserError(
            f"{what}, and its shorter side is to have {coarsest} pixels at the coarsest of {scales} scales: it is too "
            "small for its scales; set a larger resolution, or lower config.method.coarsest."
        )
    found = sizes(size, ratio(size, coarsest, scales), scales)
    same = next((pair for pair in zip(found, found[1:], strict=False) if min(pair[1]) <= min(pair[0])), None)
    if same is not None:
        raise UserError(
            f"{what}, which is too small for {scales} scales from {coarsest} pixels on: two of them would have "
            f"{same[1][0]}x{same[1][1]} pixels; lower config.method.scales or config.method.coarsest."
        )


def resized(images: Float[Array, "B H W C"], size: Size) -> Float[Array, "B H2 W2 C"]:
    """Returns images of another size by cubic interpolation (Keys 1981), smoothed first where they become smaller."""
    if images.shape[1:3] == tuple(size):
        return images
    return jax.image.resize(images, (images.shape[0], *size, images.shape[3]), "cubic")
