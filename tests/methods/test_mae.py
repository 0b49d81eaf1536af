"""The masked autoencoder: what its encoder sees, which error is counted, and what it is compared with."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.build import build
from jaxgen.config import section
from jaxgen.errors import UserError
from jaxgen.methods.autoencoders.mae import MAE
from jaxgen.methods.base import Model

SHAPE = (16, 8, 3)


def make(mask_share=0.75, **options):
    coder = section(name="mae_encoder", patch_size=4, width=8, depth=1, heads=2)
    decoder = section(name="mae_decoder", width=4, depth=1, heads=1)
    made = section(name="mae", encoder=coder, decoder=decoder, mask_share=mask_share, **options)
    return build(made, "method", "config.method", image_shape=SHAPE)


@pytest.fixture(scope="module")
def method():
    return make()


@pytest.fixture(scope="module")
def image():
    return jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (3, *SHAPE)), jnp.float32)


@pytest.fixture(scope="module")
def params(method, image):
    learned, memory = jax.jit(lambda key: method.init(key, {"image": image}, 0, {}, {}, {}))(jax.random.key(0))
    assert not memory
    return learned


@pytest.fixture(scope="module")
def masking(method):
    return method.masking(jax.random.uniform(jax.random.key(1), (3, method.patches)))


def changed(image, patch):
    """Images whose patch of this number is another one."""
    row, column = divmod(patch, SHAPE[1] // 4)
    return image.at[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].multiply(-0.5)


def test_three_of_four_patches_are_missing_and_differ_between_images(method, masking):
    assert method.patches == 8 and method.visible == 2
    np.testing.assert_array_equal(masking.missing.sum(axis=1), 6)
    for keep, missing in zip(masking.keep, masking.missing, strict=True):
        assert {*np.asarray(keep).tolist()} == {*np.flatnonzero(~np.asarray(missing)).tolist()}
    many = method.masking(jax.random.uniform(jax.random.key(2), (400, 8))).missing.mean(axis=0)
    np.testing.assert_allclose(many, 0.75, atol=0.08)


def test_the_prediction_depends_on_visible_patches_alone(method, image, params, masking):
    predict = jax.jit(method.predict)
    before = predict(params, image, masking)
    missing = int(np.flatnonzero(masking.missing[0])[0])
    visible = int(masking.keep[0, 0])
    np.testing.assert_array_equal(predict(params, changed(image, missing), masking)[0], before[0])
    assert not np.allclose(predict(params, changed(image, visible), masking)[0], before[0])


def test_the_encoder_computes_visible_patches_and_a_class_token_only(method, image, params, masking):
    tokens = jax.eval_shape(lambda: method.encoder.apply({"params": params["encoder"]}, image, masking.keep))
    assert tokens.shape == (3, 1 + 2, 8)
    assert method.encode(params, image).shape == (3, 8, 8)


def test_errors_are_of_missing_patches_in_units_of_the_target(method, image, masking):
    targets = method.targets(image)
    np.testing.assert_allclose(np.mean(targets, axis=2), 0, atol=1e-5)
    np.testing.assert_allclose(np.var(targets, axis=2, ddof=1), 1, rtol=1e-3)
    off = targets + jnp.where(masking.missing[..., None], 0.5, 7.0)
    np.testing.assert_allclose(method.errors(off, image, masking), 0.25, rtol=1e-4)
    plain = dataclasses.replace(method, normalise=False).targets(image)
    np.testing.assert_array_equal(plain[0, 1].reshape(4, 4, 3), image[0, :4, 4:])


def test_the_nearest_visible_patch_is_found(method):
    noise = jnp.ones((1, 8)).at[0, jnp.array([1, 6])].set(0.0)  # patches 1 (row 0, right) and 6 (row 3, left)
    np.testing.assert_array_equal(method.nearest_visible(method.masking(noise))[0], [1, 1, 1, 1, 6, 6, 6, 6])


def test_copies_have_no_error_where_all_patches_are_alike(method, params):
    patch = np.random.default_rng(1).uniform(-1, 1, (1, 4, 4, 3))
    image = jnp.asarray(np.tile(patch, (2, 4, 2, 1)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 2)
    scores = jax.jit(lambda params: method.scores(Model(params, {}), keys, {"image": image}))(params)
    np.testing.assert_allclose(scores["masked_error_of_copy"], 0, atol=1e-6)
    np.testing.assert_allclose(scores["masked_error_of_mean"], 0, atol=1e-6)
    assert (scores["masked_error"] > 0.1).all()


def test_it_learns_and_shows_what_it_learned(method, image, params):
    state = SimpleNamespace(memory={}, images=jnp.uint32(0))

    @jax.jit
    def step(params, key):
        value, slope = jax.value_and_grad(lambda p: method.loss(p, {"image": image}, key, state)[0])(params)
        return jax.tree.map(lambda p, g: p - 0.3 * g, params, slope), value

    values, learned = [], params
    for i in range(60):
        learned, value = step(learned, jax.random.key(i))
        values.append(float(value))
    assert np.mean(values[-10:]) < 0.97 * np.mean(values[:10])
    keys = jax.random.split(jax.random.key(0), 3)
    panel = jax.jit(lambda params: method.panels(Model(params, {}), keys, {"image": image}))(learned)["reconstruction"]
    assert panel.shape == (9, *SHAPE)
    np.testing.assert_array_equal(panel[6:], image)
    seen = np.asarray(panel[:3]) == np.asarray(image)
    assert 0.2 < seen.mean() < 0.3
    np.testing.assert_array_equal(np.asarray(panel[3:6])[seen], np.asarray(image)[seen])


def test_a_probe_takes_the_encoder(method, image, params):
    probe = build(
        section(name="probe", z_dim=8, encoder=section(name="mae_encoder", patch_size=4, width=8, depth=1, heads=2),
                head=section(name="head", hidden=())),
        "method", "config.method", num_classes=2, image_shape=SHAPE,
    )  # fmt: skip
    features = probe.features(params, image)
    np.testing.assert_allclose(features, method.encode(params, image).mean(axis=1), rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match="width 8, not 5"):
        dataclasses.replace(probe, z_dim=5).features(params, image)


@pytest.mark.parametrize("share", [0.0, 0.95, 1.0])
def test_a_share_that_leaves_nothing_to_see_or_to_predict_is_refused(share):
    with pytest.raises(UserError, match="at least one must be visible and one missing"):
        make(share)


def test_patches_that_do_not_divide_the_image_are_refused():
    with pytest.raises(UserError, match="16x8 cannot be cut into patches of 5x5"):
        build(
            section(name="mae", encoder=section(name="mae_encoder", patch_size=5), decoder="mae_decoder"),
            "method", "config.method", image_shape=SHAPE,
        )  # fmt: skip


def test_the_contract_is_a_method():
    assert MAE.panel_inputs == ("image",) and not make().has_sampler
