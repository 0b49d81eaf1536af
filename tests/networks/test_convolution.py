from __future__ import annotations

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxgen.errors import UserError
from jaxgen.networks.layers.convolution import (
    Conv,
    downsample,
    gradients_in_loops,
    loop_conv,
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


@pytest.mark.slow
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


# gradients inside loops


SIZES = [(1, 1), (2, 2), (3, 1), (3, 2), (3, 3), (4, 2), (5, 3), (2, 3)]


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(8, 10), (7, 9)])
@pytest.mark.parametrize(("size", "stride"), SIZES)
@pytest.mark.parametrize("padding", [((0, 0), (0, 0)), "SAME", ((1, 1), (1, 1)), ((0, 1), (2, 0)), ((3, 3), (2, 4))])
def test_explicit_gradients_equal_the_library_s(size, stride, padding, shape):
    if padding == "SAME":
        padding = tuple(lax.padtype_to_pads(shape, (size,) * 2, (stride,) * 2, "SAME"))
    x, kernel = normal(0, 2, *shape, 3), normal(1, size, size, 3, 4)

    @jax.jit
    def both(x, kernel):
        y, back = jax.vjp(lambda x, k: reference(x, k, stride, padding), x, kernel)
        dy = jnp.cos(3 * y)
        explicit = jax.vjp(lambda x, k: loop_conv(x, k, stride, padding), x, kernel)
        return y, back(dy), explicit[0], explicit[1](dy)

    with jax.default_matmul_precision("highest"):
        y, wanted, got_y, got = both(x, kernel)
    np.testing.assert_array_equal(got_y, y)
    for g, w in zip(got, wanted, strict=True):
        np.testing.assert_allclose(g, w, atol=1e-5 * max(1.0, float(jnp.abs(w).max())))


class Net(nn.Module):
    """Every kind of convolution there is."""

    @nn.compact
    def __call__(self, x):
        h = nn.silu(Conv(8, name="a")(x))
        h = nn.silu(Conv(8, stride=2, padding="same", name="b")(h))
        h = nn.silu(Conv(6, size=1, name="c")(h))
        return Conv(2, upsampled=True, name="d")(h)


@pytest.mark.slow
def test_the_context_changes_gradients_neither_of_images_nor_of_weights():
    x = normal(0, 2, 8, 6, 3)
    params = Net().init(jax.random.key(0), x)

    def loss(params, x):
        return jnp.square(Net().apply(params, x)).sum()

    plain = jax.jit(jax.value_and_grad(loss, (0, 1)))(params, x)
    inside = jax.jit(jax.value_and_grad(gradients_in_loops()(loss), (0, 1)))(params, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), plain, inside)
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(gradients_in_loops()(lambda x: loss(params, x)), (x,), (x,))
    jax.jvp(lambda x: loss(params, x), (x,), (x,))  # outside the context the plain form is back


def test_the_context_ends_where_an_error_is_raised():
    with pytest.raises(ZeroDivisionError), gradients_in_loops():
        raise ZeroDivisionError
    x = normal(0, 1, 4, 4, 3)
    params = Conv(2).init(jax.random.key(0), x)
    jax.jvp(lambda x: Conv(2).apply(params, x), (x,), (x,))


def test_in_a_loop_all_convolutions_have_the_layout_that_is_fast_on_a_cpu():
    """XLA's CPU backend has fast code for images, kernels and results in this order without inner zeros, and puts
    others into it in the entry computation only; benchmarks/guidance_cost.py has the times."""
    x = normal(0, 2, 8, 8, 3)
    params = Net().init(jax.random.key(0), x)

    def compiled(net):
        def body(carry, _):
            gradients = jax.grad(lambda p, x: jnp.square(net(p, x)).sum(), (0, 1))(*carry)
            return jax.tree.map(lambda a, g: a - 1e-3 * g, carry, gradients), None

        text = jax.jit(lambda *c: lax.scan(body, c, None, length=3)[0]).lower(params, x).compile().as_text()
        found = re.findall(r"window=.*dim_labels=.*", text)
        return len(found), sum("dim_labels=b01f_01io->b01f" in line and "lhs_dilate" not in line for line in found)

    every, fast = compiled(Net().apply)
    assert every > fast
    every, fast = compiled(gradients_in_loops()(Net().apply))
    assert every == fast == 9  # three convolutions that are none of 1x1, and two gradients each
