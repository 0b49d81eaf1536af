"""PatchGAN (Isola et al. 2017, section 3.2.2) is a discriminator of overlapping patches, not of whole images.

The network is fully convolutional. Each logit sees a square of pixels, `receptive_field` wide: 70 with three layers.
"""

from __future__ import annotations

import itertools
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float, Int

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.gans.gan_layers import Conv, GANNetwork, leaky_relu, norm
from jaxgen.networks.gans.pictures import joined

SIZE = 4  # of every kernel


def instance_norm(x: Float[Array, "B H W C"], eps: float = 1e-5) -> Float[Array, "B H W C"]:
    """Gives each channel of each image mean 0 and variance 1, without parameters (Ulyanov et al. 2016).

    The moments are [B, C] until they are used: with axes of length 1, XLA rewrites the square root where it has a
    gradient, and then no longer sees that two calls of a network on the same inputs are equal.
    """
    h = x.astype(jnp.float32)
    h = h - h.mean((1, 2))[:, None, None]
    return (h * lax.rsqrt(jnp.square(h).mean((1, 2)) + eps)[:, None, None]).astype(x.dtype)


def receptive_field(layers: int) -> int:
    """Returns the number of pixels along a side that one logit sees, in a network with so many halvings."""
    field = 1
    for stride in (1, 1, *(2,) * layers) if layers else ():  # from the logit back to the image
        field = (field - 1) * stride + SIZE
    return field


class PatchDiscriminator(GANNetwork):
    """Maps images [B, H, W, C] to `{"logits": [B, h, w], "layers"}`, with high logits on real images.

    All convolutions are 4x4 with leaky ReLU between them: `layers` that halve the side, the first without
    normalisation, then one that doubles the width once more and one to the logits. The last two have stride 1 and, with
    a padding of 1, take a pixel off each side. "layers" is a tuple of every activation [B, ., ., .] but the logits, for
    feature matching. With `layers=0` all convolutions are 1x1 and a logit sees one pixel (the paper's PixelGAN).

    Pictures in `reads`, such as pix2pix's condition, are joined to the channels of the image
    (`jaxgen.networks.gans.pictures`).
    """

    width: int = 64  # channels of the first convolution; doubled at each, up to eight times
    layers: int = 3  # halvings; a logit sees 70x70 pixels with 3, 34x34 with 2, 16x16 with 1 and 1x1 with 0
    # "batch", whose statistics are memory; "instance", without parameters; "spectral", of every weight;
    # "spectral_instance", of activations and of the weights before them (Park et al. 2019); or "none"
    norm: Literal["batch", "instance", "spectral", "spectral_instance", "none"] = "batch"
    reads: tuple[str, ...] = ()  # pictures of the batch that are seen beside the image, such as ("condition",)
    classes: int = 0  # of maps of classes among them
    padding: int = 1  # zeros around each convolution; pix2pixHD and SPADE have 2

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B H W C"],
        label: Int[Array, " B"] | None = None,
        train: bool = False,
        **entries: Array,
    ) -> dict[str, Float[Array, "B h w"] | tuple[Float[Array, "B ..."], ...]]:
        """Ignores `label`. Raises a UserError for images that are too small, unknown options and missing entries."""
        missing = [name for name in self.reads if name not in entries]
        if missing:
            raise UserError(f"PatchGAN reads {missing[0]!r}, which it was not given.")
        self.check(x)
        if self.reads:
            x = joined({**{name: entries[name] for name in self.reads}, "image": x}, self.classes)
        activations = []
        for i in range(max(self.layers, 1) + 1):
            plain = i == 0 or self.norm in ("none", "spectral")
            features, stride = self.width * min(2**i, 8), 2 if i < self.layers else 1
            x = self._conv(features, stride, f"conv_{i}", plain)(x, train)
            if not plain:
                x = norm("batch", f"norm_{i}", train)(x) if self.norm == "batch" else instance_norm(x)
            x = leaky_relu(x)
            activations.append(x)
        return {"logits": self._conv(1, 1, "logits", True)(x, train)[..., 0], "layers": tuple(activations)}

    def _conv(self, features: int, stride: int, name: str, bias: bool) -> Conv:
        size, padding = (SIZE, self.padding) if self.layers else (1, 0)
        spectral = self.norm == "spectral" or (self.norm == "spectral_instance" and not bias)
        return Conv(features, size, stride, spectral=spectral, use_bias=bias, padding=padding, name=name)

    def map_side(self, side: int) -> int:
        """Returns the side of the map of logits for an image of this side; 0 where the image is too small."""
        if self.layers == 0:
            return side
        for stride in (*(2,) * self.layers, 1, 1):
            side = max((side + 2 * self.padding - SIZE) // stride + 1, 0)
        return side

    def check(self, x: Array) -> None:
        """Raises a UserError for options that make no network of these images."""
        if self.norm not in ("batch", "instance", "spectral", "spectral_instance", "none"):
            raise UserError(
                f"PatchGAN's norm is 'batch', 'instance', 'spectral', 'spectral_instance' or 'none', not {self.norm!r}."
            )
        if self.layers < 0 or self.width < 1 or self.padding < 1:
            raise UserError(
                "PatchGAN needs layers of at least 0, and width and padding of at least 1, "
                f"not {self.layers}, {self.width} and {self.padding}."
            )
        least = next(side for side in itertools.count(1) if self.map_side(side) > 0)
        if x.ndim != 4 or min(x.shape[1:3]) < least:
            raise UserError(
                f"PatchGAN with {self.layers} layers sees images [B, H, W, C] of {least}x{least} pixels at least, "
                f"not an array of shape {x.shape}: take fewer layers."
            )
