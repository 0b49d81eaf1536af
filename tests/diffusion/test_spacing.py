"""Time grids: where they begin and end, in what they are even, and what they refuse."""

import numpy as np
import pytest

from jaxgen.diffusion import schedules
from jaxgen.diffusion.spacing import DARKEST, Spacing, time_grid
from jaxgen.errors import UserError

NAMES = Spacing.__args__
SCHEDULES = {
    "linear": schedules.Linear(),
    "scaled_linear": schedules.ScaledLinear(),
    "cosine": schedules.Cosine(),
    "linear_zero": schedules.Linear(zero_terminal_snr=True),
    "continuous_cosine": schedules.ContinuousCosine(),
    "vp": schedules.VP(),
    "sub_vp": schedules.SubVP(),
    "ve": schedules.VE(),
    "edm": schedules.EDM(),
    "rectified_flow": schedules.RectifiedFlow(shift=3.0),
}


@pytest.mark.parametrize("steps", [1, 2, 7, 30])
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", NAMES)
def test_a_grid_falls_from_noise_to_data(name, schedule, steps):
    schedule = SCHEDULES[schedule]
    if name == "leading" and schedule.t_min == 0:  # it would end at 0 twice
        with pytest.raises(UserError, match="use"):
            time_grid(name, steps, schedule)
        return
    times = time_grid(name, steps, schedule)
    assert times.shape == (steps + 1,) and times.dtype == np.float64
    assert times[-1] == 0 and (np.diff(times) < 0).all()
    assert times[0] == 1 or name == "leading"
    if schedule.steps and name not in ("karras", "log_snr"):
        np.testing.assert_allclose(times * 1000, np.round(times * 1000), atol=1e-9)


@pytest.mark.parametrize("schedule", ["scaled_linear", "vp", "sub_vp", "edm"])
def test_log_snr_is_even_in_log_snr_down_to_t_min(schedule):
    schedule = SCHEDULES[schedule]
    times = time_grid("log_snr", 12, schedule)
    log_snr = schedule.log_snr(times[1:-1])  # the first is 1, though even steps may begin a little below
    tolerance = 1e-3 if schedule.steps else 1e-9  # times that miss a level by a thousandth of a step are on it
    np.testing.assert_allclose(np.diff(log_snr), (log_snr[-1] - log_snr[0]) / 10, rtol=tolerance)
    np.testing.assert_allclose(times[-2], schedule.t_min, rtol=1e-9)


@pytest.mark.parametrize("rho", [1.0, 3.0, 7.0])
@pytest.mark.parametrize("schedule", ["scaled_linear", "vp", "edm"])
def test_karras_is_even_in_a_root_of_the_noise_level(schedule, rho):
    """Karras et al. (2022), Eq. 5, in sigma / alpha."""
    schedule = SCHEDULES[schedule]
    times = time_grid("karras", 12, schedule, rho=rho)[1:-1]
    root = (schedule.sigma(times) / schedule.alpha(times)) ** (1 / rho)
    np.testing.assert_allclose(np.diff(root), (root[-1] - root[0]) / 10, rtol=1e-3 if schedule.steps else 1e-8)
    np.testing.assert_allclose(times[-1], schedule.t_min, rtol=1e-9)


@pytest.mark.parametrize("name", ["log_snr", "karras"])
@pytest.mark.parametrize("schedule", ["linear_zero", "continuous_cosine", "rectified_flow", "cosine"])
def test_no_steps_are_spent_where_there_is_no_signal(name, schedule):
    """However dark a schedule ends, the second time is above a log_snr of DARKEST."""
    times = time_grid(name, 20, SCHEDULES[schedule])
    assert times[0] == 1 and DARKEST < SCHEDULES[schedule].log_snr(times[1]) < 0


def test_schedules_with_noise_at_zero_end_there():
    """VE and the continuous cosine have no t_min: their last level is that of t = 0."""
    for name in ("ve", "continuous_cosine"):
        schedule = SCHEDULES[name]
        times = time_grid("log_snr", 10, schedule)
        np.testing.assert_allclose(np.diff(schedule.log_snr(times))[1:], np.diff(schedule.log_snr(times))[1], rtol=1e-9)


def test_even_grids():
    linear, flow = SCHEDULES["linear"], SCHEDULES["rectified_flow"]
    np.testing.assert_allclose(time_grid("uniform", 4, flow), [1, 0.75, 0.5, 0.25, 0], atol=1e-12)
    np.testing.assert_array_equal(time_grid("trailing", 7, linear), time_grid("uniform", 7, linear))
    np.testing.assert_allclose(time_grid("leading", 4, linear), [0.751, 0.501, 0.251, 0.001, 0], atol=1e-12)
    np.testing.assert_allclose(time_grid("linspace", 4, linear), [1, 0.667, 0.334, 0.001, 0], atol=1e-12)
    np.testing.assert_allclose(np.diff(np.sqrt(time_grid("quadratic", 5, flow))), -0.2, rtol=1e-9)


def test_impossible_grids_are_named():
    with pytest.raises(UserError, match="at least 1"):
        time_grid("karras", 0, SCHEDULES["edm"])
    with pytest.raises(UserError, match="at most 1000"):
        time_grid("leading", 1001, SCHEDULES["linear"])
    with pytest.raises(UserError, match="twice"):
        time_grid("quadratic", 700, SCHEDULES["linear"])
