"""unCLIP's prior network: what its prediction depends on, and its sentences on inputs that do not fit."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.networks.pretrained.prior_transformer import PriorTransformer

NETWORK = PriorTransformer(
    outputs=6, context_dim=5, vector_dim=4, length=7, width=16, depth=1, heads=2, vector_norm=True
)


def inputs(length=7):
    chance = np.random.default_rng(0)
    return {
        "x": chance.normal(size=(2, 6)).astype(np.float32),
        "time": np.asarray([0.0, 500.0], np.float32),
        "context": chance.normal(size=(2, length, 5)).astype(np.float32),
        "vector": chance.normal(size=(2, 4)).astype(np.float32),
        "context_mask": np.asarray([[1, 1, 1, 0, 0, 0, 0], [1] * 7])[:, :length],
    }


@pytest.fixture(scope="module")
def run():
    shapes = jax.eval_shape(NETWORK.init, jax.random.key(0), **inputs())["params"]
    chance = np.random.default_rng(2)
    params = jax.tree.map(lambda leaf: chance.normal(size=leaf.shape, scale=0.3).astype(np.float32), shapes)
    compiled = jax.jit(lambda params, given: NETWORK.apply({"params": params}, **given))
    return lambda given: np.asarray(compiled(params, given))


def test_the_prediction_reads_every_input_and_no_padding(run):
    base = run(inputs())
    assert base.shape == (2, 6) and base.dtype == np.float32
    for name in ("x", "time", "vector", "context"):
        changed = inputs()
        changed[name] = changed[name] + 1 + np.arange(changed[name].size).reshape(changed[name].shape) % 7
        assert (np.abs(run(changed) - base).max(axis=1) > 1e-3).all(), name
    padded = inputs()
    padded["context"][0, 3:] = 9.0
    np.testing.assert_allclose(run(padded), base, atol=1e-5)


def test_a_shorter_text_is_one_that_is_padded(run):
    long = inputs()
    long["context_mask"][1, 3:] = 0
    short = {**long, "context": long["context"][:, :3], "context_mask": long["context_mask"][:, :3]}
    np.testing.assert_allclose(run(short), run(long), atol=1e-5)


def test_a_unit_vector_is_told_as_well_as_a_long_one(run):
    given = inputs()
    np.testing.assert_allclose(run({**given, "vector": 30 * given["vector"]}), run(given), atol=1e-3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": np.zeros((2, 8), np.float32)}, r"noisy embeddings of shape \(2, 6\), not \(2, 8\): set outputs to the"),
        ({"vector": np.zeros((2, 3), np.float32)}, "embeddings of texts of shape .* set vector_dim to the width of"),
        ({"context": np.zeros((2, 7, 6), np.float32)}, "tokens of texts of shape .* set context_dim to the width of"),
        ({"context": np.zeros((2, 8, 5), np.float32), "context_mask": None}, "reads 7 tokens of a text at most, not 8"),
        ({"context_mask": np.ones((2, 3))}, r"a mask of shape \(2, 7\) of a text, not \(2, 3\)"),
    ],
)
def test_inputs_of_other_shapes_are_refused(change, said):
    with pytest.raises(UserError, match=said):
        jax.eval_shape(lambda given: NETWORK.init(jax.random.key(0), **given), {**inputs(), **change})


@pytest.mark.parametrize(
    ("change", "said"),
    [({"heads": 3}, "width of 16 must be even, and a multiple of its 3"), ({"depth": 0}, "depth of a prior is 0")],
)
def test_options_that_make_no_network_are_refused(change, said):
    with pytest.raises(UserError, match=said):
        jax.eval_shape(lambda: NETWORK.clone(**change).init(jax.random.key(0), **inputs()))
