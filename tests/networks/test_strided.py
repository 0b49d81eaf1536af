"""Rearranged convolutions against the library's own: values, gradients, second gradients, and what they compile to."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxgen.errors import UserError
from jaxgen.networks.gans.gan_layers import Conv
from jaxgen.networks.layers.convolution import downsample, plain_conv, plain_upsampled_conv
from jaxgen.networks.layers.strided import (
    ONE,
    bilinear_upsample,
    few_pixels,
    nearest_conv,
    pooled_conv,
    product,
    strided_conv,
    transposed_conv,
)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def plain_transposed_conv(x, kernel):
    return lax.conv_transpose(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def penalty(form):
    """A gradient penalty, whose own gradient takes every second derivative of the convolution."""

    def slope(x, kernel):
        return jax.grad(lambda x: jnp.sin(form(x, kernel)).sum())(x)

    return lambda x, kernel: jnp.square(slope(x, kernel)).sum()


def derivatives(form):
    """Value, gradients, and gradients of a penalty on the gradient, in image and kernel."""

    @jax.jit
    def everything(x, kernel):
        y, back = jax.vjp(form, x, kernel)
        return y, back(jnp.cos(3 * y)), jax.grad(penalty(form), (0, 1))(x, kernel)

    return everything


def check(form, reference, x, kernel):
    with jax.default_matmul_precision("highest"):
        got, wanted = derivatives(form)(x, kernel), derivatives(reference)(x, kernel)
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert g.shape == w.shape
        np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-5 * max(1.0, float(jnp.abs(w).max())))


CASES = [
    (4, 2, ((1, 1), (1, 1)), (8, 6)),
    (4, 2, ((0, 0), (0, 0)), (9, 7)),
    (3, 2, ((1, 1), (1, 1)), (8, 8)),
    (3, 2, ((0, 1), (0, 1)), (6, 7)),
    (5, 3, ((2, 0), (1, 3)), (10, 9)),
    (3, 1, ((1, 1), (1, 1)), (5, 6)),
    (1, 2, ((0, 0), (0, 0)), (6, 5)),
]


@pytest.mark.parametrize(("size", "stride", "padding", "shape"), CASES)
def test_strided_convs_equal_lax_in_all_derivatives(size, stride, padding, shape):
    x, kernel = normal(0, 2, *shape, 3), normal(1, size, size, 3, 4)
    check(lambda x, k: strided_conv(x, k, stride, padding), lambda x, k: plain_conv(x, k, stride, padding), x, kernel)


# images of few pixels, where a CPU multiplies patches: up to 2x2, and fewer than channels
@pytest.mark.parametrize(("size", "stride", "shape"), [(4, 2, (2, 2)), (4, 2, (4, 4)), (3, 1, (2, 1)), (3, 2, (6, 5))])
@pytest.mark.parametrize("channels", [8, 32])
def test_convs_of_few_pixels_equal_lax_in_all_derivatives(size, stride, shape, channels):
    x, kernel = normal(0, 1, *shape, channels), normal(1, size, size, channels, channels + 1) / channels
    assert few_pixels(strided_conv(x, kernel, stride, ONE), kernel) == (shape != (6, 5) or channels == 32)
    check(lambda x, k: strided_conv(x, k, stride, ONE), lambda x, k: plain_conv(x, k, stride, ONE), x, kernel)


# the last two have kernels larger than the images, whose gradient is a product on a CPU
@pytest.mark.parametrize(("shape", "channels"), [((4, 3), 5), ((1, 1), 5), ((2, 3), 16)])
def test_the_transposed_conv_equals_lax_in_all_derivatives(shape, channels):
    check(transposed_conv, plain_transposed_conv, normal(0, 2, *shape, channels), normal(1, 4, 4, channels, 3))


@pytest.mark.parametrize(("shape", "channels"), [((1, 1), 8), ((2, 2), 8), ((2, 3), 24)])
def test_the_transposed_conv_of_few_pixels_equals_lax_in_all_derivatives(shape, channels):
    x, kernel = normal(0, 2, *shape, channels), normal(1, 4, 4, channels, channels + 1) / channels
    assert few_pixels(x, kernel)
    check(transposed_conv, plain_transposed_conv, x, kernel)


def test_the_product_equals_that_of_matrices_in_all_derivatives():
    check(product, jnp.matmul, normal(0, 3, 5), normal(1, 5, 4))


def test_a_product_s_gradient_is_summed_over_devices_in_the_kernel_s_layout(devices):
    """Else a CPU turns the sum anew for each use of it."""
    mesh = Mesh(np.array(jax.devices()), ("data",))
    whole, rows = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))

    def sums(form):
        gradient = jax.grad(lambda kernel, x, dy: (form(x, kernel) * dy).sum())
        step = jax.jit(gradient, in_shardings=(whole, rows, rows), out_shardings=whole)
        inputs = normal(0, 20, 30), normal(1, 2 * devices, 20), normal(2, 2 * devices, 30)
        return re.findall(r"(f32\[[\d,]+\])\S* all-reduce\(", step.lower(*inputs).compile().as_text())

    assert sums(jnp.matmul) == ["f32[30,20]"]
    assert sums(product) == ["f32[20,30]"]


def test_the_transposed_conv_undoes_the_strided_one_s_direction():
    """As an operator it is the adjoint of a strided convolution: with the kernel turned round, channels swapped."""
    kernel = normal(1, 4, 4, 3, 5)
    x, y = normal(0, 2, 8, 6, 3), normal(2, 2, 4, 3, 5)
    there = strided_conv(x, kernel, 2, ((1, 1), (1, 1)))
    back = transposed_conv(y, kernel[::-1, ::-1].transpose(0, 1, 3, 2))
    np.testing.assert_allclose(jnp.vdot(there, y), jnp.vdot(x, back), rtol=1e-4)


def test_the_nearest_conv_equals_repeated_pixels_in_all_derivatives():
    check(nearest_conv, plain_upsampled_conv, normal(0, 2, 3, 4, 5), normal(1, 3, 3, 5, 2))


def test_the_pooled_conv_equals_a_conv_and_a_mean_in_all_derivatives():
    def reference(x, kernel):
        return downsample(plain_conv(x, kernel, 1, ((1, 1), (1, 1))))

    check(pooled_conv, reference, normal(0, 2, 6, 8, 5), normal(1, 3, 3, 5, 2))


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (7, 4)])
def test_bilinear_upsampling_equals_jax_image(shape):
    x = normal(0, 2, *shape, 3)
    wanted = jax.image.resize(x, (2, 2 * shape[0], 2 * shape[1], 3), "bilinear")
    np.testing.assert_allclose(bilinear_upsample(x), wanted, atol=1e-6)


def kinds(function, x, kernel):
    """The different convolutions of a compiled program: their windows and layouts."""
    text = jax.jit(function).lower(x, kernel).compile().as_text()
    return set(re.findall(r"window=\{.*?\}, dim_labels=[^,\n]*", text))


@pytest.mark.parametrize(
    ("form", "plain"),
    [
        (lambda x, k: strided_conv(x, k, 2, ((1, 1), (1, 1))), lambda x, k: plain_conv(x, k, 2, ((1, 1), (1, 1)))),
        (transposed_conv, plain_transposed_conv),
    ],
)
def test_second_gradients_are_made_of_the_convolutions_of_first_ones(form, plain):
    """XLA's CPU backend is slow at others; its times show in the row wgan_gp of benchmarks/run.py."""
    x, kernel = normal(0, 2, 8, 8, 3), normal(1, 4, 4, 3, 5)

    def first(x, kernel):
        return jax.grad(lambda *inputs: jnp.sin(strided_conv(*inputs, 2, ((1, 1), (1, 1)))).sum(), (0, 1))(x, kernel)

    if form is transposed_conv:  # the same operators, of the image that it makes
        fast = kinds(first, normal(0, 2, 16, 16, 5), normal(1, 4, 4, 5, 3))
    else:
        fast = kinds(first, x, kernel)
    assert len(fast) == 3
    assert kinds(jax.grad(penalty(form), (0, 1)), x, kernel) <= fast
    assert not kinds(jax.grad(penalty(plain), (0, 1)), x, kernel) <= fast


def test_a_sharded_batch_stays_where_it_is(devices):
    """The kernel's gradient sums over devices; no image travels."""
    mesh = Mesh(np.array(jax.devices()), ("data",))
    whole, rows = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))

    def loss(x, kernel):
        y = strided_conv(x, kernel, 2, ((1, 1), (1, 1)))
        return jnp.square(transposed_conv(jnp.sin(y), kernel)).sum()

    x, kernel = normal(0, devices, 8, 8, 4), normal(1, 4, 4, 4, 4)
    gradient = jax.jit(jax.grad(loss, 1), in_shardings=(rows, whole), out_shardings=whole)
    text = gradient.lower(x, kernel).compile().as_text()
    assert "all-reduce" in text and "all-gather" not in text and "all-to-all" not in text
    alone = jax.jit(jax.grad(loss, 1))(x, kernel)
    np.testing.assert_allclose(gradient(x, kernel), alone, rtol=1e-4, atol=1e-5 * float(jnp.abs(alone).max()))


def test_forward_mode_and_other_sizes_are_refused():
    x, kernel = normal(0, 2, 4, 4, 3), normal(1, 4, 4, 3, 3)
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(lambda x: transposed_conv(x, kernel), (x,), (x,))
    with pytest.raises(UserError, match="4x4"):
        transposed_conv(x, kernel[1:])


@pytest.mark.parametrize("resampling", ["transposed", "bilinear", "nearest", "pooled", ""])
def test_kernels_have_their_standard_shape_and_start_small(resampling):
    size = 4 if resampling == "transposed" else 3
    module = Conv(64, size, resampling=resampling)
    y, variables = jax.jit(module.init_with_output)(jax.random.key(0), normal(0, 1, 8, 8, 64))
    assert y.shape == (1, *{"": (8, 8), "pooled": (4, 4)}.get(resampling, (16, 16)), 64)
    assert variables["params"]["kernel"].shape == (size, size, 64, 64)
    np.testing.assert_allclose(variables["params"]["kernel"].std(), 0.02, rtol=0.02)
