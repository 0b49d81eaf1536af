"""The kernel distance against torchmetrics."""

import numpy as np
import pytest

from jaxgen.metrics.distributions.kernel import kid, mmd2

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("width", [3, 64])
def test_an_estimate_is_that_of_torchmetrics(width):
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("torchmetrics.image.kid")
    chance = np.random.default_rng(0)
    a, b = np.maximum(chance.normal(size=(2, 120, width)), 0)  # features after a ReLU
    b = 1.1 * b + 0.1
    theirs = float(peer.poly_mmd(torch.from_numpy(a), torch.from_numpy(b)))
    np.testing.assert_allclose(mmd2(a, b), theirs, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(kid(a, b, subsets=3, subset_size=120).mean, theirs, rtol=1e-8, atol=1e-10)
