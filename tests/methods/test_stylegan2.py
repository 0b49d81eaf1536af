"""StyleGAN2's method: the length of paths against finite differences, draws of z, and refused settings."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.adversarial.penalties import path_lengths, r1
from jaxgen.adversarial.sampling import Truncation
from jaxgen.build import build
from jaxgen.config import section
from jaxgen.errors import UserError

TINY = {"z_dim": 4, "w_dim": 4, "depth": 1, "channels": 4}


def make(discriminator=None, **options):
    config = section(
        name="stylegan2", generator=section(name="style2_generator", **TINY),
        discriminator=section(name="style2_discriminator", channels=4, **(discriminator or {})), **options,
    )  # fmt: skip
    return build(config, "method", "config.method", image_shape=(8, 8, 1), num_classes=0)


def test_slopes_of_the_penalties_are_finite_differences():
    chance = np.random.default_rng(0)
    weights = jnp.asarray(chance.normal(size=(6, 12)), jnp.float32)
    w = jnp.asarray(chance.normal(size=(2, 2, 3)), jnp.float32)
    y = jnp.asarray(chance.normal(size=(2, 2, 3, 2)), jnp.float32)

    def paint(w):
        return jnp.sin(w.reshape(len(w), -1) @ weights).reshape(len(w), 2, 3, 2)

    def difference(function, at):
        step, slope = 1e-5, np.zeros(at.size)
        for i in range(at.size):
            ends = [function((at.ravel() + sign * step * np.eye(at.size)[i]).reshape(at.shape)) for sign in (1, -1)]
            slope[i] = (ends[0] - ends[1]) / (2 * step)
        return slope.reshape(at.shape)

    exact = np.asarray(weights, np.float64)
    for i, length in enumerate(path_lengths(paint, w, y)):
        shown = lambda v, i=i: (np.sin(v.ravel() @ exact) * np.asarray(y[i], np.float64).ravel()).sum() / 6**0.5  # noqa: E731
        slope = difference(shown, np.asarray(w[i], np.float64))
        # the mean over layers of the squared length of a layer's own slope
        np.testing.assert_allclose(length, np.sqrt(np.square(slope).sum(1).mean()), rtol=1e-4)
    found = r1(lambda x: paint(x).sum((1, 2, 3)), w)
    for i in range(2):
        slope = difference(lambda v: np.sin(v.ravel() @ exact).sum(), np.asarray(w[i], np.float64))
        np.testing.assert_allclose(found[i], np.square(slope).sum() / 2, rtol=1e-4)


def test_lazy_turns_and_draws():
    method = make(r1=1.0, r1_every=16, mixing=0.5)
    every = {turn.name: turn.every for turn in method.turns(0)}
    assert every == {"discriminator": 1, "r1": 16, "generator": 1, "path": 4}
    assert "path" not in [turn.name for turn in make(path_length=0.0).turns(0)]
    keys = jax.random.split(jax.random.key(0), 400)
    drawn, _ = method.sample_z(keys)
    mixed = np.asarray(drawn["crossover"]) < 4
    assert 0.4 < mixed.mean() < 0.6 and set(np.asarray(drawn["crossover"])) == {1, 2, 3, 4}
    used, _ = method.sample_z(keys[:2], Truncation(0.5, layers=2, noise_inputs="fixed"))
    assert set(used) == {"z", "truncation", "key"} and list(used["truncation"][0]) == [0.5, 0.5, 1.0, 1.0]
    assert used["key"][0] == used["key"][1]
    np.testing.assert_array_equal(used["z"], drawn["z"][:2])  # one seed has one z, however it is truncated
    assert set(method.sample_z(keys[:2], Truncation(noise_inputs="none"))[0]) == {"z"}


def test_settings_that_make_no_game_are_refused():
    with pytest.raises(UserError, match="truncation is -0.1"):
        Truncation(-0.1)
    with pytest.raises(UserError, match="truncation is nan"):
        Truncation(float("nan"))
    with pytest.raises(UserError, match="this generator has 4 layers"):
        dataclasses.replace(make(), sampler=Truncation(layers=5))
    with pytest.raises(UserError, match="path_every"):
        make(path_every=0)
    with pytest.raises(UserError, match="no boundary"):
        make(loss=section(name="wasserstein"), augment=section(name="adaptive_augment"))
