"""Orders of convergence of the deterministic solvers, in float64, on data whose score is known in closed form.

Errors are measured away from the ends, where the coefficients are smooth: from t = 0.95 to t = 0.05.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mixture import denoiser, gaussian_flow, noised, samples

from jaxgen.diffusion import schedules
from jaxgen.diffusion.samplers.ddim import DDIM as ddim
from jaxgen.diffusion.samplers.dpmpp import DPMpp1S as dpmpp_1s
from jaxgen.diffusion.samplers.dpmpp import DPMpp2M as dpmpp_2m
from jaxgen.diffusion.samplers.dpmpp import DPMpp3M as dpmpp_3m
from jaxgen.diffusion.samplers.exponential import moments
from jaxgen.diffusion.samplers.ode import ODE as ode
from jaxgen.diffusion.samplers.runge_kutta import RK4 as rk4
from jaxgen.diffusion.samplers.runge_kutta import Euler as euler
from jaxgen.diffusion.samplers.runge_kutta import Heun as heun
from jaxgen.diffusion.samplers.unipc import UniPC as unipc
from jaxgen.errors import UserError

SCHEDULE = schedules.ContinuousCosine()
MIXTURE = denoiser(SCHEDULE)
FIRST, LAST = 0.95, 0.05
COUNT = 16
KEYS = jax.random.split(jax.random.key(0), COUNT)
MEAN, STD = 0.3, 0.25

pytestmark = pytest.mark.slow  # many small programs to compile


def times(steps, first=FIRST, last=LAST, schedule=SCHEDULE):
    """Equal steps of log_snr."""
    return np.asarray(schedule.t_from_log_snr(np.linspace(schedule.log_snr(first), schedule.log_snr(last), steps + 1)))


def start(first=FIRST, schedule=SCHEDULE):
    with jax.enable_x64(True):
        x0 = samples(jax.random.key(1), COUNT).astype(jnp.float64)
        return np.asarray(noised(jax.random.key(2), schedule, first, x0))


def run(sampler, grid, x, denoise=MIXTURE, schedule=SCHEDULE):
    with jax.enable_x64(True):
        return np.asarray(sampler(denoise, schedule, jnp.asarray(x, jnp.float64), KEYS, times=grid))


def short(value):
    """A test's name: the solver and what is not at its default."""
    fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
    changed = [f"{f.name}={getattr(value, f.name)}" for f in fields if getattr(value, f.name) != f.default]
    return ",".join([type(value).__name__, *changed]) if fields else None


@pytest.fixture(scope="module")
def exact():
    """The flow of the mixture from t = 0.95 to 0.05; the next test says how exact."""
    return run(rk4(), times(800), start())


def slope(sampler, exact, steps=(64, 256)):
    errors = [np.sqrt(np.mean((run(sampler, times(n), start()) - exact) ** 2)) for n in steps]
    return -np.log(errors[1] / errors[0]) / np.log(steps[1] / steps[0])


def test_the_reference_is_exact(exact):
    """Another variable gives the same flow; the closed form of one Gaussian holds."""
    np.testing.assert_allclose(exact, run(rk4(variable="time"), times(800), start()), atol=1e-9)
    one = denoiser(SCHEDULE, [[MEAN, MEAN]], [STD], [1.0])
    flow = gaussian_flow(SCHEDULE, start(), FIRST, LAST, MEAN, STD)
    np.testing.assert_allclose(run(rk4(), times(800), start(), one), flow, atol=1e-9)


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        (ddim(clip=False), 1),
        (euler(), 1),
        (euler(variable="time"), 1),
        (dpmpp_1s(), 1),
        (unipc(order=1, corrector=False), 1),
        (heun(), 2),
        (heun(variable="time"), 2),
        (dpmpp_1s(order=2), 2),
        (dpmpp_2m(), 2),
        (unipc(order=1), 2),
        (unipc(corrector=False), 2),
        (unipc(corrector=False, variant="bh1"), 2),
        (unipc(lower_order_final=False), 3),
        (unipc(variant="bh1", lower_order_final=False), 3),
        (dpmpp_3m(half_curvature=True), 2),
        (dpmpp_1s(order=3), 3),
        (rk4(), 4),
        (rk4(variable="time"), 4),
    ],
    ids=short,
)
def test_order_of_convergence(sampler, order, exact):
    assert abs(slope(sampler, exact) - order) < 0.2


class Known:
    """One Gaussian's flow at points h apart in lambda, from alpha = sigma on: states and x0 in closed form."""

    def __init__(self, h, points, z=0.8, middle=0.0):
        self.times = SCHEDULE.t_from_log_snr(2 * (middle + h * np.arange(points)))
        alpha, sigma = SCHEDULE.alpha(self.times), SCHEDULE.sigma(self.times)
        std = np.hypot(alpha * STD, sigma)
        self.x = alpha * MEAN + std * z  # quantile to quantile
        self.x0 = MEAN + alpha * STD**2 / std * z

    def look(self, x, i):
        alpha, sigma = SCHEDULE.alpha(self.times[i]), SCHEDULE.sigma(self.times[i])
        return MEAN + alpha * STD**2 / np.hypot(alpha * STD, sigma) ** 2 * (x - alpha * MEAN)


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        (dpmpp_2m(lower_order_final=False), 2),
        (dpmpp_3m(lower_order_final=False), 3),
        (dpmpp_3m(lower_order_final=False, half_curvature=True), 2),
        (unipc(lower_order_final=False, corrector=False), 2),
        (unipc(order=3, lower_order_final=False, corrector=False), 3),
    ],
    ids=short,
)
def test_one_step_with_exact_history(sampler, order):
    """The third step of a table, from exact states: a method of order p has an error of order p + 1 there."""
    errors = []
    for h in (0.04, 0.01):
        known = Known(h, 4)
        table = sampler.coefficients(SCHEDULE, known.times)
        seen = known.x0[2::-1][: table.step.shape[1]]
        errors.append(abs(table.move[2] * known.x[2] + table.step[2] @ seen - known.x[3]))
    assert abs(np.log(errors[0] / errors[1]) / np.log(4) - (order + 1)) < 0.2


@pytest.mark.parametrize(
    ("sampler", "standard"),
    [(dpmpp_3m(lower_order_final=False), 2), (unipc(order=3, lower_order_final=False, corrector=False), 2)],
    ids=short,
)
def test_third_order_with_exact_history_and_second_with_the_standard_start(sampler, standard):
    """The first step of a multistep method is of first order; its error, of second order, stays in the result."""

    def error(steps, exact_history):
        known = Known(2.0 / steps, steps + 1)
        table = sampler.coefficients(SCHEDULE, known.times)
        begin = 2 if exact_history else 0
        x, seen = known.x[begin], list(known.x0[:begin][::-1])
        for i in range(begin, steps):
            seen = [known.look(x, i), *seen][: table.step.shape[1]]
            x = table.move[i] * x + table.step[i][: len(seen)] @ seen
        return abs(x - known.x[-1])

    for exact_history, order in ((True, 3), (False, standard)):
        slope = np.log(error(64, exact_history) / error(256, exact_history)) / np.log(4)
        assert abs(slope - order) < 0.2, (exact_history, slope)


def test_unipc_of_order_three_starts_with_an_error_of_third_order():
    """Corrected, its first step has an error of third order; the later ones of fifth, the last of fourth."""
    x, sampler = start(0.5), unipc(order=3, lower_order_final=False)
    exact = run(rk4(), times(800, 0.5), x)
    errors = [np.sqrt(np.mean((run(sampler, times(n, 0.5), x) - exact) ** 2)) for n in (64, 256)]
    assert 2.8 < np.log(errors[0] / errors[1]) / np.log(4) < 4.2


@pytest.mark.parametrize("method", ["tsit5", "bosh3"])
def test_ode_to_its_tolerance(method, exact):
    used = []
    for tolerance in (1e-4, 1e-8):
        sampler = ode(rtol=tolerance, atol=tolerance, method=method, steps=4000)
        with jax.enable_x64(True):
            found = jax.jit(lambda x, s=sampler: s.solve(MIXTURE, SCHEDULE, x, times=[FIRST, LAST]))(
                jnp.asarray(start())
            )
        assert found.finished.all()
        assert np.abs(np.asarray(found.images) - exact).max() < 30 * tolerance
        used.append(int(found.evaluations))
        assert used[-1] < sampler.evaluations
    assert used[0] < used[1]


@pytest.mark.slow
def test_ode_says_as_data_which_images_have_too_few_steps():
    """The images that have finished keep their bits, and no program calls back to the host."""
    x = jnp.asarray(start(), jnp.float32)

    def solve(steps):
        program = jax.jit(lambda x: ode(steps=steps, rtol=1e-3).solve(MIXTURE, SCHEDULE, x, 2)).lower(x).compile()
        assert "callback" not in program.as_text()
        return program(x)

    whole, few = solve(40), solve(8)
    assert whole.finished.all() and np.isfinite(whole.trajectory).all()
    assert 0 < few.finished.sum() < len(x)
    np.testing.assert_array_equal(few.images[few.finished], whole.images[few.finished])
    np.testing.assert_array_equal(np.isfinite(few.images).all(axis=1), few.finished)
    np.testing.assert_array_equal(np.isfinite(few.trajectory).all(axis=(0, 2)), few.finished)


PURE = {"linear": schedules.Linear(zero_terminal_snr=True), "flow": schedules.RectifiedFlow()}
FROM_NOISE = [euler(60), dpmpp_1s(60), dpmpp_1s(30, order=2), dpmpp_1s(20, order=3), dpmpp_2m(60), dpmpp_3m(60)]
FROM_NOISE += [unipc(60), unipc(60, order=3), unipc(60, variant="bh1"), ode()]


@pytest.mark.parametrize("name", PURE)
@pytest.mark.parametrize("sampler", FROM_NOISE, ids=short)
def test_schedules_that_end_in_pure_noise(sampler, name):
    """Without any signal at t = 1, every quantile of the noise arrives at that of the data."""
    schedule = PURE[name]
    x = jnp.linspace(-2, 2, COUNT, dtype=jnp.float32)[:, None]
    out = sampler(denoiser(schedule, [[MEAN]], [STD], [1.0]), schedule, x, KEYS)
    tolerance = 1e-3 if isinstance(sampler, ode) else 0.05 if sampler.steps == 60 else 0.1
    np.testing.assert_allclose(out, MEAN + STD * x, atol=tolerance)


@pytest.mark.parametrize("sampler", [euler(60, variable="time"), heun(30, variable="time"), rk4(15, variable="time")])
def test_straight_paths_over_time(sampler):
    schedule = schedules.RectifiedFlow()
    x = jnp.linspace(-2, 2, COUNT, dtype=jnp.float32)[:, None]
    out = sampler(denoiser(schedule, [[MEAN]], [STD], [1.0]), schedule, x, KEYS)
    np.testing.assert_allclose(out, MEAN + STD * x, atol=0.03)


def test_what_cannot_be_solved_is_said():
    x = jnp.ones((2, 1))
    for schedule in (schedules.RectifiedFlow(), schedules.Linear(zero_terminal_snr=True)):
        with pytest.raises(UserError, match="no signal"):
            heun(5)(denoiser(schedule), schedule, x, KEYS[:2])
    with pytest.raises(UserError, match="continuous"):
        euler(5, variable="time")(denoiser(SCHEDULE), schedules.Linear(), x, KEYS[:2])
    for wrong in (
        lambda: dpmpp_1s(order=4),
        lambda: unipc(order=0),
        lambda: ode(rtol=0),
        lambda: ode(self_recurrence=2),
    ):
        with pytest.raises(UserError, match="config.sampler"):
            wrong()
    with pytest.raises(UserError, match="self_recurrence"):
        dpmpp_2m(5, self_recurrence=2)(denoiser(schedules.Linear()), schedules.Linear(), x, KEYS[:2])


def test_euler_is_ddim():
    """Song et al. (2020), Section 4.3, and the singlestep solver of order 1 (Lu et al. 2022b, Section 4)."""
    schedule, x = schedules.Cosine(), start()[:2]
    want = run(ddim(12, clip=False), None, x, denoiser(schedule), schedule)
    for other in (euler(12), dpmpp_1s(12), unipc(12, order=1, corrector=False)):
        np.testing.assert_allclose(run(other, None, x, denoiser(schedule), schedule), want, atol=1e-12)


@pytest.mark.parametrize("h", [1e-3, 0.3, 0.999, 1.001, 5.0, 200.0])
def test_moments_are_the_integrals(h):
    theta, weight = np.polynomial.legendre.leggauss(200)
    theta, weight = (theta + 1) / 2, weight / 2
    for k, value in enumerate(moments(h, 4)):
        np.testing.assert_allclose(value, h * weight @ (np.exp(h * (theta - 1)) * theta**k), rtol=1e-10)
