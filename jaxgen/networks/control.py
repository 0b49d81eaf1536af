"""Holds the network of ControlNet (Zhang et al. 2023): a U-Net's way down that sees one more picture, the hint.

residuals = ControlNet.beside(unet).apply({"params": part}, x, time, hint=hint)
y = unet.apply({"params": params}, x, time, residuals=residuals)
"""

from __future__ import annotations

import dataclasses
from typing import Self

import flax.linen as nn
from jaxtyping import Float, Shaped

from jaxgen.arrays import Array, Tree
from jaxgen.data_shards import keep_rows_sharded
from jaxgen.errors import UserError
from jaxgen.networks.layers import basic as layers
from jaxgen.networks.layers.basic import Conv
from jaxgen.networks.unet import Conditions, UNet, at_level

OF_WAY_UP = ("up_", "norm_out", "conv_out")  # how the layers of a U-Net begin that a ControlNet has no copy of
WIDTHS = (16, 32, 96, 256)  # of the hint's encoder for latents of an eighth of the pixels (diffusers, ControlNetModel)


class HintEncoder(nn.Module):
    """Brings a hint [B, H, W, C] in [0, 1] to the size and the width of a U-Net's first features.

    It has a convolution for `widths[0]`, two for each further width, of which the second halves the sides, and a last
    one that starts at zero (Zhang et al. 2023, section 3.2). Its output is [B, H / 2^n, W / 2^n, features], where n
    is one less than the number of widths.
    """

    config_name = ""  # a part of other networks; no config names it

    widths: tuple[int, ...]
    features: int
    dtype: str | None = None

    @nn.compact
    def __call__(self, hint: Float[Array, "B H W C"]) -> Float[Array, "B h w features"]:
        h = nn.silu(Conv(self.widths[0], dtype=self.dtype, name="conv_in")(hint))
        for i, (before, width) in enumerate(zip(self.widths, self.widths[1:], strict=False)):
            h = nn.silu(Conv(before, dtype=self.dtype, name=f"conv_{2 * i}")(h))
            h = nn.silu(Conv(width, stride=2, dtype=self.dtype, name=f"conv_{2 * i + 1}")(h))
        return Conv(self.features, kernel_init=layers.zeros_init, dtype=self.dtype, name="conv_out")(h)


class ControlNet(UNet):
    """Computes what is added to a U-Net's skips and middle, from what the U-Net is given and a hint.

    It has the way down and the middle of a U-Net of the same options and the same parameter names, the hint's encoder
    `hint`, and a convolution of one pixel behind each output, `zero_<i>` and `zero_middle`, that starts at zero. So
    nothing is added at first.
    """

    config_name = ""  # a part of other networks; no config names it

    hint_widths: tuple[int, ...] = WIDTHS

    @classmethod
    def beside(cls, unet: UNet, hint_widths: tuple[int, ...] = WIDTHS) -> Self:
        """Returns the network that steers a U-Net."""
        own = {f.name: getattr(unet, f.name) for f in dataclasses.fields(UNet) if f.name not in ("parent", "name")}
        return cls(**own, hint_widths=hint_widths)

    @nn.compact
    def __call__(  # type: ignore[override]  # it gives other arrays than a U-Net
        self,
        x: Float[Array, "B H W C"],
        time: Float[Array, " B"],
        hint: Float[Array, "B H2 W2 D2"],
        label: Shaped[Array, "B ..."] | None = None,
        context: Float[Array, "B L D"] | None = None,
        context_mask: Shaped[Array, "B L"] | None = None,
        condition: Float[Array, "B H W D"] | None = None,
        vector: Float[Array, "B D"] | None = None,
        train: bool = False,
    ) -> tuple[Float[Array, "B h w D"], ...]:
        """Runs the network; arguments and errors are those of `jaxgen.networks.layers.contract`.

        `hint` is a picture in [0, 1] whose sides are 2^n times those of the first features, where n is one less than
        the number of `hint_widths`.

        Returns:
          One array for each output of the way down, in the order of creation, and the last one for the middle.

        Raises:
          UserError: as the U-Net's, and for a hint of another size.
        """
        self.check(x, time, label, context, context_mask, condition, vector)
        told = Conditions(keep_rows_sharded(nn.silu(self.embed(time, label, vector))), context, context_mask, train)
        h = self.way_in(x, condition)
        factor = 2 ** (len(self.hint_widths) - 1)
        if hint.shape[:3] != (len(x), factor * h.shape[1], factor * h.shape[2]):
            raise UserError(
                f"A hint of shape {hint.shape} does not go with features of {h.shape[1]}x{h.shape[2]} and an encoder "
                f"that divides its sides by {factor}: it has to be {factor * h.shape[1]}x{factor * h.shape[2]} pixels."
            )
        h = h + HintEncoder(self.hint_widths, self.widths[0], self.dtype, name="hint")(hint)
        h, skips = self.way_down(h, told)
        h = self.middle(h, told)
        names = [f"zero_{i}" for i in range(len(skips))] + ["zero_middle"]
        return tuple(
            Conv(y.shape[-1], size=1, kernel_init=layers.zeros_init, dtype=self.dtype, name=name)(y)
            for name, y in zip(names, [*skips, h], strict=True)
        )


def hint_widths(params: Tree) -> tuple[int, ...]:
    """Returns the widths of the hint's encoder of a `ControlNet`'s parameters."""
    encoder = params["hint"]
    strided = (len(encoder) - 2) // 2
    names = ("conv_in", *(f"conv_{2 * i + 1}" for i in range(strided)))
    return tuple(encoder[name]["kernel"].shape[-1] for name in names)


def skip_widths(unet: UNet) -> list[int]:
    """Returns the channels of each output of a U-Net's way down that its way up receives, in the order of creation."""
    found = [unet.widths[0]]
    for level, width in enumerate(unet.widths):
        found += [width] * (at_level(unet.blocks, level) + (level < len(unet.widths) - 1))
    return found
