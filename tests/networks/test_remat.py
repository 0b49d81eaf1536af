"""Rematerialisation changes what is kept, and nothing else."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from jaxgen.errors import UserError
from jaxgen.networks.dit import DiT
from jaxgen.networks.unet import UNet

DIT = dict(out_channels=1, patch_size=2, width=32, depth=2, heads=2, num_classes=4, dropout=0.3)
LEVEL = dict(channel_multipliers=(1,), blocks=1, attention_levels=(0,), middle_blocks=0, middle_attention=False)
UNET = dict(out_channels=1, channels=8, norm_groups=4, **LEVEL)
CASES = {
    "dit": (DiT, DIT, {"label": jnp.array([1, 4])}),
    "classes": (UNet, {**UNET, "num_classes": 4, "dropout": 0.3}, {"label": jnp.array([1, 4])}),
    "text": (
        UNet,
        {**UNET, "context_dim": 6, "heads": 2},
        {"context": jnp.cos(jnp.arange(60.0)).reshape(2, 5, 6), "context_mask": jnp.arange(5) < jnp.array([[3], [5]])},
    ),
}


def loss(network, params, x, conditions):
    time, rngs = jnp.array([3.0, 500.0]), {"dropout": jax.random.key(5)}
    return (network.apply({"params": params}, x, time, **conditions, train=True, rngs=rngs) ** 2).sum()


@pytest.fixture(scope="module", params=["dit", "classes", pytest.param("text", marks=pytest.mark.slow)])
def start(request):
    make, options, conditions = CASES[request.param]
    x = jnp.sin(jnp.arange(32.0)).reshape(2, 4, 4, 1)
    fresh = jax.eval_shape(make(**options).init, jax.random.key(0), x, jnp.zeros(2), **conditions)["params"]
    params = jax.tree.map(lambda p: 0.3 * jnp.cos(jnp.arange(p.size) + 0.3).reshape(p.shape), fresh)

    def function(policy):
        network = make(**options, remat=policy)
        return network, lambda p: loss(network, p, x, conditions)

    return function, x, conditions, params, ("block",) if request.param == "classes" else ("block", "dots")


def gradients(function, params):
    lowered = jax.jit(jax.value_and_grad(function)).lower(params)
    return lowered.compile(compiler_options={"xla_backend_optimization_level": 0})(params)


@pytest.mark.slow
def test_values_gradients_and_parameters_are_the_same(start):
    function, x, conditions, params, policies = start
    value, plain = gradients(function("")[1], params)
    most = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(plain))
    for policy in policies:
        network, again = function(policy)
        fresh = jax.eval_shape(network.init, jax.random.key(0), x, jnp.zeros(2), **conditions)["params"]
        assert jax.tree.structure(fresh) == jax.tree.structure(params)
        same, found = gradients(again, params)
        assert float(value) == pytest.approx(float(same), rel=1e-6)
        gaps = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()) / most, plain, found)
        assert max(jax.tree.leaves(gaps)) < 1e-6


@pytest.mark.nightly
def test_fewer_values_are_kept_for_the_backward_pass(start):
    function, *_, params, _ = start

    def kept(policy):
        backward = jax.eval_shape(lambda p: jax.vjp(function(policy)[1], p)[1], params)
        return sum(leaf.size for leaf in jax.tree.leaves(backward))

    assert kept("block") < kept("dots") < kept("")


def test_an_unknown_policy_is_refused(start):
    function, *_, params, _ = start
    with pytest.raises(UserError, match=r"remat='blocks' is unknown; did you mean 'block'\?"):
        function("blocks")[1](params)
