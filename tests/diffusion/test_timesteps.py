"""Times for training: their law, their range, and weights that undo an uneven draw."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.build import build
from jaxgen.diffusion import schedules
from jaxgen.diffusion import timesteps as ways
from jaxgen.errors import UserError

TEN = schedules.Linear(steps=10)
FLOW = schedules.RectifiedFlow(t_min=0.01)
EDM = schedules.EDM()


def full(way, schedule, seed=0):
    """A loss-aware memory in which every bin is full; losses grow with t squared."""
    memory = way.init(schedule)
    t, _ = ways.Uniform().sample(jax.random.key(seed), 4000, schedule)
    return way.update(memory, t, 0.1 + t**2, schedule)


def draw(way, schedule, count=20_000, seed=1):
    return way.sample(jax.random.key(seed), count, schedule, full(way, schedule) if way.init(schedule) else None)


ALL = [ways.Uniform(), ways.Stratified(), ways.LogitNormal(), ways.LogNormal(), ways.LossAware(bins=7)]


@pytest.mark.parametrize("schedule", [TEN, FLOW, EDM, schedules.ContinuousCosine()])
@pytest.mark.parametrize("way", ALL, ids=lambda way: type(way).__name__)
def test_times_lie_where_the_schedule_can_be_trained(way, schedule):
    t, weights = draw(way, schedule, 5000)
    assert t.shape == weights.shape == (5000,) and t.dtype == weights.dtype == jnp.float32
    assert float(t.min()) >= schedule.t_min * (1 - 1e-6) and float(t.max()) <= 1
    if schedule.steps:
        np.testing.assert_allclose(t * 10, np.round(t * 10), atol=1e-5)


@pytest.mark.parametrize("way", [ways.Uniform(), ways.Stratified()])
def test_uniform_times_cover_every_level_evenly(way):
    t, weights = draw(way, TEN)
    levels, counts = np.unique(np.round(np.asarray(t) * 10), return_counts=True)
    assert levels.tolist() == list(range(1, 11))
    assert (np.abs(counts - 2000) < 5 * np.sqrt(2000)).all()
    assert (weights == 1).all()
    t, _ = draw(way, FLOW)
    assert abs(float(t.mean()) - 0.505) < 0.01 and abs(float(t.std()) - 0.99 / np.sqrt(12)) < 0.01


def test_stratified_times_are_uniform_one_by_one_and_even_together():
    keys = jax.random.split(jax.random.key(0), 4000)
    t = jax.vmap(lambda key: ways.Stratified().sample(key, 8, FLOW)[0])(keys)
    np.testing.assert_allclose(np.quantile(t[:, 3], [0.25, 0.5, 0.75]), [0.2575, 0.505, 0.7525], atol=0.03)
    # one time in each eighth of the range, so that a mean over the batch hardly varies
    eighths = np.sort(np.floor((np.asarray(t) - 0.01) / 0.99 * 8 - 1e-4), axis=1)
    assert (eighths == np.arange(8)).mean() > 0.99
    independent = jax.vmap(lambda key: ways.Uniform().sample(key, 8, FLOW)[0])(keys)
    assert t.mean(axis=1).std() < 0.4 * independent.mean(axis=1).std()


def test_logit_normal_times_have_their_quantiles():
    """P(t <= sigmoid(mean + std q)) is the normal's."""
    t, weights = draw(ways.LogitNormal(0.5, 0.8), FLOW)
    logit = np.log(np.asarray(t) / (1 - np.asarray(t)))
    assert abs(logit.mean() - 0.5) < 0.02 and abs(logit.std() - 0.8) < 0.02
    assert (weights == 1).all()


@pytest.mark.parametrize("schedule", [EDM, schedules.VP(), schedules.RectifiedFlow(shift=3.0)])
def test_log_normal_times_have_log_normal_noise(schedule):
    t, _ = draw(ways.LogNormal(), schedule)
    log_sigma = -0.5 * np.asarray(schedule.log_snr(t))
    assert abs(log_sigma.mean() + 1.2) < 0.04 and abs(log_sigma.std() - 1.2) < 0.04


@pytest.mark.slow
@pytest.mark.parametrize("schedule", [TEN, FLOW])
@pytest.mark.parametrize("bins", [3, 10])
def test_loss_aware_weights_undo_the_uneven_draw(schedule, bins):
    """Weighted means are those of uniform times, whatever the function and however the levels fall into bins."""
    way = ways.LossAware(bins=bins)
    t, weights = draw(way, schedule, 100_000)
    uniform = draw(ways.Stratified(), schedule, 100_000)[0]
    assert abs(float(weights.mean()) - 1) < 0.02
    for f in (lambda t: t, lambda t: (t < 0.35) * 1.0):
        assert abs(float((weights * f(t)).mean() - f(uniform).mean())) < 0.015
    # and large losses are drawn more often
    assert float(t.mean()) > float(uniform.mean()) + 0.1


def test_loss_aware_probabilities_follow_the_losses():
    """sqrt(E[L**2]) of each bin, a thousandth of them uniform (Nichol & Dhariwal 2021, Eq. 18)."""
    way = ways.LossAware(bins=2, history=4)
    losses = np.array([1.0, 2.0, 2.0, 4.0, 0.0, 0.0, 5.0, 0.0], np.float32)
    t = jnp.asarray([0.3] * 4 + [0.9] * 4)
    memory = way.update(way.init(TEN), t, jnp.asarray(losses), TEN)
    sizes = np.array([np.sqrt((losses[:4] ** 2).mean()), np.sqrt((losses[4:] ** 2).mean())])
    expected = 0.999 * sizes / sizes.sum() + 0.0005
    np.testing.assert_allclose(way.probabilities(memory, TEN), expected, rtol=1e-5)


@pytest.mark.slow
def test_loss_aware_times_are_uniform_until_every_bin_is_full():
    way = ways.LossAware(bins=2, history=3)
    memory = way.init(TEN)
    for count in range(3):
        memory = way.update(memory, jnp.asarray([0.1, 0.2]), jnp.asarray([9.0, 9.0]), TEN)
        memory = way.update(memory, jnp.asarray([0.8]), jnp.asarray([1.0]), TEN)
        p = way.probabilities(memory, TEN)
        assert (float(p[0]) == 0.5) == (count < 2)
    _, weights = way.sample(jax.random.key(0), 50, TEN, way.init(TEN))
    np.testing.assert_allclose(weights, 1, rtol=1e-6)


def test_the_history_is_that_of_a_queue():
    """Batches of any size, with several losses for a bin, against Python's own queues."""
    way, rng = ways.LossAware(bins=3, history=4), np.random.default_rng(0)
    queues: list[list[float]] = [[], [], []]
    memory, update = way.init(FLOW), jax.jit(lambda m, t, x: way.update(m, t, x, FLOW))
    for _ in range(9):
        t, losses = rng.uniform(0.02, 0.99, 13), rng.normal(size=13).astype(np.float32)
        for time, loss in zip(t, losses, strict=True):
            queues[min(int((1 - time) / 0.99 * 3), 2)].append(loss)
        memory = update(memory, jnp.asarray(t, jnp.float32), jnp.asarray(losses))
        for row, queue, seen in zip(memory["losses"], queues, memory["seen"], strict=True):
            kept = sorted(queue[-4:])
            np.testing.assert_allclose(np.sort(row)[np.sort(row) != 0], [x for x in kept if x], rtol=1e-6)
            assert (int(seen) >= 4) == (len(queue) >= 4) and int(seen) < 8 + 13
    probabilities = way.probabilities(memory, FLOW)
    sizes = np.array([np.sqrt(np.mean(np.square(queue[-4:]))) for queue in queues])
    np.testing.assert_allclose(probabilities, 0.999 * sizes / sizes.sum() + 1e-3 / 3, rtol=1e-4)


def test_an_empty_loss_does_not_stop_the_draw():
    way = ways.LossAware(bins=2, history=1)
    memory = way.update(way.init(TEN), jnp.asarray([0.1, 0.9]), jnp.zeros(2), TEN)
    np.testing.assert_allclose(way.probabilities(memory, TEN), 0.5)


def test_every_way_has_a_name_in_configs():
    for name, expected in (
        ("uniform", ways.Uniform()),
        ("stratified", ways.Stratified()),
        ("logit_normal", ways.LogitNormal(0.0, 2.0)),
        ("log_normal", ways.LogNormal(-1.0, 1.2)),
        ("loss_aware", ways.LossAware(bins=5)),
    ):
        given = {"logit_normal": {"std": 2.0}, "log_normal": {"mean": -1.0}, "loss_aware": {"bins": 5}}
        section = {"name": name, **given.get(name, {})}
        assert build(section, "timestep_sampler", "config.method.timesteps") == expected


def test_bad_settings_are_refused():
    with pytest.raises(UserError, match="11 bins"):
        ways.LossAware(bins=11).init(TEN)
    with pytest.raises(UserError, match="memory"):
        ways.LossAware(bins=2).sample(jax.random.key(0), 3, TEN)
    for bad in (lambda: ways.LogNormal(std=0), lambda: ways.LogitNormal(std=-1), lambda: ways.LossAware(bins=0)):
        with pytest.raises(UserError):
            bad()
    with pytest.raises(UserError, match="share"):
        ways.LossAware(uniform=2.0)


@pytest.mark.parametrize("schedule", [TEN, schedules.Cosine(steps=7)], ids=["linear", "cosine"])
def test_noise_levels_are_drawn_evenly_between_neighbours(schedule):
    t, weights = draw(ways.BetweenLevels(), schedule)
    bar = np.square(np.asarray(schedule.alpha(np.arange(schedule.steps + 1) / schedule.steps)))
    drawn = np.square(np.asarray(schedule.alpha(np.asarray(t, np.float64))))
    above = np.ceil(np.asarray(t, np.float64) * schedule.steps - 1e-4).astype(int)  # the level at the step's noisy end
    assert above.min() == 1 and above.max() == schedule.steps and (weights == 1).all()
    share = (bar[above - 1] - drawn) / (bar[above - 1] - bar[above])
    assert (np.abs(np.bincount(above)[1:] - 20_000 / schedule.steps) < 5 * np.sqrt(20_000 / schedule.steps)).all()
    assert share.min() > -1e-3 and share.max() < 1 + 1e-3
    for level in range(1, schedule.steps + 1):  # within each step, the first and the last too
        np.testing.assert_allclose(np.quantile(share[above == level], [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.05)
    assert len(np.unique(t)) > 19_900  # one of its own for each example
    assert float(t.min()) > 0 and (np.asarray(schedule.sigma(t)) > 0).all() and float(t.max()) <= 1


def test_noise_levels_are_finite_where_the_last_level_has_no_signal():
    schedule = schedules.Cosine(steps=7, zero_terminal_snr=True)
    t, _ = draw(ways.BetweenLevels(), schedule)
    alpha = np.asarray(schedule.alpha(t))
    assert np.isfinite(t).all() and 0 < float(t.min()) and float(t.max()) <= 1
    last = np.asarray(schedule.alpha(jnp.asarray(6 / 7)))
    assert abs((alpha < last).mean() - 1 / 7) < 0.06 and alpha.min() < 0.05 * last


def test_a_continuous_schedule_has_no_levels_to_draw_between():
    key = jax.random.key(5)
    ours, uniform = (way.sample(key, 50, FLOW)[0] for way in (ways.BetweenLevels(), ways.Uniform()))
    np.testing.assert_array_equal(ours, uniform)
