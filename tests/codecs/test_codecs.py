"""What is diffused of images, and back."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_latents import MOMENTS, SHAPE, Folded, batch, given

from jaxgen.codecs.embedding import Embedding
from jaxgen.codecs.latents import Latents
from jaxgen.codecs.pixels import Pixels
from jaxgen.errors import UserError


def test_vectors_of_the_batch_are_diffused():
    codec, vectors = Embedding(6, scale=3.0), jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)), jnp.float32)
    x = codec.encode({}, {"embedding": vectors}, None)
    np.testing.assert_allclose(x.std() / vectors.std(), 3, rtol=1e-5)
    np.testing.assert_allclose(codec.decode({}, x, None), vectors, rtol=1e-6)
    assert codec.gives == "embedding" and codec.shape((8, 8, 3)) == x.shape[1:]
    with pytest.raises(UserError, match=r"has width=5, and the data's entry 'embedding' has the shape \(4, 6\)"):
        Embedding(5).encode({}, {"embedding": vectors}, None)
    with pytest.raises(UserError, match="a width and a scale above 0"):
        Embedding(6, scale=0.0)


@pytest.mark.parametrize("codec", [Pixels(), Latents(Folded(), 0.5), Latents(Folded())])
def test_images_come_back_from_what_is_diffused(codec):
    params = given().get(codec.group, {})
    memory = MOMENTS.get(codec.group)
    draw = (lambda shape: jax.random.normal(jax.random.key(0), shape)) if codec.random else None
    for x in (codec.encode(params, batch(), memory), codec.encode(params, batch(), memory, draw)):
        assert x.shape[1:] == codec.shape(SHAPE)
        np.testing.assert_allclose(codec.decode(params, x, memory), batch()["image"], atol=1e-3)


def test_latents_are_drawn_around_their_mean():
    codec = Latents(Folded(), 1.0)
    moments = jnp.concatenate([jnp.zeros((3, 8, 8, 4)), jnp.full((3, 8, 8, 4), 2 * np.log(0.5))], -1)
    told = {**batch(), "moments": moments}
    np.testing.assert_array_equal(codec.encode({}, told, None), 0)
    drawn = codec.encode({}, told, None, lambda shape: jax.random.normal(jax.random.key(0), shape))
    np.testing.assert_allclose(drawn.std(), 0.5, rtol=0.05)


def test_fresh_parameters_and_memory_have_the_shapes_of_those_that_come():
    codec = Latents(Folded())
    shapes = jax.eval_shape(lambda key: codec.init(key, SHAPE), jax.random.key(0))
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, given()["autoencoder"])
    assert jax.tree.map(jnp.shape, codec.fresh_memory()) == jax.tree.map(jnp.shape, MOMENTS["autoencoder"])
    assert Latents(Folded(), 1.0).fresh_memory() is None


def test_a_scale_that_nobody_says_is_asked_for():
    with pytest.raises(UserError, match=r"set config\.method\.scale to 1 / their standard deviation"):
        Latents(Folded()).check(None)
    with pytest.raises(UserError, match="at least 0"):
        Latents(Folded(), -1.0)
