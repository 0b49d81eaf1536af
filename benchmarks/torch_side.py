"""Does PyTorch's side of `run.py`: the same models by diffusers, or written out here, as its users train and sample
them.

On a CPU in float32 with channels-last images and a thread per core; on a GPU under bfloat16 autocast. `compiled` is
the same with `torch.compile`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from benchmarks.peers import serve
from benchmarks.workloads import (
    CLIP,
    DECAY,
    GAN_RATES,
    MATMUL,
    PENALTY,
    RATE,
    SAMPLING_STEPS,
    TEXT,
    TRANSLATIONS,
    WEIGHT_DECAY,
    Z_DIM,
    Row,
    diffusers_config,
)

Step = Callable[[], None]


def work(row: Row, device: str, small: bool, compiled: bool) -> None:
    """Builds a row's work and serves it."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    here = device == "gpu" and (torch.cuda.is_available() or not small)  # small sizes are tried where there is no GPU
    where = torch.device("cuda" if here else "cpu")
    torch.set_default_device(where)
    if row.task == "matmul":
        step, models = _matmul(256 if small else MATMUL[device], device, where)
    elif row.model == "vae":
        step, models = _vae(row, compiled)
    elif row.model in GAN_RATES:
        step, models = _gan(row, compiled)
    elif row.model in TRANSLATIONS:
        from benchmarks import torch_translation

        step, models = getattr(torch_translation, row.model)(row, compiled)
    elif row.model == "singan":
        from benchmarks import torch_singan

        step, models = torch_singan.singan(row, compiled)
    elif row.model == "stylegan2":
        from benchmarks import torch_stylegan2

        step, models = torch_stylegan2.stylegan2(row, compiled)
    elif row.model == "triplane":
        from benchmarks import torch_triplane

        step, models = torch_triplane.triplane(row, compiled)
    else:
        task = _denoise if row.task == "train" else _ddim
        step, models = task(row, where, small, compiled, torch.autocast(where.type, torch.bfloat16, device == "gpu"))

    def peak() -> float | None:
        return torch.cuda.max_memory_allocated() / 2**30 if where.type == "cuda" else None

    parameters = sum(p.numel() for model in models for p in model.parameters())
    serve(step, peak, parameters=parameters, threads=torch.get_num_threads(), version=torch.__version__)


def _matmul(side: int, device: str, where: Any) -> tuple[Step, list]:
    import torch

    a = torch.randn(side, side, dtype=torch.bfloat16 if device == "gpu" else torch.float32)

    def run() -> None:
        a @ a
        if where.type == "cuda":
            torch.cuda.synchronize()

    return run, []


def _network(row: Row, small: bool) -> tuple[Any, tuple[int, ...], dict[str, Any]]:
    """Returns diffusers' model, the shape of a batch for it, and what else it is called with."""
    import diffusers
    import torch

    name, config = diffusers_config(row.model, small)
    model = getattr(diffusers, name)(**config).to(memory_format=torch.channels_last)
    conditions: dict[str, Any] = {}
    if name == "UNet2DConditionModel":
        conditions["encoder_hidden_states"] = torch.randn(row.batch, TEXT, config["cross_attention_dim"])
    if name == "DiTTransformer2DModel":
        conditions["class_labels"] = torch.randint(0, config["num_embeds_ada_norm"], (row.batch,))
    size = config["sample_size"]
    return model, (row.batch, config["in_channels"], size, size), conditions


def _denoise(row: Row, where: Any, small: bool, compiled: bool, lower: Any) -> tuple[Step, list]:
    """Makes a step: times and noise are drawn; forward, backward, clipping by the global norm, AdamW and EMA follow."""
    import torch

    model, shape, conditions = _network(row, small)
    model.train()
    call = torch.compile(model) if compiled else model
    params = list(model.parameters())
    ema = [p.detach().clone() for p in params]
    kind = {"fused": True} if where.type == "cuda" else {"foreach": True}
    optimiser = torch.optim.AdamW(params, lr=RATE, weight_decay=WEIGHT_DECAY, **kind)
    image = torch.randn(shape).contiguous(memory_format=torch.channels_last)
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)

    def run() -> None:
        optimiser.zero_grad(set_to_none=True)
        time = torch.randint(0, 1000, (row.batch,))
        noise = torch.randn_like(image)
        kept = alpha_bar[time, None, None, None]
        noisy = kept.sqrt() * image + (1 - kept).sqrt() * noise
        with lower:
            found = call(noisy, time, **conditions).sample
        loss = torch.nn.functional.mse_loss(found.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, CLIP, foreach=True)
        optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(ema, params, 1 - DECAY)
        loss.item()

    return run, [model]


def _ddim(row: Row, where: Any, small: bool, compiled: bool, lower: Any) -> tuple[Step, list]:
    """Draws a batch of images by DDIM, as diffusers' pipelines draw them."""
    import diffusers
    import torch

    model, shape, conditions = _network(row, small)
    model.eval()
    call = torch.compile(model) if compiled else model
    scheduler = diffusers.DDIMScheduler(beta_start=1e-4, beta_end=0.02, clip_sample=True)
    scheduler.set_timesteps(2 if small else SAMPLING_STEPS)

    @torch.inference_mode()
    def run() -> None:
        x = torch.randn(shape).contiguous(memory_format=torch.channels_last)
        for time in scheduler.timesteps:
            with lower:
                found = call(x, time.to(where).expand(row.batch), **conditions).sample
            x = scheduler.step(found.float(), time, x).prev_sample
        (x / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy()

    return run, [model]


def _gan_networks(row: Row) -> tuple[Any, Any]:
    """DCGAN's generator and discriminator, channels-last; WGAN-GP's critic is the second without BatchNorm."""
    from torch import nn

    levels = row.size.bit_length() - 3
    widths = [row.channels * min(2**level, 8) for level in range(levels)]
    layers = [nn.ConvTranspose2d(Z_DIM, widths[-1], 4, 1, 0, bias=False)]
    for width, out in zip(widths[::-1], [*widths[-2::-1], 3], strict=True):
        layers += [nn.BatchNorm2d(width), nn.ReLU(True), nn.ConvTranspose2d(width, out, 4, 2, 1, bias=out == 3)]
    generator = nn.Sequential(*layers, nn.Tanh())
    norm = row.model == "dcgan"
    layers = [nn.Conv2d(3, widths[0], 4, 2, 1), nn.LeakyReLU(0.2, True)]
    for width, out in zip(widths, widths[1:], strict=False):
        layers += [nn.Conv2d(width, out, 4, 2, 1, bias=not norm), *([nn.BatchNorm2d(out)] if norm else [])]
        layers.append(nn.LeakyReLU(0.2, True))
    discriminator = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, 1, 0))
    return _channels_last(generator), _channels_last(discriminator)


def _channels_last(value: Any) -> Any:
    import torch

    return value.to(memory_format=torch.channels_last)


def _gan(row: Row, compiled: bool) -> tuple[Step, list]:
    """Trains DCGAN: both players' turns, BatchNorm with real and fake apart, Adam, and the generator's EMA.

    For WGAN-GP it makes a step of a critic without BatchNorm: fakes of a generator that does not learn, the penalty,
    Adam.
    """
    import torch

    generator, discriminator = _gan_networks(row)
    image = _channels_last(torch.empty(row.batch, 3, row.size, row.size).uniform_(-1, 1))
    rate, *betas = GAN_RATES[row.model]
    of_generator, of_discriminator = (
        torch.optim.Adam(model.parameters(), rate, tuple(betas), fused=True) for model in (generator, discriminator)
    )
    draw, discriminate = (torch.compile(model) if compiled else model for model in (generator, discriminator))
    ema = [p.detach().clone() for p in generator.parameters()]
    softplus = torch.nn.functional.softplus

    def noise() -> Any:
        return torch.randn(row.batch, Z_DIM, 1, 1)

    def descend(optimiser: Any, value: Any) -> None:
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        optimiser.step()

    def dcgan() -> None:
        with torch.no_grad():
            fake = draw(noise())
        value = softplus(-discriminate(image)).mean() + softplus(discriminate(fake)).mean()
        descend(of_discriminator, value)
        discriminator.requires_grad_(False)
        descend(of_generator, softplus(-discriminate(draw(noise()))).mean())
        discriminator.requires_grad_(True)
        with torch.no_grad():
            torch._foreach_lerp_(ema, list(generator.parameters()), 1 - DECAY)
        value.item()

    def wgan_gp() -> None:
        with torch.no_grad():
            fake = draw(noise())
        alpha = torch.rand(row.batch, 1, 1, 1)
        mixed = (alpha * image + (1 - alpha) * fake).requires_grad_()
        slope = torch.autograd.grad(discriminate(mixed).sum(), mixed, create_graph=True)[0]
        penalty = (slope.flatten(1).norm(dim=1) - 1).square().mean()
        value = discriminate(fake).mean() - discriminate(image).mean() + PENALTY * penalty
        descend(of_discriminator, value)
        value.item()

    return dcgan if row.model == "dcgan" else wgan_gp, [generator, discriminator]


def vae_networks() -> tuple[Any, Any]:
    """Returns the encoder and decoder of Burda et al. 2016 for 28x28 pixels and 50 latents."""
    from torch import nn

    latents, pixels = 50, 28 * 28

    def layers(inputs: int, outputs: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(inputs, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(), nn.Linear(200, outputs))

    return layers(pixels, 2 * latents), layers(latents, pixels)


def vae_bound(encoder: Any, decoder: Any, white: Any, signed: bool = False) -> tuple[Any, Any]:
    """Returns the ELBO of images of zeros and ones [B, pixels] with one sample, [B] nats, and the posterior's means.

    Args:
      signed: the encoder sees -1 and 1.
    """
    import torch

    mean, log_variance = encoder(2 * white - 1 if signed else white).chunk(2, 1)
    z = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
    found = -torch.nn.functional.binary_cross_entropy_with_logits(decoder(z), white, reduction="none").sum(1)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
    return found - kl, mean


def _vae(row: Row, compiled: bool) -> tuple[Step, list]:
    """Trains the networks of Burda et al. 2016: black and white pixels, one sample of the bound, Adam and EMA."""
    import torch

    encoder, decoder = vae_networks()
    params = [*encoder.parameters(), *decoder.parameters()]
    ema = [p.detach().clone() for p in params]
    optimiser = torch.optim.Adam(params, 1e-3, eps=1e-4, fused=True)
    image = torch.rand(row.batch, decoder[-1].out_features)

    def bound(white: Any) -> Any:
        return vae_bound(encoder, decoder, white)[0].mean()

    call = torch.compile(bound) if compiled else bound

    def run() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss = -call(torch.bernoulli(image))
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            torch._foreach_lerp_(ema, params, 1 - DECAY)
        loss.item()

    return run, [encoder, decoder]
