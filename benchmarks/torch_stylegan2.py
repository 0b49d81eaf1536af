"""Does PyTorch's side of the row of StyleGAN2: a step of both players with lazy penalties, as its authors' code goes.

The networks are those of `tests/parity/test_stylegan_torch.py`, with one kernel for all images of a batch, which is how
the authors' code trains: channels are scaled before the convolution and divided by their lengths behind it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.torch_translation import average, descend, pictures
from benchmarks.workloads import STYLE, Row

F = nn.functional
Step = Callable[[], None]


class Linear(nn.Module):
    """A linear layer with an equalised learning rate."""

    def __init__(self, before: int, after: int, multiplier: float = 1.0, bias: float = 0.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before) / multiplier)
        self.bias = nn.Parameter(torch.full((after,), bias / multiplier))
        self.multiplier, self.scale = multiplier, multiplier / math.sqrt(before)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.multiplier)


class Conv(nn.Module):
    """A convolution with an equalised learning rate; `down` filters first and halves the side."""

    def __init__(self, before: int, after: int, size: int = 3, down: bool = False, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before, size, size))
        self.bias = nn.Parameter(torch.zeros(after)) if bias else None
        self.scale, self.size, self.down = 1 / math.sqrt(before * size**2), size, down

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, pad = self.weight * self.scale, self.size // 2
        if self.down:
            return F.conv2d(blur(x, (pad + 1,) * 4), weight, self.bias, stride=2)
        return F.conv2d(x, weight, self.bias, padding=pad)


class Modulated(nn.Module):
    """A modulated convolution, with noise, a bias and a leaky ReLU where it is a layer and not an image."""

    def __init__(self, before: int, after: int, w_dim: int, up: bool = False, image: bool = False):
        super().__init__()
        self.size, self.up, self.image = 1 if image else 3, up, image
        self.style = Linear(w_dim, before, bias=1.0)
        self.weight = nn.Parameter(torch.randn(after, before, self.size, self.size))
        self.bias = nn.Parameter(torch.zeros(after))
        self.scale = 1 / math.sqrt(before * self.size**2)
        self.strength = None if image else nn.Parameter(torch.zeros(()))

    def forward(self, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        style, weight = self.style(w), self.weight * self.scale
        x = x * style[:, :, None, None]
        if self.up:
            x = blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), (1, 1, 1, 1), 4.0)
        else:
            x = F.conv2d(x, weight, padding=self.size // 2)
        if self.image:
            return x + self.bias[:, None, None]
        lengths = style.square() @ weight.square().sum((2, 3)).T + 1e-8
        x = x * lengths.rsqrt()[:, :, None, None]
        return activated(x + self.strength * torch.randn(len(x), 1, *x.shape[2:]) + self.bias[:, None, None])


class Generator(nn.Module):
    """Style mapping, and a synthesis with skip connections."""

    def __init__(self, size: int, channels: int, most: int, z_dim: int, w_dim: int, depth: int):
        super().__init__()
        count = size.bit_length() - 2
        width = [min(channels * 2**level, most) for level in reversed(range(count))]
        self.mapping = nn.ModuleList(Linear(w_dim if i else z_dim, w_dim, 0.01) for i in range(depth))
        self.constant = nn.Parameter(torch.randn(width[0], 4, 4))
        before = [width[0], *width]
        self.blocks = nn.ModuleList(
            nn.ModuleList([
                *([Modulated(before[level], own, w_dim, up=True)] if level else []), Modulated(own, own, w_dim),
                Modulated(own, 3, w_dim, image=True),
            ])
            for level, own in enumerate(width)
        )  # fmt: skip
        self.layers, self.z_dim = 2 * count, z_dim

    def styles(self, z: torch.Tensor) -> torch.Tensor:
        x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.mapping:
            x = activated(layer(x))
        return x

    def mixed(self, count: int, share: float) -> torch.Tensor:
        """Styles of all layers, of which some images take the later ones from another z."""
        one, other = self.styles(torch.randn(count, self.z_dim)), self.styles(torch.randn(count, self.z_dim))
        cut = torch.where(torch.rand(count) < share, torch.randint(1, self.layers, (count,)), self.layers)
        first = torch.arange(self.layers) < cut[:, None]
        return torch.where(first[..., None], one[:, None], other[:, None])

    def synthesis(self, w: torch.Tensor) -> torch.Tensor:
        x, images, layer = self.constant.expand(len(w), -1, -1, -1), None, 0
        for block in self.blocks:
            for module in block[:-1]:
                x = module(x, w[:, layer])
                layer += 1
            own = block[-1](x, w[:, layer])
            images = own if images is None else own + blur(doubled(images), (2, 1, 2, 1), 4.0)
        return images


class Discriminator(nn.Module):
    """Residual levels, the deviation within groups of four, and two dense layers."""

    def __init__(self, size: int, channels: int, most: int):
        super().__init__()
        count = size.bit_length() - 2
        width = [min(channels * 2**level, most) for level in range(count)]
        self.first = Conv(3, width[0], 1)
        self.levels = nn.ModuleList(
            nn.ModuleList([Conv(a, a), Conv(a, b, down=True), Conv(a, b, 1, down=True, bias=False)])
            for a, b in zip(width, width[1:], strict=False)
        )
        self.last = Conv(width[-1] + 1, width[-1])
        self.features, self.logit = Linear(16 * width[-1], width[-1]), Linear(width[-1], 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = activated(self.first(x))
        for one, two, skip in self.levels:
            x = activated(two(activated(one(x))), math.sqrt(0.5)) + math.sqrt(0.5) * skip(x)
        groups = x.reshape(4, -1, *x.shape[1:])
        deviation = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3)).repeat(4)
        x = activated(self.last(torch.cat([x, deviation[:, None, None, None].expand(-1, 1, *x.shape[2:])], 1)))
        return self.logit(activated(self.features(x.flatten(1))))[:, 0]


def stylegan2(row: Row, compiled: bool) -> tuple[Step, list[nn.Module]]:
    """Step i: R1 where 16 divides i and the path length where 4 does, each an update, then both players'."""
    most = STYLE["widest"] * row.channels
    generator = Generator(row.size, row.channels, most, STYLE["z_dim"], STYLE["w_dim"], STYLE["depth"])
    judge = Discriminator(row.size, row.channels, most)
    of_generator, of_judge = (
        torch.optim.Adam(model.parameters(), 2e-3 * share, (0.0, 0.99**share), fused=True)
        for model, share in ((generator, 4 / 5), (judge, 16 / 17))
    )
    draw, discriminate = (torch.compile(f) if compiled else f for f in (generator.synthesis, judge))
    image = pictures(row)
    ema = [p.detach().clone() for p in generator.parameters()]
    mean, number, softplus = torch.zeros(()), 0, F.softplus

    def slopes() -> None:
        real = image.detach().requires_grad_()
        slope = torch.autograd.grad(judge(real).sum(), real, create_graph=True)[0]
        descend(of_judge, 16 * STYLE["r1"] / 2 * slope.square().sum((1, 2, 3)).mean())

    def lengths() -> None:
        nonlocal mean
        w = generator.mixed(row.batch // 2, STYLE["mixing"])
        made = generator.synthesis(w)
        y = torch.randn(made.shape) / math.sqrt(row.size**2)
        slope = torch.autograd.grad((made * y).sum(), w, create_graph=True)[0]
        length = slope.square().sum(2).mean(1).sqrt()
        mean = mean + 0.01 * (length.detach().mean() - mean)
        descend(of_generator, 4 * STYLE["path_length"] * (length - mean).square().mean())

    def step() -> None:
        nonlocal number
        if number % 16 == 0:
            slopes()
        if number % 4 == 0:
            lengths()
        number += 1
        with torch.no_grad():
            fake = draw(generator.mixed(row.batch, STYLE["mixing"]))
        descend(of_judge, softplus(-discriminate(image)).mean() + softplus(discriminate(fake)).mean())
        judge.requires_grad_(False)
        value = softplus(-discriminate(draw(generator.mixed(row.batch, STYLE["mixing"])))).mean()
        descend(of_generator, value)
        judge.requires_grad_(True)
        average(ema, generator)
        value.item()

    return step, [generator, judge]


def activated(x: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
    """A leaky ReLU that keeps the mean square, times a gain."""
    return F.leaky_relu(x, 0.2) * (math.sqrt(2) * gain)


def blur(x: torch.Tensor, padding: tuple[int, int, int, int], gain: float = 1.0) -> Any:
    """Filters each channel alone by (1, 3, 3, 1) along both axes."""
    taps = torch.tensor([1.0, 3, 3, 1])
    kernel = torch.outer(taps, taps) * (gain / 64)
    return F.conv2d(F.pad(x, padding), kernel.expand(x.shape[1], 1, 4, 4), groups=x.shape[1])


def doubled(x: torch.Tensor) -> torch.Tensor:
    """Inserts a zero behind each pixel, along both axes."""
    zeros = torch.zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    zeros[..., ::2, ::2] = x
    return zeros
