"""SinGAN's two networks and its penalty against plain PyTorch layers in the authors' layout, with the same weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch: install the extra 'parity'")

from jaxgen.adversarial.penalties import gradient_penalty  # noqa: E402
from jaxgen.networks.gans.singan import SinGANDiscriminator, SinGANGenerator  # noqa: E402

pytestmark = pytest.mark.parity

WIDTH, LEAST, LAYERS = 8, 3, 4  # so that the blocks have 8, 4 and 3 channels
SHAPE = (1, 15, 18, 3)


def peer(out):
    """Blocks of convolution, BatchNorm (of a batch of one, so of one image) and leaky ReLU, and a last convolution."""
    layers, before = [], 3
    for i in range(LAYERS - 1):
        channels = max(WIDTH // 2**i, LEAST)
        layers += [torch.nn.Conv2d(before, channels, 3), torch.nn.BatchNorm2d(channels), torch.nn.LeakyReLU(0.2)]
        before = channels
    network = torch.nn.Sequential(*layers, torch.nn.Conv2d(before, out, 3)).train()
    random = np.random.default_rng(0)
    with torch.no_grad():
        for weight in network.parameters():
            values = 0.3 * random.standard_normal(weight.shape) + (weight.ndim == 1)
            weight.copy_(torch.tensor(values, dtype=torch.float32))
    return network


def converted(values, last):
    """The parameters of a peer, or their gradients, in the tree of the network here."""
    params, values = {}, [value.detach().numpy() for value in values]
    for i in range(LAYERS - 1):
        kernel, bias, scale, shift = values[4 * i : 4 * i + 4]
        params[f"conv_{i}"] = {"kernel": kernel.transpose(2, 3, 1, 0), "bias": bias}
        params[f"norm_{i}"] = {"scale": scale, "bias": shift}
    return {**params, last: {"kernel": values[-2].transpose(2, 3, 1, 0), "bias": values[-1]}}


def pictures(count):
    random = np.random.default_rng(1)
    return [random.uniform(-1, 1, SHAPE).astype(np.float32) for _ in range(count)]


def theirs(x):
    return torch.tensor(np.asarray(x).transpose(0, 3, 1, 2))


def near(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_the_generator_adds_a_residual_to_the_image_below():
    network, (noise, image) = peer(3), pictures(2)
    with torch.no_grad():
        pad = torch.nn.ZeroPad2d(LAYERS)  # the authors extend the noise and the image alike
        residual = torch.tanh(network(pad(theirs(noise)) + pad(theirs(image))))
        wanted = (residual + theirs(image)).permute(0, 2, 3, 1).numpy()
    ours = SinGANGenerator(width=WIDTH, least_width=LEAST, layers=LAYERS)
    params = converted(network.parameters(), "image")
    near(jax.jit(ours.apply)({"params": params}, noise + image, image), wanted)


def test_the_critics_loss_and_its_second_order_gradients():
    """The slope of the map's sum, its norm over the channels of each pixel, between a real and a fake image."""
    network, (real, fake) = peer(1), pictures(2)
    key = jax.random.key(3)
    alpha = float(jax.random.uniform(key, (1, 1, 1, 1))[0, 0, 0, 0])
    between = (alpha * theirs(real) + (1 - alpha) * theirs(fake)).requires_grad_(True)
    logits = network(between)
    slope = torch.autograd.grad(logits, between, torch.ones_like(logits), create_graph=True)[0]
    penalty = ((slope.norm(2, dim=1) - 1) ** 2).mean()
    loss = network(theirs(fake)).mean() - network(theirs(real)).mean() + 0.1 * penalty
    loss.backward()
    ours = SinGANDiscriminator(width=WIDTH, least_width=LEAST, layers=LAYERS)
    params = converted(network.parameters(), "logits")

    @jax.jit
    @jax.value_and_grad
    def critic(params):
        def logits_of(x):
            return ours.apply({"params": params}, x)["logits"]

        term = gradient_penalty(logits_of, jnp.asarray(real), jnp.asarray(fake), key, per_pixel=True).mean()
        return logits_of(fake).mean() - logits_of(real).mean() + 0.1 * term

    value, gradients = critic(params)
    near(value, loss.item())
    jax.tree.map(near, gradients, converted([p.grad for p in network.parameters()], "logits"))
