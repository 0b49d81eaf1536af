"""Does PyTorch's side of the rows of translations: a step of pix2pix and one of CycleGAN, as their authors' code goes.

The networks are those that `tests/parity/test_translation_torch.py` compares jaxgen's with.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.workloads import DECAY, Row
from studies.harness import ROOT

sys.path.append(str(ROOT / "tests" / "parity"))
from authors_translation import Patches, ResNet, UNet  # noqa: E402

Step = Callable[[], None]
L1, CYCLE, IDENTITY = 100.0, 10.0, 0.5  # weights of the papers
RATE, BETAS = 2e-4, (0.5, 0.999)


def discriminator_layers(row: Row) -> int:
    """Returns the halvings of the discriminator of a row."""
    return 2 if row.size >= 32 else 1


def pix2pix(row: Row, compiled: bool) -> tuple[Step, list[nn.Module]]:
    """A step of pix2pix: one fake for both players, the discriminator's update and then the generator's."""
    generator = UNet(3, 3, row.size.bit_length() - 1, row.channels, "instance", dropout=0.5)
    judge = Patches(6, row.channels, discriminator_layers(row), "instance")
    generator, judge = map(prepared, (generator, judge))
    of_generator, of_judge = (torch.optim.Adam(m.parameters(), RATE, BETAS, fused=True) for m in (generator, judge))
    draw, discriminate = (torch.compile(model) if compiled else model for model in (generator, judge))
    image, condition = pictures(row), pictures(row)
    ema = [p.detach().clone() for p in generator.parameters()]
    softplus = nn.functional.softplus

    def step() -> None:
        fake = draw(condition)
        on_real, on_fake = (discriminate(torch.cat([condition, x], 1)) for x in (image, fake.detach()))
        descend(of_judge, softplus(-on_real).mean() + softplus(on_fake).mean())
        judge.requires_grad_(False)
        game = softplus(-discriminate(torch.cat([condition, fake], 1))).mean()
        value = game + L1 * (fake - image).abs().mean()
        descend(of_generator, value)
        judge.requires_grad_(True)
        average(ema, generator)
        value.item()

    return step, [generator, judge]


def cyclegan(row: Row, compiled: bool) -> tuple[Step, list[nn.Module]]:
    """A step of CycleGAN: six translations and the generators' update, then those of the discriminators."""
    generators = [ResNet(3, 3, row.channels, 2, 2, "instance") for _ in range(2)]
    judges = [Patches(3, row.channels, discriminator_layers(row), "instance") for _ in range(2)]
    models = list(map(prepared, (*generators, *judges)))
    generators, judges = models[:2], models[2:]
    parameters = [list(itertools.chain(*(m.parameters() for m in two))) for two in (generators, judges)]
    of_generators, of_judges = (torch.optim.Adam(p, RATE, BETAS, fused=True) for p in parameters)
    call = {model: torch.compile(model) if compiled else model for model in models}
    real = [pictures(row), pictures(row)]
    pools: list[list[Any]] = [[], []]
    ema = [p.detach().clone() for p in parameters[0]]

    def step() -> None:
        for judge in judges:
            judge.requires_grad_(False)
        fake = [call[generators[i]](real[1 - i]) for i in range(2)]
        value = torch.zeros(())
        for i in range(2):
            back = call[generators[i]](fake[1 - i])
            same = call[generators[i]](real[i])
            cycle = (back - real[i]).abs().mean() + IDENTITY * (same - real[i]).abs().mean()
            value = value + (call[judges[i]](fake[i]) - 1).square().mean() + CYCLE * cycle
        descend(of_generators, value)
        for judge in judges:
            judge.requires_grad_(True)
        loss = torch.zeros(())
        for i in range(2):
            seen = from_pool(pools[i], fake[i].detach())
            on_real, on_fake = call[judges[i]](real[i]), call[judges[i]](seen)
            loss = loss + ((on_real - 1).square().mean() + on_fake.square().mean()) / 2
        descend(of_judges, loss)
        with torch.no_grad():
            torch._foreach_lerp_(ema, parameters[0], 1 - DECAY)
        value.item()

    return step, models


def prepared(model: Any) -> Any:
    """Returns a model with channels last, and without the biases that an instance normalisation removes."""
    for sequence in (module for module in model.modules() if isinstance(module, nn.Sequential)):
        for layer, following in itertools.pairwise(sequence):
            if isinstance(following, nn.InstanceNorm2d):
                layer.bias = None
    return model.to(memory_format=torch.channels_last)


def from_pool(pool: list[Any], fakes: Any, size: int = 50) -> Any:
    """Returns what a discriminator sees: new fakes, or half the time older ones, whose place they take."""
    seen = []
    for fake in fakes:
        if len(pool) < size:
            pool.append(fake.clone())
        elif torch.rand(()) > 0.5:
            place = int(torch.randint(size, ()))
            fake, pool[place] = pool[place], fake.clone()
        seen.append(fake)
    return torch.stack(seen)


def pictures(row: Row) -> Any:
    """Returns random pictures of a row's size."""
    drawn = torch.empty(row.batch, 3, row.size, row.size).uniform_(-1, 1)
    return drawn.contiguous(memory_format=torch.channels_last)


def descend(optimiser: Any, value: Any) -> None:
    """Makes one update."""
    optimiser.zero_grad(set_to_none=True)
    value.backward()
    optimiser.step()


def average(ema: list[Any], model: nn.Module) -> None:
    """Moves averaged parameters towards those of a model."""
    with torch.no_grad():
        torch._foreach_lerp_(ema, list(model.parameters()), 1 - DECAY)
