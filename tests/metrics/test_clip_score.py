"""CLIP's embeddings of uint8 images and texts over all devices, its resize, and the score."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from jaxgen.data.clip_tokenizer import END, START, ClipTokenizer
from jaxgen.errors import UserError
from jaxgen.interop.clip import save_clip
from jaxgen.metrics.networks.base import Features
from jaxgen.metrics.networks.clip import Clip, crop_square
from jaxgen.metrics.pairs.clip_score import clip_score, cosines
from jaxgen.networks.pretrained.clip import CLIP, ImageTower, TextTower

LETTERS = "abcdefgh"
VOCABULARY = {x: i for i, x in enumerate([*LETTERS, *(x + "</w>" for x in LETTERS), START, END])}
NETWORK = CLIP(
    ImageTower(size=8, patch=4, width=16, depth=1, heads=2, mlp_features=16),
    TextTower(vocabulary=len(VOCABULARY), length=6, width=16, depth=1, heads=2, mlp_features=16),
    projection=12,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model's folder, as the hub has them."""
    path = tmp_path_factory.mktemp("models") / "tiny-clip"
    shapes = (np.zeros((1, 8, 8, 3), np.float32), np.zeros((1, 6), np.int32))
    wanted = jax.eval_shape(NETWORK.init, jax.random.key(0), *shapes)["params"]
    chance = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: chance.normal(size=leaf.shape, scale=0.5).astype(np.float32), wanted)
    params["image_projection"]["kernel"] *= -1  # so that this draw's cosines are positive
    save_clip(path, NETWORK, params)
    (path / "vocab.json").write_text(json.dumps(VOCABULARY))
    (path / "merges.txt").write_text("#version: 0.2\n")
    return path


@pytest.fixture(scope="module")
def clip(folder):
    return Clip(folder)


def images(count=10, shape=(8, 8, 3), seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)


def test_features_are_the_networks_embeddings(clip):
    given = images()
    found = clip(given, batch=8)
    mean, std = ([0.4815, 0.4578, 0.4082], [0.2686, 0.2613, 0.2758])  # Radford et al. 2021, code
    normal = ((given / 255 - mean) / std).astype(np.float32)
    wanted = jax.jit(lambda params, x: NETWORK.apply({"params": params}, x, method="embed_image"))(clip._params, normal)
    assert found.features.shape == (10, 12) and found.probabilities is None
    np.testing.assert_allclose(found.features, wanted, atol=2e-3)
    assert (clip.name, clip.model) == ("clip", "tiny-clip") and len(clip.digest) == 16
    assert "8" in clip.resize and "bicubic" in clip.resize


def test_a_model_in_memory_is_the_folders(clip, folder):
    same = Clip(made=(NETWORK, clip._params, ClipTokenizer.from_folder(folder)))
    np.testing.assert_array_equal(same(images(), 8).features, clip(images(), 8).features)
    np.testing.assert_array_equal(same.embed_texts(["a b"], 8), clip.embed_texts(["a b"], 8))
    assert same.digest == clip.digest


def test_texts_are_embedded_one_by_one(clip):
    texts = ["a", "b c", "abc", "a b c d e f g h", "a b c d", ""]
    together = clip.embed_texts(texts, batch=8)
    apart = np.concatenate([clip.embed_texts([text], batch=8) for text in texts])
    np.testing.assert_allclose(together, apart, atol=1e-5)
    # 6 tokens hold four letters: the longer text is truncated
    np.testing.assert_allclose(together[3], together[4], atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 1e-3


class Known:
    """A `Clip` whose embeddings are known: cosines 1, -1, 0.6 and 0."""

    model = "known"

    def __call__(self, images, batch):
        return Features(np.array([[3.0, 0], [2, 2], [0, 5], [1, 0]]))

    def embed_texts(self, texts, batch):
        return np.array([[1.0, 0], [-7, -7], [4, 3], [0, 2]])


def test_the_score_is_the_scaled_cosine_where_it_is_positive():
    hundred, hessel = (clip_score(Known(), images(4), ["a"] * 4, scale) for scale in (100, 2.5))
    np.testing.assert_allclose(hundred.values, [100, 0, 60, 0], atol=1e-12)
    np.testing.assert_allclose(hessel.values, [2.5, 0, 1.5, 0], atol=1e-12)
    assert hundred.mean == pytest.approx(40) and hundred.saturated == hessel.saturated == 0.25
    assert hundred.name == "100 max(cos, 0), known" and hessel.name == "2.5 max(cos, 0), known"


def test_the_score_is_of_the_models_embeddings(clip):
    given, texts = images(), [*"abcdefgh", "a b", "g h"]
    cosine = cosines(clip(given, 8).features, clip.embed_texts(texts, 8))
    assert (cosine > 0).any()
    np.testing.assert_allclose(clip_score(clip, given, texts, batch=8).values, 100 * np.maximum(cosine, 0), rtol=1e-6)


def test_a_prefix_comes_before_every_text(clip):
    given = images(4)
    with_prefix = clip_score(clip, given, ["a", "b", "c", "d"], prefix="g ", batch=8)
    np.testing.assert_array_equal(
        with_prefix.values, clip_score(clip, given, ["g a", "g b", "g c", "g d"], batch=8).values
    )


def test_cosines_are_those_of_known_vectors():
    a, b = np.array([[1, 0], [1, 1], [2, 0]]), np.array([[3, 0], [0, 5], [-1, 0]])
    np.testing.assert_allclose(cosines(a, b), [1, 0.5**0.5, -1])


def test_the_shorter_side_fits_and_the_centre_is_kept():
    # left, middle and right third of a wide image in three greys: a square crop keeps the middle
    wide = np.repeat([10, 100, 200], 30).astype(np.uint8)[None, None, :, None] * np.ones((2, 30, 1, 1), np.uint8)
    found = crop_square(wide, 10)
    assert found.shape == (2, 10, 10, 3) and found.dtype == np.uint8
    np.testing.assert_array_equal(found[:, :, 2:-2], 100)
    tall = wide.transpose(0, 2, 1, 3)
    np.testing.assert_array_equal(crop_square(tall, 10), found.transpose(0, 2, 1, 3))


def test_an_image_of_the_size_is_left_alone():
    np.testing.assert_array_equal(crop_square(images(), 8), images())
    grey = images(shape=(8, 8, 1))
    np.testing.assert_array_equal(crop_square(grey, 8), np.repeat(grey, 3, -1))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda clip: clip(images(shape=(8, 8, 4))), "grey or RGB"),
        (lambda clip: clip(images().astype(np.float32)), "uint8"),
        (lambda clip: clip(images(0)), "no images"),
        (lambda clip: clip_score(clip, images(), ["a"] * 9), "10 images and 9 texts"),
        (lambda clip: clip_score(clip, images(5), "a b c"), "5 images and one text"),
        (lambda clip: clip_score(clip, images(), ["a"] * 10, scale=1.0), "scale of 100 or 2.5"),
    ],
)
def test_bad_input_is_one_sentence(clip, call, says):
    with pytest.raises(UserError, match=says):
        call(clip)


def test_a_folder_without_a_tokenizer_still_sees_images(clip, folder, tmp_path):
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    blind = Clip(tmp_path)
    np.testing.assert_array_equal(blind(images(), 8).features, clip(images(), 8).features)
    with pytest.raises(UserError, match="holds no CLIP tokenizer"):
        blind.embed_texts(["a"])
