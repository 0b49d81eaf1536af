"""StyleGAN2's networks against plain PyTorch: a kernel for each image by grouped convolution, the same weights."""

from __future__ import annotations

import math
import pickle
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch: install the extra 'parity'")

from jaxgen.interop.stylegan.layout import published, variables_from  # noqa: E402
from jaxgen.interop.stylegan.published_file import read  # noqa: E402
from jaxgen.networks.stylegan.style2 import Style2Discriminator, Style2Generator  # noqa: E402

pytestmark = pytest.mark.parity

SHAPE = (8, 8, 3)
F = torch.nn.functional


def tensors(tree):
    return jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf)), tree)


def activated(x, gain=1.0):
    return F.leaky_relu(x, 0.2) * (math.sqrt(2) * gain)


def linear(p, x, multiplier=1.0):
    y = x @ p["kernel"] * (multiplier / math.sqrt(x.shape[1]))
    return y + p["bias"] * multiplier if "bias" in p else y


def blur(x, padding, gain=1.0):
    """Filters [B, C, H, W], each channel alone."""
    taps = torch.tensor([1.0, 3, 3, 1])
    kernel = torch.outer(taps, taps) * (gain / 64)
    return F.conv2d(F.pad(x, padding), kernel.expand(x.shape[1], 1, 4, 4), groups=x.shape[1])


def doubled(x):
    zeros = torch.zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    zeros[..., ::2, ::2] = x
    return zeros


def modulated(p, x, w, up=False, demodulate=True):
    """Convolves with [B, out, in, h, w], one kernel for each image."""
    style = linear(p["style"], w)
    kernel = p["kernel"].permute(3, 2, 0, 1) / math.sqrt(p["kernel"][..., 0].numel())
    kernel = kernel * style[:, None, :, None, None]
    if demodulate:
        kernel = kernel / kernel.square().sum((2, 3, 4), keepdim=True).add(1e-8).sqrt()
    batch, out, channels, size, _ = kernel.shape
    x = doubled(x) if up else x
    # behind zeros, a pixel further at the end is what a transposed convolution has
    x = F.pad(x, (2, 1, 2, 1)) if up else F.pad(x, (size // 2,) * 4)
    y = F.conv2d(x.reshape(1, batch * channels, *x.shape[2:]), kernel.reshape(-1, channels, size, size), groups=batch)
    y = y.reshape(batch, out, *y.shape[2:])
    return blur(y, (1, 1, 1, 1), 4.0) if up else y


def generated(p, z, noise):
    """The images [B, 3, 8, 8] of z; p is the tree of the network here, as tensors."""
    x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
    for i in range(2):
        x = activated(linear(p["mapping_network"][f"layer_{i}"], x, 0.01))
    p, w = p["synthesis_network"], x
    x = p["constant"].permute(2, 0, 1).expand(len(z), -1, -1, -1)

    def layer(n, x):
        own = p[f"layer_{n}"]
        y = modulated(own["conv"], x, w, up=n == 1) + own["noise_strength"] * noise[n]
        return activated(y + own["conv"]["bias"][:, None, None])

    def image(n, x):
        own = p[f"image_{n}"]
        return modulated(own, x, w, demodulate=False) + own["bias"][:, None, None]

    x = layer(0, x)
    small = image(0, x)
    x = layer(2, layer(1, x))
    return image(1, x) + blur(doubled(small), (2, 1, 2, 1), 4.0)


def judged(p, x):
    """The logits of images [B, 3, 8, 8]."""

    def conv(p, x, down=False):
        kernel = p["kernel"].permute(3, 2, 0, 1) / math.sqrt(p["kernel"][..., 0].numel())
        pad = kernel.shape[-1] // 2
        x = blur(x, (pad + 1,) * 4) if down else F.pad(x, (pad,) * 4)
        y = F.conv2d(x, kernel, stride=2 if down else 1)
        return y + p["bias"][:, None, None] if "bias" in p else y

    x = activated(conv(p["from_image"], x))
    y = activated(conv(p["conv_0_1"], activated(conv(p["conv_0_0"], x)), down=True), math.sqrt(0.5))
    x = y + math.sqrt(0.5) * conv(p["skip_0"], x, down=True)
    groups = x.reshape(2, 2, *x.shape[1:])  # image i with image i + 2
    deviation = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3)).repeat(2)
    x = torch.cat([x, deviation[:, None, None, None].expand(-1, 1, 4, 4)], 1)
    x = activated(conv(p["last"], x)).permute(0, 2, 3, 1).reshape(len(x), -1)
    return linear(p["logit"], activated(linear(p["features"], x)))[:, 0]


def random(network, *inputs):
    """Random weights, of which none begins at a value that hides it, such as 0."""
    fresh = jax.jit(network.init)(jax.random.key(0), *inputs)["params"]
    chance = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: leaf + jnp.asarray(0.2 * chance.standard_normal(leaf.shape), jnp.float32), fresh)


def test_generator_and_its_gradient():
    network, chance = Style2Generator(SHAPE, z_dim=5, w_dim=6, depth=2, channels=4), np.random.default_rng(1)
    params = random(network, jnp.zeros((1, 5)))
    z = chance.standard_normal((3, 5)).astype(np.float32)
    maps = [chance.standard_normal((3, *shape)).astype(np.float32) for shape in network.noise_shapes]

    def images(params):
        variables = {"params": params, "style": {"mean_w": jnp.zeros(6)}}
        w = network.apply(variables, z, method="styles")
        return network.apply(variables, w, [jnp.asarray(m) for m in maps], method="synthesis")

    own = tensors(params)
    for leaf in jax.tree.leaves(own):
        leaf.requires_grad_(True)
    noise = [torch.tensor(m).permute(0, 3, 1, 2) for m in maps]
    expected = generated(own, torch.tensor(z), noise)
    found, pull = jax.vjp(jax.jit(images), params)
    np.testing.assert_allclose(found, expected.detach().permute(0, 2, 3, 1), atol=1e-4)
    weight = chance.standard_normal(found.shape).astype(np.float32)
    (expected * torch.tensor(weight).permute(0, 3, 1, 2)).sum().backward()
    for (path, slope), leaf in zip(
        jax.tree_util.tree_leaves_with_path(pull(jnp.asarray(weight))[0]), jax.tree.leaves(own), strict=True
    ):
        scale = float(leaf.grad.abs().max()) + 1.0
        np.testing.assert_allclose(slope, leaf.grad, atol=1e-4 * scale, err_msg=jax.tree_util.keystr(path))


def test_discriminator():
    network, chance = Style2Discriminator(channels=4, max_channels=6, group=2), np.random.default_rng(1)
    x = chance.standard_normal((4, *SHAPE)).astype(np.float32)
    params = random(network, x)
    expected = judged(tensors(params), torch.tensor(x).permute(0, 3, 1, 2))
    np.testing.assert_allclose(jax.jit(network.apply)({"params": params}, x)["logits"], expected, atol=1e-4)


def test_networks_of_faces_have_the_published_numbers_of_weights():
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree["params"]))  # noqa: E731
    generator = Style2Generator((1024, 1024, 3), channels=32)
    assert count(jax.eval_shape(generator.init, jax.random.key(0), jnp.zeros((1, 512)))) == 30_370_060
    image = jax.ShapeDtypeStruct((1, 1024, 1024, 3), jnp.float32)
    assert count(jax.eval_shape(Style2Discriminator().init, jax.random.key(0), image)) == 29_012_513


def _reconstruct_persistent_obj(meta):
    raise AssertionError("the record of a module was run")


class Persistent(torch.nn.Module):
    """A module that is written as a record of its state, its source beside it, as the authors' code does it."""

    def __reduce__(self):
        state = super().__reduce__()[2]
        meta = {"type": "class", "version": 6, "module_src": "raise SystemExit", "class_name": "Any", "state": state}
        return _reconstruct_persistent_obj, (meta,)


def stated(arrays):
    """A tree of persistent modules with these arrays, by names with dots."""
    top = Persistent()
    for name, value in arrays.items():
        *path, last = name.split(".")
        module = top
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, Persistent())
            module = getattr(module, part)
        tensor = torch.tensor(value)
        if last == "w_avg":
            module.register_buffer(last, tensor)
        else:
            module.register_parameter(last, torch.nn.Parameter(tensor))
        module.gain = np.sqrt(2)  # a NumPy scalar, as the authors' modules have
    return top


def test_a_published_file_is_read_without_its_code(tmp_path, monkeypatch):
    network = Style2Generator(SHAPE, z_dim=4, w_dim=4, depth=1, channels=2)
    variables = {"params": random(network, jnp.zeros((1, 4))), "style": {"mean_w": jnp.arange(4.0)}}
    written = published(variables, network, SHAPE)
    module = types.ModuleType("torch_utils.persistence")
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj
    monkeypatch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", module)
    monkeypatch.setattr(_reconstruct_persistent_obj, "__module__", "torch_utils.persistence")
    file = tmp_path / "network.pkl"
    file.write_bytes(pickle.dumps({"G": None, "G_ema": stated(written), "training_set_kwargs": {"xflip": True}}))
    found = read(file)
    assert set(found) == set(written)
    jax.tree.map(np.testing.assert_array_equal, variables_from(found, network, SHAPE), variables)
