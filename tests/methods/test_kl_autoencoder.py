"""The first stage of latent diffusion: what its loss is made of, who learns when, and what it measures."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.build import build
from jaxgen.codecs.latents import scale_of
from jaxgen.config import section
from jaxgen.errors import UserError
from jaxgen.methods.autoencoders.first_stage import with_gradient
from jaxgen.methods.autoencoders.kl_autoencoder import KLAutoencoder
from jaxgen.methods.base import Model
from jaxgen.metrics.networks.digits import Digits
from jaxgen.networks.layers.stateful import apply_stateful

VALUES = 64
KEY = jax.random.key(1)


def make(discriminator=True, perceptual=False, **options):
    parts = {
        "network": section(
            name="autoencoder_kl", out_channels=1, channels=4, channel_multipliers=(1, 1), blocks=1, latent_channels=2,
            middle_attention=False, norm_groups=2,
        ),
    }  # fmt: skip
    if discriminator:
        parts["discriminator"] = section(name="patch_discriminator", width=4, layers=1)
    if perceptual:
        parts["perceptual"] = section(name="classifier", widths=(12, 16, 16), features=32)
    given = {"image_shape": (8, 8, 1), "num_classes": 10}
    return build(section(name="kl_autoencoder", **parts, **options), "method", "config.method", **given)


def batch(seed=0):
    image = np.random.default_rng(seed).uniform(-1, 1, (6, 8, 8, 1)).astype(np.float32)
    return {"image": jnp.asarray(image)}


@functools.cache
def begun(learn_log_variance=False):
    method = make(learn_log_variance=learn_log_variance)
    init = jax.jit(lambda key: method.init(key, batch(), 1, {}, {}, {}))
    params, memory = init(jax.random.key(0))
    leaves, tree = jax.tree.flatten(params["autoencoder"])
    random = np.random.default_rng(0)  # what starts at zero is to have a say
    leaves = [x + 0.05 * random.normal(size=x.shape).astype(np.float32) for x in leaves]
    return {**params, "autoencoder": jax.tree.unflatten(tree, leaves), "perceptual": Digits().weights()}, memory


def losses(method, params, memory):
    """The loss, its metrics and its slopes in the group `autoencoder`."""
    state = SimpleNamespace(memory=memory)

    @jax.jit
    def both(group):
        loss = lambda g: method.autoencoder_loss({**params, "autoencoder": g}, batch(), KEY, state)  # noqa: E731
        return jax.value_and_grad(loss, has_aux=True)(group)

    (total, (metrics, _)), slopes = both(params["autoencoder"])
    return float(total), {k: float(v) for k, v in metrics.items()}, slopes


def value(method, params, memory, game=True):
    """The metrics, the loss among them as `loss`."""
    state = SimpleNamespace(memory=memory)
    loss = jax.jit(lambda params: method.autoencoder_loss(params, batch(), KEY, state, game))
    total, (metrics, _) = loss(params)
    return {name: float(x) for name, x in metrics.items()} | {"loss": float(total)}


def parts(method, params, memory):
    """The terms as functions of the group `autoencoder`, written out plainly."""

    def image_of(group):
        found = method.encode({"autoencoder": group}, batch()["image"])
        return method.decode({"autoencoder": group}, found.at(jax.random.normal(KEY, found.mean.shape)))

    def reconstruction(group):
        return jnp.abs(image_of(group) - batch()["image"]).sum() / 6

    def game(group):
        logits = apply_stateful(
            method.discriminator, params["discriminator"], memory["discriminator"], image_of(group), train=True
        )[0]["logits"]
        return -logits.mean()

    def kl(group):
        return method.encode({"autoencoder": group}, batch()["image"]).kl().sum() / 6

    return reconstruction, game, kl


@pytest.mark.slow
def test_the_adaptive_weight_is_the_ratio_of_gradients_at_the_last_layer():
    method = make(adversarial_weight=0.3, kl_weight=0.01)
    params, memory = begun()
    terms = parts(method, params, memory)
    slopes = jax.jit(lambda group: [jax.grad(term)(group) for term in terms])(params["autoencoder"])
    norms = [np.linalg.norm(slope["decoder"]["conv_out"]["kernel"]) for slope in slopes]
    expected = 0.3 * norms[0] / (norms[1] + 1e-4)
    total, metrics, gradients = losses(method, params, memory)
    np.testing.assert_allclose(metrics["weight"], expected, rtol=1e-4)

    values = [float(term(params["autoencoder"])) for term in terms]
    np.testing.assert_allclose(total, values[0] + expected * values[1] + 0.01 * values[2], rtol=1e-4)
    np.testing.assert_allclose(metrics["l1"] * VALUES, values[0], rtol=1e-5)
    # no gradient flows through the weight itself
    whole = jax.tree.map(lambda a, b, c: a + expected * b + 0.01 * c, *slopes)
    scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(whole))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4 * scale), gradients, whole)


@pytest.mark.slow
def test_the_weight_is_cut_or_constant():
    params, memory = begun()
    assert value(make(), params, memory)["weight"] > 0.02
    np.testing.assert_allclose(value(make(adaptive_limit=0.01), params, memory)["weight"], 0.5 * 0.01, rtol=1e-5)
    constant = make(adaptive_limit=0.0, adversarial_weight=0.7)
    np.testing.assert_allclose(value(constant, params, memory)["weight"], 0.7, rtol=1e-6)


def test_without_a_game_the_discriminator_has_no_say():
    params, memory = begun()
    found = value(make(), params, memory, game=False)
    assert "weight" not in found
    np.testing.assert_allclose(found["loss"], VALUES * found["l1"] + 1e-6 * found["kl"], rtol=1e-5)
    assert make(discriminator=False).stages == ((0, 0),)
    assert [t.name for t in make(discriminator=False).turns(0)] == ["autoencoder"]


def test_the_perceptual_distance_is_counted_for_every_value():
    params, memory = begun()
    found = value(make(perceptual=True, perceptual_weight=3.0), params, memory, game=False)
    expected = VALUES * (found["l1"] + 3 * found["feature_distance"]) + 1e-6 * found["kl"]
    np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)
    assert found["feature_distance"] > 0
    assert make(perceptual=True).required_groups == ("perceptual",) and make().required_groups == ()


@pytest.mark.slow
def test_the_learned_log_variance_settles_at_the_mean_error():
    """r / exp(s) + n s is least at exp(s) = r / n."""
    method = make(learn_log_variance=True)
    params, memory = begun(True)
    state = SimpleNamespace(memory=memory)

    @jax.jit
    def slope(s):
        def loss(s):
            settled = {**params, "log_variance": {"value": s}}
            return method.autoencoder_loss(settled, batch(), KEY, state, game=False)

        return jax.grad(loss, has_aux=True)(s)

    start, (metrics, _) = slope(jnp.zeros(()))
    assert start > 1 and abs(slope(jnp.log(metrics["l1"]))[0]) < 1e-3
    assert method.turns(0)[0].groups == ("autoencoder", "log_variance")


def test_the_discriminator_begins_at_its_stage_and_the_rest_goes_on():
    method = make(adversarial_start=1000)
    assert method.stages == ((0, 0), (1000, 1)) and make().stages == ((0, 1),)
    assert [t.name for t in method.turns(0)] == ["autoencoder"]
    assert [t.name for t in method.turns(1)] == ["autoencoder", "discriminator"]
    params, memory = begun()
    first, memory = {"autoencoder": params["autoencoder"]}, {"autoencoder": memory["autoencoder"]}
    assert set(jax.eval_shape(lambda: method.init(KEY, batch(), 0, {}, {}, {}))[0]) == {"autoencoder"}
    then, carried = method.init(KEY, batch(), 1, {}, first, memory)
    assert set(then) == {"autoencoder", "discriminator"} == set(carried)
    assert then["autoencoder"] is first["autoencoder"] and carried["autoencoder"] is memory["autoencoder"]
    given = {"discriminator": jax.tree.map(lambda x: x + 1, then["discriminator"])}
    again, _ = method.init(KEY, batch(), 1, given, first, memory)
    assert again["discriminator"] is given["discriminator"]


def test_the_discriminators_turn_is_its_own():
    method = make()
    params, memory = begun()
    state = SimpleNamespace(memory=memory)
    loss = jax.value_and_grad(lambda params: method.discriminator_loss(params, batch(), KEY, state), has_aux=True)
    (total, (_, changed)), slopes = jax.jit(loss)(params)
    assert set(changed) == {"discriminator"} and 0 < float(total) < 10
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(slopes["discriminator"])) > 0
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(slopes["autoencoder"])) == 0
    gaps = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), changed["discriminator"], memory["discriminator"])
    assert max(jax.tree.leaves(gaps)) > 0


def test_scale_is_one_over_the_standard_deviation_of_latents():
    random = np.random.default_rng(0)
    moments = {name: jnp.zeros(()) for name in ("weight", "mean", "square")}
    for _ in range(50):
        latents = jnp.asarray(3 + 2 * random.normal(size=(40, 4, 4, 2)), jnp.float32)
        moments = KLAutoencoder.updated_moments(moments, latents)
    np.testing.assert_allclose(scale_of(moments), 1 / 2, rtol=0.01)
    first = jnp.asarray(random.normal(size=(40, 4, 4, 2)), jnp.float32)
    empty = {name: jnp.zeros(()) for name in moments}
    np.testing.assert_allclose(scale_of(KLAutoencoder.updated_moments(empty, first)), 1 / first.std(), rtol=1e-4)


def test_scores_and_pictures_are_of_the_posteriors_mean():
    method = make(perceptual=True)
    params, memory = begun()
    model = Model(params, memory)
    found = jax.jit(method.scores)(model, None, batch())
    picture = jax.jit(method.panels)(model, None, batch())["reconstructions"]
    assert picture.shape == (6, 8, 16, 1)
    left, right = np.split(np.asarray(picture), 2, axis=2)
    np.testing.assert_array_equal(left, batch()["image"])
    np.testing.assert_allclose(found["l1"], np.abs(left - right).mean((1, 2, 3)), rtol=1e-4)
    mse = np.square((left - right) * 127.5).mean((1, 2, 3))
    np.testing.assert_allclose(found["psnr"], 20 * np.log10(255) - 10 * np.log10(mse), rtol=1e-4)
    assert set(found) == {"l1", "psnr", "kl", "feature_distance"} and (found["kl"] > 0).all()
    assert method.panel_inputs == ("image",) and not method.samples_images
    assert [method.better(name) for name in ("l1", "psnr", "kl")] == ["lower", "higher", None]


def test_with_gradient_has_the_value_and_the_slope_that_it_is_given():
    x, slope = jnp.array([1.0, -2.0]), jnp.array([3.0, 5.0])
    value, found = jax.value_and_grad(lambda x: with_gradient(x, jnp.float32(7), slope))(x)
    assert value == 7
    np.testing.assert_array_equal(found, slope)


def test_mistakes_are_named():
    with pytest.raises(UserError, match="last_layer"):
        method = make(last_layer="decoder/nowhere/kernel")
        jax.eval_shape(lambda: method.init(KEY, batch(), 0, {}, {}, {}))
    with pytest.raises(UserError, match="kl_weight is -1"):
        make(kl_weight=-1.0)
