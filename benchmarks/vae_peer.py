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

from jaxgen.data import open_source

LATENTS, HIDDEN, PIXELS = 50, 200, 28 * 28
NARROWER = 0.87962566103423978  # standard deviation of a standard normal cut off at 2


def layers(inputs: int, outputs: int) -> nn.Sequential:
    """Two tanh layers and a linear one, with Flax's initial weights: truncated normals of variance 1 / inputs."""
    found = nn.Sequential(
        nn.Linear(inputs, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, outputs)
    )
    for layer in found:
        if isinstance(layer, nn.Linear):
            std = layer.in_features**-0.5 / NARROWER
            nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
            nn.init.zeros_(layer.bias)
    return found


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

    encoder, decoder = layers(PIXELS, 2 * LATENTS), layers(LATENTS, PIXELS)
    if not options.zero_bias:
        mean = train[: options.batch].mean(0).clip(1e-3, 1 - 1e-3)
        decoder[-1].bias.data = torch.log(mean / (1 - mean))
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimiser = torch.optim.Adam(parameters, 1e-3, eps=1e-4, fused=True)

    def bound(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        white = torch.bernoulli(image)
        mean, log_variance = encoder(2 * white - 1 if options.signed else white).chunk(2, 1)
        z = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
        found = -nn.functional.binary_cross_entropy_with_logits(decoder(z), white, reduction="none").sum(1)
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        return found - kl, mean

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
    return opened.take(range(len(opened)))["image"].reshape(-1, PIXELS).astype(np.float32) / 255


if __name__ == "__main__":
    main()
