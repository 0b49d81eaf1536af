"""The networks of pix2pix, CycleGAN and pix2pixHD in PyTorch, put together as their papers' code does: the same layers
under the same names. `tests/parity/test_translation_torch.py` compares ours with them."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


def norm_of(kind, features):
    """A list of no layer or one, so that `Sequential` counts as in the authors' code."""
    return [nn.BatchNorm2d(features)] if kind == "batch" else [nn.InstanceNorm2d(features)]


class UNetBlock(nn.Module):
    """One level of the U-Net, with everything below it inside."""

    def __init__(self, outer, inner, sub, place, kind, channels=None, dropout=0.0):
        super().__init__()
        self.place, bias = place, kind == "instance"
        down = nn.Conv2d(channels or outer, inner, 4, 2, 1, bias=bias)
        if place == "outermost":
            up = nn.ConvTranspose2d(2 * inner, outer, 4, 2, 1)
            layers = [down, sub, nn.ReLU(), up, nn.Tanh()]
        elif place == "innermost":
            up = nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=bias)
            layers = [nn.LeakyReLU(0.2), down, nn.ReLU(), up, *norm_of(kind, outer)]
        else:
            up = nn.ConvTranspose2d(2 * inner, outer, 4, 2, 1, bias=bias)
            layers = [nn.LeakyReLU(0.2), down, *norm_of(kind, inner), sub, nn.ReLU(), up, *norm_of(kind, outer)]
            layers += [nn.Dropout(dropout)] if dropout else []
        self.model = nn.Sequential(*layers)

    def forward(self, x):
        y = self.model(x)
        return y if self.place == "outermost" else torch.cat([x, y], 1)


class UNet(nn.Module):
    def __init__(self, inputs, outputs, downs, width, kind):
        super().__init__()
        block = UNetBlock(width * min(2 ** (downs - 2), 8), width * min(2 ** (downs - 1), 8), None, "innermost", kind)
        for i in reversed(range(1, downs - 1)):
            block = UNetBlock(width * min(2 ** (i - 1), 8), width * min(2**i, 8), block, "middle", kind)
        self.model = UNetBlock(outputs, width, block, "outermost", kind, channels=inputs)

    def forward(self, x):
        return self.model(x)


class ResidualBlock(nn.Module):
    def __init__(self, features, kind, dropout=False):
        super().__init__()
        layers = []
        for i in range(2):
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(features, features, 3, bias=kind == "instance")]
            layers += [*norm_of(kind, features), *([nn.ReLU()] if i == 0 else [])]
            layers += [nn.Dropout(0.5)] if i == 0 and dropout else []
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.conv_block(x)


def trunk(inputs, width, downs, blocks, kind, dropout=False):
    bias = kind == "instance"
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(inputs, width, 7, bias=bias), *norm_of(kind, width), nn.ReLU()]
    for i in range(downs):
        before, after = width * 2**i, width * 2 ** (i + 1)
        layers += [nn.Conv2d(before, after, 3, 2, 1, bias=bias), *norm_of(kind, after), nn.ReLU()]
    layers += [ResidualBlock(width * 2**downs, kind, dropout) for _ in range(blocks)]
    for i in reversed(range(downs)):
        before, after = width * 2 ** (i + 1), width * 2**i
        up = nn.ConvTranspose2d(before, after, 3, 2, 1, output_padding=1, bias=bias)
        layers += [up, *norm_of(kind, after), nn.ReLU()]
    return layers


def to_image(width, outputs):
    return [nn.ReflectionPad2d(3), nn.Conv2d(width, outputs, 7), nn.Tanh()]


class ResNet(nn.Module):
    def __init__(self, inputs, outputs, width, downs, blocks, kind, dropout=False):
        super().__init__()
        self.model = nn.Sequential(*trunk(inputs, width, downs, blocks, kind, dropout), *to_image(width, outputs))

    def forward(self, x):
        return self.model(x)


def small_copy(x):
    return nn.functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False)


class LocalEnhancer(nn.Module):
    """pix2pixHD's generator: a global one without its last layers, and an enhancer at each larger size."""

    def __init__(self, inputs, outputs, width, enhancers, downs, blocks, local_blocks):
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

    def forward(self, x):
        copies = [x]
        for _ in range(self.enhancers):
            copies.append(small_copy(copies[-1]))
        y = self.model(copies[-1])
        for n in range(1, self.enhancers + 1):
            y = getattr(self, f"model{n}_2")(getattr(self, f"model{n}_1")(copies[self.enhancers - n]) + y)
        return y


class Patches(nn.Module):
    """The n-layer discriminator; `padding=2` in pix2pixHD, and one pixel for each logit with `layers=0`."""

    def __init__(self, inputs, width, layers, kind, padding=1):
        super().__init__()
        size, padding, bias = (4, padding, kind != "batch") if layers else (1, 0, kind != "batch")
        found = [nn.Conv2d(inputs, width, size, 2 if layers else 1, padding), nn.LeakyReLU(0.2)]
        for i in range(1, max(layers, 1) + 1):
            before, after = width * min(2 ** (i - 1), 8), width * min(2**i, 8)
            found.append(nn.Conv2d(before, after, size, 2 if i < layers else 1, padding, bias=bias))
            found += [*norm_of(kind, after), nn.LeakyReLU(0.2)]
        found.append(nn.Conv2d(after, 1, size, 1, padding))
        setattr(self, "model" if layers else "net", nn.Sequential(*found))

    def forward(self, x):
        return self.activations(x)[-1]

    def activations(self, x):
        """The activations behind each leaky ReLU, then the logits: what pix2pixHD's feature matching compares."""
        found, sequence = [], next(iter(self.children()))
        for layer in sequence:
            x = layer(x)
            if isinstance(layer, nn.LeakyReLU):
                found.append(x)
        return [*found, x]


def randomised(network, seed=0):
    """Fills all weights and running statistics with random numbers of a useful size, and returns the network."""
    random = np.random.default_rng(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            drawn = random.standard_normal(value.shape) * (0.1 if value.ndim > 1 else 0.2)
            drawn = np.abs(1 + drawn) if name.endswith("running_var") or (
                name.endswith("weight") and value.ndim == 1
            ) else drawn
            value.copy_(torch.tensor(drawn, dtype=torch.float32))
    return network


def nchw(x):
    return torch.tensor(np.asarray(x).transpose(0, 3, 1, 2).copy())


def nhwc(x):
    return x.detach().numpy().transpose(0, 2, 3, 1)
