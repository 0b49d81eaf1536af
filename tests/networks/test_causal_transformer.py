"""The causal transformer: nothing looks ahead, and a cache changes the cost alone."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.networks.discrete.causal_transformer import CausalTransformer

NETWORK = CausalTransformer(vocabulary=11, length=9, width=16, depth=2, heads=2)
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 11, (3, 9)), jnp.int32)


@functools.cache
def params():
    fresh = jax.jit(NETWORK.init)(jax.random.key(0), TOKENS)["params"]
    leaves, tree = jax.tree.flatten(fresh)
    random = np.random.default_rng(0)
    return jax.tree.unflatten(tree, [x + 0.3 * random.normal(size=x.shape).astype(np.float32) for x in leaves])


@functools.cache
def compiled():
    return jax.jit(NETWORK.apply)


def whole(tokens):
    return compiled()({"params": params()}, tokens)


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 4, 8])
def test_a_token_changes_what_follows_and_nothing_before(place):
    other = TOKENS.at[:, place].set((TOKENS[:, place] + 1) % 11)
    gap = np.abs(np.asarray(whole(TOKENS) - whole(other))).max(axis=(0, 2))
    assert gap[:place].max(initial=0) == 0 and gap[place:].min() > 1e-3


def test_one_token_at_a_time_gives_the_logits_of_the_whole_sequence():
    extend = functools.partial(jax.jit(functools.partial(NETWORK.apply, method="extend")), {"params": params()})
    found, past = extend(TOKENS[:, :4], NETWORK.empty(3), 0)
    parts = [found]
    for place in range(4, 9):
        found, past = extend(TOKENS[:, place : place + 1], past, jnp.int32(place))
        parts.append(found)
    np.testing.assert_allclose(jnp.concatenate(parts, axis=1), whole(TOKENS), atol=1e-5, rtol=1e-5)


def test_a_head_of_its_own_is_no_product_with_the_embeddings():
    own = jax.eval_shape(NETWORK.clone(tied=False).init, jax.random.key(0), TOKENS)["params"]
    assert own["head"]["kernel"].shape == (16, 11) and "head" not in params()


@pytest.mark.parametrize(
    ("tokens", "sentence"),
    [
        (jnp.zeros((2, 3)), "takes token ids"),
        (jnp.zeros((2, 10), jnp.int32), "reads 9 tokens at most, not 10"),
    ],
)
def test_other_arrays_are_refused(tokens, sentence):
    with pytest.raises(UserError, match=sentence):
        NETWORK.apply({"params": params()}, tokens)
    with pytest.raises(UserError, match="3 attention heads do not divide a width of 16"):
        NETWORK.clone(heads=3).init(jax.random.key(0), TOKENS)
