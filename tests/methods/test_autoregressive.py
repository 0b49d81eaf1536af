"""The autoregressive transformer: what is likely, what is drawn, and what its loss counts."""

from __future__ import annotations

import functools
import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from jaxgen.build import build
from jaxgen.config import section
from jaxgen.diffusion.guidance.contrast import ClassifierFree
from jaxgen.errors import UserError
from jaxgen.methods.autoregressive.token_sampler import TokenSampler
from jaxgen.methods.base import Model

SHAPE, CODES, WORDS, LENGTH = (4, 4, 1), 5, 7, 3
TOKENS = jnp.array([[3, 4, 1], [5, 1, 0], [6, 1, 0], [1, 0, 0]], jnp.int32)


def make(image_shape=SHAPE, sampler=None, guidance=None, **options):
    parts = {
        "network": section(name="causal_transformer", width=12, depth=1, heads=2),
        "autoencoder": section(
            name="autoencoder_vq", out_channels=1, channels=4, channel_multipliers=(1, 1), blocks=1, latent_channels=2,
            codes=CODES, middle_attention=False, norm_groups=2,
        ),
    }  # fmt: skip
    given = {"image_shape": image_shape, "guidance": guidance, "sampler": sampler or TokenSampler()}
    options = {"vocabulary": WORDS, "length": LENGTH, "text_dropout": 0.5} | options
    return build(section(name="autoregressive", **{**parts, **options}), "method", "config.method", **given)


def batch():
    image = np.random.default_rng(0).uniform(-1, 1, (4, *SHAPE)).astype(np.float32)
    return {"image": jnp.asarray(image), "tokens": TOKENS}


@functools.cache
def begun(image_shape=SHAPE):
    method = make(image_shape)
    key = jax.random.key(0)
    given, memory = jax.jit(lambda key: method.untrained(key, batch()))(key)
    random = np.random.default_rng(1)
    memory["autoencoder"]["codes"] = jnp.asarray(0.3 * random.normal(size=(CODES, 2)), jnp.float32)
    params, _ = jax.jit(lambda key: method.init(key, batch(), 0, given, {}, memory))(key)
    leaves, tree = jax.tree.flatten({**given, **params})
    leaves = [x + 0.3 * random.normal(size=x.shape).astype(np.float32) for x in leaves]
    return Model(jax.tree.unflatten(tree, leaves), memory)


def keys():
    return jax.random.split(jax.random.key(3), 4)


@functools.cache
def log_p():
    """A compiled function from texts and codes to the logits of all codes, without a cache."""
    model = begun()
    return jax.jit(lambda tokens, codes: make().logits(model.params, tokens, codes)[1])


def drawn(*arguments, guidance=None, sampler=None, tokens=TOKENS):
    method, model = make(guidance=guidance, sampler=sampler), begun()
    kept = arguments[1:]
    found = jax.jit(lambda *begun: method.drawn(model.params, {"tokens": tokens}, keys(), *begun, *kept))
    return np.asarray(found(*arguments[:1]))


def drawn_plainly(scale, sampler):
    """Codes that are drawn with the same keys, each from a call on the whole sequence."""
    null = jnp.array([[1, 0, 0]] * 4, jnp.int32)
    codes = jnp.zeros((4, 4), jnp.int32)
    for place in range(4):
        logits = (1 - scale) * log_p()(null, codes)[:, place] + scale * log_p()(TOKENS, codes)[:, place]
        own = jax.vmap(lambda key, place=place: jax.random.fold_in(key, place))(keys())
        codes = codes.at[:, place].set(sampler(logits, own))
    return np.asarray(codes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scale", "sampler"),
    [
        (2.5, TokenSampler(0.7, top_k=3)),
        pytest.param(1.0, TokenSampler(), marks=pytest.mark.slow),
        pytest.param(0.0, TokenSampler(1.3, top_p=0.9), marks=pytest.mark.slow),
    ],
)
def test_cached_drawing_gives_the_codes_of_calls_on_the_whole_sequence(scale, sampler):
    found = drawn(guidance=ClassifierFree(scale=scale), sampler=sampler)
    np.testing.assert_array_equal(found, drawn_plainly(scale, sampler))
    assert len(np.unique(found)) > 1


def test_what_an_image_begins_with_is_kept_and_the_rest_goes_with_it():
    other = np.asarray((drawn() + 1) % CODES)
    found = drawn(other, 2)
    np.testing.assert_array_equal(found[:, :2], other[:, :2])
    np.testing.assert_array_equal(drawn(drawn(), 2), drawn())  # its own beginning leads to the same end


def test_the_probabilities_of_all_images_sum_to_one():
    shape = (2, 4, 1)  # two codes
    method, model = make(shape), begun(shape)
    every = jnp.array(list(itertools.product(range(CODES), repeat=2)), jnp.int32)
    tokens = jnp.repeat(TOKENS[:1], len(every), axis=0)
    of_words, of_codes = jax.jit(lambda codes: method.errors(model.params, tokens, codes))(every)
    np.testing.assert_allclose(np.exp(-np.asarray(of_codes).sum(axis=1)).sum(), 1, rtol=1e-5)
    assert np.ptp(np.asarray(of_codes)) > 0.01 and np.ptp(np.asarray(of_words), axis=0).max() < 1e-5


def test_scores_are_bits_and_tell_another_text_apart():
    method, model = make(), begun()
    scores = {k: np.asarray(v) for k, v in jax.jit(method.scores)(model, keys(), batch()).items()}
    codes = np.asarray(method.codes(model.params, batch(), model.memory))
    logits = np.asarray(log_p()(TOKENS, codes), np.float64)
    each = np.take_along_axis(scipy.special.log_softmax(logits, -1), codes[..., None], -1)[..., 0]
    np.testing.assert_allclose(scores["bits_per_code"], -each.mean(axis=1) / np.log(2), rtol=1e-4)
    rolled = np.asarray(log_p()(jnp.roll(TOKENS, 1, axis=0), codes), np.float64)
    each = np.take_along_axis(scipy.special.log_softmax(rolled, -1), codes[..., None], -1)[..., 0]
    np.testing.assert_allclose(scores["bits_per_code_other_text"], -each.mean(axis=1) / np.log(2), rtol=1e-4)
    assert scores["bits_per_word"].shape == (4,) and method.better("bits_per_code") == "lower"


def test_the_loss_weighs_text_and_image_and_counts_no_padding():
    model = begun()
    state = SimpleNamespace(memory=model.memory)
    method = make(text_dropout=0.0, text_weight=0.25)
    loss = jax.jit(lambda batch: method.loss(model.params, batch, jax.random.key(5), state))
    total, (metrics, _) = loss(batch())
    np.testing.assert_allclose(total, 0.25 * metrics["text_loss"] + 0.75 * metrics["code_loss"], rtol=1e-6)
    codes = method.codes(model.params, batch(), model.memory)
    of_words, of_codes = method.errors(model.params, TOKENS, codes)
    rows, columns = np.nonzero(np.asarray(TOKENS))
    np.testing.assert_allclose(metrics["text_loss"], np.asarray(of_words)[rows, columns].mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["code_loss"], np.asarray(of_codes).mean(), rtol=1e-5)
    # codes that were written once are as good as the images
    again, _ = loss({**batch(), "codes": codes.reshape(4, 2, 2)})
    np.testing.assert_allclose(again, total, rtol=1e-6)


def test_dropped_texts_are_the_empty_one():
    model = begun()
    state = SimpleNamespace(memory=model.memory)
    method = make(text_dropout=0.999999)  # all of four
    run = jax.jit(lambda tokens: method.loss(model.params, {**batch(), "tokens": tokens}, jax.random.key(5), state))
    _, (metrics, _) = run(TOKENS)
    empty, (same, _) = run(jnp.array([[1, 0, 0]] * 4, jnp.int32))
    np.testing.assert_allclose(metrics["code_loss"], same["code_loss"], rtol=1e-6)
    assert float(metrics["text_loss"]) == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"guidance": ClassifierFree(scale=2), "text_dropout": 0.0}, "trained without its text too"),
        ({"guidance": ClassifierFree(scale=2, interval=(0.1, 0.9))}, "interval, rescale and threshold"),
        ({"length": 0}, "set both config.method.vocabulary and config.method.length"),
        ({"empty": (9,)}, "is no text of 3 ids in"),
        ({"image_shape": (5, 4, 1)}, "do not divide images of 5x4"),
    ],
)
def test_mistakes_are_named(options, sentence):
    with pytest.raises(UserError, match=sentence):
        _ = make(**options).places


def test_texts_of_another_length_and_weights_without_a_codebook_are_named():
    method, model = make(), begun()
    with pytest.raises(UserError, match="texts have 2 tokens, and config.method.length is 3"):
        method.drawn(model.params, {"tokens": TOKENS[:, :2]}, keys())
    moments = {"weight": jnp.ones(())}
    with pytest.raises(UserError, match="came without a codebook"):
        method.init(jax.random.key(0), batch(), 0, {}, {}, {"autoencoder": moments})
    with pytest.raises(UserError, match="set its codes"):
        make(autoencoder=section(name="autoencoder_vq", codes=9, latent_channels=2)).coding.check(
            model.memory["autoencoder"]
        )


def test_the_sampler_leaves_the_most_likely_tokens():
    logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05], [0.1, 0.2, 0.3, 0.4]]))

    def left(**options):
        return np.isfinite(np.asarray(TokenSampler(**options).left(logits))).tolist()

    assert left(top_k=2) == [[True, True, False, False], [False, False, True, True]]
    assert left(top_p=0.75) == [[True, True, False, False], [False, True, True, True]]
    assert left(top_k=3, top_p=0.4) == [[True, False, False, False], [False, False, False, True]]
    assert left(temperature=0.1, top_p=0.9) == [[True, False, False, False], [False, False, False, True]]
    keys = jax.random.split(jax.random.key(0), 2)
    np.testing.assert_array_equal(TokenSampler(temperature=0)(logits, keys), [0, 3])


def test_tokens_are_drawn_as_often_as_they_are_likely():
    logits = jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05]))
    drawn = TokenSampler(temperature=0.5)(jnp.tile(logits, (4000, 1)), jax.random.split(jax.random.key(0), 4000))
    shares = np.bincount(np.asarray(drawn), minlength=4) / 4000
    wanted = np.array([0.5, 0.3, 0.15, 0.05]) ** 2
    np.testing.assert_allclose(shares, wanted / wanted.sum(), atol=0.03)
