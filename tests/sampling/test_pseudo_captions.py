"""Images are given the sentence that CLIP finds nearest: `--captions` of `jaxgen.sampling.latents`."""

from __future__ import annotations

import types

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.data.sources.solids.solids import TOKENIZER
from jaxgen.errors import UserError
from jaxgen.methods.contrastive.retrieval import nearest
from jaxgen.sampling.latents import Captions

TEXTS = ["a red cube", "a green cube", "a blue cube"]


class Towers:
    """An image's embedding is its mean colour, and a caption's the axis of its colour."""

    def embed_image(self, params, image):
        mean = (image.mean((1, 2)) + 1) / 2
        return mean / jnp.linalg.norm(mean, axis=1, keepdims=True)

    def embed_text(self, params, tokens):
        words = jnp.asarray([[TOKENIZER([text])[0] for text in TEXTS]])
        same = (tokens[:, None] == words).all(-1)
        return same.astype(jnp.float32)


def trained(method):
    generator = types.SimpleNamespace(method=method, tokens_of=lambda texts, flag: TOKENIZER(texts))
    return types.SimpleNamespace(generator=generator, model=types.SimpleNamespace(params={}))


def test_each_image_is_told_by_the_nearest_sentence_of_the_file(tmp_path):
    (tmp_path / "captions.txt").write_text("\n".join(["a blue cube", "", "a red cube", "a red cube", "a green cube"]))
    captions = Captions.read(tmp_path / "captions.txt", trained(Towers()))
    assert captions.texts == ["a blue cube", "a red cube", "a green cube"]
    seen = np.array([[0.2, 0.9, 0.1], [0.9, 0.3, 0.2], [0.1, 0.2, 0.7], [0.6, 0.5, 0.5]], np.float32)
    told = captions.told({"embedding": seen, "caption": np.array(["?"] * 4), "label": np.arange(4)})
    assert told["caption"].tolist() == ["a green cube", "a red cube", "a blue cube", "a red cube"]
    np.testing.assert_array_equal(told["tokens"], TOKENIZER(told["caption"].tolist()))
    np.testing.assert_array_equal(told["label"], np.arange(4))


@pytest.mark.parametrize(
    ("content", "method", "said"),
    [("\n \n", Towers(), "has no text in it"), ("a red cube", types.SimpleNamespace(), "give a run of clip")],
)
def test_sentences_that_cannot_be_used_are_refused(tmp_path, content, method, said):
    (tmp_path / "captions.txt").write_text(content)
    with pytest.raises(UserError, match=said):
        Captions.read(tmp_path / "captions.txt", trained(method))
    with pytest.raises(UserError, match="--captions"):
        Captions.read(tmp_path / "none.txt", trained(Towers()))


def test_the_nearest_is_that_of_the_highest_cosine_and_of_equal_ones_the_first():
    rng = np.random.default_rng(0)
    found = rng.normal(size=(40, 5))
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    order = rng.permutation(40)
    np.testing.assert_array_equal(nearest(found[order], found), order)
    twice = np.concatenate([found, found])
    np.testing.assert_array_equal(nearest(found[order], twice), order)
    with pytest.raises(ValueError, match="no vectors"):
        nearest(found, found[:0])
