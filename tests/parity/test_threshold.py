"""Dynamic thresholding against diffusers' DDPMScheduler."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.diffusion import schedules
from jaxgen.diffusion.prediction import Prediction
from jaxgen.diffusion.prediction_types import X0
from jaxgen.diffusion.threshold import dynamic_threshold

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.995])
def test_it_thresholds_as_diffusers_does(quantile):
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    size = np.asarray([0.3, 1.0, 2.5, 8.0])[:, None, None, None]
    x0 = (size * np.random.default_rng(0).normal(size=(4, 9, 7, 3))).astype(np.float32)
    # its upper bound on s is 1 unless it is set, which is static clipping
    peer = diffusers.DDPMScheduler(thresholding=True, dynamic_thresholding_ratio=quantile, sample_max_value=1e6)
    want = peer._threshold_sample(torch.from_numpy(x0).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    now = Prediction(jnp.asarray(x0), jnp.zeros_like(x0), jnp.full(4, 0.5), schedules.Linear(), X0())
    np.testing.assert_allclose(dynamic_threshold(now, quantile).x0, want, atol=1e-6)
    assert np.abs(want[3] - np.clip(x0[3], -1, 1)).max() > 0.1
