"""SDEdit, on Gaussian data, where the law of its results is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from exact import LINEAR, MEAN, SMOOTH, STD, correlated, gaussian, make_keys, modes

from jaxgen.diffusion.noise import per_image_noise
from jaxgen.diffusion.samplers.ddim import DDIM as ddim
from jaxgen.diffusion.samplers.ddpm import DDPM as ddpm
from jaxgen.editing.model import DiffusionModel
from jaxgen.editing.sdedit import hold, sdedit, times_from
from jaxgen.errors import UserError

COUNT = 20_000
GUIDE = -0.4


def edit(sampler, strength, count=COUNT, **options):
    guide = jnp.full((count, 1), GUIDE)
    model = DiffusionModel(gaussian(LINEAR), LINEAR, sampler)
    run = jax.jit(lambda x, k: sdedit(model, x, k, strength, **options), compiler_options=tiny.LONG)
    return np.asarray(run(guide, make_keys(count)))


@pytest.mark.parametrize("strength", [0.1, 0.35])
@pytest.mark.parametrize("sampler", [ddpm(1000, clip=False), ddim(500, clip=False)])
def test_the_law_of_an_edit(sampler, strength):
    """x_t0 is N(alpha y, sigma**2). The exact reverse process draws x_0 given x_t0, the flow maps quantiles."""
    a, s = float(LINEAR.alpha(strength)), float(LINEAR.sigma(strength))
    total = a**2 * STD**2 + s**2
    if isinstance(sampler, ddpm):
        gain, left = a * STD**2 / total, STD**2 * s**2 / total
    else:
        gain, left = STD / np.sqrt(total), 0.0
    out = edit(sampler, strength)
    std = np.sqrt(left + (gain * s) ** 2)
    assert out.mean() == pytest.approx(MEAN + gain * a * (GUIDE - MEAN), abs=5 * std / np.sqrt(COUNT) + 0.004)
    assert out.std() == pytest.approx(std, rel=0.03)


@pytest.mark.slow
def test_strength_0_gives_the_guide_and_strength_1_a_fresh_sample():
    np.testing.assert_array_equal(edit(ddpm(50), 0.0, 8), np.float32(GUIDE))
    fresh = edit(ddpm(500, clip=False), 1.0)
    assert fresh.mean() == pytest.approx(MEAN, abs=0.01)
    assert fresh.std() == pytest.approx(STD, rel=0.04)
    near = edit(ddpm(500, clip=False), 0.01)
    assert abs(near - GUIDE).mean() < 2 * LINEAR.sigma(0.01)


def test_realism_grows_and_faithfulness_falls_with_strength():
    """A guide between two modes: edits come nearer to a mode and go farther from the guide."""
    guide, keys = jnp.full((2000, 1), 0.25), make_keys(2000)
    unreal, unlike = [], []
    for strength in (0.03, 0.1, 0.25):
        out = sdedit(DiffusionModel(modes(LINEAR), LINEAR, ddim(100)), guide, keys, strength)
        unreal.append(float(jnp.abs(jnp.abs(out) - 0.6).mean()))
        unlike.append(float(jnp.abs(out - guide).mean()))
    assert unreal[0] > unreal[1] > unreal[2] and unlike[0] < unlike[1] < unlike[2], (unreal, unlike)


def test_repeats_go_on_from_the_result():
    """Each repeat moves on towards the data; one of two strengths alike would not."""
    once, thrice = (edit(ddim(200, clip=False), 0.2, repeats=repeats) for repeats in (1, 3))
    assert GUIDE < once.mean() < thrice.mean() - 0.05 < MEAN


def test_the_grid_is_cut_at_the_strength():
    times = times_from(DiffusionModel(None, LINEAR, ddim(10)), 0.5)
    np.testing.assert_allclose(times, [0.5, 0.4, 0.3, 0.2, 0.1, 0.0], atol=1e-9)
    np.testing.assert_allclose(
        times_from(DiffusionModel(None, LINEAR, ddim(10)), 0.4567), [0.457, 0.4, 0.3, 0.2, 0.1, 0.0], atol=1e-9
    )
    assert times_from(DiffusionModel(None, SMOOTH, ddim(10)), 0.4567)[0] == 0.4567


@pytest.mark.slow
def test_the_known_part_is_at_the_level_of_the_rest():
    """At each evaluation at time t the known part is N(alpha y, sigma**2) at that same t, and fresh."""
    seen, keys = [], make_keys(4000)
    images = jnp.stack([jnp.full(4000, 0.8), jnp.zeros(4000)], axis=1)
    mask = jnp.asarray([[0.0, 1.0]])

    def spy(x, t):
        known = x[:, 0]
        jax.debug.callback(lambda *v: seen.append([float(i) for i in v[:3]] + [v[3]]), t, known.mean(), known.std(), x)
        return gaussian(LINEAR)(x, t)

    out = sdedit(DiffusionModel(spy, LINEAR, ddim(5)), images, keys, 0.8, mask)
    jax.block_until_ready(out)
    jax.effects_barrier()
    np.testing.assert_array_equal(out[:, 0], images[:, 0])
    seen.sort(key=lambda row: -row[0])
    times, means, stds = np.asarray([row[:3] for row in seen]).T
    np.testing.assert_allclose(times, [0.8, 0.6, 0.4, 0.2], atol=1e-6)
    np.testing.assert_allclose(means, 0.8 * LINEAR.alpha(times), atol=0.05)
    np.testing.assert_allclose(stds, LINEAR.sigma(times), rtol=0.06)
    z = [(row[3][:, 0] - m) / s for row, m, s in zip(seen, means, stds, strict=True)]
    assert abs(np.corrcoef(z) - np.eye(4)).max() < 0.06


@pytest.mark.slow
def test_holding_changes_nothing_where_the_model_may_draw():
    x = jax.random.normal(jax.random.key(2), (3, 2))
    now = hold(
        DiffusionModel(gaussian(LINEAR), LINEAR), jnp.ones((3, 2)), jnp.asarray([[0.0, 1.0]]), make_keys(3)
    ).denoise(x, 0.5)
    np.testing.assert_array_equal(now.x[:, 1], x[:, 1])
    assert float(jnp.abs(now.x[:, 0] - x[:, 0]).min()) > 1e-3


@pytest.mark.nightly
def test_what_is_drawn_fits_what_is_held():
    """Two pixels of correlation 0.9: the drawn one follows the held one, the better the more often steps are
    repeated (Lugmayr et al. 2022): replacing is not exact conditioning."""
    covariance = 0.09 * np.asarray([[1.0, 0.9], [0.9, 1.0]])
    keys = make_keys(2000)
    images = jnp.stack([jnp.full(2000, 0.5), jnp.zeros(2000)], axis=1)
    means = []
    for recurrence in (1, 5):
        sampler = ddpm(100, clip=False, self_recurrence=recurrence)
        out = sdedit(
            DiffusionModel(correlated(LINEAR, covariance), LINEAR, sampler),
            images,
            keys,
            1.0,
            jnp.asarray([[0.0, 1.0]]),
        )
        means.append(float(out[:, 1].mean()))
    assert 0.25 < means[0] < means[1]
    assert means[1] == pytest.approx(0.45, abs=0.06), means


@pytest.mark.slow
def test_an_image_depends_on_its_own_key_alone():
    images, keys = per_image_noise(make_keys(5), 9, (3,)), make_keys(5)
    mask = jnp.asarray([[0.0, 1.0, 1.0]])
    whole = sdedit(DiffusionModel(gaussian(LINEAR), LINEAR, ddpm(20)), images, keys, 0.6, mask)
    part = sdedit(DiffusionModel(gaussian(LINEAR), LINEAR, ddpm(20)), images[2:4], keys[2:4], 0.6, mask)
    np.testing.assert_allclose(whole[2:4], part, atol=1e-6)


@pytest.mark.parametrize("options, words", [({"strength": 1.2}, r"\[0, 1\]"), ({"repeats": 0}, "at least once")])
def test_bad_input_is_refused(options, words):
    with pytest.raises(UserError, match=words):
        sdedit(DiffusionModel(gaussian(LINEAR), LINEAR, ddim(5)), jnp.zeros((1, 1)), make_keys(1), **options)
