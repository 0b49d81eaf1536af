"""The single-image Fréchet distance on images whose patches are known."""

import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.metrics.pairs.sifid import sifid

RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(2, 12, 10, 3)) @ np.diag([1.0, 2.0, 0.5])


def test_moving_patches_about_changes_nothing_and_a_shift_is_its_square():
    shuffled = np.stack([np.random.default_rng(1).permutation(x.reshape(-1, 3)).reshape(x.shape) for x in REAL])
    np.testing.assert_allclose(sifid(shuffled, REAL), 0, atol=1e-9)
    np.testing.assert_allclose(sifid(REAL + [3.0, 0.0, -1.0], REAL), 10, rtol=1e-9)


def test_each_pair_is_compared_alone_and_one_real_image_serves_many():
    samples = RNG.normal(size=(2, 9, 9, 3))
    both = sifid(samples, REAL)
    np.testing.assert_allclose(both, [sifid(samples[i : i + 1], REAL[i : i + 1])[0] for i in range(2)], rtol=1e-12)
    np.testing.assert_allclose(sifid(samples, REAL[:1]), [both[0], sifid(samples[1:], REAL[:1])[0]], rtol=1e-12)


def test_a_texture_that_lost_its_variety_is_further():
    duller = [sifid(REAL * scale, REAL).mean() for scale in (1.0, 0.7, 0.3)]
    assert duller == sorted(duller) and duller[0] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    "a,b,words",
    [
        (np.zeros((2, 4, 4, 3)), np.zeros((2, 4, 4, 2)), "equal D"),
        (np.zeros((3, 4, 4, 3)), np.zeros((2, 4, 4, 3)), "pairs"),
        (np.zeros((1, 1, 1, 3)), np.zeros((1, 4, 4, 3)), "two examples"),
    ],
)
def test_bad_features_are_refused(a, b, words):
    with pytest.raises(UserError, match=words):
        sifid(a, b)
