"""Hooks on modules inside a network: they see what the modules compute, and change nothing else."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.networks.hooks import after, inner


class Pair(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3, name="second")(nn.relu(nn.Dense(4, name="first")(x)))


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        return Pair(name="pair_1")(Pair(name="pair_0")(x))


X = jax.random.normal(jax.random.key(1), (5, 3))


@pytest.fixture(scope="module")
def params():
    return Net().init(jax.random.key(0), X)["params"]


def test_what_a_module_computed_is_what_its_weights_give(params):
    first = params["pair_0"]["first"]
    found = inner(Net(), params, ("pair_0/first", "pair_0"), X)
    np.testing.assert_allclose(found["pair_0/first"], X @ first["kernel"] + first["bias"], rtol=1e-5)
    np.testing.assert_allclose(found["pair_0"], Pair().apply({"params": params["pair_0"]}, X), rtol=1e-6)


def test_a_hook_on_a_linear_layer_is_an_update_of_its_weights(params):
    a, b = jax.random.normal(jax.random.key(2), (4, 2)), jax.random.normal(jax.random.key(3), (2, 3))

    def hooked(a, b):
        with after({"pair_0/second": lambda y, x: y + x @ a @ b}):
            return Net().apply({"params": params}, X)

    second = {**params["pair_0"]["second"], "kernel": params["pair_0"]["second"]["kernel"] + a @ b}
    changed = {**params, "pair_0": {**params["pair_0"], "second": second}}
    np.testing.assert_allclose(jax.jit(hooked)(a, b), Net().apply({"params": changed}, X), rtol=1e-5)
    gradient = jax.grad(lambda b: jnp.square(hooked(a, b)).sum())(b)
    assert np.abs(gradient).max() > 0
    assert not np.allclose(Net().apply({"params": params}, X), hooked(a, b))  # the block's end takes the hook away


def test_a_path_that_names_no_module_is_refused(params):
    with pytest.raises(UserError, match="no module 'pair_0/fist'; did you mean 'pair_0/first'"):
        inner(Net(), params, ("pair_0/fist",), X)
