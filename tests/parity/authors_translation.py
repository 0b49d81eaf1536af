"""The networks of pix2pix, CycleGAN and pix2pixHD in PyTorch.

Layers, and the names of modules, are those of the papers' code. `test_translation_torch.py` compares jaxgen's networks
with them, and `benchmarks/torch_translation.py` trains them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def norm_of(kind: str, features: int) -> list[nn.Module]:
    """Returns the one layer of normalisation in a list."""
    return [nn.BatchNorm2d(features)] if kind == "batch" else [nn.InstanceNorm2d(features)]


class UNetBlock(nn.Module):
    """One level of the U-Net, with everything below it inside."""

    def __init__(
        self,
        outer: int,
        inner: int,
        sub: nn.Module | None,
        place: str,
        kind: str,
        channels: int = 0,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.place, bias = place, kind == "instance"
        down = nn.Conv2d(channels or outer, inner, 4, 2, 1, bias=bias)
        if place == "outermost":
            up = nn.ConvTranspose2d(2 * inner, outer, 4, 2, 1)
            layers = [down, *([sub] if sub else []), nn.ReLU(), up, nn.Tanh()]
        elif place == "innermost":
            up = nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=bias)
            layers = [nn.LeakyReLU(0.2), down, nn.ReLU(), up, *norm_of(kind, outer)]
        else:
            up = nn.ConvTranspose2d(2 * inner, outer, 4, 2, 1, bias=bias)
            layers = [nn.LeakyReLU(0.2), down, *norm_of(kind, inner)]
            layers += [*([sub] if sub else []), nn.ReLU(), up, *norm_of(kind, outer)]
            layers += [nn.Dropout(dropout)] if dropout else []
        self.model = nn.Sequential(*layers)

    def forward(self, x: Any) -> Any:
        y = self.model(x)
        return y if self.place == "outermost" else torch.cat([x, y], 1)


class UNet(nn.Module):
    """The U-Net; the blocks of the largest width, beside the innermost, drop values where there is dropout."""

    def __init__(self, inputs: int, outputs: int, downs: int, width: int, kind: str, dropout: float = 0.0):
        super().__init__()
        block = UNetBlock(width * min(2 ** (downs - 2), 8), width * min(2 ** (downs - 1), 8), None, "innermost", kind)
        for i in reversed(range(1, downs - 1)):
            rate = dropout if i > 3 else 0.0
            block = UNetBlock(width * min(2 ** (i - 1), 8), width * min(2**i, 8), block, "middle", kind, dropout=rate)
        self.model = UNetBlock(outputs, width, block, "outermost", kind, channels=inputs)

    def forward(self, x: Any) -> Any:
        return self.model(x)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with mirrored borders, added to their input."""

    def __init__(self, features: int, kind: str, dropout: bool = False):
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(2):
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(features, features, 3, bias=kind == "instance")]
            layers += [*norm_of(kind, features), *([nn.ReLU()] if i == 0 else [])]
            layers += [nn.Dropout(0.5)] if i == 0 and dropout else []
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x: Any) -> Any:
        return x + self.conv_block(x)


def trunk(inputs: int, width: int, downs: int, blocks: int, kind: str, dropout: bool = False) -> list[nn.Module]:
    """Returns the layers of a residual generator but the last ones."""
    bias = kind == "instance"
    layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(inputs, width, 7, bias=bias)]
    layers += [*norm_of(kind, width), nn.ReLU()]
    for i in range(downs):
        before, after = width * 2**i, width * 2 ** (i + 1)
        layers += [nn.Conv2d(before, after, 3, 2, 1, bias=bias), *norm_of(kind, after), nn.ReLU()]
    layers += [ResidualBlock(width * 2**downs, kind, dropout) for _ in range(blocks)]
    for i in reversed(range(downs)):
        before, after = width * 2 ** (i + 1), width * 2**i
        up = nn.ConvTranspose2d(before, after, 3, 2, 1, output_padding=1, bias=bias)
        layers += [up, *norm_of(kind, after), nn.ReLU()]
    return layers


def to_image(width: int, outputs: int) -> list[nn.Module]:
    """Returns the last layers of a residual generator."""
    return [nn.ReflectionPad2d(3), nn.Conv2d(width, outputs, 7), nn.Tanh()]


class ResNet(nn.Module):
    """CycleGAN's generator, and pix2pixHD's global one."""

    def __init__(
        self, inputs: int, outputs: int, width: int, downs: int, blocks: int, kind: str, dropout: bool = False
    ):
        super().__init__()
        self.model = nn.Sequential(*trunk(inputs, width, downs, blocks, kind, dropout), *to_image(width, outputs))

    def forward(self, x: Any) -> Any:
        return self.model(x)


def small_copy(x: Any) -> Any:
    """Returns means of 3x3 pixels at every second one."""
    return nn.functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False)


class LocalEnhancer(nn.Module):
    """pix2pixHD's generator: a global one without its last layers, and an enhancer at each larger size."""

    def __init__(
        self, inputs: int, outputs: int, width: int, enhancers: int, downs: int, blocks: int, local_blocks: int
    ):
        super().__init__()
        self.enhancers = enhancers
        self.model = nn.Sequential(*trunk(inputs, width * 2**enhancers, downs, blocks, "instance"))
        for n in range(1, enhancers + 1):
            own = width * 2 ** (enhancers - n)
            first = [nn.ReflectionPad2d(3), nn.Conv2d(inputs, own, 7), nn.InstanceNorm2d(own), nn.ReLU()]
            first += [nn.Conv2d(own, 2 * own, 3, 2, 1), nn.InstanceNorm2d(2 * own), nn.ReLU()]
            second = [ResidualBlock(2 * own, "instance") for _ in range(local_blocks)]
            second += [nn.ConvTranspose2d(2 * own, own, 3, 2, 1, output_padding=1), nn.InstanceNorm2d(own), nn.ReLU()]
            second += to_image(own, outputs) if n == enhancers else []
            setattr(self, f"model{n}_1", nn.Sequential(*first))
            setattr(self, f"model{n}_2", nn.Sequential(*second))

    def forward(self, x: Any) -> Any:
        copies = [x]
        for _ in range(self.enhancers):
            copies.append(small_copy(copies[-1]))
        y = self.model(copies[-1])
        for n in range(1, self.enhancers + 1):
            y = getattr(self, f"model{n}_2")(getattr(self, f"model{n}_1")(copies[self.enhancers - n]) + y)
        return y


class Patches(nn.Module):
    """The n-layer discriminator; `padding=2` in pix2pixHD, and one pixel for each logit with `layers=0`."""

    def __init__(self, inputs: int, width: int, layers: int, kind: str, padding: int = 1):
        super().__init__()
        size, padding, bias = (4, padding, kind != "batch") if layers else (1, 0, kind != "batch")
        found: list[nn.Module] = [nn.Conv2d(inputs, width, size, 2 if layers else 1, padding), nn.LeakyReLU(0.2)]
        for i in range(1, max(layers, 1) + 1):
            before, after = width * min(2 ** (i - 1), 8), width * min(2**i, 8)
            found.append(nn.Conv2d(before, after, size, 2 if i < layers else 1, padding, bias=bias))
            found += [*norm_of(kind, after), nn.LeakyReLU(0.2)]
        found.append(nn.Conv2d(after, 1, size, 1, padding))
        setattr(self, "model" if layers else "net", nn.Sequential(*found))

    def forward(self, x: Any) -> Any:
        return self.activations(x)[-1]

    def activations(self, x: Any) -> list[Any]:
        """The activations behind each leaky ReLU, then the logits: what pix2pixHD's feature matching compares."""
        found, sequence = [], next(iter(self.children()))
        for layer in sequence:
            x = layer(x)
            if isinstance(layer, nn.LeakyReLU):
                found.append(x)
        return [*found, x]
