"""Segmentation on features: what is read of a trained model, what the heads learn, and how they vote."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.build import build
from jaxgen.config import section
from jaxgen.diffusion.process import diffuse
from jaxgen.errors import UserError
from jaxgen.methods.base import Model, check_limits
from jaxgen.methods.segmentation.features import DiffusionBlocks, EncoderLayers, Pixels, per_pixel
from jaxgen.methods.segmentation.segmentation import Segmentation, _vote
from jaxgen.networks.hooks import inner, taken

SHAPE = (8, 8, 3)
UNET = dict(name="unet", out_channels=3, channels=8, channel_multipliers=(1, 2), blocks=1, attention_resolutions=(),
            norm_groups=4, middle_attention=False)  # fmt: skip
BLOCKS = ("middle_block_0", "up_0_block_1")


def built(method, num_classes=0, **given):
    sampler = build(section(name="ddim", steps=2), "sampler", "config.sampler")
    given = {"image_shape": SHAPE, "num_classes": num_classes, "sampler": sampler, **given}
    return build(method, "method", "config.method", **given)


def ddpm(num_classes=0, network=(), **options):
    unet = section(**{**UNET, **dict(network), "num_classes": num_classes})
    return built(section(name="ddpm", network=unet, schedule="cosine", **options), num_classes)


@pytest.fixture(scope="module")
def batch():
    chance = np.random.default_rng(0)
    image = chance.uniform(-1, 1, (3, *SHAPE)).astype(np.float32)
    return {"image": jnp.asarray(image), "mask": jnp.asarray((image.sum(-1) > 0).astype(np.int32))}


@pytest.fixture(scope="module")
def trained():
    return ddpm()


@pytest.fixture(scope="module")
def weights(trained, batch):
    """Weights of the denoiser, none of them zero."""
    learned, _ = jax.jit(lambda key: trained.init(key, batch, 0, {}, {}, {}))(jax.random.key(0))
    chance = np.random.default_rng(1)
    return jax.tree.map(lambda x: jnp.asarray(x + 0.1 * chance.normal(size=x.shape), jnp.float32), learned)


def pixels(**options):
    common = {"features": Pixels(), "classes": 2, "image_shape": SHAPE, "members": 3, "pixels": 64}
    return Segmentation(**{**common, **options})


def begun(method, batch, given):
    return jax.jit(lambda key: method.init(key, batch, 0, given, {}, {}))(jax.random.key(0))


@pytest.mark.nightly
def test_the_features_of_a_diffusion_model_are_its_blocks_at_the_noise_levels(trained, weights, batch):
    features = DiffusionBlocks(BLOCKS, (50, 250))
    maps = jax.jit(lambda p, b: features.maps(trained, Model(p, {}), b))(weights, batch)
    assert [x.shape for x in maps] == [(3, 4, 4, 16), (3, 8, 8, 8)] * 2
    # by hand: the noisy images, and the network's own call
    noise = jax.random.normal(jax.random.key(0), SHAPE)
    for i, t in enumerate((0.05, 0.25)):
        noisy = diffuse(trained.schedule, batch["image"], jnp.float32(t), jnp.broadcast_to(noise, (3, *SHAPE)))
        time = jnp.full(3, trained.schedule.conditioning(t), jnp.float32)
        seen = inner(trained.network, weights["denoiser"], BLOCKS, noisy, time)
        for j, block in enumerate(BLOCKS):
            np.testing.assert_allclose(maps[2 * i + j], seen[block], atol=2e-4, rtol=1e-3)


def test_an_image_has_the_same_features_whatever_stands_beside_it(trained, weights, batch):
    features = jax.jit(lambda p, b: DiffusionBlocks(BLOCKS, (100,)).maps(trained, Model(p, {}), b))
    alone = features(weights, {"image": batch["image"][2:]})
    for one, all_three in zip(alone, features(weights, batch), strict=True):
        np.testing.assert_allclose(one[0], all_three[2], atol=1e-5)


@pytest.mark.nightly
def test_a_model_of_classes_is_read_without_one(batch):
    conditional = ddpm(num_classes=4, label_dropout=0.1)
    params = conditional.untrained(jax.random.key(0), batch)[0]
    labelled = {**batch, "label": jnp.arange(3)}
    params, _ = jax.jit(lambda key: conditional.init(key, labelled, 0, params, {}, {}))(jax.random.key(0))
    read = jax.jit(lambda p, b: DiffusionBlocks(("middle_block_0",), (50,)).maps(conditional, Model(p, {}), b))
    np.testing.assert_array_equal(read(params, batch)[0], read(params, labelled)[0])
    with pytest.raises(UserError, match="has not learned to do without its condition 'label'"):
        DiffusionBlocks(("middle_block_0",)).check(ddpm(num_classes=4))


def test_maps_are_enlarged_bilinearly_and_joined():
    ramp = jnp.arange(4.0).reshape(1, 2, 2, 1)
    tokens = jnp.arange(8.0).reshape(1, 4, 2)
    joined = per_pixel([ramp, tokens, jnp.ones((1, 3))], (4, 4))
    assert joined.shape == (1, 4, 4, 1 + 2 + 3)
    # the centres of the pixels of a row are at 0.25, 0.75, 1.25 and 1.75 cells
    np.testing.assert_allclose(joined[0, 0, :, 0], [0, 0.25, 0.75, 1])
    np.testing.assert_allclose(joined[0, :, 0, 0], [0, 0.5, 1.5, 2])
    np.testing.assert_allclose(joined[0, 0, 0, 1:], [0, 1, 1, 1, 1])
    with pytest.raises(UserError, match="neither a map nor tokens on a grid"):
        per_pixel([jnp.zeros((1, 5, 2))], (4, 4))


@pytest.mark.nightly
def test_the_layers_of_an_encoder_are_features(batch):
    coder = section(name="mae_encoder", patch_size=4, width=8, depth=1, heads=2)
    masked = built(section(name="mae", encoder=coder, decoder=section(name="mae_decoder", width=4, heads=1, depth=1)))
    params, _ = jax.jit(lambda key: masked.init(key, batch, 0, {}, {}, {}))(jax.random.key(0))
    maps = EncoderLayers(("block_0", "norm_out")).maps(masked, Model(params, {}), batch)
    np.testing.assert_array_equal(maps[1], masked.encode(params, batch["image"]))  # without the class token
    plain = built(section(name="autoencoder", z_dim=2, encoder=section(name="encoder", widths=(4,), hidden=()),
                          decoder=section(name="decoder")))  # fmt: skip
    params, _ = jax.jit(lambda key: plain.init(key, batch, 0, {}, {}, {}))(jax.random.key(0))
    maps = EncoderLayers(("conv_0", "out")).maps(plain, Model(params, {}), batch)
    assert per_pixel(maps, SHAPE[:2]).shape == (3, 8, 8, 4 + 2)


@pytest.mark.slow
def test_the_heads_learn_apart_from_pixels_and_nothing_else_does(batch):
    method = pixels()
    learned, memory = begun(method, batch, {})
    assert {*learned} == {"heads"} and method.turns(0)[0].groups == ("heads",) and method.ema_groups == ()
    first = learned["heads"]["dense_0"]["kernel"]
    assert first.shape == (3, 3, 128) and not np.array_equal(first[0], first[1])

    @jax.jit
    def step(params, memory, key):
        state = SimpleNamespace(memory=memory)
        (value, (metrics, changed)), slope = jax.value_and_grad(
            lambda p: method.loss(p, batch, key, state), has_aux=True)(params)  # fmt: skip
        return jax.tree.map(lambda p, g: p - 0.2 * g, params, slope), {**memory, **changed}, value

    for i in range(150):
        learned, memory, value = step(learned, memory, jax.random.key(i))
    assert value < 0.25  # ln 2 at chance
    scores = jax.jit(lambda p, m: method.scores(Model(p, m), None, batch))(learned, memory)
    assert (scores["accuracy"] > 0.85).all()


def test_pixels_without_a_class_change_nothing(batch):
    method = pixels(ignore=255, pixels=200)
    learned, memory = begun(method, batch, {})
    half = batch["mask"].at[:, 4:].set(255)
    heads, statistics = learned["heads"], memory["heads"]
    loss = jax.jit(lambda mask: method.head_loss(heads, batch["image"], mask, jax.random.key(0), statistics))
    value, (metrics, _) = loss(half)
    flipped, _ = loss(jnp.where(half == 255, 255, 1 - half))
    assert np.isfinite(value) and abs(value - flipped) > 1e-4
    assert float(loss(jnp.full_like(half, 255))[0]) == 0
    check_limits(method, {"mask": np.asarray(half)})
    with pytest.raises(UserError, match="mask 2, and Segmentation knows those in .0, 2.*config.method.classes"):
        check_limits(method, {"mask": np.asarray(half) * 0 + 2})


@pytest.mark.slow
def test_the_vote_is_of_members_and_the_uncertainty_of_their_disagreement():
    sure, other = jnp.array([0.9, 0.1, 0.0]), jnp.array([0.2, 0.35, 0.45])
    mask, doubt = _vote(jnp.stack([sure, other, other])[:, None])  # the mean of the members prefers class 0
    assert int(mask[0]) == 2
    members = np.stack([sure, other, other]).astype(np.float64)
    mean = members.mean(0)
    divergences = [sum(p * np.log(p / m) for p, m in zip(member, mean, strict=True) if p > 0) for member in members]
    np.testing.assert_allclose(doubt[0], np.mean(divergences), rtol=1e-5)
    np.testing.assert_allclose(_vote(jnp.eye(2)[:, None])[1], np.log(2), rtol=1e-5)
    assert int(_vote(jnp.eye(2)[:, None])[0][0]) == 0  # of equally many the lower one
    assert float(_vote(jnp.stack([sure] * 3)[:, None])[1][0]) < 1e-6


@pytest.mark.nightly
def test_random_weights_are_fresh_and_none_of_their_kernels_is_zero(trained, weights, batch):
    method = Segmentation(DiffusionBlocks(BLOCKS, (50,)), 2, SHAPE, trained=trained, weights="random", members=2)
    learned, memory = begun(method, batch, weights)
    drawn = memory["random"]["denoiser"]
    for path, leaf in jax.tree_util.tree_flatten_with_path(drawn)[0]:
        assert leaf.ndim < 2 or np.abs(leaf).min() >= 0 and np.abs(leaf).max() > 0, path
    model = Model({**weights, **learned}, memory)
    by_random, by_trained = (
        jax.jit(dataclasses.replace(method, weights=one).extract)(model, batch) for one in ("random", "trained")
    )
    assert by_random.shape == by_trained.shape == (3, 8, 8, 24) and np.abs(by_random - by_trained).mean() > 0.1


def test_features_of_the_batch_take_the_place_of_those_of_its_images(trained, weights, batch):
    method = Segmentation(DiffusionBlocks(BLOCKS, (50,)), 2, SHAPE, trained=trained)
    given = jnp.ones((3, 8, 8, 5))
    assert method.extract(Model(weights, {}), {**batch, "features": given}) is given


def test_a_block_that_does_not_exist_is_refused_with_the_nearest(trained, weights, batch):
    method = Segmentation(DiffusionBlocks(("up_0_blok_1",), (50,)), 2, SHAPE, trained=trained)
    with pytest.raises(UserError, match="no module 'up_0_blok_1'; did you mean 'up_0_block_"):
        begun(method, batch, weights)
    plain = built(section(name="autoencoder", z_dim=2, encoder=section(name="encoder", widths=(4,), hidden=()),
                          decoder=section(name="decoder")))  # fmt: skip
    params, _ = jax.jit(lambda key: plain.init(key, batch, 0, {}, {}, {}))(jax.random.key(0))
    with pytest.raises(UserError, match="no module 'conv_9'; did you mean 'conv_0'"):
        EncoderLayers(("conv_9",)).maps(plain, Model(params, {}), batch)


@pytest.mark.parametrize("network", [{"scan_blocks": True}, {"remat": "block"}])
def test_layers_whose_outputs_cannot_be_taken_are_refused(network, batch):
    dit = {"name": "dit", "patch_size": 4, "width": 8, "depth": 2, "heads": 2, **network}
    unet = build(section(**dit, out_channels=3), "network", "n")
    time = jnp.zeros(3)
    params = jax.jit(unet.init)(jax.random.key(0), batch["image"], time)["params"]
    block = "blocks/mlp" if "scan_blocks" in network else "block_0/mlp"
    with pytest.raises(UserError, match="run as one scan.*unset the network's scan_blocks and remat"):
        jax.jit(lambda p: inner(unet, p, (block,), batch["image"], time))(params)


def test_remat_of_the_trained_network_is_left_out(weights, batch):
    kept, again = (ddpm(network={"remat": remat}) for remat in ("", "block"))
    for name in ("middle_block_0",):
        one, two = (DiffusionBlocks((name,), (50,)).maps(m, Model(weights, {}), batch)[0] for m in (kept, again))
        np.testing.assert_allclose(one, two, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda t: DiffusionBlocks(("a",), (50, 1000)), "noise levels: give one or more from 0 to 999"),
        (lambda t: DiffusionBlocks(("a",), ()), "noise levels"),
        (lambda t: DiffusionBlocks(()), "blocks is empty"),
        (lambda t: EncoderLayers(()), "layers is empty"),
        (lambda t: pixels(features=DiffusionBlocks(("a",))), "there is none: set config.init_from.pretrained"),
        (lambda t: pixels(features=EncoderLayers(("a",)), trained=t), "an autoencoder, and .* a run of DDPM"),
        (lambda t: pixels(classes=1), "classes is 1; it must be from 2 to 256"),
        (lambda t: pixels(ignore=1), "ignore=1 is one of the 2 classes"),
        (lambda t: pixels(members=0), "members is at least 1"),
        (lambda t: pixels(weights="random"), "needs a network"),
    ],
)
def test_options_that_do_not_fit_are_refused(make, words, trained):
    with pytest.raises(UserError, match=words):
        make(trained)


def test_data_without_masks_are_refused(batch):
    with pytest.raises(UserError, match="learns from the entry 'mask', and the data have image: choose"):
        begun(pixels(), {"image": batch["image"]}, {})


def test_a_tap_holds_what_was_computed_in_its_block(weights, trained, batch):
    with pytest.raises(UserError, match="no module"), taken(("nothing",)):
        trained.network.apply({"params": weights["denoiser"]}, batch["image"], jnp.zeros(3))
