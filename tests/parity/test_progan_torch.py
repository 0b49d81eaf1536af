"""Both networks of ProGAN, within a fade, against PyTorch modules of the paper's Table 2 with the same weights."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch: install the extra 'parity'")

from jaxgen.networks.gans.progressive import ProgressiveDiscriminator, ProgressiveGenerator  # noqa: E402

pytestmark = pytest.mark.parity

WIDTHS, Z, ALPHA = (8, 6, 4), 5, 0.3
F = torch.nn.functional


class Scaled(torch.nn.Module):
    """A convolution whose weight is N(0, 1), times He's constant at each use."""

    def __init__(self, before, after, size, gain=2**0.5, padding=0, act=True, pixel=False):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(after, before, size, size))
        self.bias = torch.nn.Parameter(torch.randn(after))
        self.scale, self.padding = gain / math.sqrt(before * size * size), padding
        self.act, self.pixel = act, pixel

    def forward(self, x):
        x = F.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)
        x = F.leaky_relu(x, 0.2) if self.act else x
        return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt() if self.pixel else x


class Generator(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.start = Scaled(Z, WIDTHS[0], 4, padding=3, pixel=True)  # of one pixel to 4x4
        self.conv_0 = Scaled(WIDTHS[0], WIDTHS[0], 3, padding=1, pixel=True)
        for i in (1, 2):
            setattr(self, f"up_{i}", Scaled(WIDTHS[i - 1], WIDTHS[i], 3, padding=1, pixel=True))
            setattr(self, f"conv_{i}", Scaled(WIDTHS[i], WIDTHS[i], 3, padding=1, pixel=True))
            setattr(self, f"image_{i}", Scaled(WIDTHS[i], 3, 1, gain=1, act=False))

    def forward(self, z):
        z = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
        x = self.conv_0(self.start(z[:, :, None, None]))
        x = self.conv_1(self.up_1(F.interpolate(x, scale_factor=2)))
        old = F.interpolate(self.image_1(x), scale_factor=2)
        x = self.conv_2(self.up_2(F.interpolate(x, scale_factor=2)))
        return old.lerp(self.image_2(x), ALPHA)


class Discriminator(torch.nn.Module):
    def __init__(self):
        super().__init__()
        for i in (1, 2):
            setattr(self, f"image_{i}", Scaled(3, WIDTHS[i], 1))
            setattr(self, f"conv_{i}", Scaled(WIDTHS[i], WIDTHS[i], 3, padding=1))
            setattr(self, f"down_{i}", Scaled(WIDTHS[i], WIDTHS[i - 1], 3, padding=1))
        self.conv_0 = Scaled(WIDTHS[0] + 1, WIDTHS[0], 3, padding=1)
        self.dense = Scaled(WIDTHS[0], WIDTHS[0], 4)
        self.logit = Scaled(WIDTHS[0], 1, 1, gain=1, act=False)

    def forward(self, x):
        new = F.avg_pool2d(self.down_2(self.conv_2(self.image_2(x))), 2)
        h = self.image_1(F.avg_pool2d(x, 2)).lerp(new, ALPHA)
        h = F.avg_pool2d(self.down_1(self.conv_1(h)), 2)
        deviation = (h.var(0, unbiased=False) + 1e-8).sqrt().mean()  # of the whole batch, as in the paper
        h = torch.cat([h, deviation.expand(len(h), 1, 4, 4)], 1)
        return self.logit(self.dense(self.conv_0(h)))[:, 0, 0, 0]


def of(network, gradients=False):
    """The parameters of a peer, or their gradients, in the tree of the network here."""
    params = {}
    for name, layer in network.named_children():
        weight, bias = layer.weight, layer.bias
        if gradients:  # a bias behind no kink has none
            weight, bias = (torch.zeros_like(p) if p.grad is None else p.grad for p in (weight, bias))
        weight, bias = weight.detach().numpy(), bias.detach().numpy()
        if name == "start":  # pixel (i, j) of 4x4 meets the tap (3 - i, 3 - j)
            kernel = weight[:, :, ::-1, ::-1].transpose(1, 2, 3, 0).reshape(Z, -1)
            params |= {"start": {"kernel": kernel}, "start_bias": bias}
            continue
        kernel = weight.transpose(2, 3, 1, 0)
        if name in ("dense", "logit"):
            kernel = kernel.reshape(-1, kernel.shape[-1])
        params[name] = {"kernel": kernel, "bias": bias}
    return params


def near(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_the_generator_within_a_fade():
    torch.manual_seed(0)
    network, z = Generator(), np.random.default_rng(0).standard_normal((4, Z)).astype(np.float32)
    ours = ProgressiveGenerator((16, 16, 3), z_dim=Z, widths=WIDTHS, fading=True)
    with torch.no_grad():
        wanted = network(torch.tensor(z)).permute(0, 2, 3, 1).numpy()
    near(jax.jit(ours.apply)({"params": of(network)}, z, alpha=ALPHA), wanted)


def test_the_critic_within_a_fade_its_slope_and_the_gradient_of_that():
    torch.manual_seed(1)
    network, x = Discriminator(), np.random.default_rng(1).uniform(-1, 1, (4, 16, 16, 3)).astype(np.float32)
    ours = ProgressiveDiscriminator(widths=WIDTHS, fading=True)
    theirs = torch.tensor(x.transpose(0, 3, 1, 2)).requires_grad_(True)
    logits = network(theirs)
    slope = torch.autograd.grad(logits.sum(), theirs, create_graph=True)[0]
    slope.square().sum().backward()

    @jax.jit
    def critic(params, x):
        def logits(params, x):
            return ours.apply({"params": params}, x, alpha=ALPHA)["logits"]

        def squared(params):
            return jnp.square(jax.grad(lambda x: logits(params, x).sum())(x)).sum()

        return logits(params, x), *jax.value_and_grad(squared)(params)

    found, value, gradients = critic(of(network), x)
    near(found, logits.detach().numpy())
    near(value, slope.square().sum().item())
    wanted = of(network, gradients=True)
    for name, mine in gradients.items():
        scale = np.abs(wanted[name]["kernel"]).max() + 1e-3
        near(mine["kernel"] / scale, wanted[name]["kernel"] / scale)
