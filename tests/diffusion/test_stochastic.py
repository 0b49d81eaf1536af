"""Stochastic solvers: convergence in law on data whose score is known, without sampling where that can be.

With Gaussian data a solver's chain is linear: mean and variance of its result follow from its coefficients alone,
exactly. With a mixture on the line its law is carried over a fine grid. Sampled runs stand beside both.
"""

import functools

import jax
import jax.numpy as jnp
import mixture
import numpy as np
import pytest
import tiny

from jaxgen.diffusion import schedules
from jaxgen.diffusion.noise import per_image_noise
from jaxgen.diffusion.prediction import Prediction
from jaxgen.diffusion.prediction_types import Score, V
from jaxgen.diffusion.samplers.ddim import DDIM as ddim
from jaxgen.diffusion.samplers.dpmpp import DPMpp2MSDE as dpmpp_2m_sde
from jaxgen.diffusion.samplers.edm import EDM as edm
from jaxgen.diffusion.samplers.predictor_corrector import PredictorCorrector as predictor_corrector
from jaxgen.diffusion.samplers.runge_kutta import Heun as heun
from jaxgen.diffusion.samplers.sde import EulerAncestral as euler_ancestral
from jaxgen.diffusion.samplers.sde import EulerMaruyama as euler_maruyama
from jaxgen.diffusion.samplers.sde import drift_and_diffusion
from jaxgen.diffusion.spacing import time_grid
from jaxgen.errors import UserError

MEAN, STD = 0.3, 0.25
# a mixture on the line: two modes of unequal widths and weights
MEANS, STDS, WEIGHTS = np.asarray([-0.6, 0.5]), np.asarray([0.3, 0.2]), np.asarray([0.4, 0.6])
SCHEDULES = {
    "linear": schedules.Linear(),
    "vp": schedules.VP(),
    "sub_vp": schedules.SubVP(),
    "continuous_cosine": schedules.ContinuousCosine(),
    "ve": schedules.VE(),
    "edm": schedules.EDM(),
    "rectified_flow": schedules.RectifiedFlow(),
}
VP = SCHEDULES["vp"]

pytestmark = pytest.mark.slow  # many small programs to compile


def marginal(schedule, t, mean=MEAN, std=STD):
    """Mean and standard deviation of x_t for data N(mean, std**2)."""
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    return alpha * mean, np.hypot(alpha * std, sigma)


def exact_law(table, schedule, t):
    """Mean and standard deviation of what coefficients give for Gaussian data, started from x_t's own law.

    The vector (x, base, m_0, m_1, ...) stays jointly Gaussian: every row maps it linearly.
    """
    wide = table.step.shape[1]
    mean, cov = np.zeros(2 + wide), np.zeros((2 + wide, 2 + wide))
    mean[0], std = marginal(schedule, t)
    cov[0, 0] = std**2 + table.before**2
    for i, now in enumerate(table.t):
        alpha, sigma = float(schedule.alpha(now)), float(schedule.sigma(now))
        gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)  # E[x0 | x] = MEAN + gain (x - alpha MEAN)
        slope, constant = (gain, MEAN * (1 - gain * alpha))
        if table.output == "epsilon":
            slope, constant = (1 - alpha * slope) / sigma, -alpha * constant / sigma
        look = np.zeros_like(cov)
        look[0, 0] = look[1, 1] = 1
        look[2, 0] = slope
        look[range(3, 2 + wide), range(2, 1 + wide)] = 1
        step = np.eye(2 + wide)
        step[1, :2] = table.take[i], table.keep[i]
        step[0] = table.move[i] * step[1]
        step[0, 2:] += table.step[i]
        assert not table.correct.any()
        mean = step @ (look @ mean + constant * np.eye(2 + wide)[2])
        cov = step @ look @ cov @ look.T @ step.T
        cov[0, 0] += table.noise[i] ** 2
    return mean[0], np.sqrt(cov[0, 0])


def grid(schedule, steps, dark=-5.0, bright=5.0, even="log_snr"):
    """Times between two noise levels, where a solver's order shows: at 0 and 1 its steps may be infinite."""
    if even == "log_snr":
        return schedule.t_from_log_snr(np.linspace(dark, bright, steps + 1))
    if even == "root":  # of sigma / alpha, as Karras et al. (2022) have it: under any schedule uneven in log_snr
        ends = np.exp(-0.5 * np.asarray([dark, bright]) / 3)
        return schedule.t_from_log_snr(-6 * np.log(np.linspace(*ends, steps + 1)))
    return np.linspace(float(schedule.t_from_log_snr(dark)), float(schedule.t_from_log_snr(bright)), steps + 1)


def orders(errors):
    return -np.diff(np.log2(np.abs(errors)), axis=0)


# solver, expected weak order, in what its grid is even
SOLVERS = {
    "euler_ancestral": (euler_ancestral(), 1, "log_snr"),
    "euler_ancestral_half": (euler_ancestral(eta=0.5), 1, "log_snr"),
    "euler_maruyama": (euler_maruyama(noise_last=True), 1, "time"),
    "reverse_diffusion": (predictor_corrector(corrections=0, noise_last=True), 1, "time"),
    "ancestral": (predictor_corrector(corrections=0, noise_last=True, predictor="ancestral"), 1, "log_snr"),
    "edm": (edm(), 2, "log_snr"),
    "edm_churn": (edm(s_churn=8.0), 2, "log_snr"),
    "dpmpp_2m_sde": (dpmpp_2m_sde(), 2, "log_snr"),
    "dpmpp_2m_sde_half": (dpmpp_2m_sde(eta=0.5), 2, "log_snr"),
    "dpmpp_2m_sde_uneven": (dpmpp_2m_sde(), 2, "root"),
    "dpmpp_2m_sde_heun": (dpmpp_2m_sde(correction="heun"), 2, "log_snr"),
}


@pytest.mark.parametrize("name", ["vp", "sub_vp", "continuous_cosine", "ve", "edm", "rectified_flow"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_weak_order_on_a_gaussian_by_exact_propagation(solver, name):
    """The error of the standard deviation, and of the mean where it is not exact, falls with the stated order."""
    sampler, order, even = SOLVERS[solver]
    schedule = SCHEDULES[name]
    errors = []
    for steps in (160, 320, 640):
        # equal steps of time are uneven in sigma / alpha where sigma explodes: a shorter way shows the order there
        times = grid(schedule, steps, *((-2.0, 4.0) if even == "time" else (-5.0, 5.0)), even=even)
        mean, std = exact_law(sampler.coefficients(schedule, times), schedule, times[0])
        want = marginal(schedule, times[-1])
        errors.append((mean - want[0], std / want[1] - 1))
    errors = np.asarray(errors)
    np.testing.assert_allclose(orders(errors[:, 1]), order, atol=0.15)
    assert abs(errors[-1, 1]) < (1e-2 if order == 1 else 5e-5)
    if np.abs(errors[:, 0]).max() > 1e-9:
        np.testing.assert_allclose(orders(errors[:, 0]), order, atol=0.15)


def on_the_line(schedule, t, x):
    """E[x0 | x_t = x] and the density of x_t for the mixture on the line."""
    alpha, sigma = float(schedule.alpha(t)), float(schedule.sigma(t))
    variance = alpha**2 * STDS**2 + sigma**2
    away = x[..., None] - alpha * MEANS
    p = WEIGHTS * np.exp(-0.5 * away**2 / variance) / np.sqrt(2 * np.pi * variance)
    return (p * (MEANS + alpha * STDS**2 / variance * away)).sum(-1) / p.sum(-1), p.sum(-1)


def law_on_a_grid(table, schedule, t, points):
    """The density of what coefficients give on the line: each row spreads it by a Gaussian about where it sends x."""
    x = np.linspace(-4.5, 4.5, points)
    width = x[1] - x[0]
    joint = on_the_line(schedule, t, x)[1][:, None] * np.full(points, 1 / points)  # of (x, the x before)
    for i, now in enumerate(table.t):
        m = on_the_line(schedule, now, x)[0]
        if table.output == "epsilon":
            m = (x - float(schedule.alpha(now)) * m) / float(schedule.sigma(now))
        step = np.append(table.step[i], 0.0)
        assert table.noise[i] > 0.7 * width and not table.keep.any()
        center = table.move[i] * x + step[0] * m
        if step[1] == 0:
            kernel = _bell((x[:, None] - center) / table.noise[i])
            joint = kernel * joint.sum(1)
        else:
            before = on_the_line(schedule, table.t[i - 1], x)[0]
            columns = []
            for j in range(points):  # over the newest x
                kernel = _bell((x[:, None] - center[j] - step[1] * before) / table.noise[i])
                columns.append(kernel @ joint[j])
            joint = np.stack(columns, axis=1)
        joint *= width / table.noise[i]
    return x, joint.sum(1), width


def _bell(z):
    return np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)


@pytest.mark.parametrize(
    "solver,order,points,counts",
    [
        ("euler_ancestral", 1, 300, (32, 64, 128)),
        ("euler_maruyama", 1, 300, (32, 64, 128)),
        ("reverse_diffusion", 1, 300, (32, 64, 128)),
        ("dpmpp_2m_sde", 2, 110, (12, 24, 48)),
        ("dpmpp_2m_sde_heun", 2, 110, (12, 24, 48)),
    ],
)
def test_weak_order_on_a_mixture_by_its_law_on_a_grid(solver, order, points, counts):
    """The score is not linear in x here. The second and fourth moment, and the total variation of the law."""
    sampler, _, even = SOLVERS[solver]
    schedule = SCHEDULES["continuous_cosine"]
    errors = []
    for steps in counts:
        times = grid(schedule, steps, -1.5, 1.5, even=even)
        x, law, width = law_on_a_grid(sampler.coefficients(schedule, times), schedule, times[0], points)
        want = on_the_line(schedule, times[-1], x)[1]
        assert abs(law.sum() * width - 1) < 1e-5
        errors.append([*(((law - want) * x**k).sum() * width for k in (2, 4)), np.abs(law - want).sum() * width])
    slopes = orders(np.asarray(errors))[-1]
    assert abs(slopes[-1] - order) < 0.2, slopes
    assert (slopes > order - 0.2).all(), slopes  # a moment's error may change its sign on the way
    assert errors[-1][-1] < (2e-2 if order == 1 else 5e-3)


def draw(sampler, schedule, count=20_000, seed=0, start=None, denoise=None, shape=(1,), **options):
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(count))
    denoise = denoise or mixture.denoiser(schedule, np.full((1, *shape), MEAN), [STD], [1.0])
    x = schedule.prior_std * per_image_noise(keys, 0, shape) if start is None else start
    run = jax.jit(lambda x, k: sampler(denoise, schedule, x, k, **options), compiler_options=tiny.LONG)
    return run(x, keys)


@pytest.mark.parametrize(
    "name,solver",
    [
        ("linear", "euler_ancestral"),
        ("rectified_flow", "euler_ancestral"),
        ("vp", "euler_maruyama"),
        ("linear", "euler_maruyama"),
        ("ve", "reverse_diffusion"),
        ("sub_vp", "ancestral"),
        ("edm", "edm_churn"),
        ("vp", "edm_churn"),
        ("edm", "dpmpp_2m_sde"),
        ("continuous_cosine", "dpmpp_2m_sde_heun"),
    ],
)
def test_a_sampled_run_has_the_law_of_its_plan(name, solver):
    """Few steps, so that the law is not the data's: what is tested is that the scan does what the coefficients say."""
    schedule, count, steps = SCHEDULES[name], 40_000, 12
    sampler = SOLVERS[solver][0]
    times = grid(schedule, steps, -4.0, 4.0)
    if schedule.steps:
        times = schedule.snap_to_levels(times)
    mean, std = marginal(schedule, times[0])
    start = mean + std * jax.random.normal(jax.random.key(5), (count, 1))
    x = np.asarray(draw(sampler, schedule, count, start=start, times=times), np.float64)
    mean, std = exact_law(sampler.coefficients(schedule, times), schedule, times[0])
    assert abs(x.mean() - mean) < 4 * std / np.sqrt(count)
    assert abs(x.std() / std - 1) < 4 / np.sqrt(2 * count)
    kurtosis = ((x - x.mean()) ** 4).mean() / x.var() ** 2
    assert abs(kurtosis - 3) < 4 * np.sqrt(24 / count)


@pytest.mark.parametrize(
    "sampler,name",
    [
        (euler_ancestral(300), "linear"),
        (euler_ancestral(200, flow=True), "rectified_flow"),
        (edm(40, s_churn=20.0, s_min=0.05, s_max=50.0), "edm"),
        (dpmpp_2m_sde(60, spacing="log_snr"), "linear"),
        (dpmpp_2m_sde(60), "rectified_flow"),
        (euler_maruyama(500), "vp"),
        (euler_maruyama(500), "linear"),
        (predictor_corrector(150), "ve"),
        (predictor_corrector(200, predictor="ancestral", snr=0.1), "vp"),
    ],
    ids=lambda v: v if isinstance(v, str) else type(v).__name__,
)
def test_a_mixture_is_recovered_from_noise(sampler, name):
    """From the prior to the data, with the grid a config names: weights, centres and widths of the modes.

    A Langevin step's size follows the score and so the place: samples come out wider by about 2 / dimensions.
    """
    count, wide = (500, 96) if isinstance(sampler, predictor_corrector) else (4_000, 8)
    schedule = SCHEDULES[name]
    means = np.stack([np.full(wide, -0.5), np.full(wide, 0.6)])
    stds, weights = np.asarray([0.25, 0.15]), np.asarray([0.4, 0.6])
    x = draw(sampler, schedule, count, shape=(wide,), denoise=mixture.denoiser(schedule, means, stds, weights))
    x = np.asarray(x, np.float64)
    left = x.mean(1) < 0.1  # the modes are more than ten standard deviations apart
    assert abs(left.mean() - 0.4) < 4 * np.sqrt(0.24 / count) + 0.01
    for mode, mean, std in ((x[left], -0.5, 0.25), (x[~left], 0.6, 0.15)):
        assert abs(mode.mean() - mean) < 0.015
        assert abs(mode.std() / std - 1) < 0.08


def test_edm_without_churn_is_heun_step_by_step():
    """Karras et al. (2022), Algorithm 1, written out under its own schedule."""
    schedule = SCHEDULES["edm"]
    with jax.enable_x64(True):
        denoise = mixture.denoiser(schedule)
        times = time_grid("karras", 9, schedule)
        keys = jax.random.split(jax.random.key(0), 5)
        start = 80.0 * jax.random.normal(jax.random.key(1), (5, 2), jnp.float64)
        got = edm(9)(denoise, schedule, start, keys)
        x, sigmas = start, 80.0 * times
        for now, then in zip(sigmas[:-1], sigmas[1:], strict=True):
            slope = (x - denoise(x, now / 80).x0) / now
            new = x + (then - now) * slope
            if then > 0:
                new = x + (then - now) * 0.5 * (slope + (new - denoise(new, then / 80).x0) / then)
            x = new
        np.testing.assert_allclose(got, x, atol=1e-9)


@pytest.mark.parametrize("name", ["linear", "sub_vp", "edm"])
def test_edm_without_churn_is_the_solver_heun(name):
    schedule = SCHEDULES[name]
    options = {"count": 8, "shape": (2,), "denoise": mixture.denoiser(schedule)}
    a, b = (draw(sampler, schedule, **options) for sampler in (edm(7), heun(7, spacing="karras")))
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_edm_with_churn_is_algorithm_2():
    """Written out with the same noise, under a schedule whose alpha is 1; all fields at work."""
    schedule, steps = SCHEDULES["edm"], 6
    sampler = edm(steps, s_churn=3.0, s_min=0.05, s_max=20.0, s_noise=1.01)
    denoise = mixture.denoiser(schedule)
    keys = jax.random.split(jax.random.key(0), 5)
    sigmas = np.asarray([10.0, 4.0, 1.5, 0.5, 0.1, 0.02, 0.0])
    x = start = 10.0 * per_image_noise(keys, 0, (2,))
    got = sampler(denoise, schedule, start, keys, times=sigmas / 80)
    rows = 2 * steps - 1
    for i, (now, then) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        gamma = min(3.0 / steps, np.sqrt(2) - 1) if 0.05 <= now <= 20 else 0.0
        hat = now * (1 + gamma)
        # the noise that the solver draws: before the first row, then in the row that ends a step
        z = per_image_noise(keys, rows + 1 if i == 0 else 2 * i, (2,))
        x = x + np.sqrt(hat**2 - now**2) * 1.01 * z
        slope = (x - denoise(x, hat / 80).x0) / hat
        new = x + (then - hat) * slope
        if then > 0:
            new = x + (then - hat) * 0.5 * (slope + (new - denoise(new, then / 80).x0) / then)
        x = new
    np.testing.assert_allclose(got, x, atol=1e-5)
    assert float(jnp.abs(got - edm(steps)(denoise, schedule, start, keys, times=sigmas / 80)).max()) > 1e-2


def test_churn_keeps_to_its_range_and_the_schedule():
    times = np.linspace(1.0, 0.0, 11)
    schedule = SCHEDULES["edm"]
    table = edm(10, s_churn=5.0, s_min=20.0, s_max=60.0).coefficients(schedule, times)
    noisy = 80 * table.s[table.noise > 0]  # the level that a churned step starts from, above its own
    np.testing.assert_allclose(noisy, 1.4142135 * np.asarray([56, 48, 40, 32, 24]), rtol=1e-6)
    assert table.before == 0 and edm(10, s_churn=5.0).coefficients(schedule, times).before > 0
    for name in ("vp", "linear", "continuous_cosine"):  # alpha changes: never beyond the schedule's end
        table = edm(10, s_churn=5.0).coefficients(SCHEDULES[name], times)
        assert table.before == 0 and table.t[0] == 1 and table.t.max() == 1 and table.noise.any()


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_euler_ancestral_is_ddim(eta):
    """Eta 0 is Euler's method in sigma / alpha, and that is DDIM's (Song et al. 2020, Eq. 14)."""
    schedule = SCHEDULES["linear"]
    denoise = mixture.denoiser(schedule)
    options = {"count": 16, "shape": (2,), "denoise": denoise}
    a = draw(euler_ancestral(20, eta=eta), schedule, **options)
    b = draw(ddim(20, eta=eta, clip=False), schedule, **options)
    np.testing.assert_allclose(a, b, atol=3e-6)
    if eta:
        return
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(0), i))(jnp.arange(16))
    times = time_grid("uniform", 20, schedule)
    y, n = per_image_noise(keys, 0, (2,)) / schedule.alpha(1.0), schedule.sigma(times) / schedule.alpha(times)
    for i, t in enumerate(times[:-1]):
        y = y + (n[i + 1] - n[i]) * denoise(schedule.alpha(t) * y, t).epsilon
    np.testing.assert_allclose(a, y, atol=1e-4)


@pytest.mark.parametrize(
    "sampler,name",
    [
        (euler_ancestral(eta=eta), name)
        for eta in (0.0, 0.3, 1.0, 4.0)
        for name in ("linear", "sub_vp", "edm", "rectified_flow")
    ]
    + [(euler_ancestral(eta=eta, flow=True), "rectified_flow") for eta in (0.0, 0.3, 1.0)]
    + [(dpmpp_2m_sde(eta=eta), name) for eta in (0.0, 0.5, 1.0) for name in ("linear", "sub_vp", "rectified_flow")],
    ids=lambda v: v if isinstance(v, str) else f"{type(v).__name__}-{v.eta}",
)
def test_a_step_with_the_true_image_keeps_the_marginal(sampler, name):
    """x_t = alpha x0 + sigma z goes to a draw of q(x_s | x_0), however much of the noise is fresh."""
    schedule = SCHEDULES[name]
    for t, s in ((0.7, 0.5), (0.5, 0.002), (1.0, 0.4), (0.3, 0.0)):
        with np.errstate(divide="ignore"):
            table = sampler.coefficients(schedule, np.asarray([t, s]))
        mean = table.move[0] * schedule.alpha(t) + table.step[0].sum()
        std = np.hypot(table.move[0] * schedule.sigma(t), table.noise[0])
        np.testing.assert_allclose([mean, std], [schedule.alpha(s), schedule.sigma(s)], atol=1e-9)
        if sampler.eta and s:
            assert table.noise[0] > 0


def test_the_flow_split_differs_from_the_posterior_and_needs_straight_paths():
    times, flow = np.asarray([0.8, 0.4]), SCHEDULES["rectified_flow"]
    a, b = (euler_ancestral(flow=f).coefficients(flow, times).noise[0] for f in (False, True))
    assert abs(a - b) > 0.01
    with pytest.raises(UserError, match="straight"):
        euler_ancestral(flow=True).coefficients(VP, times)


def test_the_sde_of_each_schedule():
    """f and g**2 against their closed forms: Song et al. (2021), Eqs. 30-35; Lipman's straight path; betas."""
    t = np.asarray([0.02, 0.3, 0.77, 0.999])
    beta, integral = 0.1 + 19.9 * t, 0.1 * t + 0.5 * 19.9 * t**2
    wanted = {
        "vp": (-beta / 2, beta),
        "sub_vp": (-beta / 2, beta * (1 - np.exp(-2 * integral))),
        "ve": (0 * t, 2 * np.log(5000) * 0.01**2 * 5000 ** (2 * t)),
        "edm": (0 * t, 2 * 80**2 * t),
        "rectified_flow": (-1 / (1 - t), 2 * t / (1 - t)),
    }
    for name, (rate, g2) in wanted.items():
        got = drift_and_diffusion(SCHEDULES[name], t)
        np.testing.assert_allclose(got[0], rate, rtol=1e-10, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(got[1], g2, rtol=1e-10, err_msg=name)
    levels = np.asarray([1, 2, 500, 1000])
    rate, g2 = drift_and_diffusion(SCHEDULES["linear"], levels / 1000)
    np.testing.assert_allclose(g2, -1000 * np.log1p(-SCHEDULES["linear"].betas[levels - 1]), rtol=1e-9)
    np.testing.assert_allclose(rate, -g2 / 2, rtol=1e-12)


def test_euler_maruyama_takes_the_step_of_the_reverse_sde():
    """Song et al. (2021), Eq. 6 for the VP SDE by hand; the noise of the last step is an option."""
    x, t, dt, score = 0.7, 0.5, 0.1, -1.3
    beta = 0.1 + 19.9 * t

    def denoise(x, t):
        return Prediction(jnp.full_like(x, score), x, jnp.broadcast_to(t, x.shape[:1]), VP, Score())

    start = jnp.full((30_000, 1), x)
    times = np.asarray([t, t - dt])
    mean = x + dt * (0.5 * beta * x + beta * score)
    still = draw(euler_maruyama(), VP, 30_000, start=start, denoise=denoise, times=times)
    np.testing.assert_allclose(still, mean, rtol=1e-5)
    moved = draw(euler_maruyama(noise_last=True), VP, 30_000, start=start, denoise=denoise, times=times)
    assert abs(float(moved.mean()) - mean) < 4 * np.sqrt(beta * dt / 30_000)
    np.testing.assert_allclose(moved.var(), beta * dt, rtol=0.04)


def test_reverse_diffusion_is_the_update_of_the_papers_algorithms():
    """Song et al. (2021), Algorithm 3 (VP, at one level of the discrete schedule) and Algorithm 2 (VE)."""
    sampler, schedule = predictor_corrector(corrections=0, noise_last=True), SCHEDULES["linear"]
    table = sampler.coefficients(schedule, np.asarray([0.6, 0.599]))
    beta = schedule.betas[599]
    np.testing.assert_allclose(table.move[0], 2 - np.sqrt(1 - beta), rtol=1e-9)
    np.testing.assert_allclose(table.step[0, 0], -beta / schedule.sigma(0.6), rtol=1e-9)  # beta times the score
    np.testing.assert_allclose(table.noise[0], np.sqrt(beta), rtol=1e-9)
    ve = SCHEDULES["ve"]
    table, change = sampler.coefficients(ve, np.asarray([0.6, 0.5])), ve.sigma(0.6) ** 2 - ve.sigma(0.5) ** 2
    np.testing.assert_allclose([table.move[0], table.noise[0]], [1, np.sqrt(change)], rtol=1e-9)


def test_a_langevin_step_has_the_papers_size_for_each_example():
    """Algorithms 4-5 by hand on the same noise: one example has a score a hundred times the other's."""
    ve, linear = SCHEDULES["ve"], SCHEDULES["linear"]
    for schedule, t, s, factor in ((ve, 0.5, 0.4, 1.0), (linear, 0.5, 0.499, 1 - linear.betas[499])):
        x = jnp.asarray([[0.3] * 6, [30.0] * 6])
        denoise = _steep(schedule)
        keys = jax.random.split(jax.random.key(0), 2)
        sampler = predictor_corrector(corrections=1, snr=0.2)
        table = sampler.coefficients(schedule, np.asarray([t, s]))
        only = type(table)(table.output, **{k: getattr(table, k)[:1] for k in COLUMNS}, ends=np.asarray([True]))
        got, _ = sampler.run(only, denoise, x, keys)
        z = per_image_noise(keys, 1, (6,))
        score = -2.0 * x + 0.1
        norm = functools.partial(np.linalg.norm, axis=1, keepdims=True)
        size = 2 * factor * (0.2 * norm(z) / norm(score)) ** 2
        np.testing.assert_allclose(got, x + size * score + np.sqrt(2 * size) * z, rtol=2e-5)


def _steep(schedule):
    return lambda x, t: Prediction(-2.0 * x + 0.1, x, jnp.broadcast_to(t, x.shape[:1]), schedule, Score())


COLUMNS = ("t", "s", "keep", "take", "correct", "move", "step", "noise")


def test_the_corrector_mends_what_the_predictor_starts_from():
    """Started off the marginal, Langevin steps come back to it; without them a run stays wrong."""
    schedule, wide, times = VP, 64, np.asarray([0.4, 0.399])
    mean, std = marginal(schedule, 0.399)
    start = 1.5 + 0.3 * jax.random.normal(jax.random.key(2), (256, wide))
    options = {"count": 256, "seed": 1, "start": start, "shape": (wide,), "times": times}
    off = draw(predictor_corrector(corrections=0), schedule, **options)
    on = draw(predictor_corrector(corrections=300, snr=0.15), schedule, **options)
    assert abs(float(off.mean()) - mean) > 0.5
    assert abs(float(on.mean()) - mean) < 4 * std / np.sqrt(256 * wide)
    np.testing.assert_allclose(on.std(), std, rtol=0.05)


EVERY = {
    "euler_ancestral": euler_ancestral(6),
    "edm": edm(6, s_churn=2.0),
    "dpmpp_2m_sde": dpmpp_2m_sde(6),
    "euler_maruyama": euler_maruyama(6),
    "predictor_corrector": predictor_corrector(6, corrections=2),
}


@pytest.mark.parametrize("name", EVERY)
def test_contract(name):
    """The count of evaluations, an image's own key, the second call, frames, float32: for every solver."""
    sampler, schedule, calls = EVERY[name], SCHEDULES["linear"], []
    keys = jax.random.split(jax.random.key(3), 6)
    start = per_image_noise(keys, 0, (4, 4, 1)) * jnp.arange(1, 7)[:, None, None, None]

    def denoise(x, t):
        jax.debug.callback(lambda _: calls.append(1), t)
        value = (0.5 * x).astype(jnp.bfloat16).astype(x.dtype)
        return Prediction(value, x, jnp.broadcast_to(jnp.asarray(t), x.shape[:1]), schedule, V())

    run = jax.jit(lambda x, k: sampler.trajectory(denoise, schedule, x, k, frames=3))
    whole, frames = run(start, keys)
    jax.effects_barrier()
    wanted = {"edm": 11, "predictor_corrector": 18}.get(name, 6)
    assert len(calls) == sampler.evaluations == wanted
    part, _ = sampler.trajectory(denoise, schedule, start[2:5], keys[2:5], frames=3)
    np.testing.assert_allclose(whole[2:5], part, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(run(start, keys)[0], whole)
    np.testing.assert_array_equal(frames[-1], whole)
    assert frames.shape == (3, *start.shape) and whole.dtype == jnp.float32
    other = run(start, jax.random.split(jax.random.key(4), 6))[0]
    assert float(jnp.abs(other - whole).max()) > 1e-3  # they are stochastic


@pytest.mark.parametrize("schedule", [schedules.Linear(zero_terminal_snr=True), schedules.RectifiedFlow()])
def test_starts_without_any_signal(schedule):
    """Two solvers are defined where alpha is 0; the others say so."""
    for sampler in (euler_ancestral(200), dpmpp_2m_sde(100)):
        x = draw(sampler, schedule, count=4_000)
        assert abs(float(x.mean()) - MEAN) < 0.03
        assert abs(float(x.std()) - STD) < 0.04
    for sampler in (edm(5), euler_maruyama(5), predictor_corrector(5, predictor="euler_maruyama")):
        with pytest.raises(UserError, match="leaves no signal"):
            draw(sampler, schedule, count=2)


def test_bad_fields_are_named():
    for make, match in (
        (lambda: euler_ancestral(eta=-1.0), "eta"),
        (lambda: dpmpp_2m_sde(eta=-1.0), "eta"),
        (lambda: edm(s_churn=-1.0), "s_churn"),
        (lambda: edm(s_min=2.0, s_max=1.0), "s_min"),
        (lambda: predictor_corrector(corrections=-1), "corrections"),
        (lambda: predictor_corrector(snr=0.0), "snr"),
    ):
        with pytest.raises(UserError, match=match):
            make()
