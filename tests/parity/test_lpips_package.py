"""LPIPS against its authors' package: random trunks, the package's own heads."""

from __future__ import annotations

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch and lpips: install the extra 'parity'")
lpips = pytest.importorskip("lpips", reason="parity needs lpips: pip install --no-deps lpips")

from jaxgen.downloads import locate  # noqa: E402
from jaxgen.interop import torch_file  # noqa: E402
from jaxgen.interop.feature_networks.lpips import PUBLISHED, lpips_from_torch  # noqa: E402
from jaxgen.networks.pretrained.lpips import LPIPS  # noqa: E402

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module", params=["alex", "vgg"])
def pair(request):
    """(trunk, the package's network, our parameters)."""
    torch.manual_seed(0)
    peer = lpips.LPIPS(net=request.param, pnet_rand=True, verbose=False)
    state = {}
    with torch.no_grad():
        for name, weight in peer.net.named_parameters():  # slice1.0.weight -> features.0.weight
            if weight.ndim > 1:  # He's scale, so that no depth fades
                weight.normal_(0, (2 / weight[0].numel()) ** 0.5)
            state[f"features.{name.split('.', 1)[1]}"] = weight.numpy()
    folder = pathlib.Path(lpips.__file__).parent / "weights" / "v0.1"
    heads = torch_file.read(locate(PUBLISHED[request.param][1], folder))  # its hash is checked
    return request.param, peer, lpips_from_torch(state, heads, request.param)


def images(shape, seed=0):
    x, y = np.random.default_rng(seed).uniform(-1, 1, (2, *shape)).astype(np.float32)
    y[0] = x[0] + 0.01 * y[0]  # a near pair beside far ones
    return x, y


def told(peer, x, y, **options):
    return peer(*(torch.tensor(a.transpose(0, 3, 1, 2)) for a in (x, y)), **options)


def test_distances_are_the_packages(pair):
    trunk, peer, params = pair
    x, y = images((3, 45, 70, 3))
    with torch.no_grad():
        wanted = told(peer, x, y).numpy().reshape(-1)
    found = jax.jit(LPIPS(trunk).apply)({"params": params}, x, y)
    assert wanted.max() > 0.05
    np.testing.assert_allclose(found, wanted, atol=1e-6, rtol=1e-4)


def test_each_depth_is_the_packages(pair):
    trunk, peer, params = pair
    x, y = images((3, 45, 70, 3), seed=1)
    with torch.no_grad():
        _, wanted = told(peer, x, y, retPerLayer=True)
    distance = jax.jit(LPIPS(trunk).apply)
    for i, depth in enumerate(wanted):
        alone = {**params, **{f"head_{j}": jnp.zeros_like(params[f"head_{j}"]) for j in range(5) if j != i}}
        found = distance({"params": alone}, x, y)
        np.testing.assert_allclose(found, depth.numpy().reshape(-1), atol=1e-6, rtol=1e-4)


def test_the_gradient_is_the_packages(pair):
    trunk, peer, params = pair
    x, y = images((1, 40, 40, 3), seed=2)
    y[0] = np.random.default_rng(3).uniform(-1, 1, y[0].shape)
    leaf = torch.tensor(x.transpose(0, 3, 1, 2), requires_grad=True)
    peer(leaf, torch.tensor(y.transpose(0, 3, 1, 2))).sum().backward()
    wanted = leaf.grad.numpy().transpose(0, 2, 3, 1)
    found = jax.jit(jax.grad(lambda x, p: LPIPS(trunk).apply({"params": p}, x, y).sum()))(x, params)
    np.testing.assert_allclose(found, wanted, atol=1e-3 * np.abs(wanted).max())
