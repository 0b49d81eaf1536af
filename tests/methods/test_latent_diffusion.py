"""Latent diffusion: DDPM on what an autoencoder gives, with labels and captions as its conditions."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_latents import MOMENTS, SHAPE, Folded, batch, begun, given, make

from jaxgen.diffusion.guidance import ClassifierFree
from jaxgen.diffusion.prediction_types import V
from jaxgen.diffusion.samplers.ddim import DDIM
from jaxgen.errors import UserError
from jaxgen.methods.diffusion.ddpm import DDPM

KEYS = jax.random.split(jax.random.key(3), 3)


@pytest.mark.slow
def test_it_is_ddpm_in_latents():
    method, model = make(), begun()
    assert method.shape == (8, 8, 4) and method.required_groups == ("autoencoder",) and method.conditions == ()
    plain = DDPM(method.network, method.schedule, method.sampler, method.shape, prediction_type=V())
    z = jax.jit(plain.sample)(model, KEYS, {})
    assert np.abs(z).max() > 1  # a clipped one would be another
    expected = Folded().apply({"params": given()["autoencoder"]}, z / 2, method="decode")
    found = jax.jit(method.sample)(model, KEYS, {})
    np.testing.assert_allclose(found, jnp.clip(expected, -1, 1), atol=1e-5)
    frames = jax.jit(method.panels)(model, KEYS, {})["trajectory"]
    assert frames.shape == (4, 3, *SHAPE)
    np.testing.assert_allclose(frames[-1], found, atol=1e-5)

    latents = Folded().apply({"params": given()["autoencoder"]}, batch()["image"], method="encode")[..., :4] * 2
    expected = jax.jit(plain.scores)(model, KEYS, {"image": latents})
    scores = jax.jit(method.scores)(model, KEYS, batch())
    np.testing.assert_allclose(scores["denoising_loss"], expected["denoising_loss"], rtol=1e-2)
    found = method.summary({name: np.asarray(x) for name, x in scores.items()})
    np.testing.assert_allclose(found["latent_std"], latents.std(), rtol=1e-2)
    assert method.better("latent_std") is None and "latent_square" not in found


def loss_of(method, model, batch, key=0):
    state = SimpleNamespace(memory=model.memory)
    return float(
        jax.jit(lambda params, batch: method.loss(params, batch, jax.random.key(key), state)[0])(model.params, batch)
    )


def test_moments_that_come_with_the_data_are_taken_for_the_image():
    method, model = make(), begun()
    moments = Folded().apply({"params": given()["autoencoder"]}, batch()["image"], method="encode")
    expected = loss_of(method, model, batch())
    assert loss_of(method, model, {"image": 0 * batch()["image"], "moments": moments}) == pytest.approx(
        expected, rel=1e-5
    )
    assert abs(loss_of(method, model, {"image": 0 * batch()["image"]}) - expected) > 1e-3


def test_cached_latents_must_be_there_and_a_plan_knows_of_them():
    method = make(cached=True)
    moments = Folded().apply({"params": given()["autoencoder"]}, batch()["image"], method="encode")
    shape, dtype = method.entries["moments"]
    assert shape == moments.shape[1:] and dtype == moments.dtype
    assert "moments" not in make().entries
    with pytest.raises(UserError, match="cached is set, and the data have no 'moments'"):
        method.encode(given(), batch())
    found = method.encode(given(), {**batch(), "moments": moments})
    np.testing.assert_array_equal(found.mean, jnp.split(moments, 2, -1)[0])


def test_the_scale_is_the_first_stages_or_the_configs():
    model = begun()
    np.testing.assert_allclose(make().coding.scaling(model.memory["autoencoder"]), 2.0, rtol=1e-6)
    assert make(scale=0.5).coding.scaling(None) == 0.5
    with pytest.raises(UserError, match=r"config\.method\.scale"):
        make().init(jax.random.key(0), batch(), 0, given(), {}, {})
    assert "denoiser" in jax.eval_shape(lambda: make(scale=0.5).init(jax.random.key(0), batch(), 0, given(), {}, {}))[0]


def test_decoding_in_parts_changes_nothing():
    model = begun()
    z = jnp.asarray(np.random.default_rng(5).normal(size=(3, 12, 20, 4)), jnp.float32)
    whole = make().decode(model, z)
    assert whole.shape == (3, 24, 40, 1)  # latents of any size
    for options in ({"decode_batch": 2}, {"decode_tile": 8, "decode_overlap": 4}):
        np.testing.assert_allclose(make(**options).decode(model, z), whole, atol=1e-6)


@pytest.mark.slow
def test_labels_and_captions_reach_the_samples():
    method, model = make(3, text=True), begun(3, True)
    assert method.conditions == ("label", "tokens")
    draw = jax.jit(method.sample)
    same = jax.vmap(lambda _: KEYS[0])(jnp.arange(3))
    one = {"label": jnp.zeros(3, jnp.int32), "tokens": batch()["tokens"][:1].repeat(3, 0)}
    base = draw(model, same, one)
    np.testing.assert_allclose(base[0], base[1], atol=1e-5)
    for name in ("label", "tokens"):
        changed = draw(model, same, {**one, name: batch()[name]})
        assert np.abs(changed[0] - base[0]).max() < 1e-5 and np.abs(changed[1] - base[1]).max() > 1e-4, name


@pytest.mark.slow
def test_what_lies_behind_a_captions_end_is_not_seen():
    method, model = make(text=True), begun(text=True)
    blind = dataclasses.replace(method, mask_padding=False)
    conditions = [jax.jit(m.condition)(model.params, batch()) for m in (method, blind)]
    np.testing.assert_array_equal(conditions[0]["context_mask"], batch()["tokens"] != 0)
    assert "context_mask" not in conditions[1]
    shorter = {**batch(), "tokens": batch()["tokens"][:2, :2]}
    alone = jax.jit(method.condition)(model.params, shorter)["context"][1]
    np.testing.assert_allclose(alone, conditions[0]["context"][1, :2], atol=1e-5)


@pytest.mark.slow
def test_no_condition_is_the_empty_caption_and_the_null_class():
    method, model = make(3, True, label_dropout=0.5), begun(3, True)
    null = method.told.null(batch())
    np.testing.assert_array_equal(null["tokens"], [[1, 0, 0, 0, 0]] * 3)
    np.testing.assert_array_equal(null["label"], [3, 3, 3])
    unconditional = dataclasses.replace(method, guidance=ClassifierFree(scale=0.0))
    found = jax.jit(unconditional.sample)(model, KEYS, batch())
    np.testing.assert_allclose(found, jax.jit(method.sample)(model, KEYS, null), atol=1e-5)
    guided = dataclasses.replace(method, guidance=ClassifierFree(scale=3.0))
    assert np.abs(jax.jit(guided.sample)(model, KEYS, batch()) - found).max() > 1e-3


@pytest.mark.slow
def test_dropped_captions_are_as_if_they_were_empty():
    method, model = make(3, True), begun(3, True)
    dropping = dataclasses.replace(method, label_dropout=1 - 1e-7)
    null = {**batch(), **dropping.told.null(batch())}
    assert loss_of(dropping, model, batch()) == pytest.approx(loss_of(method, model, null), rel=1e-5)
    assert abs(loss_of(method, model, batch()) - loss_of(method, model, null)) > 1e-5


@pytest.mark.nightly
def test_the_text_encoder_learns_or_is_frozen():
    method, model = make(text=True), begun(text=True)
    assert method.turns(0)[0].groups == ("denoiser", "text")
    state = SimpleNamespace(memory=model.memory)
    slope = jax.jit(jax.grad(lambda params: method.loss(params, batch(), jax.random.key(0), state)[0]))(model.params)
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(slope["text"])) > 0
    frozen = make(text=True, text_learns=False)
    assert frozen.required_groups == ("autoencoder", "text") and frozen.turns(0)[0].groups == ("denoiser",)
    groups = {**given(), "text": model.params["text"]}
    params, _ = jax.eval_shape(lambda: frozen.init(jax.random.key(0), batch(), 0, groups, {}, MOMENTS))
    assert set(params) == {"denoiser"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sampler": DDIM(steps=3)}, r"sampler\.clip"),
        ({"learned_variance": True}, "learned_variance"),
        ({"label_dropout": 0.1}, "label_dropout needs labels"),
        ({"scale": -1.0}, "scale"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, said):
    with pytest.raises(UserError, match=said):
        make(**options)


def test_text_and_context_belong_together():
    with pytest.raises(UserError, match="context_dim"):
        dataclasses.replace(make(text=True), text=None)


def test_another_autoencoders_weights_are_refused():
    with pytest.raises(UserError, match=r"init_from\.autoencoder"):
        make().init(jax.random.key(0), batch(), 0, {"autoencoder": {"other": jnp.zeros(3)}}, {}, MOMENTS)


def test_sizes_that_do_not_fit_are_told_in_pixels():
    import tiny

    from jaxgen.config.files import load_config
    from jaxgen.runs.setup import make_method

    config, _ = load_config(tiny.ROOT / "configs" / "latent_diffusion_shapes.py")
    make_method(config)
    config.data.resolution = (32, 33)
    with pytest.raises(UserError, match=r"config\.data\.resolution is 32x33 pixels, .* multiples of \d+ here"):
        make_method(config)
