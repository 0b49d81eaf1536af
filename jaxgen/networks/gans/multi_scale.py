"""Discriminators of one kind look at an image and at smaller copies of it (Wang et al. 2018, "pix2pixHD", Eq. 2).

The coarser a copy is, the larger is the part of the image that a logit sees. Any discriminator of this code base whose
logits are maps, or single numbers, can be repeated in this way.
"""

from __future__ import annotations

from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Float

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.gans.gan_layers import GANNetwork
from jaxgen.networks.gans.pictures import joined


def halved(x: Float[Array, "B H W C"]) -> Float[Array, "B ceil(H/2) ceil(W/2) C"]:
    """Returns means of 3x3 pixels at every second one; at a border, those of the pixels that there are.

    It is PyTorch's `AvgPool2d(3, stride=2, padding=1, count_include_pad=False)`, which the authors of pix2pixHD use.
    """

    def sums(x: Array) -> Array:
        return lax.reduce_window(x, 0.0, lax.add, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))

    return sums(x) / sums(jnp.ones((1, *x.shape[1:3], 1), x.dtype))


class MultiScale(GANNetwork):
    """Maps images [B, H, W, C] to the outputs of `scales` discriminators, a tuple for each of their outputs.

    The first one sees the image, and each further one a copy of half the side, with parameters of its own in `scale_0`,
    `scale_1`, .... "logits" is a tuple of maps, whose losses add up (`jaxgen.adversarial.losses.game`), and "layers" a
    tuple of tuples, for `jaxgen.adversarial.losses.feature_matching`. Pictures that the discriminator reads are made
    smaller with the image; maps of classes are one-hot before, so that a small pixel knows shares of classes.

    Raises:
      UserError: fewer than one scale, or copies that are too small for the discriminator.
    """

    config_name: ClassVar[str] = "multi_scale"

    network: nn.Module  # the discriminator that is repeated, such as `patch_discriminator`
    scales: int = 2  # how many there are; 3 in the paper, for 2048x1024 pixels

    @property
    def reads(self) -> tuple[str, ...]:
        return self.network.reads

    @property
    def norm(self) -> str:
        """Returns the normalisation of the discriminators, which penalties of slopes ask for."""
        return getattr(self.network, "norm", "none")

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool = False, **entries: Array) -> dict[str, Any]:
        if self.scales < 1:
            raise UserError(f"A discriminator of several scales has at least one, not {self.scales}.")
        pictures = {name: entry for name, entry in entries.items() if entry.ndim > 1}
        others = {name: entry for name, entry in entries.items() if entry.ndim <= 1}
        classes = getattr(self.network, "classes", 0)
        pictures = {name: joined({name: entry}, classes) for name, entry in pictures.items()}
        found = []
        for i in range(self.scales):
            if i:
                x, pictures = halved(x), {name: halved(entry) for name, entry in pictures.items()}
            network = self.network.clone(name=f"scale_{i}", parent=self)
            found.append(network(x, train=train, **pictures, **others))
        return {name: tuple(outputs[name] for outputs in found) for name in found[0]}
