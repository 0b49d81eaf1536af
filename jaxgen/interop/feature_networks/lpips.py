"""Reads the published weights of LPIPS: torchvision's classifiers and the heads of the authors' package v0.1."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxgen.downloads import Published, locate
from jaxgen.errors import UserError
from jaxgen.interop import torch_file
from jaxgen.interop.diffusers_files import check_floating
from jaxgen.networks.pretrained.lpips import layers_of

_HEADS = "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/"
_TORCHVISION = "https://download.pytorch.org/models/"

# {trunk: (the classifier, the heads)}. The names of torchvision's files end in the first digits of their hash.
PUBLISHED: dict[str, tuple[Published, Published]] = {
    "alex": (
        Published(
            file="alexnet-owt-7be5be79.pth",
            url=f"{_TORCHVISION}alexnet-owt-7be5be79.pth",
            sha256="7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
            what="torchvision's AlexNet, the trunk of LPIPS",
        ),
        Published(
            file="alex.pth",
            url=f"{_HEADS}alex.pth",
            sha256="df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
            what="the heads of LPIPS v0.1 on AlexNet",
        ),
    ),
    "vgg": (
        Published(
            file="vgg16-397923af.pth",
            url=f"{_TORCHVISION}vgg16-397923af.pth",
            sha256="397923af",
            what="torchvision's VGG16, the trunk of LPIPS",
        ),
        Published(
            file="vgg.pth",
            url=f"{_HEADS}vgg.pth",
            sha256="a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
            what="the heads of LPIPS v0.1 on VGG16",
        ),
    ),
}


def load_lpips(trunk: str = "alex", folder: str = "") -> dict[str, Any]:
    """Returns the published parameters of `jaxgen.networks.pretrained.lpips.LPIPS(trunk)` in float32.

    Args:
      trunk: a key of `PUBLISHED`.
      folder: a folder with the two files of `PUBLISHED[trunk]`; by default `jaxgen.downloads.locate` finds or fetches
        them.

    Raises:
      UserError: the trunk is unknown, or a file cannot be found, cannot be fetched or is of another network.
    """
    layers_of(trunk)
    classifier, heads = (torch_file.read(locate(file, folder)) for file in PUBLISHED[trunk])
    return lpips_from_torch(classifier, heads, trunk)


def lpips_from_torch(classifier: Mapping[str, Any], heads: Mapping[str, Any], trunk: str = "alex") -> dict[str, Any]:
    """Returns the parameters of `LPIPS(trunk)` from the state dicts of torchvision's classifier and of the heads.

    The classifier's dense layers are left out.

    Raises:
      UserError: a weight is missing, unknown or of another shape, or a head is negative.
    """
    layers = layers_of(trunk)
    convolutions = {key: x for key, x in classifier.items() if not key.startswith("classifier.")}
    # torchvision numbers convolutions, ReLUs and poolings together
    numbers = sorted({int(found[1]) for key in convolutions if (found := re.fullmatch(r"features\.(\d+)\..*", key))})
    if len(numbers) != len(layers):
        raise UserError(
            f"the trunk's file has {len(numbers)} convolutions under 'features.', but {trunk!r} has {len(layers)}: "
            f"give {PUBLISHED[trunk][0].file}."
        )
    params: dict[str, Any] = {}
    channels = 3
    for i, (number, layer) in enumerate(zip(numbers, layers, strict=True)):
        shape = (layer.features, channels, layer.size, layer.size)
        kernel = _take(convolutions, f"features.{number}.weight", shape)
        bias = _take(convolutions, f"features.{number}.bias", (layer.features,))
        params[f"conv_{i}"] = {"kernel": kernel.transpose(2, 3, 1, 0), "bias": bias}
        channels = layer.features
    heads = dict(heads)
    for i, layer in enumerate(x for x in layers if x.tap):
        head = _take(heads, f"lin{i}.model.1.weight", (1, layer.features, 1, 1)).reshape(-1)
        if head.min() < 0:
            raise UserError(f"head {i} of LPIPS has negative weights, with which it is no distance: use another file.")
        params[f"head_{i}"] = head
    for rest in (convolutions, heads):
        if rest:
            raise UserError(f"{min(rest)!r} is no weight of LPIPS with {trunk!r}.")
    return params


def _take(state: dict[str, Any], key: str, shape: tuple[int, ...]) -> np.ndarray:
    if key not in state:
        raise UserError(f"{key!r} is missing: this is no file of LPIPS' weights.")
    found = np.asarray(state.pop(key))
    check_floating(key, found.dtype, "LPIPS' weights")
    array = found.astype(np.float32, copy=False)
    if array.shape != shape:
        raise UserError(f"{key!r} has shape {array.shape}, but LPIPS needs {shape}: this file is of another network.")
    return array
