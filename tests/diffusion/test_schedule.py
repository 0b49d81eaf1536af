"""Schedules: variance is preserved, inverses invert, both ends hold in float32, marginals by Monte Carlo.

The first part is about the variance-preserving ones, the second about all of them.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.diffusion import schedules
from jaxgen.diffusion.noise import per_image_noise
from jaxgen.diffusion.prediction import Prediction, denoiser
from jaxgen.diffusion.prediction_types import EDM, X0, Epsilon, Score, V, Velocity
from jaxgen.diffusion.process import diffuse
from jaxgen.diffusion.samplers.ddim import DDIM as ddim
from jaxgen.errors import UserError

ALL = {
    "linear": schedules.Linear(),
    "cosine": schedules.Cosine(),
    "linear_250": schedules.Linear(steps=250, beta_end=0.08),
    "continuous_cosine": schedules.ContinuousCosine(),
}


@pytest.fixture(params=ALL, name="schedule")
def _schedule(request):
    return ALL[request.param]


def test_the_variance_is_preserved_at_every_time(schedule):
    t = jnp.linspace(0, 1, 1001)
    np.testing.assert_allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, 1, atol=3e-7)


def test_noise_only_grows(schedule):
    t = jnp.linspace(0, 1, 1001)
    assert (np.diff(np.asarray(schedule.log_snr(t))[1:]) < 0).all()
    assert schedule.alpha(jnp.float32(0)) > 0.9999
    assert schedule.alpha(jnp.float32(1)) < 0.01


def test_time_inverts_log_snr_at_both_ends_and_between_levels(schedule):
    t = jnp.asarray([1e-3, 4e-3, 0.1234, 0.5, 0.9, 0.999, 1.0])
    np.testing.assert_allclose(schedule.t_from_log_snr(schedule.log_snr(t)), t, rtol=2e-4, atol=2e-6)


def test_log_snr_agrees_with_alpha_and_sigma(schedule):
    t = jnp.linspace(0.01, 1, 100)
    direct = 2 * (jnp.log(schedule.alpha(t)) - jnp.log(schedule.sigma(t)))
    np.testing.assert_allclose(schedule.log_snr(t), direct, rtol=1e-4, atol=1e-4)


def test_discrete_levels_are_the_products_of_the_papers():
    """alpha_bar as the running product of 1 - beta in float64, read at the times i / steps."""
    schedule = schedules.Linear()
    betas = 1e-4 + (0.02 - 1e-4) * np.arange(1000) / 999
    alpha_bar = 1.0
    for i, beta in enumerate(betas, 1):
        alpha_bar *= 1 - beta
        if i in (1, 2, 500, 999, 1000):
            np.testing.assert_allclose(schedule.alpha(jnp.float32(i / 1000)) ** 2, alpha_bar, rtol=3e-6)
            np.testing.assert_allclose(schedule.sigma(jnp.float32(i / 1000)) ** 2, 1 - alpha_bar, rtol=3e-6)
    assert schedule.alpha(jnp.float32(0)) == 1 and schedule.sigma(jnp.float32(0)) == 0


def test_published_landmarks():
    """Ho et al. (2020), Section 4: the prior term of the linear schedule is about 1e-5 bits per dimension, so
    alpha_bar at the end is about 4e-5; Nichol & Dhariwal (2021): the cosine one is near a half at the middle."""
    assert 3e-5 < float(schedules.Linear().alpha(jnp.float32(1)) ** 2) < 5e-5
    assert abs(float(schedules.Cosine().alpha(jnp.float32(0.5)) ** 2) - 0.5) < 0.01


def test_the_network_sees_the_numbers_of_weight_files():
    schedule = schedules.Linear()
    t = jnp.asarray([1, 2, 999, 1000]) / 1000
    assert schedule.conditioning(t).tolist() == [0, 1, 998, 999]
    assert schedule.conditioning(t).dtype == jnp.float32


def test_low_precision_times_still_give_float32(schedule):
    t = jnp.asarray([0.001, 0.5], jnp.bfloat16)
    for of_t in (schedule.alpha, schedule.sigma, schedule.log_snr, schedule.conditioning):
        assert of_t(t).dtype == jnp.float32
    assert float(schedule.sigma(t)[0]) > 0


def test_float64_times_give_float64(schedule):
    with jax.enable_x64(True):
        t = jnp.linspace(0.1, 1, 10, dtype=jnp.float64)
        assert schedule.alpha(t).dtype == jnp.float64
        np.testing.assert_allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, 1, atol=1e-14)


def test_the_slope_in_time_is_that_of_finite_differences(schedule):
    with jax.enable_x64(True):
        t, h = jnp.float64(0.30037), 1e-6
        slope = jax.grad(lambda t: schedule.alpha(t))(t)
        np.testing.assert_allclose(slope, (schedule.alpha(t + h) - schedule.alpha(t - h)) / (2 * h), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("t", [0.05, 0.5, 1.0])
def test_forward_marginals_by_monte_carlo(schedule, t):
    """One step of noise after the other gives the closed form's mean and variance."""
    key, chains = jax.random.key(0), 20_000
    levels = np.linspace(0, t, 41)
    x = jnp.full((chains,), 0.7) * schedule.alpha(jnp.float32(0))
    for i, (s, now) in enumerate(zip(levels[:-1], levels[1:], strict=True)):
        step = schedule.alpha(jnp.float32(now)) / schedule.alpha(jnp.float32(s))
        std = jnp.sqrt(schedule.sigma(jnp.float32(now)) ** 2 - step**2 * schedule.sigma(jnp.float32(s)) ** 2)
        x = step * x + std * jax.random.normal(jax.random.fold_in(key, i), x.shape)
    closed = diffuse(
        schedule, jnp.full((chains,), 0.7), jnp.full((chains,), t), jax.random.normal(jax.random.key(1), (chains,))
    )
    error = 4 / np.sqrt(chains)
    assert abs(x.mean() - schedule.alpha(jnp.float32(t)) * 0.7) < error
    assert abs(x.std() - schedule.sigma(jnp.float32(t))) < error
    assert abs(x.mean() - closed.mean()) < 1.5 * error
    assert abs(x.std() - closed.std()) < 1.5 * error


def test_bad_schedules_are_refused():
    with pytest.raises(UserError, match="above 0 and at most 1"):
        schedules.Linear(beta_end=1.5)
    with pytest.raises(UserError, match="at least 1"):
        schedules.Cosine(steps=0)
    with pytest.raises(UserError, match="below"):
        schedules.ContinuousCosine(log_snr_min=3, log_snr_max=-3)


EVERY = {
    **ALL,
    "scaled_linear": schedules.ScaledLinear(),
    "sigmoid": schedules.Sigmoid(),
    "linear_zero": schedules.Linear(zero_terminal_snr=True),
    "scaled_linear_zero": schedules.ScaledLinear(zero_terminal_snr=True),
    "cosine_zero": schedules.Cosine(zero_terminal_snr=True),
    "sigmoid_zero": schedules.Sigmoid(zero_terminal_snr=True),
    "vp": schedules.VP(),
    "sub_vp": schedules.SubVP(),
    "ve": schedules.VE(),
    "edm": schedules.EDM(),
    "rectified_flow": schedules.RectifiedFlow(),
    "rectified_flow_shifted": schedules.RectifiedFlow(shift=3.0),
}
# no signal, and so no logarithm of it, at t = 1
SILENT_END = [name for name in EVERY if "zero" in name or "rectified" in name]


@pytest.fixture(params=EVERY, name="every")
def _every(request):
    return EVERY[request.param]


def _times(schedule, count=97):
    """Times on levels, between levels and at both ends; the brightest is t_min, the darkest has a signal."""
    dark = 1 - 1 / schedule.steps if schedule.steps else 0.999
    end = 1.0 if schedule.alpha(1.0) > 1e-10 else dark
    return np.linspace(max(schedule.t_min, 1e-3), end, count)


def test_float32_in_jax_and_float64_in_numpy_are_one_schedule(every):
    t = np.append(_times(every), 1.0).astype(np.float32)
    for name in ("alpha", "sigma", "conditioning", "input_scale"):
        single, double = getattr(every, name)(jnp.asarray(t)), getattr(every, name)(t)
        assert single.dtype == jnp.float32 and double.dtype == np.float64
        np.testing.assert_allclose(
            single, double, rtol=3e-5, atol={"conditioning": 1e-3}.get(name, 1e-30), err_msg=name
        )
    np.testing.assert_allclose(every.log_snr(jnp.asarray(t[:-1])), every.log_snr(t[:-1]), rtol=3e-5, atol=3e-5)
    with jax.enable_x64(True):
        double = jnp.asarray(t, jnp.float64)
        np.testing.assert_allclose(every.sigma(double), every.sigma(t), rtol=1e-12)
        np.testing.assert_allclose(every.alpha(double), every.alpha(t), rtol=1e-12)


def test_time_and_log_snr_are_inverses(every):
    t = _times(every)
    np.testing.assert_allclose(every.t_from_log_snr(every.log_snr(t)), t, rtol=1e-9)
    single = every.t_from_log_snr(every.log_snr(jnp.asarray(t, jnp.float32)))
    np.testing.assert_allclose(single, t, rtol=1e-3, atol=2e-6)
    log_snr = np.linspace(*every.log_snr(t[[-1, 0]]), 301)
    # a discrete schedule moves times that miss a level by a thousandth of a step onto it
    back = every.log_snr(every.t_from_log_snr(log_snr))
    np.testing.assert_allclose(back, log_snr, atol=2e-3 if every.steps else 1e-9)


def test_log_snr_falls_strictly_and_is_that_of_alpha_and_sigma(every):
    t = _times(every, 999)
    assert (np.diff(every.log_snr(t)) < 0).all()
    if every.steps:
        levels = jnp.arange(1, every.steps + 1) / every.steps
        assert (np.diff(np.asarray(every.log_snr(levels))) < 0).all()  # in float32 too, at every level
    np.testing.assert_allclose(np.exp(every.log_snr(t)), (every.alpha(t) / every.sigma(t)) ** 2, rtol=1e-9)


def test_what_each_family_keeps():
    t = np.linspace(0.01, 1, 50)
    for name, schedule in EVERY.items():
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        if name in ("ve", "edm"):
            np.testing.assert_array_equal(alpha, 1)
        elif "rectified" in name:
            np.testing.assert_allclose(alpha + sigma, 1, rtol=1e-12)
        elif name == "sub_vp":
            assert (sigma < schedules.VP().sigma(t)).all()
            np.testing.assert_array_equal(alpha, schedules.VP().alpha(t))
        else:
            np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-12, err_msg=name)
    for name, ends in {"ve": (0.01, 50), "edm": (0, 80)}.items():
        np.testing.assert_allclose(EVERY[name].sigma(np.asarray([0.0, 1.0])), ends, rtol=1e-12)


def test_the_shift_moves_times_by_the_papers_formula():
    """Esser et al. (2024), Section 5.3.2: noise per signal grows by the shift at every time."""
    t = np.linspace(0.1, 0.9, 9)
    plain, shifted = EVERY["rectified_flow"], EVERY["rectified_flow_shifted"]
    ratio = [schedule.sigma(t) / schedule.alpha(t) for schedule in (plain, shifted)]
    np.testing.assert_allclose(ratio[1] / ratio[0], 3.0, rtol=1e-12)


def test_rates_are_the_slopes(every):
    with jax.enable_x64(True):
        t, h = np.asarray([0.05037, 0.30037, 0.80037]), 1e-7
        alpha_rate, sigma_rate = every.rates(jnp.asarray(t))
        for rate, of_t in ((alpha_rate, every.alpha), (sigma_rate, every.sigma)):
            np.testing.assert_allclose(rate, (of_t(t + h) - of_t(t - h)) / (2 * h), rtol=1e-5, atol=1e-7)


def _moments(rate, g2, variance, t):
    """Mean and variance at time t of dx = rate(t) x dt + sqrt(g2(t)) dw from mean 1, by Runge-Kutta."""
    moments, steps = np.asarray([1.0, variance]), 4000
    slope = lambda m, t: np.asarray([rate(t) * m[0], 2 * rate(t) * m[1] + g2(t)])  # noqa: E731
    h = t / steps
    for i in range(steps):
        now = i * h
        a = slope(moments, now)
        b = slope(moments + h / 2 * a, now + h / 2)
        c = slope(moments + h / 2 * b, now + h / 2)
        moments = moments + h / 6 * (a + 2 * b + 2 * c + slope(moments + h * c, now + h))
    return moments


@pytest.mark.parametrize("t", [0.1, 0.5, 1.0])
def test_marginals_are_those_of_the_papers_sdes(t):
    """Song et al. (2021), Eqs. 30, 32 and 34, integrated: mean and variance of x_t given x_0."""
    beta = lambda t: 0.1 + 19.9 * t  # noqa: E731
    decay = lambda t: np.exp(-2 * (0.1 * t + 0.5 * 19.9 * t**2))  # noqa: E731
    sdes = {
        "vp": (lambda t: -beta(t) / 2, beta, 0.0),
        "sub_vp": (lambda t: -beta(t) / 2, lambda t: beta(t) * (1 - decay(t)), 0.0),
        "ve": (lambda t: 0.0, lambda t: (0.01 * 5000**t) ** 2 * 2 * np.log(5000), 0.01**2),
    }
    for name, sde in sdes.items():
        mean, variance = _moments(*sde, t)
        np.testing.assert_allclose(EVERY[name].alpha(t), mean, rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(EVERY[name].sigma(t) ** 2, variance, rtol=1e-6, err_msg=name)


def test_conditioning_is_what_weight_files_were_trained_on():
    t = np.asarray([0.004, 0.5, 1.0])
    for name in ("scaled_linear", "sigmoid", "linear_zero"):
        np.testing.assert_allclose(EVERY[name].conditioning(t), [3, 499, 999], atol=1e-9)
    np.testing.assert_allclose(EVERY["linear_250"].conditioning(t), [0, 496, 996], atol=1e-9)
    np.testing.assert_allclose(EVERY["vp"].conditioning(t), 1000 * t)
    for name in ("ve", "edm"):  # Karras et al. (2022), Table 1
        np.testing.assert_allclose(EVERY[name].conditioning(t), np.log(EVERY[name].sigma(t)) / 4, rtol=1e-12)
    for name in ("rectified_flow", "rectified_flow_shifted"):  # the noise level, whatever the shift
        np.testing.assert_allclose(EVERY[name].conditioning(t), 1000 * EVERY[name].sigma(t))


def test_sampling_starts_from_the_spread_of_the_darkest_images(every):
    std = np.hypot(every.alpha(1.0) * 0.5, every.sigma(1.0))
    np.testing.assert_allclose(every.prior_std, std, rtol=5e-3)


@pytest.mark.parametrize("cls", [schedules.VE, schedules.EDM])
@pytest.mark.parametrize("sigma_data", [0.5, 1.3])
def test_exploding_images_enter_a_network_with_unit_variance(cls, sigma_data):
    schedule = cls(sigma_data=sigma_data)
    key = jax.random.key(0)
    for t in (0.001, 0.2, 1.0):
        x0, z = sigma_data * jax.random.normal(key, (1, 40_000)), jax.random.normal(jax.random.key(1), (1, 40_000))
        seen = []
        network = lambda x, time, seen=seen: (seen.append(x), x)[1]  # noqa: E731
        denoiser(schedule, X0(), network)(diffuse(schedule, x0, jnp.full(1, t), z), jnp.float32(t))
        assert abs(float(seen[0].std()) - 1) < 0.02


def test_bounded_images_enter_as_they_are(every):
    if every.prior_std == 1:
        np.testing.assert_array_equal(every.input_scale(np.linspace(0, 1, 5)), 1)


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine", "sigmoid"])
def test_zero_terminal_snr(name):
    """Lin et al. (2023), Algorithm 1: the last level is pure noise, the first stays, those between stay in order."""
    plain, zero = EVERY[name], EVERY[f"{name}_zero"]
    assert zero.alpha(jnp.float32(1)) == 0 and zero.sigma(jnp.float32(1)) == 1
    assert zero.alpha(1.0) < 1e-80 and plain.alpha(1.0) > 1e-6
    np.testing.assert_allclose(zero.betas[0], plain.betas[0], rtol=1e-9)
    levels = np.arange(1, 1000) / 1000
    assert (zero.alpha(levels[1:]) < plain.alpha(levels[1:])).all()
    # an affine map of alpha: three points fix it
    share = (zero.alpha(levels) - zero.alpha(0.999)) / (zero.alpha(0.001) - zero.alpha(0.999))
    wanted = (plain.alpha(levels) - plain.alpha(0.999)) / (plain.alpha(0.001) - plain.alpha(0.999))
    np.testing.assert_allclose(share, wanted, atol=1e-9)


@pytest.mark.parametrize("name", SILENT_END)
def test_epsilon_says_nothing_about_pure_noise_and_is_refused(name):
    for silent in (Epsilon(), Score()):
        with pytest.raises(UserError, match="use the prediction type v"):
            denoiser(EVERY[name], silent, lambda x, t: x)
    for sound in (V(), X0(), Velocity(), EDM()):
        denoiser(EVERY[name], sound, lambda x, t: x)
    denoiser(EVERY["linear"], Epsilon(), lambda x, t: x)


@pytest.mark.parametrize("name", ["linear_zero", "cosine_zero"])
def test_v_samples_from_pure_noise(name):
    """DDIM with the exact v of data N(0.3, 0.25**2), from t = 1 where x is noise alone."""
    schedule = EVERY[name]

    def network(x, time):
        alpha, sigma = (f((time[:, None] + 1) / 1000) for f in (schedule.alpha, schedule.sigma))
        gain = alpha * 0.25**2 / (alpha**2 * 0.25**2 + sigma**2)
        x0 = 0.3 + gain * (x - alpha * 0.3)
        return Prediction(x0, x, (time + 1) / 1000, schedule, X0()).v

    keys = jax.random.split(jax.random.key(0), 4000)
    sample = jax.jit(lambda x, k: ddim(100, clip=False)(denoiser(schedule, V(), network), schedule, x, k))
    x = sample(per_image_noise(keys, 0, (1,)), keys)
    assert abs(float(x.mean()) - 0.3) < 0.02
    assert abs(float(x.std()) / 0.25 - 1) < 0.08


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine", "sigmoid"])
def test_float32_holds_at_both_ends_where_the_plain_product_does_not(name):
    """sigma of the first level and alpha of the last, against float64; beside it a running product in float32."""
    schedule = EVERY[name]
    alpha_bar = np.cumprod(1 - schedule.betas)
    first, last = np.sqrt(schedule.betas[0]), np.sqrt(alpha_bar[-1])
    assert abs(float(schedule.sigma(jnp.float32(0.001))) / first - 1) < 2e-6
    assert abs(float(schedule.alpha(jnp.float32(1))) / last - 1) < 2e-6
    product = np.cumprod(1 - schedule.betas.astype(np.float32), dtype=np.float32)
    assert abs(np.sqrt(1 - product[0]) / first - 1) > 1e-5


@pytest.mark.parametrize(
    "make,match",
    [
        (lambda: schedules.VP(beta_min=5.0, beta_max=1.0), "beta_min"),
        (lambda: schedules.SubVP(t_min=0.0), "t_min"),
        (lambda: schedules.VE(sigma_min=2.0, sigma_max=1.0), "sigma_min"),
        (lambda: schedules.EDM(sigma_data=0.0), "sigma_data"),
        (lambda: schedules.RectifiedFlow(shift=0.0), "shift"),
        (lambda: schedules.RectifiedFlow(t_min=1.0), "t_min"),
        (lambda: schedules.Sigmoid(start=1.0, end=0.0), "start"),
        (lambda: schedules.Sigmoid(tau=0.0), "tau"),
        (lambda: schedules.ScaledLinear(steps=0), "at least 1"),
    ],
)
def test_bad_continuous_schedules_are_refused(make, match):
    with pytest.raises(UserError, match=match):
        make()
