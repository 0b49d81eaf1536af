"""The variational autoencoder as a method: what its numbers are sums of, and what its options change."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.build import build
from jaxgen.config import section
from jaxgen.errors import UserError
from jaxgen.methods.base import Model

LATENTS = 3


def make(classes=(0, 0), name="vae", **options):
    coders = {
        part: section(name=part, widths=(4,), hidden=(8,), num_classes=count)
        for part, count in zip(("encoder", "decoder"), classes, strict=True)
    }
    given = {"image_shape": (8, 8, 1), "num_classes": 3}
    return build(section(name=name, latents=LATENTS, **coders, **options), "jaxgen.methods", "config.method", **given)


@pytest.fixture(scope="module")
def batch():
    image = np.random.default_rng(0).uniform(-1, 1, (6, 8, 8, 1)).astype(np.float32)
    return {"image": jnp.asarray(image), "label": jnp.arange(6, dtype=jnp.int32) % 3}


def begun(method, batch):
    params, _ = jax.jit(lambda key: method.init(key, batch, 0, {}, {}, {}))(jax.random.key(0))
    return params


def loss(method, params, batch, images=10**6):
    state = SimpleNamespace(memory={}, images=jnp.uint32(images))
    total, (metrics, _) = method.loss(params, batch, jax.random.key(1), state)
    return float(total), {k: float(v) for k, v in metrics.items()}


def test_the_loss_is_the_negative_elbo_and_beta_weighs_the_kl(batch):
    plain, heavy = make(), make(beta=4.0)
    params = begun(plain, batch)
    total, parts = loss(plain, params, batch)
    np.testing.assert_allclose(total, parts["negative_log_likelihood"] + parts["kl"], rtol=1e-5)
    assert parts["negative_log_likelihood"] > 20  # a sum over 64 pixels, about 0.7 each, and no mean
    np.testing.assert_allclose(loss(heavy, params, batch)[0], total + 3 * parts["kl"], rtol=1e-5)


def test_warm_up_and_free_bits(batch):
    plain, warm = make(), make(warmup_images=1000)
    params = begun(plain, batch)
    total, parts = loss(plain, params, batch)
    np.testing.assert_allclose(loss(warm, params, batch, images=0)[0], parts["negative_log_likelihood"], rtol=1e-5)
    half = parts["negative_log_likelihood"] + parts["kl"] / 2
    np.testing.assert_allclose(loss(warm, params, batch, images=500)[0], half, rtol=1e-5)
    free = loss(make(free_bits=50.0), params, batch)[0]  # far above what a fresh encoder spends
    np.testing.assert_allclose(free, parts["negative_log_likelihood"] + 50.0 * LATENTS, rtol=1e-5)


def test_scores_add_up_and_importance_weights_tighten_the_bound(batch):
    method = make(importance_samples=200)
    params = begun(method, batch)
    found = jax.jit(method.scores)(Model(params, {}), jax.random.split(jax.random.key(2), 6), batch)
    np.testing.assert_allclose(found["negative_elbo"], found["negative_log_likelihood"] + found["kl"], rtol=1e-5)
    assert float(found["negative_iwae_200"].mean()) < float(found["negative_elbo"].mean()) + 0.05


def test_images_come_one_by_one_and_labels_reach_them(batch):
    method = make(classes=(3, 3))
    assert method.conditions == ("label",) and make().conditions == ()
    model, keys = Model(begun(method, batch), {}), jax.random.split(jax.random.key(3), 6)
    draw = jax.jit(method.sample)
    whole = draw(model, keys, batch)
    assert whole.shape == (6, 8, 8, 1) and float(jnp.abs(whole).max()) <= 1
    part = draw(model, keys[4:], {"label": batch["label"][4:]})
    np.testing.assert_allclose(part, whole[4:], atol=1e-5)
    assert float(jnp.abs(draw(model, keys, {"label": (batch["label"] + 1) % 3}) - whole).max()) > 1e-4


def test_both_networks_see_labels_or_neither():
    with pytest.raises(UserError, match="both see labels or neither"):
        make(classes=(3, 0))


def test_two_latents_give_a_plane(batch):
    method = build(
        section(name="vae", latents=2, encoder=section(name="encoder"), decoder=section(name="decoder")),
        "jaxgen.methods", "config.method", image_shape=(28, 28, 1), num_classes=0,
    )  # fmt: skip
    shapes = jax.eval_shape(
        lambda key: method.panels(Model(method.init(key, {"image": jnp.zeros((1, 28, 28, 1))}, 0, {}, {}, {})[0], {}),
                                  jax.random.split(key, 2), {}),
        jax.random.key(0),
    )  # fmt: skip
    assert shapes["manifold"].shape == (256, 28, 28, 1) and shapes["traversal"].shape == (16, 28, 28, 1)


def test_the_plain_autoencoder_has_no_samples_and_sums_its_error(batch):
    method = make(name="autoencoder")
    params = begun(method, batch)
    found = method.scores(Model(params, {}), None, batch)["squared_error"]
    assert not method.samples_images
    np.testing.assert_allclose(float(found.mean()) / 64, loss(method, params, batch)[0], rtol=1e-5)
