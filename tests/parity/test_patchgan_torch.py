"""PatchGAN against plain PyTorch layers, put together as the paper's appendix says, with the same random weights."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch: install the extra 'parity'")

from jaxgen.networks.gans.patchgan import PatchDiscriminator  # noqa: E402
from jaxgen.networks.layers.stateful import apply_stateful, init_stateful  # noqa: E402

pytestmark = pytest.mark.parity

WIDTH, LAYERS = 6, 3


def peer(norm):
    """C64-C128-C256-C512 and a last convolution, in Isola et al.'s names, at another width."""
    plain = norm != "batch"
    layers = [torch.nn.Conv2d(3, WIDTH, 4, 2, 1), torch.nn.LeakyReLU(0.2)]
    for i in range(1, LAYERS + 1):
        before, after = WIDTH * min(2 ** (i - 1), 8), WIDTH * min(2**i, 8)
        layers.append(torch.nn.Conv2d(before, after, 4, 2 if i < LAYERS else 1, 1, bias=norm == "none"))
        layers += [torch.nn.BatchNorm2d(after)] if not plain else []
        layers += [torch.nn.InstanceNorm2d(after)] if norm == "instance" else []
        layers.append(torch.nn.LeakyReLU(0.2))
    network = torch.nn.Sequential(*layers, torch.nn.Conv2d(WIDTH * min(2**LAYERS, 8), 1, 4, 1, 1))
    random = np.random.default_rng(0)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(
                torch.tensor(0.2 * random.standard_normal(weight.shape) + (weight.ndim == 1), dtype=torch.float32)
            )
    return network


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_logits_and_running_statistics(norm):
    theirs, ours = peer(norm), PatchDiscriminator(WIDTH, LAYERS, norm)
    x = np.random.default_rng(1).uniform(-1, 1, (3, 40, 48, 3)).astype(np.float32)
    _, memory = jax.jit(functools.partial(init_stateful, ours))(jax.random.key(0), jnp.asarray(x))
    convolutions = [m for m in theirs if isinstance(m, torch.nn.Conv2d)]
    norms = [m for m in theirs if isinstance(m, torch.nn.BatchNorm2d)]
    params = {}
    for i, layer in enumerate(convolutions):
        name = "logits" if i == len(convolutions) - 1 else f"conv_{i}"
        params[name] = {"kernel": layer.weight.detach().numpy().transpose(2, 3, 1, 0)}
        if layer.bias is not None:
            params[name]["bias"] = layer.bias.detach().numpy()
    for i, layer in enumerate(norms, start=1):
        params[f"norm_{i}"] = {"scale": layer.weight.detach().numpy(), "bias": layer.bias.detach().numpy()}

    for train in (True, False):
        theirs.train(train)
        with torch.no_grad():
            expected = theirs(torch.tensor(x.transpose(0, 3, 1, 2)))[:, 0].numpy()
        found, memory = apply_stateful(ours, params, memory, jnp.asarray(x), train=train)
        np.testing.assert_allclose(found["logits"], expected, atol=1e-4 * np.abs(expected).max())
    for i, layer in enumerate(norms, start=1):
        np.testing.assert_allclose(
            memory["batch_stats"][f"norm_{i}"]["var"], layer.running_var.numpy(), rtol=1e-4, atol=1e-5
        )
