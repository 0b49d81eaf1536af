"""Holds the networks of the progressive GAN (Karras et al. 2018, Table 2), which grow by one resolution at a time.

Level 0 is the smallest resolution, often 4x4 pixels, and each further level doubles it. A network of `level` n has the
layers of the levels 0 to n and sees, or draws, images of that resolution. While a level is new, the network is
`fading`: its output is mixed with what the network gives without the new layers, and `alpha` in [0, 1] is the share of
the new ones (ibid., Figure 2). At 0 it equals the network of the level below, between images of twice the side, and at
1 the one without a mixture.

The entry `alpha`, a scalar, is one of those that a fading network `reads`. Layers have the same name and shape at all
levels, so that a larger network takes the weights of a smaller one. Weights are equalised, and no layer has batch
statistics. The contract is otherwise that of `jaxgen.networks.gans.gan_layers`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Float, Int

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.gans.equalised import HE, EqualConv, EqualDense, append_deviation, pixel_norm
from jaxgen.networks.gans.gan_layers import GANNetwork, checked, leaky_relu
from jaxgen.networks.layers.convolution import downsample, upsample, zeros_init

Alpha = Float[Array, ""] | float
normal_init = nn.initializers.normal(1.0)


class Progressive(GANNetwork):
    """This is the base class of both networks: it knows their levels."""

    config_name: ClassVar[str] = ""  # a base class; no config names it

    @property
    def reads(self) -> tuple[str, ...]:
        return super().reads + (("alpha",) if getattr(self, "fading", False) else ())

    def highest(self) -> int:
        """Returns the level that the network has; raises a UserError for one that its `widths` do not have."""
        widths: tuple[int, ...] = getattr(self, "widths", ())
        level: int | None = getattr(self, "level", None)
        level = len(widths) - 1 if level is None else level
        if not 0 <= level < len(widths):
            raise UserError(f"A progressive network with {len(widths)} widths has no level {level}; it begins at 0.")
        if level == 0 and getattr(self, "fading", False):
            raise UserError("Level 0 of a progressive network has none below that it could be mixed with.")
        return level


def mixed(old: Array, new: Array, alpha: Alpha) -> Array:
    """Returns (1 - alpha) old + alpha new, which is exactly `old` at 0 and `new` at 1."""
    return (1 - alpha) * old + alpha * new


class ProgressiveGenerator(Progressive):
    """Maps z [B, Z] to images [B, h, w, C]; a last linear layer gives values around [-1, 1], which nothing bounds.

    z and the activations of each layer are divided by their root mean square over channels.

    Raises:
      UserError: the image's sides cannot be reached by the levels' doublings.
    """

    config_name: ClassVar[str] = "progressive_generator"

    image_shape: tuple[int, int, int]  # (H, W, C) at the highest level
    z_dim: int = 512  # the width of z that a method draws
    widths: tuple[int, ...] = (512, 512, 512, 512)  # of each level; at 64 pixels and above the paper's are halved
    num_classes: int = 0
    conditioning: Literal["none", "concat"] = "none"  # "concat" joins the label's embedding, of z's width, to z
    level: int | None = None  # the last one that this network has; None: the highest
    fading: bool = False  # whether the level is mixed with the one below

    @nn.compact
    def __call__(
        self,
        z: Float[Array, "B Z"],
        label: Int[Array, " B"] | None = None,
        alpha: Alpha = 1.0,
        train: bool = False,
    ) -> Float[Array, "B h w C"]:
        level, start = self.highest(), size_at(self.image_shape, self.widths, 0)
        z = pixel_norm(z)
        if self.conditional:
            rows = self.param("label", normal_init, (self.num_classes, self.z_dim), jnp.float32)
            z = jnp.concatenate([z, pixel_norm(rows[checked(label, self.num_classes)])], -1)
        # the paper's first layer is a convolution of one pixel to all of level 0, whose fan in is as many times z's
        pixels = math.prod(start)
        x = EqualDense(pixels * self.widths[0], HE / math.sqrt(pixels), use_bias=False, name="start")(z)
        bias = self.param("start_bias", zeros_init, (self.widths[0],), jnp.float32)
        x = pixel_norm(leaky_relu(x.reshape(-1, *start, self.widths[0]) + bias))
        x = _normed_conv(self.widths[0], "conv_0")(x)
        low = x
        for i in range(1, level + 1):
            low = x
            x = _normed_conv(self.widths[i], f"up_{i}", doubles=True)(x)
            x = _normed_conv(self.widths[i], f"conv_{i}")(x)
        image = EqualConv(self.image_shape[2], 1, name=f"image_{level}")(x)
        if not self.fading:
            return image
        return mixed(upsample(EqualConv(self.image_shape[2], 1, name=f"image_{level - 1}")(low)), image, alpha)


class ProgressiveDiscriminator(Progressive):
    """Maps images [B, h, w, C] of its level to `{"logits": [B], "features": [B, widths[0]]}`, high on real ones.

    Before the last layers the deviation within groups of `group` images is appended, which a collapsed generator
    cannot hide: an image's logit depends on its group.

    Raises:
      UserError: the image's sides cannot be halved so often.
    """

    config_name: ClassVar[str] = "progressive_discriminator"

    widths: tuple[int, ...] = (512, 512, 512, 512)  # of each level, the smallest resolution first
    num_classes: int = 0
    conditioning: Literal["none", "projection"] = "none"  # adds the class's embedding times the features
    group: int = 4  # images whose deviation is appended; 1 appends none
    level: int | None = None  # the last one that this network has; None: the highest
    fading: bool = False  # whether the level is mixed with the one below

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B h w C"],
        label: Int[Array, " B"] | None = None,
        alpha: Alpha = 1.0,
        train: bool = False,
    ) -> dict[str, Float[Array, "B ..."]]:
        level = self.highest()
        check_halvings(x.shape[1:3], level)
        h = _activated(self.widths[level], f"image_{level}", 1)(x)
        for i in range(level, 0, -1):
            h = _activated(self.widths[i], f"conv_{i}")(h)
            h = downsample(_activated(self.widths[i - 1], f"down_{i}")(h))
            if i == level and self.fading:
                h = mixed(_activated(self.widths[i - 1], f"image_{level - 1}", 1)(downsample(x)), h, alpha)
        h = append_deviation(h, self.group) if self.group > 1 else h
        h = _activated(self.widths[0], "conv_0")(h)
        features = leaky_relu(EqualDense(self.widths[0], HE, name="dense")(h.reshape(len(h), -1)))
        logits = EqualDense(1, name="logit")(features)[:, 0]
        if self.conditional:
            rows = self.param("projection", normal_init, (self.num_classes, self.widths[0]), jnp.float32)
            rows = rows[checked(label, self.num_classes)] / math.sqrt(self.widths[0])
            logits = logits + (rows * features).sum(-1)
        return {"logits": logits, "features": features}


def _activated(features: int, name: str, size: int = 3) -> Callable[[Array], Array]:
    layer = EqualConv(features, size, gain=HE, name=name)
    return lambda x: leaky_relu(layer(x))


def _normed_conv(features: int, name: str, doubles: bool = False) -> Callable[[Array], Array]:
    layer = EqualConv(features, resampling="nearest" if doubles else "", gain=HE, name=name)
    return lambda x: pixel_norm(leaky_relu(layer(x)))


def size_at(image_shape: tuple[int, ...], widths: tuple[int, ...], level: int) -> tuple[int, int]:
    """Returns the height and width of the images of a level, of networks whose highest one has `image_shape`.

    Raises:
      UserError: the sides cannot be halved down to level 0.
    """
    check_halvings(image_shape[:2], len(widths) - 1)
    times = len(widths) - 1 - level
    return image_shape[0] >> times, image_shape[1] >> times


def check_halvings(size: tuple[int, ...], count: int) -> None:
    """Raises a UserError where sides cannot be halved so often."""
    if any(side % 2**count for side in size):
        raise UserError(
            f"{count + 1} widths of a progressive network halve the sides {count} times, which {size[0]}x{size[1]} "
            "pixels do not allow; give fewer widths, or another config.data.resolution."
        )
