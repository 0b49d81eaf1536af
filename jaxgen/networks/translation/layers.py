"""Holds what the generators of translations share: normalisation, reflection at the border, noise and dropout.

A generator is called as `apply(variables, z, train=False, **entries)` and gives images [B, H, W, C] in [-1, 1] by tanh.
`entries` are the batch entries that its `reads` names, pictures of one size (`jaxgen.networks.gans.pictures`). z is
None, for a generator without randomness, or a dict with

    "noise"    float32 [B, z_dim]: the numbers that are laid over each pixel of the input, where z_dim is above 0
    "dropout"  typed random keys [B]: each image's own draw of dropout; without them nothing is dropped

so that one image's randomness depends on its own key, and not on the batch or on the devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Key

from jaxgen.arrays import Array
from jaxgen.errors import UserError
from jaxgen.networks.gans.patchgan import instance_norm
from jaxgen.networks.gans.pictures import joined
from jaxgen.networks.layers.batch_norm import BatchNorm, dcgan_scale_init
from jaxgen.networks.layers.convolution import zeros_init

Z = Mapping[str, Array]
# "instance" has no parameters; "affine_instance" has a scale and a bias for each channel, and is what "batch", whose
# statistics are memory, computes for a batch of one image
TranslationNorm = Literal["instance", "affine_instance", "batch", "none"]


class AffineInstanceNorm(nn.Module):
    """Gives each channel of each image mean 0 and variance 1, then a learned scale and bias."""

    config_name = ""  # a part of other networks; no config names it

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B H W C"]:
        scale = self.param("scale", dcgan_scale_init, (x.shape[-1],), jnp.float32)
        bias = self.param("bias", zeros_init, (x.shape[-1],), jnp.float32)
        return instance_norm(x) * scale + bias


def normalised(x: Array, kind: TranslationNorm, name: str, train: bool) -> Array:
    """Normalises activations [B, H, W, C]. Call it in a compact method."""
    if kind == "batch":
        return BatchNorm(name=name)(x, train)
    if kind == "affine_instance":
        return AffineInstanceNorm(name=name)(x)
    return instance_norm(x) if kind == "instance" else x


def reflected(x: Float[Array, "B H W C"], pixels: int) -> Float[Array, "B H2 W2 C"]:
    """Mirrors an image at its border, which the mirrored part does not repeat: PyTorch's ReflectionPad2d."""
    return jnp.pad(x, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)), mode="reflect")


def dropped(x: Float[Array, "B H W C"], rate: float, keys: Key[Array, " B"] | None, index: int) -> Array:
    """Sets a share of each image's values to 0 and divides the others by the share that is kept (dropout).

    Args:
      keys: a key for each image; None leaves x as it is.
      index: the number of the place in the network, so that each place has its own draw.
    """
    if keys is None or not rate:
        return x

    def one(key: Array, x: Array) -> Array:
        kept = jax.random.bernoulli(jax.random.fold_in(key, index), 1 - rate, x.shape)
        return jnp.where(kept, x / (1 - rate), 0)

    return jax.vmap(one)(keys, x)


def inputs(network: Any, z: Z | None, entries: Mapping[str, Array]) -> tuple[Array, Array | None]:
    """Returns what a generator begins with, [B, H, W, C], and the keys of its dropout.

    Raises:
      UserError: an entry of `reads` is missing, or the noise does not have the generator's `z_dim`.
    """
    missing = [name for name in network.reads if name not in entries]
    if missing:
        raise UserError(f"{type(network).__name__} reads {missing[0]!r}, which it was not given.")
    if not 0 <= network.dropout < 1:
        raise UserError(f"{type(network).__name__}: dropout is a share in [0, 1), not {network.dropout}.")
    x = joined({name: entries[name] for name in network.reads}, network.classes)
    noise = None if z is None else z.get("noise")
    width = 0 if noise is None else noise.shape[-1]
    if width != network.z_dim:
        raise UserError(f"{type(network).__name__} has z_dim={network.z_dim} and was given noise of width {width}.")
    if noise is not None and width:
        x = jnp.concatenate([x, jnp.broadcast_to(noise[:, None, None], (*x.shape[:3], width))], axis=-1)
    return x, None if z is None else z.get("dropout")


def check_sides(name: str, x: Array, factor: int, advice: str) -> None:
    """Raises a UserError unless both sides of images [B, H, W, C] can be halved so often."""
    height, width = x.shape[1:3]
    if height % factor or width % factor:
        raise UserError(f"{name} needs sides that {factor} divides, not {height}x{width} pixels: {advice}.")
