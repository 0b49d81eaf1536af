"""StyleGAN's networks: modulated convolutions image by image, and the steps from z to an image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from jaxgen.errors import UserError
from jaxgen.networks.gans.upfirdn import WIDE
from jaxgen.networks.stylegan.style1 import adain
from jaxgen.networks.stylegan.style2 import Style2Generator, modulated_conv

SHAPE = (8, 8, 1)


def convolved(x, kernel, up):
    """Convolves one image [H, W, C] in float64."""
    if up:
        zeros = np.zeros((2 * x.shape[0], 2 * x.shape[1], x.shape[2]))
        zeros[::2, ::2] = x
        x = zeros

    def channel(d):
        found = sum(scipy.signal.correlate2d(x[..., c], kernel[..., c, d], "full") for c in range(x.shape[-1]))
        if not up:
            return found[1:-1, 1:-1]
        return scipy.signal.convolve2d(found, np.outer(WIDE, WIDE) / 16)[2:-3, 2:-3]

    return np.stack([channel(d) for d in range(kernel.shape[-1])], -1)


@pytest.mark.parametrize("up", [False, True])
def test_modulated_convolution_has_a_kernel_for_each_image(up):
    chance = np.random.default_rng(0)
    x, kernel, style = (chance.normal(size=size) for size in ((3, 5, 4, 6), (3, 3, 6, 2), (3, 6)))
    got = modulated_conv(*(jnp.asarray(a, jnp.float32) for a in (x, kernel, style)), up=up)
    for image, scale, found in zip(x, style, got, strict=True):
        own = kernel * scale[:, None]
        own = own / np.sqrt(np.square(own).sum((0, 1, 2)))
        np.testing.assert_allclose(found, convolved(image, own, up), atol=1e-5)


def test_adain_gives_an_image_its_style():
    x = jax.random.normal(jax.random.key(0), (2, 6, 6, 3)) * 5 + 1
    scale, shift = jnp.array([[1.0, 2, 3], [4, 5, 6]]), jnp.array([[0.0, 1, 2], [3, 4, 5]])
    y = adain(x, scale, shift)
    np.testing.assert_allclose(y.mean((1, 2)), shift, atol=1e-4)
    np.testing.assert_allclose(y.std((1, 2)), scale, rtol=1e-4)


@pytest.fixture(scope="module")
def generator():
    network = Style2Generator(SHAPE, z_dim=4, w_dim=4, depth=1, channels=4)
    variables = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 4)))
    # noise that begins without strength would be seen by no test
    params = jax.tree.map(lambda leaf: leaf + 0.1 if leaf.shape == () else leaf, variables["params"])
    return network, {"params": params, "style": {"mean_w": jnp.arange(4.0) / 4}}


@pytest.mark.nightly
def test_steps_of_a_generator_are_its_call(generator):
    network, variables = generator
    keys = jax.random.split(jax.random.key(1), 3)
    z, other = jax.random.normal(jax.random.key(2), (2, 3, 4))
    tree = {"z": z, "other": other, "crossover": jnp.array([1, 2, 4]), "key": keys}
    w, w_other = (network.apply(variables, x, method="mapping") for x in (z, other))
    styles = network.apply(variables, tree, method="styles")
    for i, first in enumerate([1, 2, 4]):
        np.testing.assert_array_equal(styles[i, :first], jnp.broadcast_to(w[i], (first, 4)))
        np.testing.assert_array_equal(styles[i, first:], jnp.broadcast_to(w_other[i], (4 - first, 4)))
    images, activations = network.apply(variables, styles, keys, features=True, method="synthesis")
    assert [a.shape[1:3] for a in activations] == [(4, 4), (8, 8), (8, 8)]
    np.testing.assert_array_equal(images, network.apply(variables, tree))
    maps = [jax.vmap(lambda k, i=i, s=s: jax.random.normal(jax.random.fold_in(k, i), s))(keys)
            for i, s in enumerate(network.noise_shapes)]  # fmt: skip
    np.testing.assert_array_equal(images, network.apply(variables, styles, maps, method="synthesis"))
    assert float(jnp.abs(images - network.apply(variables, styles, None, method="synthesis")).max()) > 1e-3
    with pytest.raises(UserError, match=r"takes styles \[B, 4, 4\]"):
        network.apply(variables, styles[:, :2], method="synthesis")
    with pytest.raises(UserError, match="noise of the shapes"):
        network.apply(variables, styles, maps[:1], method="synthesis")


def test_truncation_moves_styles_to_the_mean_which_training_moves(generator):
    network, variables = generator
    z, mean = jax.random.normal(jax.random.key(2), (3, 4)), variables["style"]["mean_w"]
    styles = network.apply(variables, z, method="styles")
    psi = jnp.broadcast_to(jnp.array([0.0, 0.5, 1.0, 1.0]), (3, 4))
    cut = network.apply(variables, {"z": z, "truncation": psi}, method="styles")
    np.testing.assert_allclose(cut[:, 0], jnp.broadcast_to(mean, (3, 4)), atol=1e-6)
    np.testing.assert_allclose(cut[:, 1], (mean + styles[:, 1]) / 2, atol=1e-6)
    np.testing.assert_allclose(cut[:, 2:], styles[:, 2:], atol=1e-6)
    _, changed = network.apply(variables, z, train=True, mutable=["style"])
    np.testing.assert_allclose(changed["style"]["mean_w"] - mean, 0.002 * (styles[:, 0].mean(0) - mean), atol=1e-6)
