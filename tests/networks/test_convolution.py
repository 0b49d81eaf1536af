from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxgen.errors import UserError
from jaxgen.networks.convolution import (
    Conv,
    downsample,
    phase_upsampled_conv,
    plain_upsampled_conv,
    upsample,
    upsampled_conv,
)


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def reference(x, kernel, stride, padding):
    return lax.conv_general_dilated(x, kernel, (stride,) * 2, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize("size", [1, 3, 4])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["same", "symmetric", ((0, 1), (2, 0))])
def test_conv_equals_lax(size, stride, padding):
    x = normal(0, 2, 8, 10, 3)
    module = Conv(5, size=size, stride=stride, padding=padding)
    params = {"kernel": normal(1, size, size, 3, 5), "bias": normal(2, 5)}
    pads = {"same": "SAME", "symmetric": ((size // 2,) * 2,) * 2}.get(padding, padding)
    with jax.default_matmul_precision("highest"):
        y = module.apply({"params": params}, x)
        expected = reference(x, params["kernel"], stride, pads) + params["bias"]
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_parameters_are_float32_of_standard_shape():
    shapes = jax.eval_shape(Conv(5, dtype="bfloat16").init, jax.random.key(0), jnp.zeros((1, 4, 4, 3)))["params"]
    assert {name: (leaf.shape, leaf.dtype) for name, leaf in shapes.items()} == {
        "kernel": ((3, 3, 3, 5), jnp.float32),
        "bias": ((5,), jnp.float32),
    }
    variables = Conv(5).init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
    assert Conv(5, dtype="bfloat16").apply(variables, jnp.zeros((1, 4, 4, 3))).dtype == jnp.bfloat16


def test_upsample_repeats_and_downsample_undoes_it():
    x = normal(0, 2, 3, 5, 4)
    np.testing.assert_array_equal(upsample(x), x.repeat(2, 1).repeat(2, 2))
    np.testing.assert_allclose(downsample(upsample(x)), x, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (8, 4)])
def test_upsampled_convs_agree(shape):
    x, kernel = normal(0, 2, *shape, 3), normal(1, 3, 3, 3, 5)
    with jax.default_matmul_precision("highest"):
        expected = reference(x.repeat(2, 1).repeat(2, 2), kernel, 1, "SAME")
        for form in (plain_upsampled_conv, phase_upsampled_conv, upsampled_conv, jax.jit(upsampled_conv)):
            np.testing.assert_allclose(form(x, kernel), expected, atol=2e-5)


def test_upsampled_convs_have_equal_derivatives():
    x, kernel, weight = normal(0, 2, 4, 6, 3), normal(1, 3, 3, 3, 5), normal(2, 2, 8, 12, 5)

    def loss(form):
        return lambda x, kernel: (form(x, kernel) * weight).sum()

    with jax.default_matmul_precision("highest"):
        expected = jax.grad(loss(plain_upsampled_conv), (0, 1))(x, kernel)
        for got, want in zip(jax.grad(loss(upsampled_conv), (0, 1))(x, kernel), expected, strict=True):
            np.testing.assert_allclose(got, want, atol=1e-4, rtol=1e-4)
        tangents = normal(3, *x.shape), normal(4, *kernel.shape)
        forward = jax.jvp(loss(upsampled_conv), (x, kernel), tangents)[1]
    along = sum(jnp.vdot(g, t) for g, t in zip(expected, tangents, strict=True))
    np.testing.assert_allclose(forward, along, rtol=1e-4)


def test_bad_options_are_refused():
    x = jnp.zeros((1, 4, 4, 3))
    with pytest.raises(UserError, match="padding"):
        Conv(5, padding="full").init(jax.random.key(0), x)
    with pytest.raises(UserError, match="size 3"):
        Conv(5, size=1, upsampled=True).init(jax.random.key(0), x)
