"""PatchGAN (Isola et al. 2017, section 3.2.2) is a discriminator of overlapping patches, not of whole images.

The network is fully convolutional. Each logit sees a square of pixels, `receptive_field` wide: 70 with three layers.
"""

from __future__ import annotations

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float, Int

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.gans.gan_layers import Conv, GANNetwork, leaky_relu, norm

SIZE = 4  # of every kernel


def instance_norm(x: Float[Array, "B H W C"], eps: float = 1e-5) -> Float[Array, "B H W C"]:
    """Gives each channel of each image mean 0 and variance 1, without parameters (Ulyanov et al. 2016)."""
    h = x.astype(jnp.float32)
    h = h - h.mean((1, 2), keepdims=True)
    return (h * lax.rsqrt(jnp.square(h).mean((1, 2), keepdims=True) + eps)).astype(x.dtype)


def receptive_field(layers: int) -> int:
    """Returns the number of pixels along a side that one logit sees, in a network with so many halvings."""
    field = 1
    for stride in (1, 1, *(2,) * layers):  # from the logit back to the image
        field = (field - 1) * stride + SIZE
    return field


class PatchDiscriminator(GANNetwork):
    """Maps images [B, H, W, C] to `{"logits": [B, h, w], "layers"}`, with high logits on real images.

    All convolutions are 4x4 with leaky ReLU between them: `layers` that halve the side, the first without
    normalisation, then one that doubles the width once more and one to the logits. The last two have stride 1 and take
    a pixel off each side. "layers" is a tuple of every activation [B, ., ., .] but the logits, for feature matching.
    """

    width: int = 64  # channels of the first convolution; doubled at each, up to eight times
    layers: int = 3  # halvings
    # "batch", whose statistics are memory; "instance", without parameters; "spectral", of weights; or "none"
    norm: Literal["batch", "instance", "spectral", "none"] = "batch"

    @nn.compact
    def __call__(
        self, x: Float[Array, "B H W C"], label: Int[Array, " B"] | None = None, train: bool = False
    ) -> dict[str, Float[Array, "B h w"] | tuple[Float[Array, "B ..."], ...]]:
        """Ignores `label`. Raises a UserError for images that are too small and for an unknown norm."""
        self.check(x)
        spectral, activations = self.norm == "spectral", []
        for i in range(self.layers + 1):
            plain = i == 0 or self.norm in ("none", "spectral")
            features, stride = self.width * min(2**i, 8), 2 if i < self.layers else 1
            x = Conv(features, SIZE, stride, spectral=spectral, use_bias=plain, name=f"conv_{i}")(x, train)
            if not plain:
                x = norm("batch", f"norm_{i}", train)(x) if self.norm == "batch" else instance_norm(x)
            x = leaky_relu(x)
            activations.append(x)
        logits = Conv(1, SIZE, spectral=spectral, name="logits")(x, train)[..., 0]
        return {"logits": logits, "layers": tuple(activations)}

    def check(self, x: Array) -> None:
        """Raises a UserError for options that make no network of these images."""
        if self.norm not in ("batch", "instance", "spectral", "none"):
            raise UserError(f"PatchGAN's norm is 'batch', 'instance', 'spectral' or 'none', not {self.norm!r}.")
        if self.layers < 1 or self.width < 1:
            raise UserError(f"PatchGAN needs layers and width of at least 1, not {self.layers} and {self.width}.")
        least = 3 * 2**self.layers
        if x.ndim != 4 or min(x.shape[1:3]) < least:
            raise UserError(
                f"PatchGAN with {self.layers} layers sees images [B, H, W, C] of {least}x{least} pixels at least, "
                f"not an array of shape {x.shape}: take fewer layers."
            )
