"""Where chance counts: trajectories that part at time t."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import LINEAR, STD, gaussian, make_keys

from jaxgen.diffusion.noise import per_image_noise
from jaxgen.diffusion.samplers.ddim import DDIM as ddim
from jaxgen.diffusion.samplers.ddpm import DDPM as ddpm
from jaxgen.editing.branching import branch, branching, diversity
from jaxgen.editing.model import DiffusionModel
from jaxgen.errors import UserError

ANCESTRAL = ddpm(1000, clip=False)


def start(count, width=64):
    keys = make_keys(count)
    return per_image_noise(keys, 0, (width,)), keys


def posterior_variance(t):
    """Var(x_0 | x_t) of Gaussian data: what the exact reverse process has left to decide at time t."""
    alpha, sigma = float(LINEAR.alpha(t)), float(LINEAR.sigma(t))
    return STD**2 * sigma**2 / (alpha**2 * STD**2 + sigma**2)


@pytest.fixture(scope="module", name="parted")
def _parted():
    x, keys = start(16)
    times = (1.0, 0.3, 0.1, 0.0)
    return jax.jit(
        lambda x, k: branching(DiffusionModel(gaussian(LINEAR), LINEAR, ANCESTRAL), x, k, times, branches=6)
    )(x, keys)


@pytest.mark.nightly
def test_the_diversity_is_the_posteriors_variance(parted):
    expected = [posterior_variance(t) for t in parted.times]
    np.testing.assert_allclose(parted.diversity.mean(axis=1), expected, rtol=0.08)
    assert expected[0] == pytest.approx(STD**2, rel=1e-3)  # all of the data's
    assert (np.diff(parted.diversity.mean(axis=1)) < 0).all()


def test_at_time_0_nothing_is_left_to_chance(parted):
    np.testing.assert_array_equal(parted.diversity[-1], 0)


def test_the_trunk_is_shared(parted):
    """The later branches part, the nearer they lie to their trunk's own end."""
    ends = parted.images[-1, 0]
    apart = [float(jnp.square(images - ends).mean()) for images in parted.images]
    # two draws of one posterior are twice its variance apart
    np.testing.assert_allclose(apart, [2 * posterior_variance(t) for t in parted.times], rtol=0.1)


@pytest.mark.slow
def test_one_start_many_keys():
    """The same starting noise: ancestral sampling spreads, DDIM without noise does not."""
    x, keys = start(4)
    noisy = branch(DiffusionModel(gaussian(LINEAR), LINEAR, ddpm(50, clip=False)), x, keys, 1.0, branches=4)
    still = branch(DiffusionModel(gaussian(LINEAR), LINEAR, ddim(50, clip=False)), x, keys, 1.0, branches=4)
    assert (np.asarray(diversity(noisy)) > 0.5 * STD**2).all()
    np.testing.assert_array_equal(diversity(still), 0)


@pytest.mark.nightly
def test_an_image_depends_on_its_own_key_alone():
    x, keys = start(5)
    whole = branch(DiffusionModel(gaussian(LINEAR), LINEAR, ddpm(20)), x, keys, 0.5, branches=3)
    part = branch(DiffusionModel(gaussian(LINEAR), LINEAR, ddpm(20)), x[2:4], keys[2:4], 0.5, branches=3)
    np.testing.assert_allclose(whole[:, 2:4], part, atol=1e-6)
    more = branch(DiffusionModel(gaussian(LINEAR), LINEAR, ddpm(20)), x[2:4], keys[2:4], 0.5, branches=4)
    np.testing.assert_allclose(more[:3], part, atol=1e-6)


def test_a_spread_of_features():
    images = jax.random.normal(jax.random.key(1), (200, 3, 10))
    assert diversity(images).shape == (3,)
    np.testing.assert_allclose(diversity(images), 1, atol=0.1)
    np.testing.assert_allclose(diversity(images, lambda x: x.mean(axis=1, keepdims=True)), 0.1, rtol=0.35)


def test_bad_input_is_refused():
    x, keys = start(2, 1)
    arguments = (DiffusionModel(gaussian(LINEAR), LINEAR, ddpm(20)), x, keys)
    with pytest.raises(UserError, match=r"\[0, 1\]"):
        branch(*arguments, 1.5)
    with pytest.raises(UserError, match="at least one branch"):
        branch(*arguments, 0.5, branches=0)
    with pytest.raises(UserError, match="decrease"):
        branching(*arguments, times=(0.2, 0.8))
    with pytest.raises(UserError, match="two branches"):
        diversity(x[None])
