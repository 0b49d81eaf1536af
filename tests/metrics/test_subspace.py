"""Principal subspaces as the linear baseline of autoencoders."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from jaxgen.errors import UserError
from jaxgen.metrics.analysis.subspace import Subspace


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (40, 4, 3, 2), np.uint8)


def test_the_error_is_that_of_scikit_learns_components(images):
    found = Subspace.fit(images[:30], 5)
    flat = images.reshape(40, -1) / 127.5 - 1
    peer = PCA(5).fit(flat[:30])
    gap = flat - peer.inverse_transform(peer.transform(flat))
    np.testing.assert_allclose(found.error(images), (gap**2).sum(axis=1), rtol=1e-8)


def test_wider_is_never_worse_and_all_of_the_width_is_exact(images):
    errors = [Subspace.fit(images, width).error(images) for width in (1, 8, 24)]
    assert (errors[0] >= errors[1] - 1e-9).all() and (errors[1] >= errors[2] - 1e-9).all()
    np.testing.assert_allclose(errors[2], 0, atol=1e-9)


@pytest.mark.parametrize("width", [0, 25])
def test_a_width_that_the_images_do_not_span_is_refused(images, width):
    with pytest.raises(UserError, match="from 1 to 24"):
        Subspace.fit(images, width)


def test_floats_are_refused(images):
    with pytest.raises(UserError, match="uint8"):
        Subspace.fit(images / 255, 2)
