"""Trains the VAE of `configs/vae_mnist.py` by PyTorch: it shows whether the numbers of a short run are those of the
method.

    python -m benchmarks.vae_peer --images=600_000
    python -m benchmarks.vae_peer --images=600_000 --signed --zero_bias

The same layers, initial distributions, likelihood, optimiser and images as

    python main.py --config=configs/vae_mnist.py --workdir=W --config.train.total_images=600_000 \\
        --config.optimizer.decay=constant --config.train.ema_decay=0

and the same bound of one look at each of the 10,000 test images, from another generator of random numbers. --signed is
config.method.encoder.unit_range=False, --zero_bias config.method.start_at_mean=False. Needs the extra `parity`.
"""

from __future__ import annotations

import sys
import time
from typing import Annotated

import numpy as np
import torch
from torch import nn

from benchmarks.torch_side import vae_bound, vae_networks
from jaxgen.data import open_source
from studies.harness import run

NARROWER = 0.87962566103423978  # standard deviation of a standard normal cut off at 2


def begin_as_flax(network: nn.Sequential) -> None:
    """Draws Flax's initial weights: truncated normals of variance 1 / inputs, and no bias."""
    for layer in network:
        if isinstance(layer, nn.Linear):
            std = layer.in_features**-0.5 / NARROWER
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            nn.init.zeros_(layer.bias)


def main(
    source: str = "tfds:mnist",
    images: Annotated[int, "seen in training"] = 600_000,
    batch: int = 100,
    seed: int = 0,
    signed: Annotated[bool, "the encoder sees -1 and 1, not 0 and 1"] = False,
    zero_bias: Annotated[bool, "the decoder does not begin at the mean image"] = False,
) -> None:
    torch.manual_seed(seed)
    train, test = (torch.from_numpy(_images(source, split)) for split in ("train", "test"))

    encoder, decoder = vae_networks()
    begin_as_flax(encoder)
    begin_as_flax(decoder)
    if not zero_bias:
        mean = train[:batch].mean(0).clip(1e-3, 1 - 1e-3)
        decoder[-1].bias.data = torch.log(mean / (1 - mean))
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimiser = torch.optim.Adam(parameters, 1e-3, eps=1e-4, fused=True)

    def bound(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return vae_bound(encoder, decoder, torch.bernoulli(image), signed)

    start = time.monotonic()
    for step in range(images // batch):
        place = step * batch % len(train)
        if place == 0:
            order = torch.randperm(len(train))
        optimiser.zero_grad(set_to_none=True)
        loss = -bound(train[order[place : place + batch]])[0].mean()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        found, mean = bound(test)
    active = int((mean.var(0) > 1e-2).sum())
    print(f"negative ELBO {-found.mean():.2f} nats, {active} active latents, {time.monotonic() - start:.0f} s")


def _images(source: str, split: str) -> np.ndarray:
    opened = open_source(source, split, 28, 1)
    return opened.take(range(len(opened)))["image"].reshape(len(opened), -1).astype(np.float32) / 255


if __name__ == "__main__":
    sys.exit(run(main))
