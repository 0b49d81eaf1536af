"""Computes perceptual distances of images: LPIPS, or the same computation in the layers of any classifier."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array, Tree
from jaxgen.errors import UserError
from jaxgen.networks.layers.convolution import Conv
from jaxgen.networks.layers.stateless import apply_params
from jaxgen.networks.pretrained.lpips import LPIPS, unit_length


def perceptual_distance(
    network: nn.Module, params: Tree, x: Float[Array, "B H W C"], y: Float[Array, "B H W C"]
) -> Float[Array, " B"]:
    """Returns the distance, float32 [B], at least 0, between images [B, H, W, C] in [-1, 1]; differentiable in both.

    For `LPIPS` it is the network's own distance; grey images are given to it as RGB. For another network, the result of
    every convolution is scaled to unit length at each position. Squared differences are summed over channels, averaged
    over positions and averaged over the convolutions (Zhang et al. 2018, Eq. 1 with equal weights), which gives a value
    between 0 and 4.

    Raises:
      UserError: the images differ in shape or do not fit LPIPS, or the network has no convolutions.
    """
    if x.shape != y.shape:
        raise UserError(f"images of one shape are compared, not {x.shape} with {y.shape}: resize one of them.")
    if isinstance(network, LPIPS):
        x, y = (jnp.repeat(image, 3, -1) if image.shape[-1] == 1 else image for image in (x, y))
        return apply_params(network, params, x, y)
    first, second = (activations(network, params, image) for image in (x, y))
    if not first:
        raise UserError(f"{type(network).__name__} has no convolutions to compare images in: use LPIPS.")
    layers = [jnp.square(a - b).sum(-1).mean((1, 2)) for a, b in zip(first, second, strict=True)]
    return jnp.asarray(sum(layers)) / len(layers)


def activations(network: nn.Module, params: Tree, x: Float[Array, "B H W C"]) -> list[Float[Array, "B h w D"]]:
    """Returns the result of every convolution, scaled to unit length, of a network that takes images alone."""

    def convolutions(module: nn.Module, method: str) -> bool:
        return isinstance(module, Conv) and method == "__call__"

    variables = {"params": params}
    _, seen = network.apply(variables, x, capture_intermediates=convolutions, mutable=["intermediates"])
    return [unit_length(found) for found in jax.tree.leaves(seen.get("intermediates", {}))]
