"""The variational autoencoder as a method: what its numbers are sums of, and what its options change."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from jaxgen.build import build
from jaxgen.config import defaults, section
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.networks.encoder import Encoder
from jaxgen.runs.setup import make_method
from jaxgen.sampling.generator import Generator

Z_DIM, NOISE = 3, 0.7


def make(classes=(0, 0), name="vae", **options):
    coders = {
        part: section(name=part, widths=(), hidden=(8,), num_classes=count)
        for part, count in zip(("encoder", "decoder"), classes, strict=True)
    }
    given = {"image_shape": (8, 8, 1), "num_classes": 3}
    return build(section(name=name, z_dim=Z_DIM, **coders, **options), "method", "config.method", **given)


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
    np.testing.assert_allclose(free, parts["negative_log_likelihood"] + 50.0 * Z_DIM, rtol=1e-5)


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


def linear(samples=1, importance_samples=0):
    """A VAE of single linear layers with the exact posterior of x = W z + NOISE e, and log p(x) of eight images."""
    method = build(
        section(
            name="vae", z_dim=Z_DIM, samples=samples, importance_samples=importance_samples,
            likelihood=section(name="gaussian", std=NOISE),
            encoder=section(name="encoder", widths=(), hidden=()),
            decoder=section(name="decoder", widths=(), hidden=()),
        ),
        "method", "config.method", image_shape=(2, 3, 1), num_classes=0,
    )  # fmt: skip
    chance = np.random.default_rng(0)
    weights = np.linalg.qr(chance.normal(size=(6, Z_DIM)))[0] * [1.5, 1.0, 0.4]  # a diagonal posterior
    variance = 1 / (1 + (weights**2).sum(axis=0) / NOISE**2)
    x = chance.normal(size=(8, Z_DIM)) @ weights.T + NOISE * chance.normal(size=(8, 6))
    exact = multivariate_normal(np.zeros(6), weights @ weights.T + NOISE**2 * np.eye(6)).logpdf(x)
    means = np.concatenate([weights * variance / NOISE**2, np.zeros((6, Z_DIM))], axis=1)
    encoder = {"out": {"kernel": means, "bias": np.concatenate([np.zeros(Z_DIM), np.log(variance)])}}
    decoder = {"out": {"kernel": weights.T, "bias": np.zeros(6)}}
    params = jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), {"encoder": encoder, "decoder": decoder})
    batch = {"image": jnp.asarray(x.reshape(8, 2, 3, 1), jnp.float32)}
    shapes = jax.eval_shape(lambda: method.init(jax.random.key(0), batch, 0, {}, {}, {})[0])
    assert jax.tree.map(lambda v: v.shape, shapes) == jax.tree.map(lambda v: v.shape, params)
    return method, params, batch, exact


def test_of_a_linear_model_the_scores_are_its_exact_likelihood():
    method, params, batch, exact = linear(importance_samples=20)
    keys = jax.random.split(jax.random.key(4), 8)
    found = jax.jit(method.scores)(Model(params, {}), keys, batch)
    np.testing.assert_allclose(-found["negative_iwae_20"], exact, atol=1e-3)  # with the true posterior, any k is exact
    single = jax.jit(jax.vmap(lambda key: method.scores(Model(params, {}), jax.random.split(key, 8), batch)))
    many = single(jax.random.split(jax.random.key(5), 2000))["negative_elbo"]
    np.testing.assert_allclose(-many.mean(axis=0), exact, atol=0.15)


@pytest.mark.parametrize("samples", [1, 4])
def test_of_a_linear_model_both_losses_are_its_likelihood_and_its_posterior_is_their_optimum(samples):
    method, params, batch, exact = linear(samples=samples)

    def mean_loss(params):
        keys = jax.random.split(jax.random.key(6), 500)
        state = SimpleNamespace(memory={}, images=jnp.uint32(0))
        return jax.vmap(lambda key: method.loss(params, batch, key, state)[0])(keys).mean()

    value, slopes = jax.jit(jax.value_and_grad(mean_loss))(params)
    np.testing.assert_allclose(value, -exact.mean(), atol=0.1 if samples == 1 else 1e-3)
    worse = jax.tree.map(lambda v: v + 0.2, params["encoder"])
    other = jax.jit(jax.grad(mean_loss))({**params, "encoder": worse})
    largest = [float(jnp.abs(g["encoder"]["out"]["bias"]).max()) for g in (slopes, other)]
    assert largest[0] < 0.05 < 0.2 < largest[1]  # nothing pulls the encoder away, and from beside it is pulled back


@pytest.mark.slow
def test_more_samples_tighten_the_bound_that_is_trained(batch):
    params = begun(make(), batch)
    wide = {**params, "encoder": jax.tree.map(lambda v: 3 * v, params["encoder"])}  # a posterior that is far off
    state = SimpleNamespace(memory={}, images=jnp.uint32(0))

    def mean_loss(samples):
        keys = jax.random.split(jax.random.key(7), 30)
        loss = make(samples=samples).loss
        return float(jax.jit(jax.vmap(lambda key: loss(wide, batch, key, state)[0]))(keys).mean())

    assert mean_loss(1) > mean_loss(8) > mean_loss(64)


def test_a_control_and_the_active_latents_are_of_the_whole_set(batch):
    method = make()
    params = begun(method, batch)
    bias = params["encoder"]["out"]["bias"]
    kernel = params["encoder"]["out"]["kernel"].at[:, 1:Z_DIM].set(0)  # only the first mean follows the image
    params["encoder"]["out"] = {"kernel": kernel.at[:, 0].multiply(100), "bias": bias}
    scores = jax.jit(method.scores)
    found = scores(Model(params, {}), jax.random.split(jax.random.key(0), 6), batch)
    numbers = method.summary({name: np.asarray(values) for name, values in found.items()})
    assert numbers["active_latents"] == 1 and "posterior_mean" not in numbers
    assert numbers["squared_error"] == pytest.approx(float(found["squared_error"].mean()))
    assert method.better("active_latents") is None and method.better("negative_elbo") == "lower"
    swapped = {"image": batch["image"][::-1]}
    again = scores(Model(params, {}), jax.random.split(jax.random.key(0), 6), {**batch, **swapped})
    assert not np.allclose(again["squared_error_shuffled"][::-1], found["squared_error_shuffled"])


def test_impossible_numbers_of_samples_are_refused():
    with pytest.raises(UserError, match="at least one sample"):
        make(samples=0)
    with pytest.raises(UserError, match="free_bits to 0"):
        make(samples=2, free_bits=0.1)


@pytest.mark.nightly
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("widths", [(), (4,)])
def test_a_decoder_may_begin_at_the_mean_image(batch, likelihood, widths):
    method = make(start_at_mean=True, likelihood=section(name=likelihood))
    method = dataclasses.replace(method, decoder=method.decoder.clone(widths=widths))
    nowhere = jax.tree.map(jnp.zeros_like, begun(method, batch)["decoder"])
    nowhere["out"]["bias"] = begun(method, batch)["decoder"]["out"]["bias"]  # with no weights, the bias alone
    image = method.likelihood.mean(method.decode({"decoder": nowhere}, jnp.ones((1, Z_DIM))))[0]
    mean = batch["image"].mean(axis=0) if not widths else jnp.full((8, 8, 1), batch["image"].mean())
    np.testing.assert_allclose(image, mean, atol=1e-5)
    plain = begun(dataclasses.replace(method, start_at_mean=False), batch)["decoder"]
    np.testing.assert_array_equal(plain["out"]["kernel"], begun(method, batch)["decoder"]["out"]["kernel"])
    assert not plain["out"]["bias"].any()


def test_a_pixel_that_is_never_white_begins_at_a_finite_logit():
    method = make(start_at_mean=True)
    batch = {"image": jnp.concatenate([-jnp.ones((5, 4, 8, 1)), jnp.ones((5, 4, 8, 1))], axis=1)}
    bias = begun(method, batch)["decoder"]["out"]["bias"]
    np.testing.assert_allclose(np.asarray(bias).reshape(2, 32).T, [[-np.log(999), np.log(999)]] * 32, rtol=1e-4)


def test_images_may_enter_from_zero_to_one(batch):
    plain = Encoder(outputs=3, widths=(), hidden=(8,), activation="tanh")
    params = plain.init(jax.random.key(0), batch["image"])
    found = plain.clone(unit_range=True).apply(params, batch["image"])
    np.testing.assert_allclose(found, plain.apply(params, batch["image"] / 2 + 0.5), atol=1e-6)


def test_two_latents_give_a_plane_and_held_out_images_their_pictures():
    method = build(
        section(name="vae", z_dim=2, encoder=section(name="encoder"), decoder=section(name="decoder")),
        "method", "config.method", image_shape=(28, 28, 1), num_classes=0,
    )  # fmt: skip
    image = jnp.zeros((16, 28, 28, 1))

    def shapes(batch):
        return jax.eval_shape(
            lambda key: method.panels(Model(method.init(key, {"image": image}, 0, {}, {}, {})[0], {}),
                                      jax.random.split(key, 16), batch),
            jax.random.key(0),
        )  # fmt: skip

    assert {name: x.shape[0] for name, x in shapes({}).items()} == {"traversal": 64, "manifold": 256}
    assert method.panel_inputs == ("image",)
    found = {name: x.shape for name, x in shapes({"image": image}).items()}
    assert found["reconstruction"] == (36, 28, 28, 1) and found["interpolation"] == (64, 28, 28, 1)


def test_pictures_show_what_they_say(batch):
    method = make(classes=(3, 3), likelihood=section(name="bernoulli", draw=False))
    params = begun(method, batch)
    found = jax.jit(method.panels)(Model(params, {}), jax.random.split(jax.random.key(3), 6), batch)
    means = jax.jit(method.encode)(params, batch["image"], label=batch["label"]).mean
    draw = jax.jit(lambda z, label: method.likelihood.mean(method.decode(params, z, label=label)))
    rows = np.asarray(found["reconstruction"]).reshape(3, 3, 8, 8, 1)
    np.testing.assert_allclose(rows[0], batch["image"][:3], atol=1e-6)
    np.testing.assert_allclose(rows[1], draw(means, batch["label"])[:3], atol=1e-5)
    np.testing.assert_allclose(rows[2, 1], draw(means[:1], batch["label"][1:2])[0], atol=1e-5)
    ends = np.asarray(found["interpolation"]).reshape(8, 8, 8, 8, 1)[:, [0, -1]]
    np.testing.assert_allclose(ends[:6, 0], draw(means, batch["label"]), atol=1e-5)
    analogies = np.asarray(found["analogies"]).reshape(3, 3, 8, 8, 1)
    np.testing.assert_allclose(analogies[1], draw(means[jnp.array([1, 1, 1])], jnp.arange(3)), atol=1e-5)


@pytest.mark.slow
def test_whole_runs_give_it_held_out_images_where_there_are_any(caplog):
    config = defaults()
    coders = {part: section(name=part, widths=(), hidden=(4,)) for part in ("encoder", "decoder")}
    config.method = section(name="vae", z_dim=2, **coders)
    config.data.update(source="digits", resolution=8, channels=1)
    method = make_method(config)
    params, _ = method.init(jax.random.key(0), {"image": jnp.zeros((1, 8, 8, 1))}, 0, {}, {}, {})
    generator, model = Generator(method, config, batch_size=200), Model(params, {})
    numbers = generator.scores(model, 0, generator.source("test"), limit=300)
    assert 0 <= numbers["active_latents"] <= 2
    assert numbers["negative_elbo"] == pytest.approx(numbers["negative_log_likelihood"] + numbers["kl"], rel=1e-5)
    assert "reconstruction" in generator.panels(model, 0, 16)
    config.data.source = "npz:nowhere.npz"
    caplog.set_level("INFO", logger="jaxgen")
    found = Generator(method, config, batch_size=200).panels(model, 0, 16)
    assert set(found) == {"traversal", "manifold"} and "nowhere.npz" in caplog.text


def test_the_plain_autoencoder_has_no_samples_and_sums_its_error(batch):
    method = make(name="autoencoder")
    params = begun(method, batch)
    found = method.scores(Model(params, {}), None, batch)["squared_error"]
    assert not method.samples_images
    np.testing.assert_allclose(float(found.mean()) / 64, loss(method, params, batch)[0], rtol=1e-5)
    assert method.panels(Model(params, {}), None, {}) == {}
    shown = np.asarray(method.panels(Model(params, {}), None, batch)["reconstruction"]).reshape(3, 3, 8, 8, 1)
    np.testing.assert_array_equal(shown[0], batch["image"][:3])
    inside = np.abs(shown[1]) < 1
    np.testing.assert_allclose((shown[0] + 2 * shown[2])[inside], shown[1][inside], atol=1e-5)
    with pytest.raises(UserError, match="at least one latent"):
        make(name="autoencoder", noise=-1.0)
