"""Teaches a trained U-Net to fill holes: it is shown the picture and the mask by new input channels (GLIDE)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Float

from jaxgen.arrays import Array, Batch, Params, Tree
from jaxgen.conditions.masked_image import ERASED, ErasedImage
from jaxgen.errors import UserError
from jaxgen.methods.base import Method
from jaxgen.methods.diffusion.ddpm import DDPM
from jaxgen.methods.grafts.base import Graft, Order, Wrapped, bare_network, network_of, with_network
from jaxgen.networks.hooks import after
from jaxgen.networks.layers.basic import Conv
from jaxgen.networks.layers.patches import to_patches
from jaxgen.networks.unet import UNet


@dataclasses.dataclass(frozen=True)
class Inpainting(Graft):
    """A U-Net gains input channels for a picture with a hole and for the mask (Nichol et al. 2022, section 2.2).

    The weights of the new channels start at zero, so that at the start the model draws what it drew before, to the bit.
    They are a convolution of their own, whose output is added to that of the first convolution, which is the same as
    more channels of it. The U-Net itself learns where a graft `leaves` lets it.

    In sampling, what is known takes the place of the predicted x0 there at each step, and is exact at the end. The
    picture and the mask come from `config.data.corruptions.<entry>`, such as `hole`, and at sampling from `--image` and
    `--mask`.
    """

    group: str = "denoiser"  # the group of the U-Net
    entry: str = "condition"  # the entry of the batch that has the picture, float32 [B, H, W, C] in [-1, 1]
    mask: str = "mask"  # the entry that is 1 where the image is unknown, int32 [B, H, W]
    learns: bool = True  # False: the weights stay those of config.init_from.<name of the graft>
    order: ClassVar[Order] = "hooks"

    def start(self, name: str, key: Array, trained: Method, params: Params, batch: Batch) -> Tree:
        unet = self._unet(trained)
        for entry in (self.entry, self.mask):
            if entry not in batch:
                raise UserError(
                    f"config.method.grafts.{name} reads the entry {entry!r} of a batch that has "
                    f"{', '.join(sorted(batch)) or 'nothing'}: make a picture and its mask of the images by "
                    f"config.data.corruptions.{self.entry}=section(name='hole')."
                )
        size, channels = unet.input_kernel, (batch["image"].shape[-1] + 1) * unet.patch_size**2
        return {"kernel": jnp.zeros((size, size, channels, unet.widths[0]))}

    def onto(self, trained: Method) -> Method:
        self._unet(trained)
        assert isinstance(trained, DDPM)
        if trained.coding.group or trained.shape != trained.image_shape:
            raise UserError("A graft 'inpainting' keeps known pixels, and this model diffuses no pixels; leave it out.")
        read = [name for name, part in trained.told.all.items() if {self.entry, self.mask} & {*part.entries}]
        if read:
            raise UserError(
                f"A graft 'inpainting' reads the entries {self.entry!r} and {self.mask!r}, of which {read[0]!r} of the "
                "trained model reads one already: give the graft another entry, and the corruption its name."
            )
        changed = with_network(trained, self.group, Widened)
        assert isinstance(changed, DDPM)
        return dataclasses.replace(changed, parts={**changed.parts, ERASED: ErasedImage(self.entry, self.mask)})

    def grafted(self, params: Params, part: Tree) -> Params:
        return {**params, self.group: {"network": params[self.group], "part": part}}

    def _unet(self, trained: Method) -> UNet:
        """Returns the U-Net without other grafts; raises a UserError where there is none."""
        if not isinstance(trained, DDPM):
            raise UserError(
                f"A graft 'inpainting' is for diffusion models, and {type(trained).__name__} is none; leave it out."
            )
        unet = bare_network(network_of(trained, self.group))
        if not isinstance(unet, UNet):
            raise UserError(
                f"A graft 'inpainting' widens a U-Net, and the group {self.group!r} has the network "
                f"{type(unet).__name__}; leave it out."
            )
        return unet


@dataclasses.dataclass(frozen=True)
class Widened(Wrapped):
    """Stands for a U-Net whose first convolution also sees the input `erased`, a picture and its mask."""

    @property
    def slots(self) -> frozenset[str]:
        """Returns the names of the inputs that are read inside, and of its own."""
        return getattr(self.network, "slots", frozenset()) | {ERASED}

    def apply(
        self,
        variables: Mapping[str, Tree],
        *inputs: Any,
        erased: Float[Array, "B H W C"],
        **options: Any,
    ) -> Any:
        """Calls the network as `flax.linen.Module.apply` does."""
        params, unet = variables["params"], bare_network(self.network)
        first = Conv(unet.widths[0], unet.input_kernel, use_bias=False, dtype=unet.dtype)
        added: Array = first.apply({"params": params["part"]}, to_patches(erased, unet.patch_size))  # type: ignore

        def widened(y: Array, *_: Array) -> Array:
            return y + added

        with after({"conv_in": widened}):
            return self.network.apply({**variables, "params": params["network"]}, *inputs, **options)
