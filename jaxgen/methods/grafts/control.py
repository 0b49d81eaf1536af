"""Steers a frozen U-Net by a picture: contours, depth, a sketch (Zhang et al. 2023, ControlNet)."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxgen.arrays import Array, Batch, Params, Tree
from jaxgen.conditions.hint import Hint, slot_of
from jaxgen.diffusion.prediction import embedded
from jaxgen.errors import UserError
from jaxgen.methods.base import Method, difference
from jaxgen.methods.diffusion.ddpm import DDPM
from jaxgen.methods.grafts.base import (
    Graft,
    Order,
    Wrapped,
    bare_network,
    bare_params,
    network_of,
    with_network,
)
from jaxgen.networks.control import OF_WAY_UP, WIDTHS, ControlNet, HintEncoder, hint_widths, skip_widths
from jaxgen.networks.unet import UNet


@dataclasses.dataclass(frozen=True)
class Control(Graft):
    """A trainable copy of a U-Net's way down reads a hint, and adds to what the way up of the frozen U-Net receives.

    y = F(x, c + Z(copy(x + E(hint), c))), where the encoder E of the hint ends, and Z consists of, convolutions that
    start at zero (Zhang et al. 2023, Eq. 2 and section 3.2). So training starts from the method as it was, and only the
    last convolutions have a gradient in the first step.

    A part has the names of `jaxgen.networks.control.ControlNet`. The batch's entry has the hint: from
    `config.data.corruptions.<entry>`, such as `edges`, which makes it of the images, or from the data itself. At
    sampling `--hint` gives it. A hint of one channel is repeated where the network takes three.

    Raises:
      UserError: a number is out of its range.
    """

    group: str = "denoiser"  # the group of the U-Net
    entry: str = "hint"  # the entry of the batch that has the hint, a picture in [-1, 1] of any size
    scale: float = 1.0  # what is added is multiplied by it, in training and in sampling ("conditioning scale")
    # The share of the way from noise to image between which the hint steers, at sampling; 0 is noise, 1 the image.
    start_share: float = 0.0
    end_share: float = 1.0
    # Widths of the hint's encoder, one more than the halvings from the hint to the U-Net's first features; () takes the
    # first ones of (16, 32, 96, 256), or those of a file.
    hint_widths: tuple[int, ...] = ()
    channels: int = 0  # of the hint; 0 takes those of the data
    file: str = ""  # a folder of diffusers' `ControlNetModel` that the part starts from
    learns: bool = True  # False: the weights stay those of the file, or of config.init_from.<name of the graft>
    order: ClassVar[Order] = "around"

    def __post_init__(self) -> None:
        if not 0 <= self.start_share < self.end_share <= 1:
            raise UserError(
                "A control steers from start_share to end_share, which are shares of the way from noise to image, the "
                f"smaller first, and not {self.start_share:g} and {self.end_share:g}."
            )
        if self.channels < 0 or any(width < 1 for width in self.hint_widths):
            raise UserError(
                "A control's hint_widths are numbers of at least 1 and its channels are not negative; here they are "
                f"{self.hint_widths} and {self.channels}."
            )

    def start(self, name: str, key: Array, trained: Method, params: Params, batch: Batch) -> Tree:
        unet, factor = self.unet(trained), self._factor(trained)
        widths = self.hint_widths or _widths(factor)
        if 2 ** (len(widths) - 1) != factor:
            raise UserError(
                f"config.method.grafts.{name}.hint_widths={widths} halve a hint {len(widths) - 1} times, and an image "
                f"has {factor} times the sides of this U-Net's first features; give one width more than halvings."
            )
        if not self.channels and self.entry not in batch:
            raise UserError(
                f"config.method.grafts.{name} reads the entry {self.entry!r} of a batch that has "
                f"{', '.join(sorted(batch)) or 'nothing'}: make it of the images by config.data.corruptions."
                f"{self.entry}=section(name='edges'), or name the entry that the data have in "
                f"config.method.grafts.{name}.entry."
            )
        hint = jnp.zeros((1, factor, factor, self.channels or batch[self.entry].shape[-1]))
        encoder = HintEncoder(widths, unet.widths[0])
        copied = {k: v for k, v in bare_params(params[self.group]).items() if not k.startswith(OF_WAY_UP)}
        copied = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), copied)
        skips = skip_widths(unet)
        zeros = {f"zero_{i}": _zero(width) for i, width in enumerate(skips)} | {"zero_middle": _zero(unet.widths[-1])}
        own = jax.random.fold_in(key, zlib.crc32(b"hint"))
        return {**copied, **zeros, "hint": encoder.init(own, hint)["params"]}

    def loaded(self, name: str, part: Tree, trained: Method, params: Params, batch: Batch) -> Tree:
        source = self.file or f"config.init_from.{name}"
        if "hint" not in part:
            raise UserError(f"{source} is no ControlNet: it has no encoder of a hint.")
        like = dataclasses.replace(
            self, hint_widths=hint_widths(part), channels=part["hint"]["conv_in"]["kernel"].shape[-2]
        )
        fresh = jax.eval_shape(lambda key: like.start(name, key, trained, params, batch), jax.random.key(0))
        wrong = difference(part, fresh)
        if wrong:
            raise UserError(f"{source} does not belong to this model: {wrong}.")
        return part

    def onto(self, trained: Method) -> Method:
        self.unet(trained)
        assert isinstance(trained, DDPM)
        low, high = sorted(
            float(embedded(trained.schedule, np.float32(1 - share), trained.embed))  # type: ignore[arg-type]
            for share in (self.start_share, self.end_share)
        )
        always = (self.start_share, self.end_share) == (0.0, 1.0)
        window = None if always else (low, high)
        slot, scale = slot_of(self.entry), self.scale
        changed = with_network(trained, self.group, lambda network: Controlled(network, slot, scale, window))
        assert isinstance(changed, DDPM)
        size = (*changed.image_shape[:2], self.channels) if self.channels else None
        hint = Hint(entry=self.entry, factor=self._scale(trained), size=size)
        return dataclasses.replace(changed, parts={**changed.parts, slot: hint})

    def grafted(self, params: Params, part: Tree) -> Params:
        return {**params, self.group: {"network": params[self.group], "part": part}}

    def unet(self, trained: Method) -> UNet:
        """Returns the U-Net that is steered, without other grafts. Raises a UserError where there is none."""
        if not isinstance(trained, DDPM):
            raise UserError(f"A control steers a diffusion model, and {type(trained).__name__} is none; leave it out.")
        unet = bare_network(network_of(trained, self.group))
        if not isinstance(unet, UNet):
            raise UserError(
                f"A control steers a U-Net, and the group {self.group!r} has the network {type(unet).__name__}; use a "
                "graft of another kind, such as 'low_rank'."
            )
        return unet

    def network(self, trained: Method, part: Tree) -> ControlNet:
        """Returns the network that a part has the parameters of."""
        return ControlNet.beside(self.unet(trained), hint_widths(part))

    def _scale(self, trained: Method) -> int:
        """Returns how many times the sides of what is diffused an image's sides are."""
        assert isinstance(trained, DDPM)
        return trained.image_shape[0] // trained.own_codec.shape(trained.image_shape)[0]

    def _factor(self, trained: Method) -> int:
        """Returns how many times the sides of the U-Net's first features an image's sides are."""
        return self._scale(trained) * self.unet(trained).patch_size


@dataclasses.dataclass(frozen=True)
class Controlled(Wrapped):
    """Stands for a U-Net to which a `ControlNet` beside it adds.

    Attributes:
      slot: the name of the input that has the hint.
      scale: what is added is multiplied by it.
      window: the smallest and the largest `time` at which anything is added; None for all.
    """

    slot: str
    scale: float
    window: tuple[float, float] | None

    @property
    def slots(self) -> frozenset[str]:
        """Returns the names of the hints that are read inside, and of its own."""
        return getattr(self.network, "slots", frozenset()) | {self.slot}

    def apply(
        self,
        variables: Mapping[str, Tree],
        x: Float[Array, "B H W C"],
        time: Float[Array, " B"],
        *,
        residuals: tuple[Array, ...] = (),
        **options: Any,
    ) -> Any:
        """Calls the network as `flax.linen.Module.apply` does."""
        params, slots = variables["params"], self.slots
        inner: frozenset[str] = getattr(self.network, "slots", frozenset())
        passed = {name: value for name, value in options.items() if name not in slots or name in inner}
        variables = {**variables, "params": params["network"]}
        if self.scale == 0:  # the network as it was, to the bit
            given = {"residuals": residuals} if residuals else {}
            return self.network.apply(variables, x, time, **given, **passed)
        part, hint = params["part"], options[self.slot]
        control = ControlNet.beside(bare_network(self.network), hint_widths(part))
        taken = part["hint"]["conv_in"]["kernel"].shape[-2]
        if hint.shape[-1] == 1 and taken == 3:
            hint = jnp.repeat(hint, 3, axis=-1)
        own = {name: value for name, value in options.items() if name not in slots}
        added: tuple[Array, ...] = control.apply({"params": part}, x, time, hint, **own)  # type: ignore[assignment]
        factor = jnp.asarray(self.scale, jnp.float32)
        if self.window is not None:
            inside = (time >= self.window[0]) & (time <= self.window[1])
            factor = (factor * inside)[:, None, None, None]
        added = tuple(factor.astype(y.dtype) * y for y in added)
        if residuals:
            added = tuple(a + b for a, b in zip(residuals, added, strict=True))
        return self.network.apply(variables, x, time, residuals=added, **passed)


def _widths(factor: int) -> tuple[int, ...]:
    halvings = factor.bit_length() - 1
    if 2**halvings != factor:
        raise UserError(f"An image has {factor} times the sides of this U-Net's first features: no power of two.")
    return (*WIDTHS, *(WIDTHS[-1],) * halvings)[: halvings + 1]


def _zero(width: int) -> Tree:
    return {"kernel": jnp.zeros((1, 1, width, width)), "bias": jnp.zeros(width)}
