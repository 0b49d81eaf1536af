"""lpips, clean-fid and torch-fidelity import torchvision, of which no CPU build goes with the torch of these tests.

While one of them is being imported, a stand-in takes torchvision's place; afterwards it is gone again, so that other
packages (transformers, diffusers) see that there is none. What is only named becomes an empty class; the two
classifiers whose features LPIPS uses are built as torchvision builds them.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
import types
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of torch, whose threads would wait for the other workers of pytest
PEERS = ("lpips", "cleanfid", "torch_fidelity")
PARTS = ("", ".models", ".models.inception", ".datasets", ".transforms", ".transforms.functional", ".utils")


class _Module(types.ModuleType):
    """A module that has every name."""

    __version__ = "0.0"

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def _convolutions(widths: Iterator[int | str]) -> object:
    """VGG's features: a number is the width of a 3x3 convolution and its ReLU, "pool" halves the image."""
    from torch import nn

    layers, channels = [], 3
    for width in widths:
        if width == "pool":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
    return types.SimpleNamespace(features=nn.Sequential(*layers))


def _vgg16(**_: object) -> object:
    return _convolutions([64, 64, "pool", 128, 128, "pool", *(([256] * 3 + ["pool"]) + ([512] * 3 + ["pool"]) * 2)])


def _alexnet(**_: object) -> object:
    from torch import nn

    layers = [nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)]
    layers += [nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)]
    for channels, width in ((192, 384), (384, 256), (256, 256)):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
    return types.SimpleNamespace(features=nn.Sequential(*layers, nn.MaxPool2d(3, 2)))


def _stand_in() -> dict[str, types.ModuleType]:
    modules = {f"torchvision{part}": _Module(f"torchvision{part}") for part in PARTS}
    for name, module in modules.items():
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
    modules["torchvision.models"].vgg16 = _vgg16
    modules["torchvision.models"].alexnet = _alexnet
    return modules


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader):
        self._loader = loader

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        outermost = "torchvision" not in sys.modules
        if outermost:
            sys.modules.update(_stand_in())
        try:
            self._loader.exec_module(module)
        finally:
            if outermost:
                for part in PARTS:
                    sys.modules.pop(f"torchvision{part}", None)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] not in PEERS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


if importlib.util.find_spec("torchvision") is None:
    sys.meta_path.insert(0, _Finder())
