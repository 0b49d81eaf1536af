"""What every solver of the folder holds to, the faults that other code bases are known for among it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import registry
from jaxgen.build import build
from jaxgen.diffusion import schedules
from jaxgen.diffusion.noise import per_image_noise
from jaxgen.diffusion.prediction import denoiser
from jaxgen.diffusion.prediction_types import V
from jaxgen.diffusion.spacing import time_grid
from jaxgen.errors import UserError

NAMES = sorted(registry.classes("sampler"))
# the names that configs rely on
PROMISED = "ddpm ddim euler heun dpmpp_1s dpmpp_2m dpmpp_3m unipc rk4 ode".split()
SCHEDULE = schedules.Linear()
# an adaptive solver takes the steps that it needs
ADAPTIVE = {"ode": {"steps": 300, "rtol": 1e-2, "atol": 1e-2}}
# each program of an adaptive solver takes ten times as long to compile as any other
EVERY = [pytest.param(name, marks=pytest.mark.slow) if name in ADAPTIVE else name for name in NAMES]
STEPS, COUNT, SHAPE = 20, 8, (2, 2, 1)
KEYS = jax.random.split(jax.random.key(7), COUNT)
WEIGHT = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)) / 2, jnp.float32)


def make(name, **fields):
    """The solver of a config's section."""
    section = {"name": name, "steps": STEPS, **ADAPTIVE.get(name, {}), **fields}
    return build(section, "sampler", "config.sampler")


def network(dtype):
    """A small mixing of an image's values, run in `dtype`, that depends on the noise level."""

    def apply(x, time):
        flat = x.reshape(len(x), -1).astype(dtype)
        level = (time / 1000).astype(dtype)[:, None]
        return jnp.tanh(flat @ WEIGHT.astype(dtype) + level).reshape(x.shape)

    return apply


def sample(name, dtype=jnp.float32, keys=KEYS, calls=None, **options):
    denoise = denoiser(SCHEDULE, V(), network(dtype))

    def counted(x, t):
        if calls is not None:
            jax.debug.callback(lambda _: calls.append(1), jnp.sum(t))
        return denoise(x, t)

    sampler = make(name)
    run = sampler.trajectory if "frames" in options else sampler
    return jax.jit(lambda x, k: run(counted, SCHEDULE, x, k, **options))(per_image_noise(keys, 0, SHAPE), keys)


@functools.cache
def result(name):
    return np.asarray(sample(name))


def test_the_promised_names_are_there():
    assert not set(PROMISED) - set(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_evaluations_are_known_before_the_run(name):
    calls = []
    x = sample(name, calls=calls)
    jax.block_until_ready(x)
    jax.effects_barrier()
    sampler = make(name)
    if name in ADAPTIVE:
        denoise = denoiser(SCHEDULE, V(), network(jnp.float32))
        used = jax.jit(lambda x: sampler.solve(denoise, SCHEDULE, x).evaluations)(per_image_noise(KEYS, 0, SHAPE))
        assert len(calls) == int(used) < sampler.evaluations
    else:
        assert len(calls) == sampler.evaluations
    np.testing.assert_allclose(x, result(name), atol=1e-5)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ADAPTIVE])
def test_the_coefficients_have_one_row_an_evaluation(name):
    for schedule in (SCHEDULE, schedules.ContinuousCosine(), schedules.VP(), schedules.EDM()):
        for spacing in ("uniform", "log_snr", "karras"):
            for steps in (1, 2, 17):
                sampler = make(name, steps=steps, spacing=spacing)
                times = time_grid(spacing, steps, schedule)
                with np.errstate(all="ignore"):
                    table = sampler.coefficients(schedule, times)
                assert len(table.t) == sampler.evaluations
                assert table.ends.sum() == steps and table.ends[-1]
                assert (table.t > 0).all() and table.s[-1] == 0


@pytest.mark.parametrize("name", EVERY)
def test_a_second_call_gives_what_the_first_gave(name):
    """A multistep solver whose history lives on the object starts its second call polluted."""
    sampler = make(name)
    run = jax.jit(lambda x, k: sampler(denoiser(SCHEDULE, V(), network(jnp.float32)), SCHEDULE, x, k))
    x = per_image_noise(KEYS, 0, SHAPE)
    first, other, again = run(x, KEYS), run(-x, KEYS), run(x, KEYS)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first, result(name), atol=1e-6)  # from another object
    assert float(jnp.abs(first - other).max()) > 1e-3


@pytest.mark.parametrize("name", EVERY)
def test_a_network_in_bfloat16_leaves_the_schedule_in_float32(name):
    """A schedule cast to bfloat16 rounds alpha_bar to 1, and the last steps to NaN."""
    x = sample(name, jnp.bfloat16)
    assert x.dtype == jnp.float32 and np.isfinite(x).all()
    want = result(name)
    assert float(np.abs(x - want).max()) < 0.03 * np.abs(want).max()


@pytest.mark.parametrize("name", EVERY)
def test_an_image_depends_on_its_own_key_alone(name):
    np.testing.assert_allclose(sample(name, keys=KEYS[2:5]), result(name)[2:5], atol=1e-5)
    assert float(np.abs(result(name)[0] - result(name)[1]).max()) > 1e-3


@pytest.mark.parametrize("name", EVERY)
def test_the_trajectory_ends_on_the_result(name):
    x, frames = sample(name, frames=3)
    assert frames.shape == (3, COUNT, *SHAPE) and np.isfinite(frames).all()
    np.testing.assert_array_equal(frames[-1], x)
    assert float(jnp.abs(frames[0] - x).max()) > 1e-2
    with pytest.raises(UserError, match="frames"):
        sample(name, frames=1000)


@pytest.mark.parametrize("name", EVERY)
def test_bad_fields_are_named(name):
    for wrong in ({"steps": 0}, {"self_recurrence": 0}):
        with pytest.raises(UserError, match="config.sampler"):
            make(name, **wrong)
