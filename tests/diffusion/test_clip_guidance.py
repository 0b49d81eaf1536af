"""CLIP guidance: with an exact similarity it is Bayes' rule; towers are asked of the noisy or the predicted image."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mixture import MEANS, STDS, WEIGHTS
from mixture import denoiser as exact

from jaxgen.build import build
from jaxgen.conditions.text import Text
from jaxgen.diffusion import guidance, schedules
from jaxgen.diffusion.guidance import GuidanceInputs
from jaxgen.diffusion.prediction import Prediction
from jaxgen.diffusion.prediction_types import X0
from jaxgen.diffusion.samplers.ddim import DDIM
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.methods.diffusion.ddpm import DDPM
from jaxgen.networks.pretrained.clip import TextTower
from jaxgen.networks.unet import UNet

SCHEDULE = schedules.Cosine()
ALL, WANTED = exact(SCHEDULE, MEANS, STDS, WEIGHTS), exact(SCHEDULE, MEANS[2:], STDS[2:], WEIGHTS[2:])
TEXT = TextTower(vocabulary=9, length=4, width=8, depth=1, heads=2, mlp_features=8, end=1)
COUNT, SHAPE = 2, (8, 8, 3)
KEYS = jax.random.split(jax.random.key(3), COUNT)
TOKENS = jnp.asarray([[3, 4, 1, 0], [5, 1, 0, 0]])


class Tower(nn.Module):
    """An image tower that is told the time, and depends on it."""

    features: int = 8
    sees_time = True

    @nn.compact
    def __call__(self, images, time):
        h = nn.Dense(self.features, name="in")(images.reshape(len(images), -1))
        return None, nn.Dense(self.features, name="out")(jnp.tanh(h) * jnp.cos(time / 300)[:, None])


class CleanTower(nn.Module):
    """An image tower of clean images, which gives its embedding alone."""

    @nn.compact
    def __call__(self, images):
        return nn.Dense(8)(jnp.tanh(nn.Dense(8)(images.reshape(len(images), -1))))


CLEAN = CleanTower()
TOWERS = {"image": Tower(), "text": TEXT}
TWICE = guidance.CLIP(**TOWERS, scale=2.0)


def log_p(x, t):
    """log p(component 2 | x_t), the exact similarity to a text that asks for this component."""
    t = jnp.broadcast_to(jnp.asarray(t), x.shape[:1])
    alpha, sigma = SCHEDULE.alpha(t)[:, None], SCHEDULE.sigma(t)[:, None]
    variance = alpha**2 * STDS**2 + sigma**2
    square = jnp.square(x[:, None] - alpha[..., None] * MEANS).sum(-1)
    joint = jnp.log(WEIGHTS) - jnp.log(variance) - square / 2 / variance
    return jax.nn.log_softmax(joint)[:, 2]


@pytest.mark.slow
def test_with_the_exact_similarity_at_scale_one_it_is_the_conditional_model():
    inputs = GuidanceInputs(lambda x, t: ALL(x, t), {}, similarity=log_p)
    x = jax.random.normal(jax.random.key(0), (6, 2))
    for t in (0.1, 0.5, 0.9):
        found = jax.jit(lambda x, t: guidance.CLIP(**TOWERS)(inputs)(x, t).epsilon)(x, jnp.full(6, t))
        np.testing.assert_allclose(found, WANTED(x, jnp.full(6, t)).epsilon, atol=1e-4)


@pytest.mark.slow
def test_of_the_predicted_image_the_gradient_goes_through_the_denoiser():
    """x0 = tanh(x) here; by differences in float64."""

    def denoise(x, t):
        return Prediction(jnp.tanh(x), x, jnp.broadcast_to(t, x.shape[:1]), SCHEDULE, X0())

    def similarity(x, t):
        return jnp.sin(3 * x).sum(1)

    with jax.enable_x64(True):
        x, t, step = jax.random.normal(jax.random.key(1), (3, 2), jnp.float64), jnp.float64(0.4), 1e-6
        guide = guidance.UniversalCLIP(**TOWERS, scale=0.5)
        found = guide(GuidanceInputs(denoise, {}, similarity=similarity))(x, t)
        slope = [
            (similarity(jnp.tanh(x + d), t) - similarity(jnp.tanh(x - d), t)) / (2 * step)
            for d in step * jnp.eye(2, dtype=jnp.float64)
        ]
        wanted = denoise(x, t).epsilon - 0.5 * SCHEDULE.sigma(t) * jnp.stack(slope, axis=1)
        np.testing.assert_allclose(found.epsilon, wanted, atol=1e-6)


class Plain(nn.Module):
    """A network of a model that is told nothing but the time."""

    @nn.compact
    def __call__(self, x, time, train=False):
        return jnp.tanh(nn.Dense(3)(nn.tanh(nn.Dense(4)(x))) * jnp.cos(time / 300)[:, None, None, None])


def method(guide, network=None, **options):
    return DDPM(network or Plain(), SCHEDULE, DDIM(steps=2), SHAPE, guidance=guide, prediction_type=X0(), **options)


@pytest.fixture(scope="module")
def params():
    """The weights of the model, which no text reaches, and of a CLIP."""
    plain = method(None)
    learned, _ = plain.init(jax.random.key(0), {"image": jnp.zeros((COUNT, *SHAPE))}, 0, {}, {}, {})
    given, _ = method(guidance.CLIP(**TOWERS)).untrained(jax.random.key(1), {"image": jnp.zeros((COUNT, *SHAPE))})
    given["clip_scale"] = {"logit_scale": jnp.float32(np.log(5))}
    leaves, tree = jax.tree.flatten(learned)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    drawn = [0.2 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return {**jax.tree.unflatten(tree, drawn), **given}


@functools.cache
def program(guide):
    x, t = jax.random.normal(jax.random.key(4), (COUNT, *SHAPE)), jnp.full(COUNT, 0.4)
    return jax.jit(lambda params, tokens: method(guide).guided(Model(params, {}), {"tokens": tokens}, KEYS)(x, t))


def predicted(guide, params, tokens=TOKENS):
    return program(guide)(params, tokens)


@pytest.mark.nightly
def test_epsilon_loses_sigma_times_the_gradient_of_the_similarity_over_the_temperature(params):
    x, t = jax.random.normal(jax.random.key(4), (COUNT, *SHAPE)), jnp.full(COUNT, 0.4)

    def cosine(x):
        image = Tower().apply({"params": params["clip_image"]}, x, SCHEDULE.conditioning(t))[1]
        text = TEXT.apply({"params": params["clip_text"]}, TOKENS)[1]
        return (image * text).sum(1) / jnp.linalg.norm(image, axis=1) / jnp.linalg.norm(text, axis=1)

    slope = jax.jit(jax.grad(lambda x: cosine(x).sum()))(x)
    plain, guided = (predicted(guide, params).epsilon for guide in (guidance.Unguided(), TWICE))
    np.testing.assert_allclose(guided, plain - SCHEDULE.sigma(0.4) * 2 * 5 * slope, atol=1e-5)
    assert np.abs(guided - plain).max() > 1e-3
    # a temperature below 1/100 counts as 1/100
    cold = {**params, "clip_scale": {"logit_scale": jnp.float32(9)}}
    found = predicted(TWICE, cold).epsilon
    np.testing.assert_allclose(found, plain - SCHEDULE.sigma(0.4) * 2 * 100 * slope, atol=1e-4)


def test_the_wanted_text_and_no_other_image_of_the_batch_decides(params):
    one, other = (predicted(TWICE, params, tokens).x0 for tokens in (TOKENS, TOKENS.at[1].set(TOKENS[1] + 2)))
    np.testing.assert_array_equal(one[0], other[0])
    assert np.abs(one[1] - other[1]).max() > 1e-3


def test_a_clean_tower_sees_the_noisy_image_or_the_predicted_one(params):
    own = CLEAN.init(jax.random.key(5), jnp.zeros((1, *SHAPE)))["params"]
    given = {**params, "clip_image": own}
    plain = predicted(guidance.Unguided(), given)
    guides = [of(image=CLEAN, text=TEXT, scale=2.0) for of in (guidance.CLIP, guidance.UniversalCLIP)]
    found = [predicted(guide, given).x0 for guide in guides]
    assert np.abs(found[0] - plain.x0).max() > 1e-4 and np.abs(found[0] - found[1]).max() > 1e-4


def test_a_model_without_texts_of_its_own_is_asked_for_them_by_its_guidance():
    asked = method(guidance.CLIP(**TOWERS))
    assert asked.conditions == ("tokens",) and not asked.ignored
    assert asked.required_groups == ("clip_image", "clip_text", "clip_scale")
    assert asked.entries["tokens"] == ((4,), np.int32) and asked.limits["tokens"] == 9
    silent = method(guidance.CLIP(**TOWERS, scale=0.0))
    assert "scale 0" in silent.ignored["tokens"]
    both = method(guidance.Compose(first=guidance.CLIP(**TOWERS), then=guidance.Unguided(threshold=0.9)))
    assert both.required_groups == asked.required_groups and both.conditions == ("tokens",)


def test_it_is_built_from_a_config():
    towers = {"image": {"name": "image_tower", "size": 8}, "text": {"name": "text_tower", "length": 4}}
    for name, kind in (("clip", guidance.CLIP), ("universal_clip", guidance.UniversalCLIP)):
        built = build({"name": name, "scale": 3.0, **towers}, "guidance", "config.guidance")
        assert isinstance(built, kind) and built.scale == 3.0 and built.image.size == 8
    with pytest.raises(UserError, match="config.guidance.*image"):
        build({"name": "clip", "text": towers["text"]}, "guidance", "config.guidance")


def test_what_does_not_fit_is_named(params):
    with pytest.raises(UserError, match="CLIP guidance needs the similarity"):
        guidance.CLIP(**TOWERS)(GuidanceInputs(ALL, {}))
    wide = {**params, "clip_image": Tower(12).init(jax.random.key(0), jnp.zeros((1, *SHAPE)), jnp.zeros(1))["params"]}
    with pytest.raises(UserError, match="gives embeddings of 12 numbers and config.guidance.text of 8"):
        predicted(guidance.CLIP(image=Tower(12), text=TEXT), wide)
    text = Text(TextTower(vocabulary=9, length=5, width=8, depth=1, heads=2, mlp_features=8))
    with pytest.raises(UserError, match="guidance.text has the length 4, .*config.method.parts.text.network is 5"):
        method(guidance.CLIP(**TOWERS), UNet(3, 8, context_dim=8), parts={"text": text})
