"""Predictions: every type is read from every other; the posterior against brute force."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import registry
from jaxgen.diffusion import schedules
from jaxgen.diffusion.prediction import Prediction, denoiser, reverse_log_variance
from jaxgen.diffusion.prediction_types import EDM, X0, Epsilon, PosteriorMean, PredictionType, Score, V, Velocity
from jaxgen.diffusion.process import added_noise_share, diffuse, posterior
from jaxgen.diffusion.samplers.ddpm import DDPM as ddpm
from jaxgen.errors import UserError

TYPES = {name: cls() for name, cls in registry.classes("prediction_type").items()}
CLASSIC = ("x0", "epsilon", "v", "score", "posterior_mean")
SCHEDULES = {
    "linear": schedules.Linear(),
    "cosine": schedules.Cosine(),
    "continuous_cosine": schedules.ContinuousCosine(),
}


def _truth(schedule, t, shape=(2, 4, 4, 3)):
    """x0, epsilon and x at time t, and every form of the exact prediction, in float64 where it matters."""
    x0 = jax.random.uniform(jax.random.key(0), shape, minval=-1, maxval=1)
    epsilon = jax.random.normal(jax.random.key(1), shape)
    times = jnp.full(shape[:1], t, jnp.float32)
    alpha, sigma = schedule.alpha(jnp.float32(t)), schedule.sigma(jnp.float32(t))
    return x0, epsilon, alpha * x0 + sigma * epsilon, times, float(alpha), float(sigma)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("one,other", list(itertools.permutations(CLASSIC, 2)))
def test_conversions_invert_each_other_at_both_ends_in_float32(name, one, other):
    schedule = SCHEDULES[name]
    if "posterior_mean" in (one, other) and not schedule.steps:
        with pytest.raises(UserError, match="discrete"):
            Prediction(*(jnp.zeros((2, 4, 4, 3)),) * 2, jnp.ones(2), schedule, X0()).to(PosteriorMean())
        return
    times = np.array([0.001, 0.02, 0.5, 0.98, 1.0], np.float32)
    x0, epsilon = np.random.default_rng(0).standard_normal((2, 5, 4, 4, 3)).astype(np.float32)
    alpha, sigma = (np.asarray(f(times))[:, None, None, None] for f in (schedule.alpha, schedule.sigma))
    exact = Prediction(alpha * epsilon - sigma * x0, alpha * x0 + sigma * epsilon, times, schedule, V())
    there = exact.to(TYPES[one]).to(TYPES[other])
    back, want = there.to(TYPES[one]), np.asarray(exact.to(TYPES[one]).value)
    # float32 rounding of x, seen through the type: x0 and epsilon are x over alpha and over sigma
    slack = 2e-6 * (1 + 1 / alpha) * (1 + 1 / sigma)
    assert (np.abs(back.value - want) <= slack * (1 + np.abs(want).max((1, 2, 3), keepdims=True))).all()
    assert (np.abs(there.x0 - x0) <= slack * 20).all()


@pytest.mark.parametrize("kind", ("x0", "epsilon", "v"))
def test_the_stable_types_give_x0_and_epsilon_exactly_enough(kind):
    schedule = SCHEDULES["linear"]
    for t in (0.001, 1.0):
        x0, epsilon, x, times, alpha, sigma = _truth(schedule, t)
        value = {"x0": x0, "epsilon": epsilon, "v": alpha * epsilon - sigma * x0}[kind]
        got = Prediction(value, x, times, schedule, TYPES[kind])
        np.testing.assert_allclose(got.x0, x0, atol=1e-4 if kind == "epsilon" and t == 1 else 3e-6)
        np.testing.assert_allclose(got.epsilon, epsilon, atol=1e-4 if kind == "x0" else 3e-6)


def test_the_score_is_the_gradient_of_the_log_density():
    """For data at one point the marginal is a Gaussian; autodiff of its log density is the score."""
    schedule, t = SCHEDULES["cosine"], jnp.float32(0.3)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    x0, x = jnp.asarray([[0.2, -0.5]]), jnp.asarray([[0.9, 0.1]])
    gradient = jax.grad(lambda x: jax.scipy.stats.norm.logpdf(x, alpha * x0, sigma).sum())(x)
    np.testing.assert_allclose(Prediction(x0, x, t[None], schedule, X0()).to(Score()).value, gradient, rtol=1e-5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_posterior_against_bayes_on_a_grid(name):
    """q(x_s | x_t, x_0) by multiplying the two Gaussians on a fine grid."""
    schedule = SCHEDULES[name]
    t, s, x0, x_t = jnp.float32(0.6), jnp.float32(0.35), 0.4, -0.3
    grid = np.linspace(-6, 6, 200_001)
    a_t, a_s, s_t, s_s = (float(f(u)) for f in (schedule.alpha, schedule.sigma) for u in (t, s))
    ratio = a_t / a_s
    step2 = s_t**2 - ratio**2 * s_s**2
    log = -((grid - a_s * x0) ** 2) / (2 * s_s**2) - (x_t - ratio * grid) ** 2 / (2 * step2)
    density = np.exp(log - log.max())
    density /= density.sum()
    mean = (density * grid).sum()
    variance = (density * (grid - mean) ** 2).sum()
    x = jnp.full((1, 1), x_t)
    of_x, of_x0, got = posterior(schedule, t, s, x)
    np.testing.assert_allclose(of_x * x_t + of_x0 * x0, mean, rtol=1e-4)
    np.testing.assert_allclose(got, variance, rtol=1e-4)


def test_clipping_moves_epsilon_with_x0():
    schedule, t = SCHEDULES["cosine"], jnp.full((1,), 0.5)
    prediction = Prediction(jnp.full((1, 2), 3.0), jnp.full((1, 2), 0.5), t, schedule, X0()).clip()
    assert float(prediction.x0.max()) == 1.0
    rebuilt = prediction.alpha * prediction.x0 + prediction.sigma * prediction.epsilon
    np.testing.assert_allclose(rebuilt, prediction.x, atol=1e-6)


def test_a_network_of_wrong_width_is_named():
    denoise = denoiser(SCHEDULES["linear"], Epsilon(), lambda x, time: jnp.concatenate([x, x], -1))
    with pytest.raises(UserError, match="out_channels"):
        denoise(jnp.zeros((1, 4, 4, 3)), 0.5)


CONTINUOUS = {
    "vp": schedules.VP(),
    "sub_vp": schedules.SubVP(),
    "ve": schedules.VE(sigma_max=20.0),
    "edm": schedules.EDM(sigma_max=20.0),
    "rectified_flow": schedules.RectifiedFlow(),
    "rectified_flow_shifted": schedules.RectifiedFlow(shift=3.0),
    "cosine": SCHEDULES["cosine"],
}
EVERYWHERE = {name: each for name, each in TYPES.items() if name != "posterior_mean"}


@pytest.mark.nightly
@pytest.mark.parametrize("t", [0.03, 0.5, 0.95])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_every_type_is_read_from_every_other_under_every_schedule(name, t):
    """In float64, from the true image and noise; no type is reached through itself alone."""
    schedule = CONTINUOUS[name]
    with jax.enable_x64(True):
        x0 = jax.random.uniform(jax.random.key(0), (2, 3), jnp.float64, -1, 1)
        epsilon = jax.random.normal(jax.random.key(1), (2, 3), jnp.float64)
        times = jnp.full((2,), t, jnp.float64)
        x = diffuse(schedule, x0, times, epsilon)
        exact = Prediction(x0, x, times, schedule, X0())
        for kind, prediction_type in EVERYWHERE.items():
            held = exact.to(prediction_type)
            assert held.prediction_type == prediction_type
            np.testing.assert_allclose(held.x0, x0, atol=1e-9, err_msg=kind)
            np.testing.assert_allclose(held.epsilon, epsilon, atol=1e-9, err_msg=kind)
            for other in EVERYWHERE.values():
                np.testing.assert_allclose(held.to(other).value, exact.to(other).value, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("t", [0.03, 0.5, 0.95])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_what_a_type_writes_out_is_what_its_pair_says(name, t):
    """In float64: the contract's equations, which need the pair alone, against those of the class."""
    schedule = CONTINUOUS[name]
    with jax.enable_x64(True):
        x0, epsilon, value = jax.random.normal(jax.random.key(0), (3, 2, 5), jnp.float64)
        times = jnp.full((2,), t, jnp.float64)
        x = diffuse(schedule, x0, times, epsilon)
        for kind, each in TYPES.items():
            if kind == "posterior_mean" and not schedule.steps:
                continue
            now = Prediction(value, x, times, schedule, each)
            for what in ("x0", "epsilon"):
                general = getattr(PredictionType, what)(each, now)
                np.testing.assert_allclose(getattr(now, what), general, rtol=1e-7, err_msg=f"{kind} {what}")
            np.testing.assert_allclose(
                each.value(now, x0, epsilon), PredictionType.value(each, now, x0, epsilon), rtol=1e-7, err_msg=kind
            )
            np.testing.assert_allclose(
                each.x0_error(schedule, times), PredictionType.x0_error(each, schedule, times), rtol=1e-7, err_msg=kind
            )


@dataclasses.dataclass(frozen=True)
class Mixed(PredictionType):
    """A type of one's own: its pair is all that it gives."""

    def pair(self, schedule, t):
        return 0.3 + 0 * t, -0.2 * t


def test_a_type_of_ones_own_needs_its_pair_alone():
    schedule = SCHEDULES["cosine"]
    x0, epsilon, x, times, _, _ = _truth(schedule, 0.4)
    now = Prediction(0.3 * x0 - 0.08 * epsilon, x, times, schedule, Mixed())
    np.testing.assert_allclose(now.x0, x0, atol=1e-5)
    np.testing.assert_allclose(now.epsilon, epsilon, atol=1e-5)
    np.testing.assert_allclose(now.to(V()).to(Mixed()).value, now.value, atol=1e-5)
    np.testing.assert_allclose(Mixed().target(now, x0, epsilon), now.value, atol=1e-5)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_velocity_is_how_a_path_moves(name):
    """d x_t / dt at fixed x0 and epsilon, by autodiff along the path; on straight paths epsilon - x0."""
    schedule = CONTINUOUS[name]
    x0, epsilon = jnp.asarray([[0.2, -0.7]]), jnp.asarray([[1.1, 0.4]])
    path = lambda t: diffuse(schedule, x0, t[None], epsilon)  # noqa: E731
    t = jnp.float32(0.3005)
    x, velocity = jax.jvp(path, (t,), (jnp.float32(1),))
    np.testing.assert_allclose(Prediction(x0, x, t[None], schedule, X0()).velocity, velocity, rtol=1e-4)
    if name == "rectified_flow":
        np.testing.assert_allclose(velocity, epsilon - x0, rtol=1e-6)


def test_velocity_gives_x0_and_epsilon_at_both_ends_of_a_straight_path():
    schedule = CONTINUOUS["rectified_flow"]
    x0, epsilon = jnp.asarray([[0.2, -0.7]]), jnp.asarray([[1.1, 0.4]])
    for t in (0.0, 1.0):
        now = Prediction(
            epsilon - x0, diffuse(schedule, x0, jnp.full(1, t), epsilon), jnp.full(1, t), schedule, Velocity()
        )
        np.testing.assert_allclose(now.x0, x0, atol=1e-6)
        np.testing.assert_allclose(now.epsilon, epsilon, atol=1e-6)


@pytest.mark.parametrize("sigma_data", [0.5, 1.2])
def test_edm_is_the_papers_preconditioning(sigma_data):
    """Karras et al. (2022), Table 1 (last column): D = c_skip x + c_out F(c_in x, c_noise)."""
    schedule = schedules.EDM(sigma_data=sigma_data)
    x = jax.random.normal(jax.random.key(0), (3, 5))
    for sigma in (0.002, 0.3, 4.0, 80.0):
        c_skip = sigma_data**2 / (sigma**2 + sigma_data**2)
        c_out = sigma * sigma_data / np.sqrt(sigma**2 + sigma_data**2)
        c_in = 1 / np.sqrt(sigma**2 + sigma_data**2)
        network = lambda x, c_noise: jnp.tanh(x + c_noise[:, None])  # noqa: E731
        got = denoiser(schedule, EDM(), network)(sigma * x, jnp.float32(sigma / 80)).x0
        wanted = c_skip * sigma * x + c_out * jnp.tanh(c_in * sigma * x + np.log(sigma) / 4)
        np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("t", [0.01, 0.3, 0.97])
@pytest.mark.parametrize("name", CONTINUOUS)
def test_edm_keeps_a_networks_input_and_target_at_unit_variance(name, t):
    """At every noise level of every schedule, for data of the standard deviation that it expects."""
    schedule = CONTINUOUS[name]
    x0 = schedule.sigma_data * jax.random.normal(jax.random.key(0), (1, 50_000))
    z = jax.random.normal(jax.random.key(1), x0.shape)
    times = jnp.full((1,), t)
    x = diffuse(schedule, x0, times, z)
    seen = []
    denoiser(schedule, EDM(), lambda x, time: (seen.append(x), x)[1])(x, times)
    target = Prediction(x0, x, times, schedule, X0()).to(EDM()).value
    assert abs(float(seen[0].std()) - 1) < 0.02
    assert abs(float(target.std()) - 1) < 0.02
    assert abs(float((seen[0] * target).mean())) < 0.02  # what is left to learn has nothing of the input in it


def _learned(place, schedule=SCHEDULES["linear"]):
    """A denoiser whose network puts the variance at `place` between its bounds."""
    network = lambda x, time: jnp.concatenate([0.3 * x, jnp.full_like(x, place)], -1)  # noqa: E731
    return denoiser(schedule, Epsilon(), network, learned_variance=True)


def test_a_network_that_learns_the_variance_gives_twice_the_channels():
    now = _learned(0.25)(jnp.ones((2, 4, 4, 3)), 0.5)
    assert now.value.shape == now.log_variance.shape == (2, 4, 4, 3)
    np.testing.assert_allclose(now.epsilon, 0.3, rtol=1e-6)
    np.testing.assert_array_equal(now.log_variance, 0.25)
    with pytest.raises(UserError, match="twice"):
        denoiser(SCHEDULES["linear"], Epsilon(), lambda x, t: x, learned_variance=True)(jnp.ones((1, 2, 2, 3)), 0.5)
    with pytest.raises(UserError, match="learned"):
        plain = denoiser(SCHEDULES["linear"], Epsilon(), lambda x, t: x)(jnp.ones((1, 2, 2, 3)), 0.5)
        reverse_log_variance(plain, 0.4)


@pytest.mark.parametrize("t,s", [(1.0, 0.999), (0.5, 0.3), (0.002, 0.001)])
def test_the_learned_variance_lies_between_posterior_and_added_noise(t, s):
    """Nichol & Dhariwal (2021), Eq. 15: interpolated in the logarithm."""
    schedule, x = SCHEDULES["linear"], jnp.ones((2, 3))
    low = posterior(schedule, jnp.float32(t), jnp.float32(s), x)[2]
    high = added_noise_share(schedule, t, s) * schedule.sigma(t) ** 2
    got = [jnp.exp(reverse_log_variance(_learned(place)(x, t), s)) for place in (-1.0, 0.0, 1.0)]
    for value, wanted in zip(got, (low, np.sqrt(low * high), high), strict=True):
        np.testing.assert_allclose(value, np.broadcast_to(wanted, (2, 3)), rtol=2e-3)
    # the last step has no posterior variance: that of the step above stands in, and nothing is infinite
    last = reverse_log_variance(_learned(-1.0)(x, 0.001), 0.0)
    above = posterior(schedule, jnp.float32(0.002), jnp.float32(0.001), x)[2]
    np.testing.assert_allclose(jnp.exp(last), np.broadcast_to(above, (2, 3)), rtol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("place,variance", [(-1.0, "small"), (1.0, "large")])
def test_ddpm_with_a_learned_variance_at_its_bounds_is_ddpm(place, variance):
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(jax.random.key(1), (4, 5))
    a, b = (ddpm(20, variance=v)(_learned(place), SCHEDULES["linear"], x, keys) for v in ("learned", variance))
    np.testing.assert_allclose(a, b, atol=1e-4)
    other = ddpm(20, variance="learned")(_learned(0.0), SCHEDULES["linear"], x, keys)
    assert float(jnp.abs(other - a).max()) > 1e-2
