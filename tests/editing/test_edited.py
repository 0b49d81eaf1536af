"""A diffusion model begins with given pictures, and keeps a part of them; in pixels and in latents, for any solver."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_latents

from jaxgen.arrays import to_uint8
from jaxgen.codecs.embedding import Embedding
from jaxgen.diffusion.guidance import ClassifierFree
from jaxgen.diffusion.samplers.ddim import DDIM
from jaxgen.diffusion.samplers.ode import ODE
from jaxgen.editing.edited import Edited, editable, in_cells
from jaxgen.errors import UserError
from jaxgen.methods.base import Method
from jaxgen.methods.diffusion.ddpm import DDPM
from jaxgen.methods.grafts.low_rank import LowRank
from jaxgen.methods.tuned import Tuned


@functools.cache
def latent(strength, masked=False):
    """The program of an edited model of captions, which guides."""
    method = Edited(tiny_latents.make(text=True, sampler=DDIM(4, clip=False, eta=1.0)), strength, masked)
    return method, jax.jit(method.sample)


def batch(**changed):
    found = {**tiny_latents.batch(), **changed}
    return {"tokens": found["tokens"], "edit_image": found["image"], **{k: v for k, v in found.items() if "mask" in k}}


@pytest.fixture(scope="module")
def model():
    return tiny_latents.begun(text=True)


GUIDANCE = ClassifierFree(scale=5.0)
KEYS = jax.random.split(jax.random.key(7), 3)
MASK = np.zeros((3, 16, 16), np.int32)
MASK[:, 3:12, 5:] = 1  # its borders lie within cells of latents


def test_no_strength_gives_the_pictures_back(model):
    method, sample = latent(0.0)
    assert len(method.times()) == 1
    np.testing.assert_array_equal(sample(model, KEYS, batch()), tiny_latents.batch()["image"])


@pytest.mark.slow
def test_full_strength_is_plain_sampling_whatever_the_picture(model):
    method, sample = latent(1.0)
    plain = jax.jit(method.method.sample)(model, KEYS, tiny_latents.batch())
    np.testing.assert_array_equal(sample(model, KEYS, batch()), plain)
    np.testing.assert_array_equal(sample(model, KEYS, batch(image=jnp.zeros((3, 16, 16, 1)))), plain)


@pytest.mark.slow
def test_a_small_change_stays_nearer_than_a_large_one(model):
    image = tiny_latents.batch()["image"]
    distances = [float(jnp.square(latent(s)[1](model, KEYS, batch()) - image).mean()) for s in (0.25, 0.75)]
    assert 0.001 < distances[0] < 0.6 * distances[1]


def test_the_texts_and_the_keys_decide_what_changes(model):
    _, sample = latent(0.75)
    first = sample(model, KEYS, batch())
    other = batch(tokens=tiny_latents.batch()["tokens"].at[1].set(jnp.array([8, 8, 1, 0, 0])))
    differs = [bool((a != b).any()) for a, b in zip(first, sample(model, KEYS, other), strict=True)]
    assert differs == [False, True, False]
    assert (sample(model, KEYS[::-1], batch())[0] != first[0]).any()


@pytest.mark.slow
@pytest.mark.parametrize("strength", [pytest.param(0.5, marks=pytest.mark.slow), 1.0])
def test_what_a_mask_keeps_is_exact_and_the_rest_is_drawn(model, strength):
    image = tiny_latents.batch()["image"]
    found = latent(strength, True)[1](model, KEYS, batch(edit_mask=jnp.asarray(MASK)))
    np.testing.assert_array_equal(to_uint8(found)[MASK == 0], to_uint8(image)[MASK == 0])
    assert (to_uint8(found)[MASK == 1] != to_uint8(image)[MASK == 1]).mean() > 0.8


def test_the_network_sees_the_kept_part(model):
    """What is drawn depends on what is kept beside it, also at full strength."""
    image, (_, sample) = tiny_latents.batch()["image"], latent(1.0, True)
    first = sample(model, KEYS, batch(edit_mask=jnp.asarray(MASK)))
    darker = jnp.where(MASK[..., None] == 1, image, -1.0)
    second = sample(model, KEYS, batch(image=darker, edit_mask=jnp.asarray(MASK)))
    assert np.abs(first - second)[MASK == 1].max() > 0.01
    free = jnp.where(MASK[..., None] == 1, -1.0, image)  # what may change is not seen
    third = sample(model, KEYS, batch(image=free, edit_mask=jnp.asarray(MASK)))
    whole = np.asarray(in_cells(jnp.asarray(MASK), (8, 8))).repeat(2, 1).repeat(2, 2) == MASK
    assert whole.mean() > 0.8
    np.testing.assert_allclose(np.where(whole[..., None], third, first), first, atol=1e-5)


def test_a_cell_of_latents_may_change_where_any_of_its_pixels_may():
    mask = jnp.zeros((1, 4, 6), jnp.int32).at[0, 1, 3].set(1)
    np.testing.assert_array_equal(in_cells(mask, (2, 3)), [[[0, 1, 0], [0, 0, 0]]])


def test_what_is_no_diffusion_model_is_refused():
    assert editable(Method()) is None
    with pytest.raises(UserError, match="no diffusion model"):
        Edited(Method(), 0.5)
    pictures = tiny_latents.make(scale=0.5)
    vectors = DDPM(pictures.network, pictures.schedule, pictures.sampler, pictures.image_shape, codec=Embedding(6))
    assert editable(pictures) is pictures and editable(vectors) is None


def test_a_strength_between_two_times_begins_at_the_nearest_level():
    method = tiny_latents.make(sampler=DDIM(4, clip=False))
    assert method.schedule.steps == 1000
    np.testing.assert_allclose(Edited(method, 0.5).times(), [0.5, 0.25, 0])
    np.testing.assert_allclose(Edited(method, 0.6004).times(), [0.6, 0.5, 0.25, 0])
    np.testing.assert_allclose(Edited(method, 0.1).times(), [0.1, 0])


@pytest.mark.slow
def test_a_solver_with_its_own_steps_keeps_a_part_too(model):
    """Each image has its own steps, on a smooth path, and does not depend on its neighbours."""
    solver = ODE(steps=60, rtol=1e-2, atol=1e-2, clip=False)
    method = Edited(dataclasses.replace(latent(0.75)[0].method, sampler=solver), 0.7, True)
    np.testing.assert_allclose(method.times(), [0.7, 0])
    sample, image = jax.jit(method.sample), tiny_latents.batch()["image"]
    found = sample(model, KEYS, batch(edit_mask=jnp.asarray(MASK)))
    assert np.isfinite(found).all() and (found[MASK == 1] != image[MASK == 1]).mean() > 0.8
    other = sample(model, KEYS, batch(image=image.at[0].set(-1.0), edit_mask=jnp.asarray(MASK)))
    np.testing.assert_allclose(found[1:], other[1:], atol=1e-5)


@pytest.mark.slow
def test_an_edit_of_a_tuned_model_is_that_of_the_tuned_weights(model):
    trained = latent(0.75)[0].method
    tuned = Tuned(trained, {"lora": LowRank(where="(self|cross)_attention/(query|key|value|out)$", rank=2)})
    known = {**tiny_latents.batch(), "image": jnp.zeros((3, *trained.image_shape))}
    learned, _ = tuned.init(jax.random.key(0), known, 0, model.params, {}, {})
    changed = dataclasses.replace(model, params={**model.params, **jax.tree.map(lambda x: x + 0.3, learned)})
    found = jax.jit(Edited(tuned, 1.0).sample)(changed, KEYS, batch())
    np.testing.assert_array_equal(found, jax.jit(tuned.sample)(changed, KEYS, tiny_latents.batch()))
    assert (found != latent(1.0)[1](model, KEYS, batch())).any()


@pytest.mark.slow
def test_guidance_steers_an_edit(model):
    method = dataclasses.replace(latent(0.75)[0].method, label_dropout=0.1, guidance=GUIDANCE)
    found = jax.jit(Edited(method, 0.75).sample)(model, KEYS, batch())
    plain = latent(0.75)[1](model, KEYS, batch())
    assert np.isfinite(found).all() and np.abs(found - plain).max() > 0.01
