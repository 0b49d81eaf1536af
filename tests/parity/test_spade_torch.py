"""SPADE's layers and networks against PyTorch: put together in the authors' form, and MONAI's blocks.

All convolutions that have spectral normalisation get kernels whose largest singular value is 1 in PyTorch, and three
times those kernels here, so that the normalised kernels are equal.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch: install the extra 'parity'")

from jaxgen.networks.gans.spade import SpadeBlock, SpadeGenerator, StyleEncoder  # noqa: E402
from jaxgen.networks.layers.stateful import apply_stateful, init_stateful  # noqa: E402

nn, functional = torch.nn, torch.nn.functional
pytestmark = pytest.mark.parity
CLASSES, HIDDEN, Z = 5, 6, 4


def free_norm(statistics, channels):
    layer = nn.BatchNorm2d if statistics == "batch" else nn.InstanceNorm2d
    return layer(channels, affine=False)


class Norm(nn.Module):
    def __init__(self, channels, statistics):
        super().__init__()
        self.param_free_norm = free_norm(statistics, channels)
        self.mlp_shared = nn.Sequential(nn.Conv2d(CLASSES, HIDDEN, 3, padding=1), nn.ReLU())
        self.mlp_gamma, self.mlp_beta = (nn.Conv2d(HIDDEN, channels, 3, padding=1) for _ in range(2))

    def forward(self, x, layout):
        told = self.mlp_shared(functional.interpolate(layout, x.shape[2:], mode="nearest"))
        return self.param_free_norm(x) * (1 + self.mlp_gamma(told)) + self.mlp_beta(told)


class Block(nn.Module):
    def __init__(self, channels, features, statistics):
        super().__init__()
        middle = min(channels, features)
        self.conv_0, self.conv_1 = nn.Conv2d(channels, middle, 3, padding=1), nn.Conv2d(middle, features, 3, padding=1)
        self.norm_0, self.norm_1 = Norm(channels, statistics), Norm(middle, statistics)
        if channels != features:
            self.conv_s, self.norm_s = nn.Conv2d(channels, features, 1, bias=False), Norm(channels, statistics)

    def forward(self, x, layout):
        shortcut = self.conv_s(self.norm_s(x, layout)) if hasattr(self, "conv_s") else x
        h = self.conv_0(functional.leaky_relu(self.norm_0(x, layout), 0.2))
        return shortcut + self.conv_1(functional.leaky_relu(self.norm_1(h, layout), 0.2))


class Generator(nn.Module):
    """The authors' "normal" generator with a style, at widths of the test's."""

    def __init__(self, widths, side, statistics):
        super().__init__()
        self.widths, self.side = widths, side
        self.fc = nn.Linear(Z, widths[0] * side**2)
        blocks, channels = [], widths[0]
        for features in (widths[0], widths[1], *widths[1:]):
            blocks.append(Block(channels, features, statistics))
            channels = features
        self.blocks, self.conv_img = nn.ModuleList(blocks), nn.Conv2d(widths[-1], 3, 3, padding=1)

    def forward(self, z, layout):
        x = self.fc(z).view(-1, self.widths[0], self.side, self.side)
        for i, block in enumerate(self.blocks):
            x = block(x, layout)
            if i not in (1, len(self.blocks) - 1):  # not between the two middle blocks
                x = nn.Upsample(scale_factor=2)(x)
        return torch.tanh(self.conv_img(functional.leaky_relu(x, 0.2)))


class Encoder(nn.Module):
    def __init__(self, widths, side):
        super().__init__()
        pairs = list(zip((3, *widths), widths, strict=False))
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1, bias=False) for a, b in pairs)
        size = widths[-1] * (side // 2 ** len(widths)) ** 2
        self.fc_mu, self.fc_var = nn.Linear(size, Z), nn.Linear(size, Z)

    def forward(self, x):
        for layer in self.layers:
            x = functional.leaky_relu(functional.instance_norm(layer(x)), 0.2)
        x = x.flatten(1)
        return self.fc_mu(x), self.fc_var(x)


def randomise(module, normalised):
    """Random weights; those of convolutions that `normalised` names have the largest singular value 1."""
    random = np.random.default_rng(0)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            values = 0.3 * random.standard_normal(weight.shape)
            if weight.ndim == 4 and any(part in name for part in normalised):
                values /= np.linalg.svd(values.reshape(len(values), -1), compute_uv=False)[0]
            weight.copy_(torch.tensor(values, dtype=torch.float32))


def array(weight):
    return weight.detach().numpy()


def convolution(*layers, spectral=False):
    """The parameters and the memory of a convolution; of several, with their outputs joined."""
    kernel = np.concatenate([array(layer.weight) for layer in layers]).transpose(2, 3, 1, 0)
    found = {"kernel": 3 * kernel if spectral else kernel}
    if layers[0].bias is not None:
        found["bias"] = np.concatenate([array(layer.bias) for layer in layers])
    u = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]))[2][0] if spectral else None
    return found, ({"spectral": {"u": u}} if spectral else {})


def norm(layer):
    shared = layer.mlp_shared[0]
    return {"shared": convolution(shared)[0], "modulation": convolution(layer.mlp_gamma, layer.mlp_beta)[0]}


def block(layer):
    """Parameters, and spectral vectors, of a block."""
    params, vectors = {}, {}
    for theirs, ours in (("conv_0", "conv_0"), ("conv_1", "conv_1"), ("conv_s", "shortcut")):
        if hasattr(layer, theirs):
            params[ours], carried = convolution(getattr(layer, theirs), spectral=True)
            vectors[ours] = carried["spectral"]
    for theirs, ours in (("norm_0", "norm_0"), ("norm_1", "norm_1"), ("norm_s", "norm_shortcut")):
        if hasattr(layer, theirs):
            params[ours] = norm(getattr(layer, theirs))
    return params, vectors


def linear(weight, bias, shape):
    """A linear layer whose outputs are a picture [C, h, w] in PyTorch and [h, w, C] here."""
    channels, height, width = shape
    rows = array(weight).reshape(channels, height, width, -1).transpose(1, 2, 0, 3)
    kernel = rows.reshape(height * width * channels, -1).T
    return {"kernel": kernel, "bias": array(bias).reshape(shape).transpose(1, 2, 0).reshape(-1)}


def moments(encoder):
    """The linear layer to the means and the log variances, whose inputs are a picture of 8 channels."""
    layers = (encoder.fc_mu, encoder.fc_var)
    weight = np.concatenate([array(layer.weight) for layer in layers])
    weight = weight.reshape(2 * Z, 8, 4, 4).transpose(0, 2, 3, 1).reshape(2 * Z, -1)
    return {"kernel": weight.T, "bias": np.concatenate([array(layer.bias) for layer in layers])}


def layouts(side):
    masks = np.random.default_rng(1).integers(0, CLASSES, (3, side // 4, side // 4)).repeat(4, 1).repeat(4, 2)
    return np.eye(CLASSES, dtype=np.float32)[masks]


def torch_of(x):
    return torch.tensor(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def close(found, expected):
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("statistics", ["batch", "instance"])
def test_the_generator_in_training_and_in_use(statistics):
    widths, side = (8, 8, 4), 4
    theirs = Generator(widths, side, statistics)
    randomise(theirs, ("conv_0", "conv_1", "conv_s"))
    ours = SpadeGenerator((16, 16, 3), Z, widths, 1, statistics, HIDDEN, CLASSES)
    z, layout = np.random.default_rng(2).standard_normal((3, Z)).astype(np.float32), layouts(16)
    mask = jnp.asarray(layout.argmax(-1))
    shapes = jax.eval_shape(functools.partial(init_stateful, ours), jax.random.key(0), z, mask=mask)[1]
    # fresh statistics have mean 0 and variance 1
    memory = jax.tree_util.tree_map_with_path(lambda path, x: jnp.full(x.shape, float(path[-1].key == "var")), shapes)
    params = {"start": linear(theirs.fc.weight, theirs.fc.bias, (widths[0], side, side))}
    params["image"] = convolution(theirs.conv_img)[0]
    for i, layer in enumerate(theirs.blocks):
        params[f"block_{i}"], memory["spectral"][f"block_{i}"] = block(layer)
    call = jax.jit(functools.partial(apply_stateful, ours), static_argnames="train")
    for train in (True, True, False):
        theirs.train(train)
        with torch.no_grad():
            expected = theirs(torch.tensor(z), torch_of(layout)).numpy().transpose(0, 2, 3, 1)
        found, memory = call(params, memory, z, train=train, mask=mask)
        close(found, expected)
    assert np.std(expected) > 0.1
    if statistics == "batch":
        running = theirs.blocks[3].norm_1.param_free_norm.running_var.numpy()
        close(memory["batch_stats"]["block_3"]["norm_1"]["norm"]["var"], running)


def test_the_style_encoder():
    theirs = Encoder((4, 6, 8), 32)
    randomise(theirs, ("layers",))
    ours, x = StyleEncoder(2 * Z, (4, 6, 8)), np.random.default_rng(3).uniform(-1, 1, (3, 32, 32, 3)).astype(np.float32)
    params, vectors = {}, {}
    for i, layer in enumerate(theirs.layers):
        params[f"conv_{i}"], carried = convolution(layer, spectral=True)
        vectors[f"conv_{i}"] = carried["spectral"]
    params["out"] = moments(theirs)
    with torch.no_grad():
        expected = torch.cat(theirs(torch_of(x)), dim=1).numpy()
    found, _ = apply_stateful(ours, params, {"spectral": vectors}, jnp.asarray(x), train=False)
    close(found, expected)


@pytest.mark.slow  # MONAI takes long to import
@pytest.mark.parametrize("features", [8, 4])
def test_the_block_of_monai(features):
    """MONAI's convolutions of gamma and beta are followed by a normalisation that neither the paper nor the authors'
    code has, and its first ReLU is leaky; both are taken out of its modules here.
    """
    pytest.importorskip("monai", reason="pip install --no-deps monai")
    from monai.networks.nets.spade_network import SPADENetResBlock

    theirs = SPADENetResBlock(2, 8, features, CLASSES, spade_intermediate_channels=HIDDEN)
    for layer in (m for m in theirs.modules() if type(m).__name__ == "SPADE"):
        layer.mlp_shared = nn.Sequential(layer.mlp_shared.conv, nn.ReLU())
        layer.mlp_gamma, layer.mlp_beta = layer.mlp_gamma.conv, layer.mlp_beta.conv
    for name in ("conv_0", "conv_1", "conv_s"):
        if hasattr(theirs, name):
            setattr(theirs, name, getattr(theirs, name).conv)
    randomise(theirs, ("conv_0", "conv_1", "conv_s"))
    ours = SpadeBlock(features, "instance", HIDDEN)
    x, layout = np.random.default_rng(4).standard_normal((3, 8, 8, 8)).astype(np.float32), layouts(32)
    params, vectors = block(theirs)
    with torch.no_grad():
        expected = theirs(torch_of(x), torch_of(layout)).numpy().transpose(0, 2, 3, 1)
    # the authors' shortcut has no bias
    shift = params["shortcut"].pop("bias") if "shortcut" in params else 0.0
    found, _ = apply_stateful(ours, params, {"spectral": vectors}, x, layout, train=False)
    close(found + shift, expected)


@pytest.mark.slow
def test_the_encoder_of_monai():
    pytest.importorskip("monai", reason="pip install --no-deps monai")
    from monai.networks.nets.spade_network import SPADEEncoder

    theirs = SPADEEncoder(2, 3, Z, (4, 6, 8), (32, 32))
    randomise(theirs, ("blocks",))
    params, vectors = {}, {}
    for i, layer in enumerate(theirs.blocks):
        params[f"conv_{i}"], carried = convolution(layer.conv, spectral=True)
        params[f"conv_{i}"].pop("bias")  # the normalisation takes it away
        vectors[f"conv_{i}"] = carried["spectral"]
    params["out"] = moments(theirs)
    x = np.random.default_rng(5).uniform(-1, 1, (3, 32, 32, 3)).astype(np.float32)
    with torch.no_grad():
        expected = torch.cat(theirs(torch_of(x)), dim=1).numpy()
    ours = StyleEncoder(2 * Z, (4, 6, 8))
    found, _ = apply_stateful(ours, params, {"spectral": vectors}, jnp.asarray(x), train=False)
    close(found, expected)
