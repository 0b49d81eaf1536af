"""Does PyTorch's side of the row of the triplane GAN without captions: planes, `grid_sample`, volume rendering, a game.

The graph is that of `jaxgen.networks.three_d` and `jaxgen.geometry.volume`; `tests/parity/test_grid_sample.py` compares
how planes are read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.torch_stylegan2 import Conv, Linear
from benchmarks.torch_translation import average, descend, pictures
from benchmarks.workloads import SPACE, Row
from jaxgen.geometry import cameras

F = nn.functional
Step = Callable[[], None]
HE = math.sqrt(2.0)


class Attention(nn.Module):
    """Each plane looks at itself, then at all three; residuals."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.own, self.cross = (nn.ModuleList(nn.Linear(width, width) for _ in range(4)) for _ in range(2))

    def _attended(self, layers: Any, tokens: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)

        query, key, value = (heads(layer(x)) for layer, x in zip(layers, (tokens, context, context), strict=False))
        return layers[3](F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps planes [B, 3, D, s, s]."""
        batch, count, width, side, _ = x.shape
        tokens = x.flatten(3).transpose(2, 3)  # [B, 3, s s, D]

        def normal(x: torch.Tensor) -> torch.Tensor:
            return F.layer_norm(x, x.shape[-1:], eps=1e-6)

        alone = normal(tokens).flatten(0, 1)
        tokens = tokens + self._attended(self.own, alone, alone).reshape(tokens.shape)
        everything = normal(tokens).flatten(1, 2).repeat_interleave(count, 0)
        found = self._attended(self.cross, normal(tokens).flatten(0, 1), everything)
        return (tokens + found.reshape(tokens.shape)).transpose(2, 3).reshape(batch, count, width, side, side)


class Generator(nn.Module):
    """Noise to planes, and a field that cameras see."""

    def __init__(self, size: int, widths: tuple[int, ...], features: int, hidden: int, heads: int, z_dim: int):
        super().__init__()
        self.size, self.z_dim = size, z_dim
        self.mapping = nn.ModuleList(Linear(a, widths[0]) for a in (z_dim, widths[0]))
        self.start = nn.Parameter(torch.randn(3, widths[0], 4, 4))
        before = [widths[0], *widths[:-1]]
        self.styles = nn.ModuleList(Linear(widths[0], 2 * width) for width in before)
        self.own = nn.ParameterList(nn.Parameter(torch.zeros(3, width, 1, 1)) for width in before)
        self.convs = nn.ModuleList(Conv(a, b) for a, b in zip(before, widths, strict=True))
        attended = [width for level, width in enumerate(widths) if 4 * 2**level <= SPACE["attention_side"]]
        self.attention = nn.ModuleList(Attention(width, heads) for width in attended)
        self.planes = Conv(widths[-1], features, 1)
        self.hidden, self.out = nn.Linear(features, hidden), nn.Linear(hidden, 4)

    def made(self, z: torch.Tensor) -> torch.Tensor:
        """Planes [B, 3, C, R, R]."""
        style = pixel_norm(z)
        for layer in self.mapping:
            style = F.leaky_relu(HE * layer(style), 0.2)
        x = self.start.expand(len(z), -1, -1, -1, -1)
        for level, conv in enumerate(self.convs):
            scale, shift = self.styles[level](style)[:, None, :, None, None].chunk(2, 2)
            h = (pixel_norm(x, 2) * (1 + scale) + shift + self.own[level]).flatten(0, 1)
            h = F.interpolate(h, scale_factor=2, mode="nearest") if level else h
            h = F.leaky_relu(HE * conv(h), 0.2)
            x = h.reshape(len(z), 3, *h.shape[1:])
            if level < len(self.attention):
                x = self.attention[level](x)
        h = self.planes(pixel_norm(x, 2).flatten(0, 1))
        return h.reshape(len(z), 3, *h.shape[1:])

    def field(self, planes: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Density [B, N] and colour [B, N, 3] of points [B, N, 3]."""
        places = torch.stack([points[..., [0, 1]], points[..., [0, 2]], points[..., [1, 2]]], 1).flatten(0, 1)
        read = F.grid_sample(planes.flatten(0, 1), places[:, None], padding_mode="zeros", align_corners=False)
        found = read.reshape(len(planes), 3, planes.shape[2], -1).mean(1).transpose(1, 2)
        out = self.out(F.softplus(self.hidden(found)))
        return 4 * F.softplus(out[..., 0] - 1), 2 * (out[..., 1:].sigmoid() * 1.002 - 0.001) - 1

    def forward(self, z: torch.Tensor, origin: torch.Tensor, rays: torch.Tensor) -> torch.Tensor:
        """Images [B, 3, H, W] by rays [B, H W, 3], with one sample at random in each piece."""
        planes = self.made(z)
        along = -(origin[:, None] * rays).sum(-1)
        miss = (origin * origin).sum(-1, keepdim=True) - along**2
        half = torch.where(miss < 1, (1 - miss).clamp(min=1e-12).sqrt(), torch.zeros(()))
        count = SPACE["samples"]
        place = (torch.arange(count) + torch.rand(*along.shape, count)) / count
        depths = (along - half)[..., None] + 2 * half[..., None] * place
        points = origin[:, None, None] + depths[..., None] * rays[:, :, None]
        density, colour = self.field(planes, points.flatten(1, 2))
        density, colour = density.reshape(depths.shape), colour.reshape(*depths.shape, 3)
        through = (density[..., 1:] + density[..., :-1]) / 2 * (depths[..., 1:] - depths[..., :-1])
        weights = torch.exp(-(through.cumsum(-1) - through)) * -torch.expm1(-through)
        seen = (weights[..., None] * (colour[..., 1:, :] + colour[..., :-1, :]) / 2).sum(2)
        image = seen + (1 - weights.sum(-1))[..., None]
        return image.transpose(1, 2).reshape(len(z), 3, self.size, self.size)


class Discriminator(nn.Module):
    """Convolutions with means of 2x2 pixels, and the projection of the camera."""

    def __init__(self, size: int, widths: tuple[int, ...]):
        super().__init__()
        last, side = widths[-1], size >> (len(widths) - 1)
        self.convs = nn.ModuleList(Conv(a, b) for a, b in zip((3, *widths), widths, strict=False))
        self.last, self.features, self.logit = Conv(last + 1, last), Linear(last * side**2, last), Linear(last, 1)
        self.camera = nn.ModuleList([Linear(25, 64), Linear(64, 64), Linear(64, 128), Linear(128, last)])

    def forward(self, x: torch.Tensor, camera: torch.Tensor) -> torch.Tensor:
        for level, conv in enumerate(self.convs):
            x = HE * conv(x)
            x = F.leaky_relu(F.avg_pool2d(x, 2) if level else x, 0.2)
        groups = x.reshape(4, -1, *x.shape[1:])
        deviation = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3)).repeat(4)
        x = torch.cat([x, deviation[:, None, None, None].expand(-1, 1, *x.shape[2:])], 1)
        features = F.leaky_relu(HE * self.features(F.leaky_relu(HE * self.last(x), 0.2).flatten(1)), 0.2)
        first, second, third, asked = self.camera
        told = pixel_norm(second(F.leaky_relu(HE * first(camera), 0.2)))
        told = asked(F.leaky_relu(HE * third(told), 0.2))
        return self.logit(features)[:, 0] + (told * features).sum(-1) / math.sqrt(features.shape[1])


def triplane(row: Row, compiled: bool) -> tuple[Step, list[nn.Module]]:
    """Step i: R1 where 8 divides i, an update of its own, then those of both players."""
    names = ("widths", "features", "hidden", "heads", "z_dim")
    generator = Generator(row.size, *(SPACE[name] for name in names))
    judge = Discriminator(row.size, SPACE["judge"])
    of_generator, of_judge = (
        torch.optim.Adam(model.parameters(), 1e-3, (0.0, 0.99), fused=True) for model in (generator, judge)
    )
    draw, discriminate = (torch.compile(model) if compiled else model for model in (generator, judge))
    image, camera = pictures(row), cameras.orbit(row.batch)
    origin, rays = (torch.tensor(np.asarray(x)) for x in cameras.rays(camera, row.size, row.size))
    rays, camera = rays.reshape(row.batch, -1, 3), torch.tensor(camera)
    ema = [p.detach().clone() for p in generator.parameters()]
    number, softplus = 0, F.softplus

    def step() -> None:
        nonlocal number
        if number % 8 == 0:
            real = image.detach().requires_grad_()
            slope = torch.autograd.grad(judge(real, camera).sum(), real, create_graph=True)[0]
            descend(of_judge, 8 / 2 * slope.square().sum((1, 2, 3)).mean())
        number += 1
        with torch.no_grad():
            fake = draw(torch.randn(row.batch, SPACE["z_dim"]), origin, rays)
        value = softplus(-discriminate(image, camera)).mean() + softplus(discriminate(fake, camera)).mean()
        descend(of_judge, value)
        judge.requires_grad_(False)
        made = draw(torch.randn(row.batch, SPACE["z_dim"]), origin, rays)
        value = softplus(-discriminate(made, camera)).mean()
        descend(of_generator, value)
        judge.requires_grad_(True)
        average(ema, generator)
        value.item()

    return step, [generator, judge]


def pixel_norm(x: torch.Tensor, axis: int = -1) -> torch.Tensor:
    """Divides the channels by their root mean square."""
    return x * (x.square().mean(axis, keepdim=True) + 1e-8).rsqrt()
