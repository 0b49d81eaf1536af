"""FLOPs of functions whose own are known by arithmetic."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxgen.planning import flops


def test_flops_of_products_and_convolutions_are_those_of_arithmetic():
    x, w = jnp.zeros((4, 6)), jnp.zeros((6, 10))

    def chain(x, w):
        def step(c, _):
            return jnp.tanh(c), (c @ w).sum()

        return jax.lax.scan(step, x, None, length=3)

    assert flops.count(jax.make_jaxpr(lambda x, w: x @ w)(x, w)) == 2 * 4 * 6 * 10
    assert flops.count(jax.make_jaxpr(chain)(x, w)) == 3 * 2 * 4 * 6 * 10
    assert flops.longest_scan(jax.make_jaxpr(chain)(x, w)) == 3
    assert flops.longest_scan(jax.make_jaxpr(lambda x: jnp.searchsorted(x[0], 0.5, method="scan"))(x)) == 1
    assert flops.count(jax.make_jaxpr(jax.jit(jax.grad(lambda w: (x @ w).sum())))(w)) == 2 * 2 * 4 * 6 * 10
    image, kernel = jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 5))

    def convolve(image, kernel):
        return jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    forward = 2 * 2 * 64 * 5 * 27
    assert flops.count(jax.make_jaxpr(convolve)(image, kernel)) == forward
    both = jax.make_jaxpr(jax.grad(lambda i, k: (convolve(i, k) ** 2).sum(), (0, 1)))(image, kernel)
    assert flops.count(both) == 3 * forward
