"""The augmentation whose probability follows the signs of a discriminator's logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.adversarial.adaptive import AdaptiveAugment, warped
from jaxgen.errors import UserError

IMAGES = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (4, 6, 6, 3)), jnp.float32)
KEYS = jax.random.split(jax.random.key(0), 4)


def at(p, **options):
    augment = AdaptiveAugment(**options)
    return jax.jit(augment.at({"probability": jnp.float32(p)}))


def test_images_are_left_alone_at_probability_0_and_each_has_its_own_draws():
    apply = jax.jit(lambda p, keys, images: AdaptiveAugment().at({"probability": p})(keys, images))
    np.testing.assert_array_equal(apply(0.0, KEYS, IMAGES), IMAGES)
    changed = np.asarray(apply(1.0, KEYS, IMAGES))
    assert all(np.abs(a - b).max() > 0.1 for a, b in zip(changed, IMAGES, strict=True))
    np.testing.assert_allclose(apply(1.0, KEYS[::-1], IMAGES[::-1])[::-1], changed, atol=1e-6)


def test_whole_pixels_stay_pixels_of_the_image():
    got = at(1.0, geometry=False, colour=False)(KEYS, IMAGES)
    for image, found in zip(IMAGES, got, strict=True):
        pixels, seen = np.asarray(image).reshape(-1, 3), np.asarray(found).reshape(-1, 3)
        assert np.abs(pixels[None] - seen[:, None]).sum(-1).min(1).max() < 1e-5


def test_a_place_is_read_where_the_map_says():
    x = jnp.arange(30.0).reshape(5, 6, 1)
    shift = jnp.eye(3).at[0, 2].set(1.0)
    np.testing.assert_allclose(warped(x, shift)[:, :-1], x[:, 1:], atol=1e-5)
    np.testing.assert_allclose(warped(x, shift)[:, -1], x[:, -2], atol=1e-5)  # mirrored
    half = jnp.eye(3).at[1, 2].set(0.5)
    np.testing.assert_allclose(warped(x, half)[:-1], (x[:-1] + x[1:]) / 2, atol=1e-5)


def test_probability_follows_the_signs_of_real_images():
    augment = AdaptiveAugment(images=80, every=2)
    state = augment.begin()
    for expected in (0.0, 0.2, 0.2, 0.4):
        state = augment.adapted(state, jnp.float32(0.9), 8)
        assert abs(float(state["probability"]) - expected) < 1e-6
    for sign in (1.0, 0.1):  # their mean is below 0.6
        state = augment.adapted(state, jnp.float32(sign), 8)
    assert abs(float(state["probability"]) - 0.2) < 1e-6
    for _ in range(40):
        state = augment.adapted(state, jnp.float32(1.0), 8)
    assert float(state["probability"]) == 1.0
    for _ in range(40):
        state = augment.adapted(state, jnp.float32(-1.0), 8)
    assert float(state["probability"]) == 0.0


def test_values_outside_of_their_range_are_refused():
    cases = ({"target": 1.0}, "mean sign"), ({"probability": 1.5}, r"\[0, 1\]"), ({"every": 0}, "at least 1")
    for options, words in cases:
        with pytest.raises(UserError, match=words):
            AdaptiveAugment(**options)
