"""SPADE: who learns in which turn, where z comes from, whose style an image has, and what is refused."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.build import build
from jaxgen.config import section
from jaxgen.data.source import Request
from jaxgen.data.sources.regions import CLASSES, Regions
from jaxgen.data.transforms import to_float
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.networks.layers.stateless import init_params
from jaxgen.networks.pretrained.perceptual import perceptual_distance
from jaxgen.variational.gaussian import Gaussian

BATCH = 8
ENCODER = section(name="style_encoder", widths=(4,), norm="none")


def make(statistics="instance", encoder=ENCODER, generator=None, **options):
    parts = section(
        name="spade",
        generator=section(
            name="spade_generator", z_dim=3, widths=(4,), middle=0, hidden=4, statistics=statistics,
            **{"classes": CLASSES, **(generator or {})},
        ),
        discriminator=section(
            name="patch_discriminator", width=4, layers=1, norm="spectral", reads=("mask",), classes=CLASSES
        ),
        **options,
    )  # fmt: skip
    if encoder is not None:
        parts.encoder = encoder
    return build(parts, "method", "config.method", image_shape=(8, 8, 3), num_classes=0)


def batch():
    found = Regions(Request("regions", "", "train", (8, 8), 3)).take(list(range(BATCH)))
    return to_float({name: jnp.asarray(values) for name, values in found.items()})


@functools.cache
def begun(statistics="instance", encoded=True):
    """The method, its parameters away from their small beginning, and a state."""
    method = make(statistics, ENCODER if encoded else None)
    params, memory = jax.jit(lambda key: method.init(key, batch(), 0, {}, {}, {}))(jax.random.key(0))
    params = jax.tree.map(lambda x: 10.0 * x, params)
    return method, params, SimpleNamespace(memory=memory, step=jnp.int32(0), images=jnp.uint32(0))


def turn(method, name):
    return {t.name: t for t in method.turns(0)}[name]


def sampler(method, model):
    return jax.jit(lambda keys, batch: method.sample(model, keys, batch))


@pytest.mark.nightly
@pytest.mark.parametrize("statistics", ["instance", pytest.param("batch", marks=pytest.mark.slow)])
def test_the_generators_turn_trains_the_encoder_too_and_every_term_reaches_its_groups(statistics):
    method, params, state = begun(statistics)
    assert turn(method, "discriminator").groups == ("discriminator",)
    assert turn(method, "generator").groups == ("generator", "encoder")

    def gradients(name):
        of = turn(method, name)

        def loss(own):
            return of.loss({**params, **own}, batch(), jax.random.key(1), state)

        return jax.jit(jax.grad(loss, has_aux=True))({g: params[g] for g in of.groups})

    found, (metrics, memory) = gradients("generator")
    assert set(memory) == {"generator", "encoder"} and set(memory["encoder"]) == {"spectral"}
    assert {"kl", "feature_matching"} <= set(metrics) and all(np.isfinite(x) for x in metrics.values())
    own, (_, memory) = gradients("discriminator")
    assert set(memory) == {"discriminator"}
    for group, gradient in {**found, **own}.items():
        values = np.concatenate([np.ravel(x) for x in jax.tree.leaves(gradient)])
        assert np.isfinite(values).all() and np.abs(values).max() > 0, group
    assert method.ema_groups == (() if statistics == "batch" else ("generator", "encoder"))


@pytest.mark.slow
def test_the_terms_are_those_of_the_paper():
    """The generator's loss is its part of the game plus three weighted terms, which are computed here from networks."""
    method, params, state = begun()
    bare = make(feature_matching=0.0, kl=0.0)
    key = jax.random.key(1)
    value, (metrics, _) = jax.jit(lambda p: method.generator_loss(p, batch(), key, state))(params)
    alone, _ = jax.jit(lambda p: bare.generator_loss(p, batch(), key, state))(params)
    terms = 10 * metrics["feature_matching"] + 0.05 * metrics["kl"]
    np.testing.assert_allclose(value - alone, terms, rtol=1e-4)
    posterior = jax.jit(lambda p: method.posterior(p, state.memory, batch()["image"], train=True)[0])(params)
    exact = 0.5 * (posterior.mean**2 + posterior.std**2 - 1 - 2 * jnp.log(posterior.std)).sum(1).mean()
    np.testing.assert_allclose(metrics["kl"], exact, rtol=1e-4)


@pytest.mark.slow
def test_a_perceptual_network_adds_its_distance():
    method, params, state = begun()
    network = section(name="classifier", widths=(4,), features=4, num_classes=3)
    seeing = make(perceptual=network)
    assert seeing.required_groups == ("perceptual",) and method.required_groups == ()
    weights = init_params(seeing.perceptual, jax.random.key(5), batch()["image"])
    params, key = {**params, "perceptual": weights}, jax.random.key(1)
    value, (metrics, _) = jax.jit(lambda p: seeing.generator_loss(p, batch(), key, state))(params)
    alone, _ = jax.jit(lambda p: method.generator_loss(p, batch(), key, state))(params)

    @jax.jit
    def distance(params):
        keys = jax.random.split(jax.random.split(key, 3)[0], BATCH)
        z, _, memory = method.training_z(params, state.memory, batch(), keys)
        fake, _ = method.generate(params, memory, z, batch(), train=True)
        return perceptual_distance(seeing.perceptual, weights, batch()["image"], fake).mean()

    np.testing.assert_allclose(metrics["perceptual"], distance(params), rtol=1e-4)
    np.testing.assert_allclose(value - alone, 10 * metrics["perceptual"], rtol=1e-3)


@pytest.mark.nightly
def test_z_is_that_of_the_image_in_training():
    method, params, state = begun()
    keys = jax.random.split(jax.random.key(2), BATCH)
    z, posterior, _ = jax.jit(lambda params: method.training_z(params, state.memory, batch(), keys))(params)
    assert isinstance(posterior, Gaussian) and z.shape == (BATCH, 3)
    noise, _ = method.sample_z(keys)
    np.testing.assert_allclose((z - posterior.mean) / posterior.std, noise, atol=1e-4)
    assert np.abs(posterior.mean - posterior.mean[:1]).max() > 1e-2
    plain, _, _ = begun(encoded=False)
    np.testing.assert_array_equal(plain.training_z(params, state.memory, batch(), keys)[0], noise)


@pytest.mark.parametrize("statistics", [pytest.param("instance", marks=pytest.mark.slow), "batch"])
def test_an_image_has_the_style_of_the_picture_that_is_given(statistics):
    method, params, state = begun(statistics)
    draw = sampler(method, Model(params, state.memory))
    keys, mask = jax.random.split(jax.random.key(3), BATCH), batch()["mask"]
    told = {"mask": mask, "image": batch()["image"]}
    assert method.conditions == ("mask",) and method.optional == ("image",)
    found = draw(keys, told)
    np.testing.assert_array_equal(found, draw(keys[::-1], told))  # nothing is drawn at random
    assert np.abs(found - draw(keys, {**told, "image": told["image"][::-1]})).max() > 1e-3
    of_noise = draw(keys, {"mask": mask})
    assert np.abs(of_noise - draw(keys[::-1], {"mask": mask})).max() > 1e-3
    np.testing.assert_allclose(of_noise[:2], draw(keys[:2], {"mask": mask[:2]}), atol=1e-5)  # whatever the batch is


@pytest.mark.slow
def test_the_panels_show_layouts_and_styles():
    method, params, state = begun()
    keys = jax.random.split(jax.random.key(4), BATCH)
    panels = jax.jit(lambda batch: method.panels(Model(params, state.memory), keys, batch))(batch())
    assert {name: x.shape[0] for name, x in panels.items()} == {"interpolation": 32, "layouts": 48, "styles": 25}
    layouts = panels["layouts"].reshape(8, 6, 8, 8, 3)
    np.testing.assert_array_equal(layouts[:, 1], batch()["image"])
    assert all(len(np.unique(layouts[:, i].reshape(8, -1), axis=0)) == 8 for i in range(6))
    styles = panels["styles"].reshape(5, 5, 8, 8, 3)
    np.testing.assert_array_equal(styles[0, 1:], batch()["image"][4:])
    np.testing.assert_array_equal(styles[1:, 0], layouts[:4, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kl": -1.0}, r"config\.method\.kl is -1"),
        ({"generator": {"classes": 5}}, "The discriminator knows 6 classes of the mask, and the generator 5"),
        ({"generator": {"reads": ("instance",)}}, "name 'mask' in config.method.generator.reads"),
    ],
)
def test_what_makes_no_method_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        make(**options)


def test_data_without_masks_and_masks_beyond_the_classes_are_refused():
    method = make()
    with pytest.raises(UserError, match="SPADE reads the entry 'mask', and the data have image"):
        jax.eval_shape(lambda: method.init(jax.random.key(0), {"image": batch()["image"]}, 0, {}, {}, {}))
    assert method.limits == {"mask": CLASSES}
