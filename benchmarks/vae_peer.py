"""The VAE of `configs/vae_mnist.py` trained by PyTorch: whether the numbers of a short run are those of the method.

    python benchmarks/vae_peer.py --images=600_000
    python benchmarks/vae_peer.py --images=600_000 --signed --zero_bias

The same layers, initial distributions, likelihood, optimiser and images as

    python main.py --config=configs/vae_mnist.py --workdir=W --config.train.total_images=600_000 \\
        --config.optimizer.decay=constant --config.train.ema_decay=0

and the same bound of one look at each of the 10,000 test images, from another generator of random numbers. --signed is
config.method.encoder.unit_range=False, --zero_bias config.method.start_at_mean=False. Needs the extra `parity`.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
from torch import nn
from torch_side import vae_bound, vae_networks

from jaxgen.data import open_source

NARROWER = 0.87962566103423978  # standard deviation of a standard normal cut off at 2


def begin_as_flax(network: nn.Sequential) -> None:
    """Flax's initial weights: truncated normals of variance 1 / inputs, and no bias."""
    for layer in network:
        if isinstance(layer, nn.Linear):
            std = layer.in_features**-0.5 / NARROWER
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            nn.init.zeros_(layer.bias)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="tfds:mnist")
    parser.add_argument("--images", type=int, default=600_000, help="seen in training")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signed", action="store_true", help="the encoder sees -1 and 1, not 0 and 1")
    parser.add_argument("--zero_bias", action="store_true", help="the decoder does not begin at the mean image")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    train, test = (torch.from_numpy(_images(options.source, split)) for split in ("train", "test"))

    encoder, decoder = vae_networks()
    begin_as_flax(encoder)
    begin_as_flax(decoder)
    if not options.zero_bias:
        mean = train[: options.batch].mean(0).clip(1e-3, 1 - 1e-3)
        decoder[-1].bias.data = torch.log(mean / (1 - mean))
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimiser = torch.optim.Adam(parameters, 1e-3, eps=1e-4, fused=True)

    def bound(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return vae_bound(encoder, decoder, torch.bernoulli(image), options.signed)

    start = time.monotonic()
    for step in range(options.images // options.batch):
        place = step * options.batch % len(train)
        if place == 0:
            order = torch.randperm(len(train))
        optimiser.zero_grad(set_to_none=True)
        loss = -bound(train[order[place : place + options.batch]])[0].mean()
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
    main()
