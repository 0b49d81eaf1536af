"""SinGAN's scales: what a new one begins with, what is frozen, and what is drawn from any scale and at any size."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.adversarial.pyramid import resized
from jaxgen.adversarial.sampling import Pyramid
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.methods.gans.singan import SinGAN, fixed
from jaxgen.networks.gans.singan import SinGANDiscriminator, SinGANGenerator
from jaxgen.runs.state import unreached

WIDTHS = dict(width=4, least_width=4, layers=2)
SHAPE = (12, 18, 3)
KEYS = jax.random.split(jax.random.key(5), 3)


def method(**options):
    given = dict(scales=3, coarsest=6, images_per_scale=4, double_every=2)
    return SinGAN(SinGANGenerator(**WIDTHS), SinGANDiscriminator(**WIDTHS), SHAPE, **{**given, **options})


def picture():
    smooth = np.random.default_rng(0).uniform(-1, 1, (1, 4, 6, 3)).astype(np.float32)
    return jnp.clip(resized(jnp.asarray(smooth), SHAPE[:2]), -1, 1)


@functools.cache
def grown():
    """The params and memory at the start of each of three scales; each generator is moved a little before the next."""
    made, found, params, memory = method(), [], {}, {}
    for stage in range(3):

        @functools.partial(jax.jit, static_argnums=0)
        def start(stage, params, memory):
            return made.init(jax.random.key(stage), {"image": picture()}, stage, {}, params, memory)

        params, memory = start(stage, params, memory)
        params = {**params, "generator": jax.tree.map(lambda x: x + 0.05, params["generator"])}
        found.append((params, memory))
    return found


def model():
    params, memory = grown()[2]
    return Model(params, memory, 2)


def test_a_new_scale_freezes_the_one_below_and_takes_its_weights_where_the_widths_agree():
    (first, _), (second, _), (third, _) = grown()
    for kept in (second["pyramid"]["scale_0"], third["pyramid"]["scale_0"]):
        jax.tree.map(np.testing.assert_array_equal, kept, first["generator"])
    jax.tree.map(np.testing.assert_array_equal, third["pyramid"]["scale_1"], second["generator"])
    jax.tree.map(np.testing.assert_array_equal, second["discriminator"], first["discriminator"])
    shapes = [tree["generator"]["conv_0"]["kernel"].shape[-1] for tree in (first, second, third)]
    assert shapes == [4, 4, 8]  # twice as wide from the third scale on
    assert third["discriminator"]["conv_0"]["kernel"].shape[-1] == 8
    wide = method(double_every=1).network("generator", 9)
    assert (wide.width, wide.least_width, wide.layers) == (128, 128, 2)


def test_the_noise_of_a_scale_follows_the_error_that_it_begins_with():
    made = method()
    (params, before), (_, memory), _ = grown()
    below = resized(jax.jit(made.reconstruct, static_argnums=2)(params, before, 0), made.sizes()[1])
    np.testing.assert_allclose(memory["below"], below, atol=1e-5)
    error = np.sqrt(np.mean(np.square(np.asarray(below - made.picture(picture(), 1)))))
    np.testing.assert_allclose(memory["amplitudes"][1], 0.1 * error, rtol=1e-5)
    assert before["amplitudes"][0] == 1 and memory["amplitudes"][2] == 0


def test_the_picture_is_drawn_from_the_fixed_noise_alone():
    made, (params, memory) = method(), grown()[2]

    @jax.jit
    def both(params, memory):
        own = made.generate(params, memory, fixed(memory), made.sizes())
        return own, made.reconstruct(params, memory, 2), made.kept(Model(params, memory, 2), 3)

    own, again, kept = both(params, memory)
    assert own.shape == (1, *SHAPE)
    np.testing.assert_allclose(own, again, atol=1e-5)
    np.testing.assert_allclose(own, kept, atol=1e-5)


def test_images_that_start_higher_keep_more_of_the_picture():
    @jax.jit
    def draw(made, keys):
        found = [method(sampler=Pyramid(start=start)).sample(made, keys, {}) for start in (0, 2)]
        return *found, method().reconstruct(made.params, made.memory, 2)

    *found, own = jax.device_get(draw(model(), KEYS))
    *turned, _ = jax.device_get(draw(model(), KEYS[::-1]))
    for images, others in zip(found, turned, strict=True):
        assert images.shape == (3, *SHAPE) and np.abs(images).max() <= 1
        assert not np.allclose(images[0], images[1])
        np.testing.assert_allclose(images, others[::-1], atol=1e-5)  # image i is of key i alone
    distances = [np.abs(images - np.clip(own, -1, 1)).mean() for images in found]
    assert 0 < distances[1] < distances[0]


@pytest.mark.parametrize("size", [(9, 30), (24, 11)])
def test_images_have_any_size_and_aspect(size):
    found = jax.eval_shape(method().at_size(size).sample, model(), KEYS, {})
    assert found.shape == (3, *size, 3)


@pytest.mark.nightly
def test_the_losses_train_their_own_scale_and_descend():
    made, (params, memory) = method(), grown()[1]

    class State:
        step = images = jnp.zeros((), jnp.int32)
        ema = params

    State.memory = memory

    @functools.partial(jax.jit, static_argnames="name")
    @functools.partial(jax.value_and_grad, has_aux=True, argnums=1)
    def loss(name, own, key):
        found = getattr(made, f"{name}_loss")
        return found(1, {**params, name: own}, {"image": picture()}, key, State)

    for name in ("discriminator", "generator"):
        own, key = params[name], jax.random.key(9)
        (before, (metrics, changed)), slope = loss(name, own, key)
        (after, _), _ = loss(name, jax.tree.map(lambda x, g: x - 3e-4 * g, own, slope), key)
        assert after < before and not changed and all(np.isfinite(value) for value in metrics.values())
    assert metrics["reconstruction_rmse"] > 0


def test_a_run_that_ends_before_the_last_scale_is_told_so():
    assert unreached(method(), 9) == ""
    assert "at 8 images, before 1 of the 3 stages" in unreached(method(), 8)
    assert "begins at 8" in unreached(method(), 3) and "before 2 of the 3" in unreached(method(), 3)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (dict(image_shape=(128, 1, 3)), "128x1 pixels"),
        (dict(scales=9), "two of them"),
        (dict(scales=0), "config.method.scales"),
        (dict(noise=-1.0), "config.method.noise"),
        (dict(sampler=Pyramid(start=3)), "config.sampler.start=3"),
    ],
)
def test_numbers_that_make_no_pyramid_are_refused(options, named):
    shape = options.pop("image_shape", SHAPE)
    with pytest.raises(UserError, match=named):
        SinGAN(SinGANGenerator(), SinGANDiscriminator(), shape, **{"scales": 3, "coarsest": 6, **options})


def test_a_scale_that_is_smaller_than_a_patch_is_refused():
    made = SinGAN(SinGANGenerator(), SinGANDiscriminator(), SHAPE, scales=3, coarsest=6)
    with pytest.raises(UserError, match="patches of 11x11 pixels, and a scale of the picture has 6x9"):
        jax.eval_shape(lambda: made.init(jax.random.key(0), {"image": picture()}, 0, {}, {}, {}))
    mirrored = SinGANGenerator(layers=5, border="reflect")
    with pytest.raises(UserError, match="border='zeros'"):
        jax.eval_shape(lambda: mirrored.init(jax.random.key(0), picture()[:, :5], picture()[:, :5]))
