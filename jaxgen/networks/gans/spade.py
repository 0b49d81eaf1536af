"""Spatially-adaptive normalisation and the generator made of it (Park et al. 2019, "SPADE", GauGAN).

A *layout* says which class each pixel has: float32 [B, H, W, K], the one-hot class of each pixel, and the boundaries of
objects where a network reads them (`jaxgen.networks.gans.pictures`). A normalisation forgets what is constant in an
image, and so the class of a large region; here it gets it back at every layer, since the scale and the shift of each
pixel are computed from the layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.gans.gan_layers import Conv, Dense, GANNetwork, leaky_relu
from jaxgen.networks.gans.patchgan import instance_norm
from jaxgen.networks.gans.pictures import joined
from jaxgen.networks.layers.batch_norm import BatchNorm
from jaxgen.networks.layers.convolution import Conv as PlainConv
from jaxgen.networks.layers.convolution import upsample

Statistics = Literal["batch", "instance"]
# the initialisation of the authors' code: Glorot & Bengio (2010), normal, with gain 0.02
spade_init = nn.initializers.variance_scaling(0.02**2, "fan_avg", "normal")


def resized_layout(layout: Float[Array, "B H W K"], height: int, width: int) -> Float[Array, "B h w K"]:
    """Returns the layout at another size, by the nearest pixel above and to the left, as PyTorch's "nearest" does."""
    rows, columns = (np.arange(new) * old // new for new, old in zip((height, width), layout.shape[1:3], strict=True))
    if layout.shape[1] % height == 0 and layout.shape[2] % width == 0:
        return layout[:, :: layout.shape[1] // height, :: layout.shape[2] // width]
    return layout[:, rows][:, :, columns]


def normalised_by(x: Array, statistics: Statistics, train: bool, name: str, affine: bool = False) -> Array:
    """Returns activations normalised over the batch, whose statistics are memory, or over each image.

    Call it in a compact method. In training on several devices the batch is that of all devices.

    Args:
      affine: whether there are a learned scale and shift for each channel, those of `BatchNorm`.
    """
    if statistics == "batch":
        return BatchNorm(name=name, affine=affine, scale_init=nn.initializers.ones_init())(x, train)
    x = instance_norm(x)
    return Affine(name=name)(x) if affine else x


class Affine(nn.Module):
    """Multiplies each channel by `scale` and adds `bias`."""

    config_name = ""  # a part of other networks; no config names it

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        scale = self.param("scale", nn.initializers.ones_init(), x.shape[-1:], jnp.float32)
        return x * scale + self.param("bias", nn.initializers.zeros_init(), x.shape[-1:], jnp.float32)


class SpadeNorm(nn.Module):
    """Normalises x [B, h, w, C] without parameters, and returns it times 1 + gamma, plus beta (Park et al., Eq. 1).

    gamma and beta [B, h, w, C] are convolutions of the layout: `shared` with ReLU, then `modulation`, which has the
    channels of gamma first.
    """

    config_name = ""  # a part of other networks; no config names it

    statistics: Statistics = "batch"
    hidden: int = 128  # channels of the convolution that gamma and beta share

    @nn.compact
    def __call__(
        self, x: Float[Array, "B h w C"], layout: Float[Array, "B H W K"], train: bool
    ) -> Float[Array, "B h w C"]:
        told = resized_layout(layout, x.shape[1], x.shape[2])
        told = nn.relu(Conv(self.hidden, kernel_init=spade_init, name="shared")(told))
        told = Conv(2 * x.shape[-1], kernel_init=spade_init, name="modulation")(told)
        gamma, beta = jnp.split(told, 2, axis=-1)
        return normalised_by(x, self.statistics, train, "norm") * (1 + gamma) + beta


class SpadeBlock(nn.Module):
    """This is a residual block whose normalisations are told the layout: [B, h, w, in] -> [B, h, w, features].

    Without a layout each has a learned scale and shift for each channel, as in other networks. Every convolution has
    spectral normalisation.
    """

    config_name = ""  # a part of other networks; no config names it

    features: int
    statistics: Statistics = "batch"
    hidden: int = 128  # of each `SpadeNorm`

    @nn.compact
    def __call__(
        self, x: Float[Array, "B h w C"], layout: Float[Array, "B H W K"] | None, train: bool
    ) -> Float[Array, "B h w features"]:
        def normalised(x: Array, name: str) -> Array:
            if layout is None:
                return normalised_by(x, self.statistics, train, name, affine=True)
            return SpadeNorm(self.statistics, self.hidden, name=name)(x, layout, train)

        def conv(x: Array, features: int, name: str) -> Array:
            return Conv(features, spectral=True, kernel_init=spade_init, name=name)(x, train)

        h = conv(leaky_relu(normalised(x, "norm_0")), min(x.shape[-1], self.features), "conv_0")
        h = conv(leaky_relu(normalised(h, "norm_1")), self.features, "conv_1")
        if x.shape[-1] != self.features:
            shortcut = Conv(self.features, 1, spectral=True, use_bias=False, kernel_init=spade_init, name="shortcut")
            x = shortcut(normalised(x, "norm_shortcut"), train)
        return x + h


class LayoutGenerator(GANNetwork):
    """This is the base class of generators that read a layout: blocks that double the sides, then the colours."""

    config_name: ClassVar[str] = ""  # a base class; no config names it

    image_shape: tuple[int, int, int]  # (H, W, C)
    z_dim: int = 256  # the width of z that a method draws
    # channels of the blocks; the sides double after each but the last. The authors' are (1024, 1024, 512, 256, 128, 64)
    # for 256 pixels
    widths: tuple[int, ...] = (1024, 1024, 512, 256, 128, 64)
    middle: int = 1  # further blocks of the second width, at its size
    statistics: Statistics = "batch"  # what is normalised: the batch, over all devices, or each image
    hidden: int = 128  # channels of the layout's convolution in each normalisation
    classes: int = 0  # of the mask
    reads: tuple[str, ...] = ("mask",)  # what the layout is made of; ("mask", "instance") has boundaries of objects too

    def layout(self, entries: Mapping[str, Array]) -> Float[Array, "B H W K"]:
        """Returns the layout of batch entries. Raises a UserError if one of `reads` is missing or has another size."""
        missing = [name for name in self.reads if name not in entries]
        if missing:
            raise UserError(f"{type(self).__name__} reads {missing[0]!r}, which it was not given.")
        found = joined({name: entries[name] for name in self.reads}, self.classes)
        if found.shape[1:3] != self.image_shape[:2]:
            (height, width), size = found.shape[1:3], self.image_shape
            raise UserError(
                f"{self.reads[0]!r} has {height}x{width} pixels, and the images {size[0]}x{size[1]}: a layout has the "
                "class of each pixel of its image, so bring it to that size."
            )
        return found

    @property
    def start_shape(self) -> tuple[int, int, int]:
        """Returns (h, w, C) of the first block's input. Raises a UserError for options that make no network."""
        if self.statistics not in ("batch", "instance"):
            raise UserError(f"A layout's generator has statistics 'batch' or 'instance', not {self.statistics!r}.")
        if not self.widths or self.middle < 0 or (self.middle and len(self.widths) < 2):
            raise UserError("A layout's generator needs a width, and two of them for a middle block of the second.")
        (height, width, _), factor = self.image_shape, 2 ** (len(self.widths) - 1)
        if height % factor or width % factor:
            raise UserError(
                f"{len(self.widths)} widths double the sides {len(self.widths) - 1} times, which {height}x{width} "
                "pixels do not allow; give fewer widths."
            )
        return height // factor, width // factor, self.widths[0]

    def drawn(self, x: Float[Array, "B h w C"], layout: Array | None, train: bool) -> Float[Array, "B H W C"]:
        """Returns the images of the first block's input. Call it in a compact method."""
        count = 0
        for i, features in enumerate(self.widths):
            for _ in range(1 + (self.middle if i == 1 else 0)):
                block = SpadeBlock(features, self.statistics, self.hidden, name=f"block_{count}")
                x, count = block(x, layout, train), count + 1
            x = upsample(x) if i < len(self.widths) - 1 else x
        return jnp.tanh(Conv(self.image_shape[-1], kernel_init=spade_init, name="image")(leaky_relu(x)))


class SpadeGenerator(LayoutGenerator):
    """Maps z [B, Z] and a layout to images [B, H, W, C] in [-1, 1] by tanh; every normalisation is told the layout.

    Raises:
      UserError: the image's sides cannot be reached by the doublings.
    """

    # "z": a linear layer of z, so that one layout has many images; "layout": a convolution of the small layout, the
    # paper's variant without a style, which has one image for each layout
    start: Literal["z", "layout"] = "z"

    @nn.compact
    def __call__(
        self, z: Float[Array, "B Z"], train: bool = False, **entries: Shaped[Array, "B H W ..."]
    ) -> Float[Array, "B H W C"]:
        (height, width, features), layout = self.start_shape, self.layout(entries)
        if self.start == "layout":
            x = Conv(features, kernel_init=spade_init, name="start")(resized_layout(layout, height, width))
        elif self.start == "z":
            x = Dense(height * width * features, kernel_init=spade_init, name="start")(z)
            x = x.reshape(-1, height, width, features)
        else:
            raise UserError(f"SPADE starts from 'z' or from the 'layout', not from {self.start!r}.")
        return self.drawn(x, layout, train)


class EncodedLayoutGenerator(LayoutGenerator):
    """This is the control of `SpadeGenerator`: the layout is concatenated at the input and encoded, and not told again.

    Convolutions with normalisation halve the sides down to the first block's input, z is added there, and the same
    blocks follow with normalisations that are told nothing. The encoder repeats the pixels of the border where it
    needs more: with zeros the border tells the class of a layout of one class.
    """

    @nn.compact
    def __call__(
        self, z: Float[Array, "B Z"], train: bool = False, **entries: Shaped[Array, "B H W ..."]
    ) -> Float[Array, "B H W C"]:
        (height, width, features), x = self.start_shape, self.layout(entries)
        for i, channels in enumerate(reversed(self.widths)):
            x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), "edge")
            conv = PlainConv(channels, stride=2 if i else 1, padding=((0, 0), (0, 0)), name=f"down_{i}")
            x = leaky_relu(normalised_by(conv(x), self.statistics, train, f"down_norm_{i}", affine=True))
        x = x + Dense(height * width * features, name="start")(z).reshape(-1, height, width, features)
        return self.drawn(x, None, train)


class StyleEncoder(nn.Module):
    """Maps images [B, H, W, C] in [-1, 1] to a mean and a log variance of a style, [B, outputs], float32.

    Each 3x3 convolution halves the sides and has spectral normalisation, normalisation of each image without
    parameters, and leaky ReLU; a linear layer follows (Park et al. 2019, appendix A).
    """

    outputs: int = 0  # set by the method: twice the width of z
    widths: tuple[int, ...] = (64, 128, 256, 512, 512, 512)  # the authors' for 256 pixels
    # Normalisation of each image removes its brightness and contrast: "none" is for data whose style these are.
    norm: Literal["instance", "none"] = "instance"

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool = False) -> Float[Array, "B outputs"]:
        """Raises a UserError for an unknown norm, and for images that are too small for the convolutions."""
        if self.norm not in ("instance", "none"):
            raise UserError(f"The style encoder's norm is 'instance' or 'none', not {self.norm!r}.")
        least = 2 ** (len(self.widths) + 1)
        if self.norm == "instance" and min(x.shape[1:3]) < least:
            raise UserError(
                f"A style encoder with {len(self.widths)} widths normalises images of {least}x{least} pixels at least, "
                f"not of {x.shape[1]}x{x.shape[2]}: give fewer widths."
            )
        for i, features in enumerate(self.widths):
            conv = Conv(features, 3, 2, "", True, self.norm == "none", spade_init, name=f"conv_{i}")
            x = conv(x, train)
            x = leaky_relu(instance_norm(x) if self.norm == "instance" else x)
        found = Dense(self.outputs, kernel_init=spade_init, name="out")(x.reshape(len(x), -1))
        return jnp.asarray(found, jnp.float32)
