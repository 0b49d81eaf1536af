"""LPIPS is the perceptual distance of Zhang et al. (2018), "The Unreasonable Effectiveness of Deep Features".

Two images pass through the convolutions of a classifier; at five depths each position's features are scaled to
unit length, their squared difference is weighted per channel, and the results are averaged over positions and
added up. This is version 0.1 of the authors' package: linear heads on a fixed trunk.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.errors import UserError, nearest
from jaxgen.networks.layers.convolution import Conv

EPS = 1e-10  # added to a length, as in the authors' package
SHIFT = (-0.030, -0.088, -0.188)  # from [-1, 1] to the scale that the classifiers were trained in
SCALE = (0.458, 0.448, 0.450)


@dataclasses.dataclass(frozen=True)
class Layer:
    """Describes a convolution with its ReLU.

    Attributes:
      features: its channels.
      size: side of its square kernel.
      stride: stride of the convolution.
      padding: zeros on each side.
      pool: side of the max pooling of stride 2 before it; 0 for none.
      tap: whether the distance uses its result.
    """

    features: int
    size: int = 3
    stride: int = 1
    padding: int = 1
    pool: int = 0
    tap: bool = False


def _vgg(*stages: tuple[int, int]) -> tuple[Layer, ...]:
    layers = []
    for stage, (features, depth) in enumerate(stages):
        for i in range(depth):
            layers.append(Layer(features, pool=2 if stage and not i else 0, tap=i == depth - 1))
    return tuple(layers)


# Krizhevsky 2014 ("one weird trick", one column) and Simonyan & Zisserman 2015 (16 layers), without what follows
# the last tap.
TRUNKS: dict[str, tuple[Layer, ...]] = {
    "alex": (
        Layer(64, 11, stride=4, padding=2, tap=True),
        Layer(192, 5, padding=2, pool=3, tap=True),
        Layer(384, pool=3, tap=True),
        Layer(256, tap=True),
        Layer(256, tap=True),
    ),
    "vgg": _vgg((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)),
}


def layers_of(trunk: str) -> tuple[Layer, ...]:
    """Returns the trunk's convolutions. Raises a UserError for an unknown name."""
    if trunk not in TRUNKS:
        raise UserError(f"unknown LPIPS trunk {trunk!r}; {nearest(trunk, TRUNKS)}")
    return TRUNKS[trunk]


def check_size(trunk: str, height: int, width: int) -> None:
    """Raises a UserError for images that are too small to reach the last tap."""
    side = min(height, width)
    for layer in layers_of(trunk):
        if layer.pool:
            side = (side - layer.pool) // 2 + 1
        side = (side + 2 * layer.padding - layer.size) // layer.stride + 1
        if side < 1:
            raise UserError(
                f"images of {height}x{width} are too small for LPIPS with {trunk!r}: enlarge them to 32x32 at least."
            )


def max_pool(x: Array, side: int) -> Array:
    """Returns the maximum of side x side pixels at every second pixel, without padding: -> [B, H', W', C]."""
    if side == 2:  # a reduction, which with its gradient is six times as fast on a CPU as a window
        batch, height, width, channels = x.shape
        x = x[:, : height // 2 * 2, : width // 2 * 2]
        return x.reshape(batch, height // 2, 2, width // 2, 2, channels).max((2, 4))
    return nn.max_pool(x, (side, side), (2, 2), "VALID")


def unit_length(x: Array) -> Array:
    """Returns x / (|x| + 1e-10) over the last axis, float32. The gradient is finite where x is zero."""
    x = x.astype(jnp.float32)
    square = jnp.square(x).sum(-1, keepdims=True)
    positive = square > 0
    length = jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)
    return x / (length + EPS)


def _mean_inside(values: Float[Array, "B h w"], region: Float[Array, "B H W"]) -> Float[Array, " B"]:
    """Returns means weighted by a region that is made smaller to the values' size."""
    weights = jax.image.resize(region, values.shape, "linear")
    return (weights * values).sum((-2, -1)) / weights.sum((-2, -1))


class LPIPS(nn.Module):
    """Computes the LPIPS distance of image pairs: x, y [B, H, W, 3] in [-1, 1] -> float32 [B], at least 0.

    Differentiable in both images, so it serves as a training loss; its parameters are arguments like any
    network's. Its parameters are `conv_<i>`, and `head_<i>` [C], which are not negative. Fresh heads weigh all channels
    alike.

    Attributes:
      trunk: "alex", the distance usually reported, or "vgg", the usual loss.
      dtype: type of the trunk's arithmetic; lengths, differences and sums are float32.
    """

    trunk: str = "alex"
    dtype: str | None = None

    def setup(self) -> None:
        layers = layers_of(self.trunk)
        for i, x in enumerate(layers):
            padding = ((x.padding, x.padding),) * 2
            setattr(self, f"conv_{i}", Conv(x.features, x.size, x.stride, padding, dtype=self.dtype))
        widths = [layer.features for layer in layers if layer.tap]
        self.heads = [
            self.param(f"head_{i}", nn.initializers.constant(1 / width), (width,), jnp.float32)
            for i, width in enumerate(widths)
        ]

    def features(self, x: Float[Array, "B H W 3"]) -> tuple[Float[Array, "B h w D"], ...]:
        """Returns features of unit length at the five taps, float32 [B, H', W', C] each, of images [B, H, W, 3].

        Raises:
          UserError: the images are not RGB, or too small for the trunk.
        """
        if x.ndim != 4 or x.shape[-1] != 3:
            raise UserError(f"LPIPS compares RGB images [B, H, W, 3], not an array of shape {x.shape}.")
        check_size(self.trunk, *x.shape[1:3])
        h = (x - jnp.asarray(SHIFT, x.dtype)) / jnp.asarray(SCALE, x.dtype)
        taps = []
        for i, layer in enumerate(layers_of(self.trunk)):
            if layer.pool:
                h = max_pool(h, layer.pool)
            h = nn.relu(getattr(self, f"conv_{i}")(h))
            if layer.tap:
                taps.append(unit_length(h))
        return tuple(taps)

    def compare(
        self, a: tuple[Float[Array, "... h w D"], ...], b: tuple[Float[Array, "... h w D"], ...],
        region: Float[Array, "B H W"] | None = None,
    ) -> Float[Array, " ..."]:  # fmt: skip
        """Returns the distances [B] between the results of `features` for two batches; leading axes broadcast.

        Args:
          region: where given, a depth's mean over positions is weighted by the share of their pixels in the region, in
            [0, 1]; NaN where that is empty.
        """
        layers = zip(a, b, self.heads, strict=True)
        if region is not None:
            return jnp.asarray(sum(_mean_inside(jnp.square(x - y) @ head, region) for x, y, head in layers))
        return jnp.asarray(sum((jnp.square(x - y) @ head).mean((-2, -1)) for x, y, head in layers))

    def __call__(self, x: Float[Array, "B H W 3"], y: Float[Array, "B H W 3"]) -> Float[Array, " B"]:
        if x.shape != y.shape:
            raise UserError(f"LPIPS compares images of one shape, not {x.shape} with {y.shape}: resize one of them.")
        return self.compare(self.features(x), self.features(y))
