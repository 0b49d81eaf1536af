"""Says where each layer of a translation network is in its authors' PyTorch modules: one table for both directions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn

from jaxgen.errors import UserError
from jaxgen.networks.gans.patchgan import PatchDiscriminator
from jaxgen.networks.translation.resnet import CoarseToFine, TranslationResNet
from jaxgen.networks.translation.unet import TranslationUNet

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Layer:
    """Says where one layer is in the authors' module and in ours."""

    theirs: str  # the name of their module
    ours: Path  # the path of our parameters
    kind: str  # "conv", "transposed" or "norm"
    bias: bool = False  # whether theirs has a bias and ours has none, since a normalisation removes it


def layers(network: nn.Module) -> tuple[Layer, ...]:
    """Returns the layers of a translation network in the authors' order.

    Raises:
      UserError: the network is of another class than those of this module.
    """
    makers: Mapping[type, Callable[[Any], Iterator[Layer]]] = {
        TranslationUNet: _of_unet,
        TranslationResNet: _of_resnet,
        CoarseToFine: _of_coarse_to_fine,
        PatchDiscriminator: _of_patches,
    }
    if type(network) not in makers:
        raise UserError(f"{type(network).__name__} has no layout of the authors of pix2pix, CycleGAN and pix2pixHD.")
    return tuple(makers[type(network)](network))


def _of_unet(network: TranslationUNet) -> Iterator[Layer]:
    """Each block is a `Sequential` within the one around it."""
    dead, prefix, last = network.norm == "instance", "model.model.", network.downs - 1
    for i in range(network.downs):
        convolution, inner = (0 if i == 0 else 1), 0 < i < last
        yield Layer(f"{prefix}{convolution}", (f"down_{i}",), "conv", dead and inner)
        if inner:
            yield Layer(f"{prefix}2", (f"down_norm_{i}",), "norm")
        up = {0: 3, last: 3}.get(i, 5)
        yield Layer(f"{prefix}{up}", (f"up_{i}",), "transposed", dead and i > 0)
        if i:
            yield Layer(f"{prefix}{up + 1}", (f"up_norm_{i}",), "norm")
        prefix += f"{1 if i == 0 else 3}.model."


def _of_trunk(network: TranslationResNet | CoarseToFine, path: Path = ("trunk",)) -> Iterator[Layer]:
    """One `Sequential` of all layers, activations and paddings counted."""
    dead, at = network.norm == "instance", 1
    names = ["stem", *(f"down_{i}" for i in range(network.downs))]
    for name in names:
        yield from _pair(f"model.{at}", f"model.{at + 1}", (*path, name), "conv", dead)
        at += 3
    for i in range(network.blocks):
        yield from _of_block(f"model.{at}", (*path, f"block_{i}"), network)
        at += 1
    for i in reversed(range(network.downs)):
        yield from _pair(f"model.{at}", f"model.{at + 1}", (*path, f"up_{i}"), "transposed", dead)
        at += 3


def _of_resnet(network: TranslationResNet) -> Iterator[Layer]:
    yield from _of_trunk(network)
    yield Layer(f"model.{3 * (1 + 2 * network.downs) + network.blocks + 2}", ("image",), "conv")


def _of_coarse_to_fine(network: CoarseToFine) -> Iterator[Layer]:
    yield from _of_trunk(network)
    dead, blocks = network.norm == "instance", network.local_blocks
    for n in range(1, network.enhancers + 1):
        path = (f"enhancer_{n}",)
        yield from _pair(f"model{n}_1.1", f"model{n}_1.2", (*path, "stem"), "conv", dead)
        yield from _pair(f"model{n}_1.4", f"model{n}_1.5", (*path, "down"), "conv", dead)
        for i in range(blocks):
            yield from _of_block(f"model{n}_2.{i}", (*path, f"block_{i}"), network)
        yield from _pair(f"model{n}_2.{blocks}", f"model{n}_2.{blocks + 1}", (*path, "up"), "transposed", dead)
    yield Layer(f"model{network.enhancers}_2.{blocks + 4}", ("image",), "conv")


def _of_block(theirs: str, ours: Path, network: TranslationResNet | CoarseToFine) -> Iterator[Layer]:
    second = 6 if network.dropout else 5  # behind a layer of dropout
    for i, at in enumerate((1, second)):
        conv, norm = f"{theirs}.conv_block.{at}", f"{theirs}.conv_block.{at + 1}"
        *path, name = ours
        yield Layer(conv, (*path, f"{name}_conv_{i}"), "conv", network.norm == "instance")
        yield Layer(norm, (*path, f"{name}_norm_{i}"), "norm")


def _pair(conv: str, norm: str, path: Path, kind: str, dead: bool) -> Iterator[Layer]:
    yield Layer(conv, path, kind, dead)
    yield Layer(norm, (*path[:-1], f"{path[-1]}_norm"), "norm")


def _of_patches(network: PatchDiscriminator) -> Iterator[Layer]:
    name, dead, at = "model" if network.layers else "net", network.norm == "instance", 0
    for i in range(max(network.layers, 1) + 1):
        normalised = i > 0 and network.norm in ("batch", "instance")
        yield Layer(f"{name}.{at}", (f"conv_{i}",), "conv", dead and i > 0)
        if normalised:
            yield Layer(f"{name}.{at + 1}", (f"norm_{i}",), "norm")
        at += 3 if normalised else 2
    yield Layer(f"{name}.{at}", ("logits",), "conv")
