"""Loss weights, times and learned variances against diffusers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytestmark = pytest.mark.parity

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from diffusers.training_utils import compute_density_for_timestep_sampling, compute_snr  # noqa: E402

from jaxgen.diffusion import schedules  # noqa: E402
from jaxgen.diffusion.bound import level_term  # noqa: E402
from jaxgen.diffusion.prediction import Prediction, reverse_log_variance  # noqa: E402
from jaxgen.diffusion.prediction_types import X0, Epsilon, V  # noqa: E402
from jaxgen.diffusion.process import posterior  # noqa: E402
from jaxgen.diffusion.timesteps import LogitNormal  # noqa: E402
from jaxgen.diffusion.weighting import MinSNR  # noqa: E402

LEVELS = np.array([1, 2, 5, 50, 400, 999, 1000])  # theirs are one lower
LINEAR = schedules.Linear()
T = jnp.asarray(LEVELS / 1000, jnp.float32)


def scheduler(**options):
    return diffusers.DDPMScheduler(1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear", **options)


def test_min_snr_is_that_of_their_training_scripts():
    snr = compute_snr(scheduler(), torch.tensor(LEVELS - 1)).double().numpy()
    for prediction_type, theirs in ((Epsilon(), np.minimum(snr, 5) / snr), (V(), np.minimum(snr, 5) / (snr + 1))):
        np.testing.assert_allclose(MinSNR()(LINEAR, T, prediction_type), theirs, rtol=1e-3)


@pytest.mark.parametrize("place", [-1.0, -0.3, 0.5, 1.0])
def test_the_learned_variance_is_their_learned_range(place):
    """At level 1 theirs interpolates from a variance cut at 1e-20; ours from that of the step above, as the
    authors of the idea do."""
    theirs = scheduler(variance_type="learned_range")
    x = jnp.ones((len(LEVELS), 2))
    now = Prediction(x, x, T, LINEAR, X0(), jnp.full_like(x, place))
    ours = reverse_log_variance(now, jnp.asarray((LEVELS - 1) / 1000, jnp.float32))
    for level, log_variance in list(zip(LEVELS, np.asarray(ours)[:, 0], strict=True))[1:]:
        their = float(theirs._get_variance(int(level) - 1, predicted_variance=torch.tensor(place)))
        assert log_variance == pytest.approx(their, abs=2e-3)


def test_a_kl_is_that_between_their_two_variances():
    """The large variance's term from their posterior variance and mean coefficients."""
    small, large = scheduler(variance_type="fixed_small"), scheduler(variance_type="fixed_large")
    levels = LEVELS[1:]
    t, s = T[1:], jnp.asarray((levels - 1) / 1000, jnp.float32)
    x0 = jnp.full((len(levels), 3), 0.2)
    now = Prediction(x0 + 0.3, x0, t, LINEAR, X0())
    of_x0 = posterior(LINEAR, t, s, x0)[1][:, 0]
    p = torch.distributions.Normal
    for level, factor, term in zip(levels, np.asarray(of_x0), np.asarray(level_term(now, x0, s, "large")), strict=True):
        narrow, wide = (float(x._get_variance(int(level) - 1)) ** 0.5 for x in (small, large))
        kl = torch.distributions.kl_divergence(p(0.0, narrow), p(0.3 * float(factor), wide))
        assert term == pytest.approx(float(kl) / np.log(2), rel=3e-3, abs=1e-7)


def test_logit_normal_times_have_their_density():
    torch.manual_seed(0)
    theirs = compute_density_for_timestep_sampling("logit_normal", 20_000, logit_mean=0.3, logit_std=0.7).numpy()
    ours, _ = LogitNormal(0.3, 0.7).sample(jax.random.key(0), 20_000, schedules.RectifiedFlow())
    shares = [0.05, 0.25, 0.5, 0.75, 0.95]
    np.testing.assert_allclose(np.quantile(ours, shares), np.quantile(theirs, shares), atol=0.01)
