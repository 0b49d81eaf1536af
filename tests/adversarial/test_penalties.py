"""Penalties on slopes: closed forms, one image at a time, second-order gradients through the house's convolutions."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.adversarial import penalties
from jaxgen.errors import UserError
from jaxgen.networks.layers.convolution import Conv, gradients_in_loops

KEY = jax.random.key(3)


class Discriminator(nn.Module):
    """Every kind of convolution that there is, and one logit."""

    @nn.compact
    def __call__(self, x):
        h = nn.silu(Conv(4, stride=2, size=4, name="strided")(x))
        h = nn.silu(Conv(3, size=1, name="one")(h))
        h = nn.silu(Conv(3, upsampled=True, name="upsampled")(h))
        h = nn.silu(Conv(2, padding="same", stride=2, name="same")(h))
        return nn.Dense(1, name="out")(h.reshape(len(h), -1))[:, 0]


def images(seed, count=3):
    return np.random.default_rng(seed).normal(size=(count, 6, 6, 2))


def quadratic(x):
    """A discriminator whose slope at x is x."""
    return jnp.square(x).reshape(len(x), -1).sum(axis=1) / 2


PENALTIES = {
    "gradient_penalty": lambda apply, real, fake: penalties.gradient_penalty(apply, real, fake, KEY),
    "one_sided": lambda apply, real, fake: penalties.gradient_penalty(apply, real, fake, KEY, 0.05, True),
    "towards_0": lambda apply, real, fake: penalties.gradient_penalty(apply, real, fake, KEY, 0.0),
    "r1": lambda apply, real, fake: penalties.r1(apply, real),
    "r2": lambda apply, real, fake: penalties.r2(apply, fake),
    "zero_centred": lambda apply, real, fake: penalties.zero_centred(apply, real),
}


@pytest.mark.parametrize(("name", "in_loops"), [("gradient_penalty", False), ("r1", True)])
def test_gradients_in_the_weights_are_those_of_finite_differences(name, in_loops):
    with jax.enable_x64(True):
        real, fake = jnp.asarray(images(0)), jnp.asarray(images(1))
        shapes = jax.eval_shape(Discriminator().init, KEY, real)
        chance = np.random.default_rng(2)

        def drawn(scale):
            return jax.tree.map(lambda leaf: jnp.asarray(scale * chance.normal(size=leaf.shape)), shapes)

        params, direction = drawn(0.5), drawn(1.0)

        def total(params):
            network = gradients_in_loops()(Discriminator().apply) if in_loops else Discriminator().apply
            return PENALTIES[name](lambda x: network(params, x), real, fake).mean()

        @jax.jit
        def ahead(size):
            return jax.value_and_grad(total)(jax.tree.map(lambda p, d: p + size * d, params, direction))

        step = 1e-5
        numeric = (ahead(step)[0] - ahead(-step)[0]) / (2 * step)
        pairs = zip(*map(jax.tree.leaves, (ahead(0.0)[1], direction)), strict=True)
        along = sum(np.vdot(gradient, part) for gradient, part in pairs)
        assert abs(float(numeric)) > 1e-3
        assert float(along) == pytest.approx(float(numeric), rel=1e-7)


def test_slopes_are_those_of_finite_differences():
    with jax.enable_x64(True):
        x, direction = jnp.asarray(images(0)), jnp.asarray(images(5))
        weights = jnp.asarray(np.random.default_rng(6).normal(size=(72, 3)))

        @jax.jit
        def ahead(size):
            moved = x + size * direction
            logits = jnp.tanh(moved.reshape(3, -1) @ weights).sum(axis=1)
            return logits, penalties.slopes(lambda x: jnp.tanh(x.reshape(3, -1) @ weights), moved)

        numeric = (ahead(1e-5)[0] - ahead(-1e-5)[0]) / 2e-5
        along = (ahead(0.0)[1] * direction).sum(axis=(1, 2, 3))
        np.testing.assert_allclose(along, numeric, rtol=1e-6)


@pytest.mark.parametrize("name", PENALTIES)
def test_one_image_changes_its_own_penalty_only(name):
    real, fake = images(0, 4).astype(np.float32), images(1, 4).astype(np.float32)
    before = PENALTIES[name](quadratic, real, fake)
    real[2] *= 1.5
    fake[2] *= 1.5
    after = PENALTIES[name](quadratic, real, fake)
    assert before.shape == (4,)
    np.testing.assert_array_equal(np.flatnonzero(np.asarray(before != after)), [2])


def test_the_norm_is_each_image_s_own():
    x = np.zeros((3, 2, 2, 1), np.float32)
    x[:, 0, 0, 0] = [1.0, 3.0, 0.5]
    x[:, 1, 1, 0] = [0.0, 4.0, 0.0]
    # |slope| = 1, 5, 1/2 wherever a place between two equal images is; one norm over the batch would give one number
    np.testing.assert_allclose(penalties.gradient_penalty(quadratic, x, x, KEY), [0, 16, 0.25], atol=1e-6)
    one_sided = penalties.gradient_penalty(quadratic, x, x, KEY, one_sided=True)
    np.testing.assert_allclose(one_sided, [0, 16, 0], atol=1e-6)
    np.testing.assert_allclose(penalties.gradient_penalty(quadratic, x, x, KEY, target=3.0), [4, 4, 6.25], atol=1e-5)
    np.testing.assert_allclose(penalties.zero_centred(quadratic, x), [1, 25, 0.25])
    np.testing.assert_allclose(penalties.r1(quadratic, x), [0.5, 12.5, 0.125])
    np.testing.assert_allclose(penalties.r2(quadratic, x), [0.5, 12.5, 0.125])


def test_places_between_have_one_alpha_an_image():
    mixed = np.asarray(penalties.interpolates(jnp.ones((500, 2, 3, 1)), jnp.zeros((500, 2, 3, 1)), KEY))
    assert (mixed == mixed[:, :1, :1]).all()
    alpha = mixed[:, 0, 0, 0]
    assert len(np.unique(alpha)) > 490 and 0 <= alpha.min() < 0.02 and 0.98 < alpha.max() < 1
    assert abs(alpha.mean() - 0.5) < 4 / np.sqrt(12 * 500)


@pytest.mark.parametrize(("weight", "distance"), [(10.0, 4.0), (0.5, 3.0)])
def test_between_a_law_and_its_translation_the_best_slope_is_not_one(weight, distance):
    x = images(0).astype(np.float32).reshape(3, -1)
    shift = np.ones(x.shape[1], np.float32) * distance / np.sqrt(x.shape[1])

    def loss(size):
        def apply(x):
            return size * x @ (shift / distance)

        penalty = penalties.gradient_penalty(apply, x + shift, x, KEY)
        return (apply(x) - apply(x + shift)).mean() + weight * penalty.mean()

    best = 1 + distance / (2 * weight)
    assert abs(float(jax.grad(loss)(best))) < 1e-4
    assert abs(float(jax.grad(loss)(1.0))) > 1


@pytest.mark.parametrize("name", PENALTIES)
def test_a_flat_discriminator_has_finite_gradients(name):
    x = images(0).astype(np.float32)
    value, gradient = jax.value_and_grad(lambda w: PENALTIES[name](lambda x: w * quadratic(x), x, x).mean())(0.0)
    assert float(value) == {"gradient_penalty": 1.0}.get(name, 0.0)
    assert float(gradient) == 0


def test_no_gradient_reaches_the_fakes_through_r2():
    x = jnp.asarray(images(0), jnp.float32)
    assert float(jnp.abs(jax.grad(lambda x: penalties.r2(quadratic, x).sum())(x)).max()) == 0
    assert float(jnp.abs(jax.grad(lambda x: penalties.zero_centred(quadratic, x).sum())(x)).max()) > 0


def test_several_logits_an_image_count_together():
    x = images(0).astype(np.float32)
    patches = penalties.zero_centred(lambda x: jnp.square(x) / 2, x)
    np.testing.assert_allclose(patches, penalties.zero_centred(quadratic, x), rtol=1e-6)


def test_batches_of_unequal_size_are_refused():
    with pytest.raises(UserError, match="in pairs"):
        penalties.gradient_penalty(quadratic, jnp.ones((3, 4)), jnp.ones((2, 4)), KEY)


def test_a_penalty_of_each_pixel_is_of_the_norm_over_its_channels():
    """Of a map whose sum has the same slope at every image: weights w of each pixel and channel."""
    weights = jnp.asarray(np.random.default_rng(8).normal(size=(5, 4, 3)))
    real, fake = (jnp.asarray(np.random.default_rng(i).normal(size=(2, 5, 4, 3))) for i in (0, 1))
    found = penalties.gradient_penalty(lambda x: (x * weights).sum(-1), real, fake, KEY, per_pixel=True)
    expected = np.mean((np.linalg.norm(weights, axis=-1) - 1) ** 2)
    np.testing.assert_allclose(found, [expected, expected], rtol=1e-6)
