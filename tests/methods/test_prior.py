"""unCLIP's prior: it learns embeddings that a text determines, keeps the best candidate, and counts by cosines."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.codecs.embedding import Embedding
from jaxgen.codecs.pixels import Pixels
from jaxgen.conditions.text import Text
from jaxgen.diffusion import schedules
from jaxgen.diffusion.guidance import ClassifierFree
from jaxgen.diffusion.prediction_types import X0
from jaxgen.diffusion.samplers.ddim import DDIM
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.methods.diffusion.ddpm import DDPM
from jaxgen.methods.diffusion.prior import Prior, cosine
from jaxgen.networks.pretrained.clip import TextTower
from jaxgen.networks.pretrained.prior_transformer import PriorTransformer

WIDTH, COUNT = 8, 16
TOWER = TextTower(vocabulary=12, length=4, width=WIDTH, depth=1, heads=2, mlp_features=8, end=1)
NETWORK = PriorTransformer(
    outputs=WIDTH, context_dim=WIDTH, vector_dim=WIDTH, length=4, width=16, depth=1, heads=2, vector_norm=True
)


def make(method=Prior, **options):
    part = Text(TOWER, learns=False, pooled=True, dropout=0.1)
    usual = {
        "codec": Embedding(WIDTH, scale=WIDTH**0.5, unit=True), "prediction_type": X0(), "parts": {"text": part},
        "image_shape": (8, 8, 1),
    }  # fmt: skip
    network = options.pop("network", NETWORK)
    return method(network, schedules.Cosine(), DDIM(steps=4, clip=False, eta=1.0), **{**usual, **options})


def batch():
    """Unit vectors, of which each text has one."""
    chance = np.random.default_rng(0)
    tokens = np.stack([3 + np.arange(COUNT) % 8, 3 + np.arange(COUNT) // 8, np.ones(COUNT), np.zeros(COUNT)], axis=1)
    vectors = chance.normal(size=(COUNT, WIDTH))
    return {
        "image": jnp.zeros((COUNT, 8, 8, 1)),
        "tokens": jnp.asarray(tokens, jnp.int32),
        "embedding": jnp.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), jnp.float32),
    }


@functools.cache
def random():
    """A model whose every weight, also those that start at zero, is random."""
    method, data = make(), batch()

    def begun():
        given, memory = method.untrained(jax.random.key(1), data)
        return {**given, **method.init(jax.random.key(0), data, 0, given, {}, memory)[0]}

    chance = np.random.default_rng(0)
    shapes = jax.eval_shape(begun)
    return Model(jax.tree.map(lambda leaf: chance.normal(size=leaf.shape, scale=0.3).astype(np.float32), shapes), {})


@functools.cache
def trained():
    """A model that has learned the table of texts and vectors."""
    method, data = make(), batch()
    given, memory = method.untrained(jax.random.key(1), data)
    state = SimpleNamespace(memory=memory)
    optimiser = optax.adam(5e-3)

    @jax.jit
    def train(key):
        params, _ = method.init(key, data, 0, given, {}, memory)

        def step(carry, key):
            params, state_of = carry
            slope = jax.grad(lambda params: method.loss({**given, **params}, data, key, state)[0])(params)
            updates, state_of = optimiser.update(slope, state_of)
            return (optax.apply_updates(params, updates), state_of), None

        return jax.lax.scan(step, (params, optimiser.init(params)), jax.random.split(key, 600))[0][0]

    return Model({**given, **train(jax.random.key(0))}, memory)


KEYS = jax.random.split(jax.random.key(5), COUNT)


@functools.cache
def draw(model, **options):
    return np.asarray(jax.jit(make(**options).sample)(model(), KEYS, {"tokens": batch()["tokens"]}))


@pytest.mark.slow
def test_one_candidate_is_what_ddpm_draws():
    one = draw(random, candidates=1)
    np.testing.assert_array_equal(one, draw(random, method=DDPM))
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-5)


def test_more_candidates_are_never_farther_from_the_text():
    text = make().text_embedding(random(), KEYS, batch())
    found = [np.asarray(cosine(draw(random, candidates=count), text)) for count in (1, 3)]
    assert (found[1] >= found[0] - 1e-6).all() and (found[1] > found[0] + 1e-4).any()


@pytest.mark.slow
def test_the_numbers_say_that_texts_were_learned():
    method = make(candidates=1)
    scores = {name: np.asarray(x) for name, x in jax.jit(method.scores)(trained(), KEYS, batch()).items()}
    numbers = method.summary(scores)
    assert scores["prior_distance"].shape == (COUNT,)
    assert numbers["prior_distance"] < 0.2 < 0.6 < numbers["shuffled_distance"]
    assert numbers["prior_over_text"] == pytest.approx(numbers["prior_distance"] / numbers["text_distance"], rel=1e-5)
    known = batch()["embedding"]
    drawn = draw(trained, candidates=1)
    np.testing.assert_allclose(scores["prior_distance"], 1 - np.sum(drawn * known, axis=1), atol=1e-5)
    assert method.better("prior_distance") == "lower" and method.better("shuffled_distance") is None


@pytest.mark.slow
def test_guidance_changes_samples_of_a_text():
    found = draw(random, candidates=1, guidance=ClassifierFree(scale=3.0))
    assert np.abs(found - draw(random, candidates=1)).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"codec": Pixels()}, "diffuses embeddings, and config.method.codec is Pixels: name the codec 'embedding'"),
        ({"parts": {"text": Text(TOWER, learns=False)}}, r"none of config\.method\.parts gives a vector: set"),
        ({"candidates": 0}, "candidates is 0; it is 1 or more"),
    ],
)
def test_what_makes_no_prior_is_refused(options, said):
    with pytest.raises(UserError, match=said):
        make(**options)


def test_embeddings_of_another_width_are_refused():
    method = make(network=NETWORK.clone(outputs=6), codec=Embedding(6))
    with pytest.raises(UserError, match=r"have 8 numbers, while config\.method\.codec\.width is 6: take both from one"):
        jax.eval_shape(method.text_embedding, random(), KEYS, batch())
    with pytest.raises(UserError, match=r"width=6, and the data's entry 'embedding' has the shape \(16, 8\)"):
        jax.eval_shape(lambda: method.loss(random().params, batch(), jax.random.key(0), SimpleNamespace(memory={})))
