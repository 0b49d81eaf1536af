"""Does PyTorch's side of the row of SinGAN: a step of one scale, as its authors' code goes.

The networks are those that `tests/parity/test_singan_torch.py` compares jaxgen's with.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from benchmarks.torch_translation import descend, pictures
from benchmarks.workloads import Row

Step = Callable[[], None]
LAYERS, PENALTY, RECONSTRUCTION, RATE, BETAS = 5, 0.1, 10.0, 5e-4, (0.5, 0.999)


def network(width: int, out: int) -> nn.Sequential:
    """Returns five 3x3 convolutions without padding, all but the last with BatchNorm and leaky ReLU."""
    layers, before = [], 3
    for _ in range(LAYERS - 1):
        layers += [nn.Conv2d(before, width, 3), nn.BatchNorm2d(width), nn.LeakyReLU(0.2, True)]
        before = width
    return nn.Sequential(*layers, nn.Conv2d(before, out, 3)).train().to(memory_format=torch.channels_last)


def singan(row: Row, compiled: bool) -> tuple[Step, list[nn.Module]]:
    """A step of the coarsest scale: an update of the critic with its penalty, and one of the generator."""
    generator, critic = network(row.channels, 3), network(row.channels, 1)
    of_generator, of_critic = (torch.optim.Adam(m.parameters(), RATE, BETAS, fused=True) for m in (generator, critic))
    residual, judge = (torch.compile(model) if compiled else model for model in (generator, critic))
    image, pad = pictures(row), nn.ZeroPad2d(LAYERS)
    fixed = torch.randn(1, 1, row.size, row.size).expand(1, 3, -1, -1)

    def draw(noise: torch.Tensor) -> torch.Tensor:
        return torch.tanh(residual(pad(noise)))

    def fakes() -> torch.Tensor:
        return draw(torch.randn(row.batch, 1, row.size, row.size).expand(-1, 3, -1, -1))

    def step() -> None:
        with torch.no_grad():
            fake = fakes()
        alpha = torch.rand(row.batch, 1, 1, 1)
        between = (alpha * image + (1 - alpha) * fake).requires_grad_()
        slope = torch.autograd.grad(judge(between).sum(), between, create_graph=True)[0]
        penalty = (slope.norm(dim=1) - 1).square().mean()
        descend(of_critic, judge(fake).mean() - judge(image).mean() + PENALTY * penalty)
        critic.requires_grad_(False)
        error = (draw(fixed) - image[:1]).square().mean()
        value = RECONSTRUCTION * error - judge(fakes()).mean()
        descend(of_generator, value)
        critic.requires_grad_(True)
        value.item()

    return step, [generator, critic]
