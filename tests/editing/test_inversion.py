"""DDIM inversion, on data whose flow is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import LINEAR, MEAN, SMOOTH, STD, gaussian, modes

from jaxgen.editing.inversion import Inversion, invert, reconstruct, reconstruction_error
from jaxgen.editing.model import DiffusionModel
from jaxgen.errors import UserError


def points():
    return jnp.linspace(-0.9, 0.9, 7, dtype=jnp.float64)[:, None]


def slopes(errors):
    """Orders of convergence between runs of twice the steps each."""
    return -np.diff(np.log2(errors))


@pytest.mark.parametrize("refinements", [0, 2])
def test_the_latent_of_gaussian_data_is_exact_to_first_order(refinements):
    """The flow maps quantile to quantile: x_1 is as many standard deviations from its mean as x_0."""
    with jax.enable_x64(True):
        x = points()
        a0, s0, a1, s1 = (float(f(t)) for t in (0.0, 1.0) for f in (SMOOTH.alpha, SMOOTH.sigma))
        exact = a1 * MEAN + np.hypot(a1 * STD, s1) * (x - a0 * MEAN) / np.hypot(a0 * STD, s0)
        run, model = jax.jit(invert, static_argnums=(0, 2, 3, 4)), DiffusionModel(gaussian(SMOOTH), SMOOTH)
        found = [run(model, x, steps, "uniform", refinements) for steps in (50, 100, 200)]
        errors = [float(jnp.abs(latent - exact).max()) for latent in found]
    assert (np.abs(slopes(errors) - 1) < 0.25).all(), errors
    assert errors[-1] < 0.1


@pytest.mark.parametrize(
    "data, schedule, first", [(gaussian, LINEAR, 50), (gaussian, SMOOTH, 50), (modes, SMOOTH, 100)]
)
def test_sampling_gives_the_input_back_with_an_error_of_first_order(data, schedule, first):
    with jax.enable_x64(True):
        errors = reconstruction_error(DiffusionModel(data(schedule), schedule), points(), (first, 2 * first, 4 * first))
    errors = np.sqrt(np.asarray(errors).max(axis=1))
    assert (np.abs(slopes(errors) - 1) < 0.3).all(), errors
    assert errors[-1] < 0.06


def test_refinements_make_the_way_back_exact():
    """Also with ten steps: the fixed point is the inverse of the step itself, not of the flow."""
    with jax.enable_x64(True):
        errors = [
            float(
                reconstruction_error(DiffusionModel(gaussian(LINEAR), LINEAR), points(), (10,), refinements=count).max()
            )
            for count in (0, 3, 30)
        ]
    assert errors[0] > 0.1 and errors[1] < errors[0] / 3 and errors[2] < 1e-10, errors


def test_the_network_is_never_asked_without_noise():
    """At t = 0 it was not trained, and a discrete schedule has no such level."""
    table = Inversion(10, refinements=2).coefficients(LINEAR, np.linspace(0, 1, 11))
    assert table.t.min() == pytest.approx(0.1)
    assert len(table.t) == Inversion(10, refinements=2).evaluations == 30


def test_evaluations_are_what_was_promised():
    calls = []

    def denoise(x, t):
        jax.debug.callback(lambda time: calls.append(float(time)), t)
        return gaussian(LINEAR)(x, t)

    jax.block_until_ready(invert(DiffusionModel(denoise, LINEAR), jnp.zeros((2, 1)), steps=5, refinements=1))
    jax.effects_barrier()
    assert sorted(calls) == pytest.approx(sorted([0.2, 0.4, 0.6, 0.8, 1.0] * 2))


def test_half_of_the_way_and_back():
    times = np.linspace(0, 0.5, 26)
    x = jnp.linspace(-0.5, 0.9, 8)[:, None]
    latents = invert(DiffusionModel(gaussian(LINEAR), LINEAR), x, times=times, refinements=20)
    back = reconstruct(DiffusionModel(gaussian(LINEAR), LINEAR), latents, times=times[::-1])
    np.testing.assert_allclose(back, x, atol=1e-4)
    assert float(jnp.abs(latents - x).max()) > 0.1


@pytest.mark.parametrize("times", [[0.5, 0.2], [0.0], [0.0, 0.0, 1.0]])
def test_times_that_do_not_increase_are_refused(times):
    with pytest.raises(UserError, match="increasing"):
        invert(DiffusionModel(gaussian(LINEAR), LINEAR), jnp.zeros((1, 1)), times=np.asarray(times))


def test_bad_fields_are_refused():
    with pytest.raises(UserError, match="refinements"):
        Inversion(refinements=-1)
    with pytest.raises(UserError, match="self_recurrence"):
        Inversion(self_recurrence=2)
