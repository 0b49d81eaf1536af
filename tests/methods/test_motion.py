"""Temporal layers in a frozen U-Net: they begin as nothing, learn alone, see frames in order, and bear a control."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_latents

from jaxgen.codecs.frames import apart, flat, repeated
from jaxgen.diffusion import schedules
from jaxgen.diffusion.guidance.contrast import ClassifierFree
from jaxgen.diffusion.prediction_types import V
from jaxgen.diffusion.samplers.ddim import DDIM
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.methods.diffusion.ddpm import DDPM
from jaxgen.methods.grafts.control import Control
from jaxgen.methods.grafts.low_rank import LowRank
from jaxgen.methods.grafts.motion import Motion
from jaxgen.methods.tuned import Tuned
from jaxgen.networks.dit import DiT
from jaxgen.networks.temporal import TemporalTransformer, frame_positions
from jaxgen.networks.unet import UNet

COUNT, FRAMES, SHAPE = 2, 3, (4, 4, 1)
KEYS = jax.random.split(jax.random.key(3), COUNT)
VIDEO = jnp.tanh(jax.random.normal(jax.random.key(5), (COUNT, FRAMES, *SHAPE)))
BATCH = {"video": VIDEO, "image": VIDEO[:, 0]}
NOISE = jax.random.normal(jax.random.key(6), (COUNT, FRAMES, *SHAPE))
HINTS = jnp.tanh(jax.random.normal(jax.random.key(12), (COUNT, FRAMES, *SHAPE)))
STATE = SimpleNamespace(memory={}, step=jnp.int32(0), images=jnp.uint32(0), ema={})
BLOCKS = {"down_0_block_0", "up_0_block_0", "up_0_block_1"}


def drawn(part, seed=7):
    leaves, structure = jax.tree.flatten(part)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    fresh = [0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, fresh)


@pytest.fixture(scope="module")
def base():
    """A U-Net whose weights are all drawn, also those that begin at zero."""
    network = UNet(1, 8, (1,), 1, (), middle_attention=False, middle_blocks=1, norm_groups=4)
    method = DDPM(network, schedules.Cosine(100), DDIM(steps=1), SHAPE, prediction_type=V())
    params, _ = jax.jit(lambda: method.init(jax.random.key(0), BATCH, 0, {}, {}, {}))()
    return method, drawn(params, 1)


def moving(trained, **options):
    return Tuned(trained, {"motion": Motion(frames=FRAMES, heads=2, **options)})


def begun(method, params, batch=BATCH):
    learned, _ = jax.jit(lambda params: method.init(jax.random.key(2), batch, 0, params, {}, {}))(params)
    return learned


def sampler(method):
    draw = jax.jit(method.sample)
    return lambda params, batch, keys=KEYS: np.asarray(draw(Model(params=params, memory={}), keys, batch))


@pytest.fixture(scope="module")
def motion(base):
    """A method of videos with temporal layers as they begin, and its sampler."""
    trained, params = base
    method = moving(trained)
    return method, {**params, **begun(method, params)}, sampler(method)


@pytest.mark.slow
def test_it_begins_as_images_of_the_model_to_the_bit(base, motion):
    trained, params = base
    method, parts, draw = motion
    assert method.gives == "video" and method.method.shape == (FRAMES, *SHAPE)
    videos = draw(parts, {"noise": NOISE})
    images = sampler(trained)(params, {"noise": flat(NOISE)}, jax.random.split(jax.random.key(8), COUNT * FRAMES))
    assert videos.shape == (COUNT, FRAMES, *SHAPE) and np.abs(videos).max() > 0.1
    np.testing.assert_array_equal(videos, apart(images, FRAMES))


@pytest.mark.nightly
def test_only_the_last_projections_have_a_gradient_in_the_first_step(base, motion):
    method, parts, _ = motion
    assert method.learned == ("motion",) and {*parts["motion"]} == BLOCKS
    (turn,) = method.turns(0)
    assert turn.groups == ("motion",)
    gradient = jax.jit(jax.grad(lambda part: turn.loss({**parts, "motion": part}, BATCH, KEYS[0], STATE)[0]))
    leaves = jax.tree_util.tree_flatten_with_path(gradient(parts["motion"]))[0]
    names = {jax.tree_util.keystr(path, simple=True, separator="/"): np.abs(leaf).max() for path, leaf in leaves}
    moved = {name for name, most in names.items() if most > 0}
    assert moved == {f"{path}/out/{leaf}" for path in BLOCKS for leaf in ("kernel", "bias")}
    after = gradient(drawn(parts["motion"]))
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(after))


def test_frames_know_of_each_other_within_a_video_alone_and_of_their_order(base, motion):
    trained, _ = base
    method, parts, draw = motion
    parts, order = {**parts, "motion": drawn(parts["motion"])}, jnp.array([2, 0, 1])
    before = draw(parts, {"noise": NOISE})
    after = draw(parts, {"noise": NOISE.at[0, 0].add(1.0)})
    assert np.abs(after - before)[0, 1:].max() > 1e-3
    np.testing.assert_array_equal(after[1], before[1])
    assert np.abs(draw(parts, {"noise": NOISE[:, order]}) - before[:, order]).max() > 1e-3
    unordered = sampler(moving(trained, positions=0))
    before, after = unordered(parts, {"noise": NOISE}), unordered(parts, {"noise": NOISE[:, order]})
    np.testing.assert_allclose(after, before[:, order], atol=1e-5)


def test_positions_tell_all_frames_apart():
    at = np.asarray(frame_positions(32, 16))
    products = at @ at.T
    np.testing.assert_allclose(products[0, 5], products[20, 25], rtol=1e-5)  # the distance alone decides it
    assert products[0, 0] - products[0, 1:].max() > 0.4
    np.testing.assert_allclose(at[:4, 0], np.sin(np.arange(4)), atol=1e-6)


@pytest.mark.slow
def test_it_goes_with_low_rank_updates_and_a_control_of_each_frame(base, motion):
    """The control is a copy that the temporal layers do not reach: it says of each frame what it says of an image."""
    trained, params = base
    grafts = {"lora": LowRank(rank=1, where="time_in"), "control": Control()}
    still, both = Tuned(trained, grafts), Tuned(trained, {"motion": Motion(frames=FRAMES, heads=2), **grafts})
    learned = begun(still, params, {"image": BATCH["image"], "hint": HINTS[:, 0]})
    parts = {**motion[1], **{name: drawn(learned[name]) for name in grafts}}
    assert {*both.learned} == {"lora", "motion", "control"} and both.conditions == ("hint",)
    keys = jax.random.split(jax.random.key(8), COUNT * FRAMES)
    images = sampler(still)(parts, {"noise": flat(NOISE), "hint": flat(HINTS)}, keys)
    draw = sampler(both)
    videos = draw(parts, {"noise": NOISE, "hint": HINTS})
    np.testing.assert_array_equal(videos, apart(images, FRAMES))
    one = draw(parts, {"noise": NOISE, "hint": HINTS[:, 0]})  # a picture for all frames
    np.testing.assert_array_equal(one[:, 0], videos[:, 0])
    assert np.abs(one[:, 1] - videos[:, 1]).max() > 1e-3


def test_examples_of_a_video_follow_each_other():
    x = jnp.arange(2 * 3 * 2).reshape(2, 3, 2)
    np.testing.assert_array_equal(apart(flat(x), 3), x)
    np.testing.assert_array_equal(repeated(jnp.array([4, 7]), 3), [4, 4, 4, 7, 7, 7])


def test_scores_and_panels_are_of_videos_and_latents_are_those_of_each_frame():
    trained = tiny_latents.make(text=True, label_dropout=0.1, guidance=ClassifierFree(scale=2.0))
    video = jnp.zeros((COUNT, FRAMES, *tiny_latents.SHAPE))
    batch = {"video": video, "image": video[:, 0], "tokens": jnp.ones((COUNT, 5), jnp.int32)}
    method = moving(trained)

    def found():
        frozen, memory = method.untrained(KEYS[0], batch)
        learned, _ = method.init(KEYS[0], batch, 0, frozen, {}, memory)
        model = Model(params={**frozen, **learned}, memory=memory)
        return method.scores(model, KEYS, batch), method.panels(model, KEYS, batch)

    scores, panels = jax.eval_shape(found)
    assert scores["denoising_loss"].shape == scores["latent_mean"].shape == (COUNT,)
    assert panels["videos"].shape == (FRAMES, COUNT, *tiny_latents.SHAPE)
    frames, own = method.method.coding, trained.coding
    values = jax.random.normal(KEYS[1], video.shape)
    latents = frames.encode(tiny_latents.given()["autoencoder"], {"video": values}, tiny_latents.MOMENTS["autoencoder"])
    one = own.encode(tiny_latents.given()["autoencoder"], {"image": values[1]}, tiny_latents.MOMENTS["autoencoder"])
    np.testing.assert_array_equal(latents[1], one)


def test_what_does_not_fit_is_said_in_a_sentence(base):
    trained, params = base
    still = {name: value for name, value in BATCH.items() if name != "video"}
    with pytest.raises(UserError, match="learns from videos, and a batch has image: .*'moving_shapes'"):
        begun(moving(trained), params, still)
    with pytest.raises(UserError, match="is of 3 frames, and the data's videos have 2 frames"):
        begun(moving(trained), params, {**BATCH, "video": VIDEO[:, :2]})
    with pytest.raises(UserError, match="heads=3 do not divide the 8 channels of 'down_0_block_0'"):
        begun(Tuned(trained, {"motion": Motion(frames=FRAMES, heads=3)}), params)
    with pytest.raises(UserError, match="positions=32 cannot see frames=40"):
        Motion(frames=40)
    with pytest.raises(UserError, match="frames, a depth and heads of at least 1"):
        Motion(frames=0)
    grafts = {"motion": Motion(frames=FRAMES, heads=2), "other": Motion(frames=2, heads=2)}
    with pytest.raises(UserError, match="frames=2, and another one 3"):
        _ = Tuned(trained, grafts).method
    network = DiT(out_channels=1, patch_size=2, width=16, depth=2, heads=2)
    transformer = DDPM(network, schedules.Cosine(100), DDIM(steps=2), (8, 8, 1))
    with pytest.raises(UserError, match="stands in a U-Net, and the group 'denoiser' has the network DiT"):
        _ = moving(transformer).method
    with pytest.raises(UserError, match="of 2 positions cannot see 3 frames"):
        TemporalTransformer(3, 1, norm_groups=1, positions=2).init(jax.random.key(0), jnp.zeros((3, 1, 1, 2)))
