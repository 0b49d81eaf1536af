"""What a trained critic says of two laws whose Wasserstein-1 distance is known: its gap over its slope."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import optax
import pytest
import tiny

from jaxgen.adversarial import losses
from jaxgen.adversarial.penalties import gradient_penalty, interpolates, norms, slopes
from jaxgen.adversarial.regularisers import clip_weights
from jaxgen.networks.gans.mlp import MLPDiscriminator

BATCH = 512
# One hidden layer: clipped weights bound the slope of a deeper critic too, but not alike everywhere (5 to 15 % off).
SHALLOW, DEEP = MLPDiscriminator(widths=(128,)), MLPDiscriminator(widths=(64, 64))
WIDE = 2 * (2 / jnp.pi) ** 0.5  # W1 of N(0, 1) and N(0, 9): E|3 z - z|, as both are rearranged by the same z


def logits(critic, params, x):
    return critic.apply({"params": params}, x.reshape(-1, 1, 1, 1))["logits"]


def measured(critic, params, sample):
    """The critic's gap, and the mean size of its slope between real images and fakes, on fresh draws."""
    keys = jax.random.split(jax.random.key(2), 200)
    real, fake = (jnp.concatenate(part) for part in zip(*map(sample, keys), strict=True))
    sizes = norms(slopes(lambda x: logits(critic, params, x), interpolates(real, fake, keys[0])))
    return float(logits(critic, params, real).mean() - logits(critic, params, fake).mean()), float(sizes.mean())


def trained(critic, optimiser, sample, penalty=0.0, clip=0.0, steps=3000):
    """A critic after so many steps on fresh draws of `sample(key) -> (real, fake)`."""
    start = critic.init(jax.random.key(0), jnp.zeros((2, 1, 1, 1)))["params"]

    def loss(params, key):
        real, fake = sample(key)
        on_real, on_fake = losses.Wasserstein().discriminator(
            logits(critic, params, real), logits(critic, params, fake)
        )
        total = (on_real + on_fake).mean()
        if penalty:
            total += penalty * gradient_penalty(lambda x: logits(critic, params, x), real, fake, key).mean()
        return total

    @functools.partial(jax.jit, compiler_options=tiny.LONG)
    def run(params):
        def step(carry, key):
            params, state = carry
            updates, state = optimiser.update(jax.grad(loss)(params, key), state, params)
            params = optax.apply_updates(params, updates)
            return (clip_weights(params, clip) if clip else params, state), None

        keys = jax.random.split(jax.random.key(1), steps)
        return jax.lax.scan(step, (params, optimiser.init(params)), keys)[0][0]

    return start, run(start)


def scaled(key):
    """N(0, 1) and N(0, 9)."""
    a, b = jax.random.normal(key, (2, BATCH, 1))
    return a, 3 * b


@pytest.mark.slow
def test_clipped_weights_find_the_distance_and_an_untrained_critic_does_not():
    untrained, params = trained(SHALLOW, optax.rmsprop(5e-5), scaled, clip=0.01)
    gap, slope = measured(SHALLOW, params, scaled)
    assert gap / slope == pytest.approx(WIDE, rel=0.05)
    gap, slope = measured(SHALLOW, untrained, scaled)
    assert gap / slope != pytest.approx(WIDE, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("distance", [1.0, 4.0])
def test_the_penalised_critic_of_a_translation_is_steeper_than_one(distance):
    """The best slope is 1 + W1 / (2 lambda): 1.2 at a distance of 4 and lambda of 10."""

    def moved(key):
        a, b = 0.3 * jax.random.normal(key, (2, BATCH, 1))
        return a + distance, b

    optimiser = optax.adam(optax.cosine_decay_schedule(1e-3, 3000), b1=0.0, b2=0.9)
    _, params = trained(DEEP, optimiser, moved, penalty=10.0)
    gap, slope = measured(DEEP, params, moved)
    assert slope == pytest.approx(1 + distance / 20, abs=0.02)
    assert gap / slope == pytest.approx(distance, rel=0.02)
