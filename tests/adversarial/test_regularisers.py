"""Weight clipping, spectral normalisation, and the terms against collapse."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.adversarial.regularisers import (
    clip_weights,
    mode_seeking,
    pull_away,
    singular_values,
    spectral_norm,
    spectral_vectors,
)
from jaxgen.errors import UserError

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


PARAMS = {
    "conv": {"kernel": normal(3, 3, 4, 6), "bias": normal(6)},
    "block": {"dense": {"kernel": normal(12, 5), "bias": normal(5)}, "norm": {"scale": normal(5)}},
    "classes": {"embedding": normal(7, 5)},
}
KERNELS = {"conv/kernel": (36, 6), "block/dense/kernel": (12, 5), "classes/embedding": (7, 5)}


def at(tree, path):
    for name in path.split("/"):
        tree = tree[name]
    return np.asarray(tree)


def largest(kernel):
    return np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]).astype(np.float64), compute_uv=False)[0]


def test_clipping_bounds_every_parameter_and_leaves_small_ones():
    clipped = clip_weights(PARAMS, 0.5)
    for before, after in zip(*map(jax.tree.leaves, (PARAMS, clipped)), strict=True):
        assert float(jnp.abs(after).max()) <= 0.5
        small = jnp.abs(before) < 0.5
        np.testing.assert_array_equal(after[small], before[small])
    with pytest.raises(UserError, match="above 0"):
        clip_weights(PARAMS, 0.0)


def test_many_iterations_give_the_largest_singular_value():
    normed, vectors = spectral_norm(PARAMS, spectral_vectors(PARAMS, KEY), iterations=200)
    sigmas = singular_values(PARAMS, vectors)
    assert sigmas.keys() == KERNELS.keys()
    for path in KERNELS:
        assert float(sigmas[path]) == pytest.approx(largest(at(PARAMS, path)), rel=1e-5)
        assert largest(at(normed, path)) == pytest.approx(1, rel=1e-5)


def test_one_iteration_a_step_climbs_to_it_from_below():
    vectors = spectral_vectors(PARAMS, KEY, iterations=0)
    seen = []
    for _ in range(100):
        _, vectors = spectral_norm(PARAMS, vectors)
        seen.append([float(sigma) for sigma in singular_values(PARAMS, vectors).values()])
    true = [largest(at(PARAMS, path)) for path in sorted(KERNELS)]
    assert (np.diff(seen, axis=0) > -1e-5).all() and (np.array(seen) <= np.array(true) + 1e-5).all()
    assert (np.array(seen[0]) < 0.99 * np.array(true)).any()
    np.testing.assert_allclose(seen[-1], true, rtol=1e-4)


def test_only_kernels_change_and_the_trees_keep_their_shape():
    start = spectral_vectors(PARAMS, KEY)
    normed, vectors = jax.jit(spectral_norm)(PARAMS, start)
    assert jax.tree.structure(normed) == jax.tree.structure(PARAMS)
    assert jax.tree.structure(vectors) == jax.tree.structure(start)
    for path in ("conv/bias", "block/dense/bias", "block/norm/scale"):
        np.testing.assert_array_equal(at(normed, path), at(PARAMS, path))
    for path, (rows, columns) in KERNELS.items():
        assert at(vectors, f"{path}/u").shape == (columns,) and at(vectors, f"{path}/v").shape == (rows,)
        for part in "uv":
            assert np.linalg.norm(at(vectors, f"{path}/{part}")) == pytest.approx(1, abs=1e-6)
    assert "classes" not in spectral_vectors(PARAMS, KEY, names=("kernel",))


def test_without_an_iteration_the_vectors_stay():
    start = spectral_vectors(PARAMS, KEY)
    normed, vectors = spectral_norm(PARAMS, start, iterations=0)
    jax.tree.map(np.testing.assert_array_equal, vectors, start)
    sigma = singular_values(PARAMS, start)["conv/kernel"]
    np.testing.assert_allclose(at(normed, "conv/kernel"), at(PARAMS, "conv/kernel") / sigma, rtol=1e-6)


def test_the_gradient_passes_through_sigma_and_not_through_the_vectors():
    params = {"kernel": normal(8, 5)}
    vectors = spectral_vectors(params, KEY)
    weight = np.asarray(normal(8, 5))
    gradient, vector_gradient = jax.grad(lambda p, v: (spectral_norm(p, v)[0]["kernel"] * weight).sum(), (0, 1))(
        params, vectors
    )
    # d(W / sigma) with sigma = v^T W u for fixed u and v
    _, after = spectral_norm(params, vectors)
    u, v = at(after, "kernel/u"), at(after, "kernel/v")
    kernel = np.asarray(params["kernel"])
    sigma = v @ kernel @ u
    expected = (weight - (weight * kernel).sum() / sigma * np.outer(v, u)) / sigma
    np.testing.assert_allclose(gradient["kernel"], expected, atol=1e-6)
    assert all(float(jnp.abs(leaf).max()) == 0 for leaf in jax.tree.leaves(vector_gradient))
    # the scale of the weights does not matter, so no gradient goes along them
    assert abs(float((gradient["kernel"] * kernel).sum())) < 1e-5
    carried = jax.grad(lambda p: sum(x.sum() for x in jax.tree.leaves(spectral_norm(p, vectors)[1])))(params)
    assert float(jnp.abs(carried["kernel"]).max()) == 0


def test_a_network_without_kernels_is_refused():
    with pytest.raises(UserError, match="named kernel or embedding"):
        spectral_vectors({"norm": {"scale": jnp.ones(3)}}, KEY)


def test_pull_away_is_the_mean_squared_cosine_of_pairs():
    angles = np.deg2rad([0.0, 60.0, 150.0])  # cosines 1/2, -sqrt(3)/2, 0
    codes = np.array([1.0, 5.0, 0.1])[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert float(pull_away(jnp.asarray(codes, jnp.float32))) == pytest.approx((1 / 4 + 3 / 4 + 0) / 3, abs=1e-6)
    assert float(pull_away(jnp.eye(4))) == 0
    assert float(pull_away(jnp.ones((4, 3)))) == pytest.approx(1)
    # opposite codes are as collapsed as equal ones: a mean of plain cosines would be negative
    assert float(pull_away(jnp.array([[1.0, 2.0], [-1.0, -2.0]]))) == pytest.approx(1)
    assert bool(jnp.isfinite(jax.grad(pull_away)(jnp.zeros((3, 2)))).all())


def test_descending_pull_away_spreads_the_codes():
    codes = jnp.ones((3, 3)) + 0.1 * normal(3, 3)
    step = jax.jit(lambda codes: codes - 0.5 * jax.grad(pull_away)(codes))
    before = float(pull_away(codes))
    for _ in range(200):
        codes = step(codes)
    assert before > 0.9 and float(pull_away(codes)) < 1e-3


@pytest.mark.parametrize("codes", [jnp.ones((1, 4)), jnp.ones((2, 3, 3))])
def test_pull_away_of_other_shapes_is_refused(codes):
    with pytest.raises(UserError, match="two or more codes"):
        pull_away(codes)


def test_mode_seeking_is_a_ratio_of_batch_means():
    z_a, z_b = jnp.zeros((2, 3)), jnp.array([[1.0, 1, 1], [3, 3, 3]])  # mean 2
    images_a, images_b = jnp.zeros((2, 4, 4, 1)), jnp.stack([jnp.zeros((4, 4, 1)), jnp.full((4, 4, 1), 0.5)])  # 0.25
    # the first pair's images agree: the mean of two ratios would be 1 / (0.5 / 3 / 2)
    assert float(mode_seeking(images_a, images_b, z_a, z_b)) == pytest.approx(1 / (0.125 + 1e-5), rel=1e-6)
    assert float(mode_seeking(images_a, images_a, z_a, z_b)) == pytest.approx(1e5, rel=1e-5)
    assert float(mode_seeking(images_b, images_a, z_b, z_a)) == float(mode_seeking(images_a, images_b, z_a, z_b))
