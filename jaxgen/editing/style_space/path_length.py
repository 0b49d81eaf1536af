"""Measures how evenly images change along a path in a latent space: the perceptual path length."""

from __future__ import annotations

import jax
from jaxtyping import Float, Key

from jaxgen.arrays import Array
from jaxgen.editing.interpolation import slerp_noise
from jaxgen.editing.style_space.model import StyleModel
from jaxgen.errors import UserError
from jaxgen.metrics.networks.perceptual_loss import PerceptualLoss


def path_lengths(
    model: StyleModel, keys: Key[Array, " B"], loss: PerceptualLoss, space: str = "w", epsilon: float = 1e-4
) -> Float[Array, " B"]:
    """Returns perceptual path lengths, whose mean Karras et al. (2019, section 4.1, Eq. 2 and 3) report for LPIPS.

    Each is the distance of the images at t and t + epsilon between two random points, over epsilon squared, with t
    uniform in [0, 1): on an arc between two z, or on a line between their styles. Both images have the same noise.

    Raises:
      UserError: the space is neither "z" nor "w".
    """
    if space not in ("z", "w"):
        raise UserError(f"A path length is that of a path in z or in w, not in {space!r}.")
    own = jax.vmap(lambda key: jax.random.split(key, 4))(keys)
    a, b, t = model.draw_z(own[:, 0]), model.draw_z(own[:, 1]), jax.vmap(jax.random.uniform)(own[:, 2])
    noise = model.noise_maps(own[:, 3])
    ends = (a, b) if space == "z" else (model.mapping(a), model.mapping(b))

    def painted(share: Float[Array, " B"]) -> Array:
        if space == "z":
            return model.paint(model.broadcast(model.mapping(slerp_noise(*ends, share))), noise)
        return model.paint(model.broadcast(ends[0] + share[:, None] * (ends[1] - ends[0])), noise)

    return loss(painted(t), painted(t + epsilon)) / epsilon**2
