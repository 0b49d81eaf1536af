"""CLIP's towers: what attends to what, where a text is pooled, and its options' sentences."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.interop import clip as interop
from jaxgen.networks.pretrained.clip import CLIP, ImageTower, TextTower, quick_gelu

TEXT = TextTower(vocabulary=40, length=9, width=16, depth=2, heads=2, mlp_features=24)
IMAGE = ImageTower(size=12, patch=4, channels=3, width=24, depth=2, heads=3, mlp_features=20)
NETWORK = CLIP(IMAGE, TEXT, projection=8)
START, END = 38, 39


def tokens(count=3):
    """Rows of start, ids, end at place 4, and end again as padding."""
    found = np.full((count, 9), END, np.int32)
    found[:, 0] = START
    found[:, 1:4] = np.random.default_rng(0).integers(1, 37, (count, 3))
    return found


def images(count=2):
    return np.random.default_rng(1).normal(size=(count, 12, 12, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def params():
    """No weight near zero, so that nothing hides behind an initialisation."""
    shapes = jax.eval_shape(NETWORK.init, jax.random.key(0), images(), tokens())["params"]
    chance = np.random.default_rng(2)
    return jax.tree.map(lambda leaf: chance.normal(size=leaf.shape, scale=0.3).astype(np.float32), shapes)


@pytest.fixture(scope="module")
def text(params):
    compiled = jax.jit(TEXT.apply, static_argnames=("layer", "norm"))
    return lambda *given, **options: [np.asarray(x) for x in compiled({"params": params["text"]}, *given, **options)]


@pytest.fixture(scope="module")
def image():
    """The pooled image of given parameters."""
    compiled = jax.jit(lambda params, x: IMAGE.apply({"params": params}, x)[1])
    return lambda params, x: np.asarray(compiled(params, x))


def test_a_token_sees_those_before_it_only(text):
    one, other = tokens(), tokens()
    other[:, 3] = 7
    a, b = text(one)[0], text(other)[0]
    np.testing.assert_allclose(a[:, :3], b[:, :3], atol=1e-6)
    assert (np.abs(a[:, 3:] - b[:, 3:]).max((0, 2)) > 1e-3).all()


def test_what_follows_the_end_does_not_matter(text):
    padded = tokens()
    padded[:, 5:] = [0, 3, 2, 1]  # another padding, none of it larger than the end
    np.testing.assert_allclose(text(tokens())[1], text(padded)[1], atol=1e-6)


def test_a_text_is_pooled_where_its_end_is(text, params):
    hidden, pooled = text(tokens())
    np.testing.assert_allclose(pooled, hidden[:, 4], atol=1e-6)
    named = TEXT.clone(end=5)  # an added vocabulary: the end is no longer the largest id
    given = tokens()
    given[:, [2, 6]] = 5
    hidden, pooled = jax.jit(named.apply)({"params": params["text"]}, given)
    np.testing.assert_allclose(pooled, hidden[:, 2], atol=1e-6)


def test_a_masked_token_is_not_seen(text):
    one, other = tokens(), tokens()
    other[:, 2] = 9
    mask = np.ones_like(one)
    mask[:, 2] = 0
    seen = [0, 1, 3, 4]  # the token itself still has its own state
    np.testing.assert_allclose(text(one, mask)[0][:, seen], text(other, mask)[0][:, seen], atol=1e-6)
    np.testing.assert_allclose(text(one, np.ones_like(one))[0], text(one)[0], atol=1e-6)


def test_earlier_layers_are_those_of_a_shallower_tower(text, params):
    penultimate = text(tokens(), layer=-2)[0]
    shallow = {k: v for k, v in params["text"].items() if k != "block_1"}
    found, _ = jax.jit(TEXT.clone(depth=1).apply)({"params": shallow}, tokens())
    np.testing.assert_allclose(penultimate, found, atol=1e-5)
    plain = text(tokens(), layer=-2, norm=False)[0]
    norm = params["text"]["norm_out"]
    by_hand = (plain - plain.mean(-1, keepdims=True)) / plain.std(-1, keepdims=True) * norm["scale"] + norm["bias"]
    np.testing.assert_allclose(penultimate, by_hand, atol=1e-3)


def test_the_class_token_sees_every_patch(image, params):
    x = images(1)
    whole = image(params["image"], x)
    for row in range(0, 12, 4):
        for column in range(0, 12, 4):
            changed = x.copy()
            changed[:, row : row + 4, column : column + 4] += 1
            assert np.abs(image(params["image"], changed) - whole).max() > 1e-3


def test_patches_are_told_apart_by_their_position_alone(image, params):
    x = images(1)
    moved = np.concatenate([x[:, 4:], x[:, :4]], 1)  # whole rows of patches
    assert np.abs(image(params["image"], x) - image(params["image"], moved)).max() > 1e-3
    flat = {**params["image"], "position": np.zeros_like(params["image"]["position"])}
    np.testing.assert_allclose(image(flat, x), image(flat, moved), atol=1e-5)


def test_embeddings_have_unit_length_and_the_scale_is_one_over_the_temperature(params):
    image, text, scale = jax.jit(NETWORK.apply)({"params": params}, images(2), tokens(3))
    assert image.shape == (2, 8) and text.shape == (3, 8)
    for x in (image, text):
        np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, atol=1e-5)
    assert scale == pytest.approx(np.exp(params["logit_scale"]), rel=1e-5)
    fresh = jax.jit(lambda key: NETWORK.init(key, images(), tokens())["params"]["logit_scale"])(jax.random.key(0))
    assert np.exp(fresh) == pytest.approx(1 / 0.07, rel=1e-5)


def test_quick_gelu_is_near_the_exact_one():
    x = jnp.linspace(-6, 6, 101)
    apart = np.abs(quick_gelu(x) - jax.nn.gelu(x, approximate=False)).max()
    assert 0.01 < apart < 0.021


@pytest.mark.parametrize(
    ("tower", "given", "says"),
    [
        (TEXT.clone(activation="relu"), tokens(), "unknown activation 'relu'"),
        (TEXT.clone(heads=3), tokens(), "3 attention heads do not divide"),
        (TEXT, tokens().astype(np.float32), "takes token ids"),
        (TEXT, tokens()[0], "takes token ids"),
        (TEXT, np.zeros((1, 10), np.int32), "reads 9 tokens at most"),
        (IMAGE, np.zeros((1, 12, 16, 3)), r"sees images \(12, 12, 3\)"),
        (IMAGE.clone(patch=5), images(), "patch of 5 does not divide"),
    ],
)
def test_other_options_and_inputs_are_one_sentence(tower, given, says):
    with pytest.raises(UserError, match=says):
        jax.eval_shape(tower.init, jax.random.key(0), given)


def test_a_layer_that_is_not_there_is_refused(params):
    for layer in (0, -3):
        with pytest.raises(UserError, match="count back from -1 to -2"):
            TEXT.apply({"params": params["text"]}, tokens(), layer=layer)


def test_folders_hold_every_bit(params, tmp_path):
    interop.save_clip(tmp_path / "clip", NETWORK, params)
    clip, found = interop.load_clip(tmp_path / "clip")
    assert clip == NETWORK
    jax.tree.map(np.testing.assert_array_equal, found, params)
    tower, found = interop.load_text(tmp_path / "clip")
    assert tower == TEXT
    jax.tree.map(np.testing.assert_array_equal, found, params["text"])
    interop.save_text(tmp_path / "text", TEXT.clone(end=END), params["text"])
    tower, found = interop.load_text(tmp_path / "text")
    assert tower.end == END
    jax.tree.map(np.testing.assert_array_equal, found, params["text"])


@pytest.mark.slow
def test_foreign_weights_are_refused_by_name(params):
    config = interop.clip_config(NETWORK)
    state = interop.clip_to_transformers(params, NETWORK)
    name = "text_model.encoder.layers.1.mlp.fc1.weight"

    def refuses(says, state, config=config, read=interop.clip_from_transformers):
        with pytest.raises(UserError, match=says):
            read(state, config)

    refuses(f"lack '{name}'", {key: x for key, x in state.items() if key != name})
    refuses("'extra.bias', which their config does not", {**state, "extra.bias": np.ones(3)})
    refuses(rf"'{name}' has shape \(24, 15\), but its config asks for \(24, 16\)", {**state, name: state[name][:, 1:]})
    refuses("no 'text_config'", state, interop.text_config(TEXT))
    alone = interop.text_config(TEXT)
    refuses("'logit_scale', which their config does not", state, alone, interop.text_from_transformers)
    with pytest.raises(UserError, match="params lack text/block_1/out/bias"):
        block = params["text"]["block_1"]
        block = {**block, "out": {"kernel": block["out"]["kernel"]}}
        interop.clip_to_transformers({**params, "text": {**params["text"], "block_1": block}}, NETWORK)
    with pytest.raises(UserError, match="'logit_scale' has shape"):
        interop.clip_from_transformers({**state, "logit_scale": np.ones(1)}, config)


def test_damaged_folders_are_one_sentence(params, tmp_path):
    with pytest.raises(UserError, match="There is no file .*model.safetensors"):
        interop.load_clip(tmp_path)
    interop.save_clip(tmp_path, NETWORK, params)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-4])
    with pytest.raises(UserError, match="model.safetensors is damaged"):
        interop.load_clip(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(whole)
    for text, says in (("{", "not valid JSON"), ("[1]", "an object of keys"), (json.dumps({}), "no 'text_config'")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(UserError, match=says):
            interop.load_clip(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match="There is no file .*config.json"):
        interop.load_clip(tmp_path)


def test_an_unknown_published_model_gets_the_nearest():
    with pytest.raises(UserError, match="did you mean 'clip-vit-base-patch32'"):
        interop.load_published("clip-vit-base-patch23")
