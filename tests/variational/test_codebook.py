"""A codebook as a running mean: whom it follows, what is nearest, and which codes begin again."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.variational.codebook import Codebook, counts, nearest, perplexity, straight_through

CENTRES = np.array([[0.0, 0.0], [5.0, 1.0], [-4.0, 6.0]], np.float32)


def clusters(seed: int, each: int = 40) -> np.ndarray:
    return np.concatenate([c + 0.1 * np.random.default_rng(seed).normal(size=(each, 2)) for c in CENTRES]).astype("f4")


def test_the_nearest_code_is_that_of_the_least_distance():
    random = np.random.default_rng(0)
    codes, vectors = random.normal(size=(7, 3)).astype("f4"), random.normal(size=(4, 5, 5, 3)).astype("f4")
    distances = np.linalg.norm(vectors[..., None, :] - codes, axis=-1)
    np.testing.assert_array_equal(nearest(jnp.asarray(codes), jnp.asarray(vectors)), distances.argmin(axis=-1))


def test_codes_become_the_means_of_the_vectors_that_choose_them():
    book = Codebook.of(jnp.asarray(clusters(0)), 3, jax.random.key(0)).replace(codes=jnp.asarray(CENTRES + 0.7))
    update = jax.jit(lambda book, x: book.updated(x, nearest(book.codes, x), 0.9))
    for _ in range(150):
        book = update(book, jnp.asarray(clusters(1)))
    np.testing.assert_allclose(book.codes, clusters(1).reshape(3, 40, 2).mean(axis=1), atol=1e-3)
    np.testing.assert_allclose(book.count, 40, rtol=1e-3)


def test_a_dead_code_begins_again_at_a_vector_of_the_batch_and_others_stay():
    vectors = jnp.asarray(clusters(2))
    far = jnp.concatenate([jnp.asarray(CENTRES), jnp.full((1, 2), 100.0)])
    book = Codebook(far, jnp.full(4, 30.0), far * 30.0)
    revived = []

    @jax.jit
    def update(book, key):
        return book.updated(vectors, nearest(book.codes, vectors), 0.9).revived(vectors, key, 0.1)

    for step in range(40):
        book, number = update(book, jax.random.key(step))
        revived.append(float(number))
    assert sum(revived) >= 1 and revived[0] == 0
    assert float(jnp.linalg.norm(book.codes[3] - vectors, axis=1).min()) < 1
    np.testing.assert_allclose(book.codes[:3], CENTRES, atol=0.3)
    assert set(np.asarray(nearest(book.codes, vectors))) >= {0, 1, 2}


def test_the_gradient_passes_straight_through():
    z, e = jnp.array([0.2, 1.7]), jnp.array([0.0, 2.0])
    value, slope = jax.value_and_grad(lambda z: (straight_through(z, e) * jnp.array([3.0, -1.0])).sum())(z)
    np.testing.assert_allclose(value, -2.0, rtol=1e-6)
    np.testing.assert_allclose(slope, [3.0, -1.0])


def test_perplexity_counts_the_codes_that_are_chosen_equally_often():
    chosen = jnp.array([[[0, 1], [2, 3]], [[0, 1], [2, 3]]])
    found = counts(chosen, 8)
    np.testing.assert_array_equal(found, [[1, 1, 1, 1, 0, 0, 0, 0]] * 2)
    np.testing.assert_allclose(perplexity(found.sum(axis=0)), 4, rtol=1e-5)
    np.testing.assert_allclose(perplexity(jnp.array([9.0, 0.0, 0.0])), 1, rtol=1e-6)
