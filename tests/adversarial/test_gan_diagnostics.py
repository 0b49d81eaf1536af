"""Diagnostics against theory: Gaussians of known divergence, saturated discriminators, collapsed generators."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from jaxgen.adversarial import diagnostics, losses
from jaxgen.errors import UserError
from jaxgen.registry import find

P, Q = stats.norm(0, 1), stats.norm(1.5, 0.7)


def jensen_shannon(p, q):
    def density(x):
        middle = (p.pdf(x) + q.pdf(x)) / 2
        return (p.pdf(x) * (p.logpdf(x) - np.log(middle)) + q.pdf(x) * (q.logpdf(x) - np.log(middle))) / 2

    return integrate.quad(density, -12, 12, limit=200)[0]


def logits(x, scale=1.0):
    return scale * (P.logpdf(x) - Q.logpdf(x))


@pytest.fixture(scope="module")
def points():
    chance = np.random.default_rng(0)
    return P.rvs(40_000, random_state=chance), Q.rvs(40_000, random_state=chance)


def test_the_best_discriminator_of_two_densities():
    x = np.linspace(-3, 4, 50)
    best = diagnostics.optimal_discriminator(P.pdf(x), Q.pdf(x))
    np.testing.assert_allclose(best, 1 / (1 + np.exp(-logits(x))), rtol=1e-12)
    np.testing.assert_array_equal(diagnostics.optimal_discriminator([0, 2, 0], [0, 0, 3]), [0.5, 1, 0])
    with pytest.raises(UserError, match="negative"):
        diagnostics.optimal_discriminator([-1.0], [1.0])


def test_at_the_best_discriminator_the_estimate_is_the_divergence(points):
    real, fake = points
    truth = jensen_shannon(P, Q)
    assert 0.2 < truth < 0.5
    got = float(diagnostics.jensen_shannon_from_logits(logits(real), logits(fake)))
    assert got == pytest.approx(truth, abs=5e-3)
    value = float(diagnostics.game_value(logits(real), logits(fake)))
    assert value == pytest.approx(2 * truth - np.log(4), abs=1e-2)


@pytest.mark.parametrize("other", [lambda x: logits(x, 0.3), lambda x: logits(x, 3.0), lambda x: logits(x) + 1, np.sin])
def test_any_other_discriminator_shows_less(points, other):
    real, fake = points
    assert float(diagnostics.jensen_shannon_from_logits(other(real), other(fake))) < jensen_shannon(P, Q) - 0.01


def test_the_two_ends_of_the_game():
    nothing = jnp.zeros(5)
    assert float(diagnostics.game_value(nothing, nothing)) == pytest.approx(-np.log(4), rel=1e-6)
    assert float(diagnostics.jensen_shannon_from_logits(nothing, nothing)) == pytest.approx(0, abs=1e-7)
    sure = jnp.full(5, 100.0)
    assert float(diagnostics.jensen_shannon_from_logits(sure, -sure)) == pytest.approx(np.log(2), rel=1e-6)
    assert float(diagnostics.jensen_shannon_from_logits(-sure, sure)) < -90


def test_accuracy_counts_each_side_and_ties_half():
    real, fake = jnp.array([3.0, -1.0, 0.0, 0.2]), jnp.array([-2.0, -2.0, 1.0, 0.0])
    assert [float(a) for a in diagnostics.accuracy(real, fake)] == [(2 + 0.5) / 4, (2 + 0.5) / 4]
    boundary = losses.LeastSquares().boundary
    assert [float(a) for a in diagnostics.accuracy(real, fake, boundary)] == [1 / 4, 3 / 4]
    assert [float(a) for a in diagnostics.accuracy(jnp.zeros(3), jnp.zeros(3))] == [0.5, 0.5]


def test_the_signal_to_the_generator_vanishes_for_minimax_only():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3, 3, 1)), jnp.float32)
    slope = jnp.array([1.0, 2.0, 0.5, 3.0])

    def discriminator(x):  # sure of every fake, with its own slope at each
        return -10 + slope * (x - jax.lax.stop_gradient(x)).sum(axis=(1, 2, 3))

    found = {
        name: np.asarray(diagnostics.generator_gradient_norm(find("gan_loss", name, "x")(), discriminator, x))
        for name in ("minimax", "non_saturating", "wasserstein", "hinge")
    }
    for name in ("non_saturating", "wasserstein", "hinge"):
        np.testing.assert_allclose(found[name], 3 * slope, rtol=1e-4)  # |ones| over nine pixels is 3
    np.testing.assert_allclose(found["minimax"], 3 * slope * 4.54e-5, rtol=1e-3)


def test_diversity_is_the_root_mean_square_difference_of_pairs():
    images = np.random.default_rng(0).normal(size=(7, 4, 4, 3))
    pairs = [np.mean((images[i] - images[j]) ** 2) for i in range(7) for j in range(7) if i != j]
    assert float(diagnostics.diversity(jnp.asarray(images))) == pytest.approx(np.sqrt(np.mean(pairs)), rel=1e-5)
    assert float(diagnostics.diversity(jnp.ones((5, 2, 2, 1)))) == 0
    assert not np.isfinite(float(diagnostics.diversity(jnp.ones((1, 2, 2, 1)))))


CENTRES = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])


def test_modes_are_counted_by_good_samples():
    samples = np.array([[0, 0], [0, 2.9], [2.2, 2.2], [10, 3.1], [8, 8], [0, 9], [1, 0]])
    got = diagnostics.modes_covered(samples, CENTRES, std=1.0)
    assert got.covered == 2 and got.high_quality == pytest.approx(4 / 7)  # |(2.2, 2.2)| is 3.11
    np.testing.assert_array_equal(got.counts, [3, 0, 1])
    assert diagnostics.modes_covered(samples, CENTRES, 1.0, least=2).covered == 1
    assert diagnostics.modes_covered(samples, CENTRES, 1.0, within=3.2).covered == 3


def test_the_data_themselves_have_the_known_share_and_a_collapse_shows():
    chance = np.random.default_rng(0)
    samples = CENTRES[chance.integers(3, size=20_000)] + chance.normal(size=(20_000, 2))
    got = diagnostics.modes_covered(samples.reshape(-1, 1, 2, 1), CENTRES, 1.0)
    share = 1 - np.exp(-4.5)
    assert got.covered == 3 and got.high_quality == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 20_000))
    assert diagnostics.modes_covered(np.zeros((100, 2)), CENTRES, 1.0)[:2] == (1, 1.0)
    assert diagnostics.modes_covered(np.full((100, 2), 5.0), CENTRES, 1.0)[:2] == (0, 0.0)


@pytest.mark.parametrize(
    ("samples", "std", "message"),
    [
        (np.zeros((4, 3)), 1.0, "do not fit"),
        (np.zeros((0, 2)), 1.0, "do not fit"),
        (np.full((4, 2), np.nan), 1.0, "NaN"),
        (np.zeros((4, 2)), 0.0, "above 0"),
    ],
)
def test_samples_that_cannot_be_counted_are_refused(samples, std, message):
    with pytest.raises(UserError, match=message):
        diagnostics.modes_covered(samples, CENTRES, std)
