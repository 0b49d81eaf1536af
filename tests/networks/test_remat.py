"""Rematerialisation changes what is kept, and nothing else."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from jaxgen.errors import UserError
from jaxgen.networks.dit import DiT

OPTIONS = dict(out_channels=1, patch_size=2, width=32, depth=3, heads=2, num_classes=4, dropout=0.3)


def loss(network, params, x):
    time, label = jnp.array([3.0, 500.0]), jnp.array([1, 4])
    rngs = {"dropout": jax.random.key(5)}
    return (network.apply({"params": params}, x, time, label, train=True, rngs=rngs) ** 2).sum()


@pytest.fixture(scope="module")
def start():
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
    params = DiT(**OPTIONS).init(jax.random.key(0), x, jnp.zeros(2), jnp.zeros(2, jnp.int32))["params"]
    noise = jax.random.normal(jax.random.key(2), (1,))
    # away from the zeros that a fresh network begins with
    return x, jax.tree.map(lambda p: p + 0.05 * jnp.cos(jnp.arange(p.size) + noise).reshape(p.shape), params)


@pytest.mark.parametrize("policy", ["block", "dots"])
def test_values_gradients_and_parameters_are_the_same(start, policy):
    x, params = start
    again = DiT(**OPTIONS, remat=policy)
    fresh = again.init(jax.random.key(0), x, jnp.zeros(2), jnp.zeros(2, jnp.int32))["params"]
    assert jax.tree.structure(fresh) == jax.tree.structure(params)
    one, two = (jax.jit(jax.value_and_grad(lambda p, n=n: loss(n, p, x)))(params) for n in (DiT(**OPTIONS), again))
    assert float(one[0]) == pytest.approx(float(two[0]), rel=1e-6)
    gaps = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max() / (1e-3 + jnp.abs(a).max())), one[1], two[1])
    assert max(jax.tree.leaves(gaps)) < 1e-4


def test_fewer_values_are_kept_for_the_backward_pass(start):
    x, params = start

    def kept(policy):
        _, backward = jax.vjp(lambda p: loss(DiT(**OPTIONS, remat=policy), p, x), params)
        return sum(leaf.size for leaf in jax.tree.leaves(backward))

    assert kept("block") < kept("dots") < kept("")


def test_an_unknown_policy_is_refused(start):
    x, params = start
    with pytest.raises(UserError, match=r"remat='blocks' is unknown; did you mean 'block'\?"):
        loss(DiT(**OPTIONS, remat="blocks"), params, x)
