"""The saturated share by counting, and what clipped and thresholded predictions do to it."""

from __future__ import annotations

import numpy as np
import pytest

from jaxgen.metrics.distributions.saturated_share import SaturatedShare, saturated
from jaxgen.metrics.images import EvaluationImages


def images_with(low: int, high: int, count: int = 10) -> np.ndarray:
    """Images of 4x5x2 values of which so many are 0 and 255."""
    values = np.full(count * 40, 128, np.uint8)
    values[:low], values[low : low + high] = 0, 255
    return values.reshape(count, 4, 5, 2)


def scores(samples: np.ndarray, held_out: np.ndarray) -> dict:
    seen = EvaluationImages(samples, None, held_out, held_out, None, "real")
    return SaturatedShare().scores(seen, None)


def test_values_at_both_ends_are_counted():
    np.testing.assert_allclose(saturated(images_with(30, 50)), [30 / 400, 50 / 400])
    near = images_with(0, 0)
    near[0, 0, 0] = (1, 254)
    assert saturated(near).sum() == 0


def test_shares_stand_beside_those_of_real_images():
    found = scores(images_with(30, 50), images_with(10, 90))
    share, error = found["saturated_share"], found["saturated_share_error"]
    assert share.value == pytest.approx(0.2) and share.floor == pytest.approx(0.25)
    assert error.value == pytest.approx((20 + 40) / 400 / 2) and error.floor == 0
    assert share.to_dict()["excess"] is not None and (share.n, share.reference_n) == (10, 10)


def test_the_same_share_at_the_other_end_is_an_error():
    found = scores(images_with(0, 100), images_with(100, 0))
    assert found["saturated_share"].value == found["saturated_share"].floor
    assert found["saturated_share_error"].value == pytest.approx(0.25)
