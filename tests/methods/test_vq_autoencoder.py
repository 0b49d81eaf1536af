"""The discrete autoencoder: what learns of what, what it carries, and what it writes for a second stage."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.build import build
from jaxgen.config import section
from jaxgen.errors import UserError
from jaxgen.methods.base import Model

KEY = jax.random.key(1)


def make(**options):
    network = section(
        name="autoencoder_vq", out_channels=1, channels=4, channel_multipliers=(1, 1), blocks=1, latent_channels=2,
        codes=6, middle_attention=False, norm_groups=2,
    )  # fmt: skip
    given = {"image_shape": (8, 8, 1), "num_classes": 10}
    return build(section(name="vq_autoencoder", network=network, **options), "method", "config.method", **given)


def batch():
    return {"image": jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (6, 8, 8, 1)), jnp.float32)}


@functools.cache
def begun():
    method = make()
    params, memory = jax.jit(lambda key: method.init(key, batch(), 0, {}, {}, {}))(jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    random = np.random.default_rng(0)  # what starts at zero is to have a say
    params = jax.tree.unflatten(tree, [x + 0.1 * random.normal(size=x.shape).astype(np.float32) for x in leaves])
    return params, memory


@pytest.mark.slow
def test_the_reconstruction_teaches_the_encoder_through_the_codes():
    method, (params, memory) = make(), begun()
    state = SimpleNamespace(memory=memory)
    loss = jax.value_and_grad(lambda p: method.autoencoder_loss(p, batch(), KEY, state, False), has_aux=True)
    (total, (metrics, carried)), gradient = jax.jit(loss)(params)
    np.testing.assert_allclose(total, 64 * (metrics["l1"] + 0.25 * metrics["commitment"]), rtol=1e-5)
    # the mean of a quarter of |z - e|^2 has a slope of its own: that of the reconstruction is beside it
    of_penalty = jax.jit(jax.grad(lambda p: method.bottleneck(p, memory["autoencoder"], batch()["image"], KEY).penalty))
    own, group = of_penalty(params["autoencoder"]), gradient["autoencoder"]
    gap = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), group["encoder"], own["encoder"])
    assert max(jax.tree.leaves(gap)) > 1e-2
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(own["encoder"])) > 1e-2
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(own["decoder"])) == 0
    assert set(carried) == {"autoencoder"} and set(carried["autoencoder"]) == {"codes", "count", "total"}
    moved = np.abs(np.asarray(carried["autoencoder"]["codes"] - memory["autoencoder"]["codes"])).max()
    assert 0 < moved < 10 and 1 <= float(metrics["perplexity"]) <= 6


@pytest.mark.nightly
def test_scores_are_of_hard_codes_and_the_perplexity_of_the_whole_set():
    method, model = make(), Model(*begun())
    scores = {name: np.asarray(x) for name, x in jax.jit(method.scores)(model, None, batch()).items()}
    codes = np.asarray(jax.jit(method.encode_images)(model, batch()["image"]))
    assert codes.shape == (6, 4, 4) and codes.dtype == np.int32
    again = method.decode(model.params, model.memory["autoencoder"]["codes"][codes])
    gap = np.abs(np.clip(again, -1, 1) - batch()["image"])
    np.testing.assert_allclose(scores["l1"], gap.mean((1, 2, 3)), rtol=1e-4)
    numbers = method.summary(scores)
    shares = np.bincount(codes.reshape(-1), minlength=6) / codes.size
    there = shares[shares > 0]
    np.testing.assert_allclose(numbers["perplexity"], np.exp(-(there * np.log(there)).sum()), rtol=1e-5)
    assert numbers["codes_used"] == len(there) and method.better("perplexity") == "higher"


@pytest.mark.parametrize("options", [{"kept": 1.0}, {"revive_below": 1.5}, {"commitment": -1.0}])
def test_mistaken_options_are_named(options):
    with pytest.raises(UserError, match=next(iter(options))):
        make(**options)
