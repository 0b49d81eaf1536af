"""The supervised segmenter: it learns what a colour tells, ignored pixels teach nothing, and what is refused."""

from __future__ import annotations

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.methods.segmentation.segmenter import Segmenter

CLASSES, IGNORED = 3, 9
STATE = SimpleNamespace(memory={}, step=jnp.int32(0), images=jnp.uint32(0))


class Pointwise(nn.Module):
    """Logits that are linear in a pixel's colour."""

    out_channels: int = CLASSES

    @nn.compact
    def __call__(self, x, time, train=False):
        return nn.Dense(self.out_channels)(x)


METHOD = Segmenter(Pointwise(), CLASSES, (8, 8, 3), IGNORED)


@pytest.fixture(scope="module")
def batch():
    """Each pixel's class is its strongest colour; the first row has none."""
    image = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 3)).astype(np.float32)
    mask = image.argmax(axis=-1)
    mask[:, 0] = IGNORED
    return {"image": jnp.asarray(image), "mask": jnp.asarray(mask, jnp.int32)}


def loss(params, batch):
    return METHOD.loss(params, batch, jax.random.key(1), STATE)


@pytest.fixture(scope="module")
def learned(batch):
    params, _ = METHOD.init(jax.random.key(0), batch, 0, {}, {}, {})
    optimiser = optax.adam(0.1)

    @jax.jit
    def step(carried, _):
        params, state = carried
        (value, _), gradient = jax.value_and_grad(loss, has_aux=True)(params, batch)
        updates, state = optimiser.update(gradient, state)
        return (optax.apply_updates(params, updates), state), value

    (params, _), values = jax.lax.scan(step, (params, optimiser.init(params)), None, 200)
    assert values[-1] < 0.2 < values[0]
    return params


def test_it_learns_what_the_colour_tells(batch, learned):
    model, keys = Model(learned, {}), jax.random.split(jax.random.key(2), 4)

    @jax.jit
    def call(batch):
        found = METHOD.sample(model, keys, {"image": batch["image"]})
        return found, METHOD.scores(model, keys, batch), METHOD.panels(model, keys, batch), loss(learned, batch)[1][0]

    found, scores, panels, metrics = call(batch)
    assert found.dtype == jnp.int32
    right = np.asarray(found[:, 1:] == batch["mask"][:, 1:]).mean(axis=(1, 2))
    assert right.min() > 0.95
    np.testing.assert_allclose(scores["accuracy"], right, atol=1e-6)
    np.testing.assert_allclose(metrics["accuracy"], right.mean(), atol=1e-6)
    masks = panels["masks"].reshape(4, 3, 8, 8, 3)
    np.testing.assert_array_equal(masks[:, 0], batch["image"])
    assert (masks[:, 1, 0] == 0).all() and np.abs(masks[:, 1, 1:] - masks[:, 2, 1:]).mean() < 0.05  # grey: no class


def test_ignored_pixels_teach_nothing(batch, learned):
    other = batch["image"].at[:, 0].set(-batch["image"][:, 0])
    gradient = jax.jit(jax.grad(lambda image: loss(learned, {**batch, "image": image})[0]))
    for image in (batch["image"], other):
        found = np.abs(gradient(image)).max(axis=(0, 2, 3))
        assert found[0] == 0 and found[1:].min() > 0
    assert METHOD.limits == {"mask": CLASSES} and METHOD.exempt == {"mask": IGNORED}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 4}, r"network.out_channels is 3, and there are 4 classes"),
        ({"classes": 1}, "from 2 to 256"),
        ({"ignore": 2}, "ignore=2 is one of the 3 classes"),
    ],
)
def test_what_makes_no_segmenter_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        Segmenter(**{"network": Pointwise(), "classes": CLASSES, "image_shape": (8, 8, 3), **options})


def test_data_that_do_not_fit_are_refused(batch):
    for entries, message in (
        ({"image": batch["image"]}, "learns from the entry 'mask'"),
        ({**batch, "mask": batch["mask"][:, :4]}, "masks of 8x4 pixels and images of 8x8"),
    ):
        with pytest.raises(UserError, match=message):
            METHOD.init(jax.random.key(0), entries, 0, {}, {}, {})
