"""Extrapolation in 1/n: exact where the law is a line, and closer to the truth than the Fréchet distance itself."""

import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.metrics.distributions.frechet import frechet_distance
from jaxgen.metrics.distributions.infinity import extrapolate


def test_a_line_in_one_over_n_is_read_off_exactly():
    found = extrapolate(lambda a, b: 3 + 40 / len(a), np.zeros((500, 1)), np.zeros((7, 1)))
    assert found.value == pytest.approx(3, rel=1e-12)
    assert found.sizes[0] == 50 and found.sizes[-1] == 500 and len(found.values) == 15
    both = extrapolate(lambda a, b: 3 + 40 / len(a) - 5 / len(b), np.zeros((500, 1)), np.zeros((1000, 1)), both=True)
    assert both.value == pytest.approx(3, rel=1e-3)


def test_subsets_are_nested_and_those_of_the_seed():
    seen = []

    def estimator(a, b):
        seen.append(frozenset(a[:, 0]))
        return 0.0

    samples = np.arange(100.0)[:, None]
    extrapolate(estimator, samples, samples, sizes=(10, 40, 100))
    assert seen[0] < seen[1] < seen[2] == frozenset(range(100))
    extrapolate(estimator, samples, samples, sizes=(10, 40), seed=1)
    assert seen[3] != seen[0]


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_it_beats_the_raw_distance_on_known_gaussians(shift):
    """N(0, I) and N(shift, I) in 24 dimensions, 800 examples: the truth is 24 shift^2."""
    truth = 24 * shift**2
    raw, found, half = [], [], []
    for seed in range(6):
        chance = np.random.default_rng(seed)
        a, b = chance.normal(size=(800, 24)) + shift, chance.normal(size=(800, 24))
        raw.append(frechet_distance(a, b) - truth)
        found.append(extrapolate(frechet_distance, a, b, both=True).value - truth)
        half.append(extrapolate(frechet_distance, a, b).value - truth)
    assert np.mean(raw) > 0.3
    assert abs(np.mean(found)) < 0.35 * np.mean(raw)
    assert 0.3 * np.mean(raw) < np.mean(half) < 0.8 * np.mean(raw)  # the reference's own bias stays


def test_sizes_that_make_no_line_are_refused():
    for sizes in ((50,), (50, 50), (1, 50), (50, 101)):
        with pytest.raises(UserError, match="different sizes between 2 and 100"):
            extrapolate(frechet_distance, np.zeros((100, 2)), np.zeros((100, 2)), sizes)
    with pytest.raises(UserError, match="different sizes"):
        extrapolate(frechet_distance, np.zeros((2, 2)), np.zeros((9, 2)))
