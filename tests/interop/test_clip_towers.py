"""Folders of a CLIP's towers: what is written is read back, and what cannot be written or read is said."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from jaxgen.data.sources import caption_shapes
from jaxgen.errors import UserError
from jaxgen.interop.clip_towers import load_towers, save_towers
from jaxgen.methods.contrastive.clip import CLIP
from jaxgen.metrics.networks.clip import Clip
from jaxgen.metrics.pairs.clip_score import clip_score
from jaxgen.networks.contrastive.resnet_tower import ResNetTower
from jaxgen.networks.pretrained.clip import ImageTower, TextTower
from jaxgen.runs.loaded_groups import load_group

WORDS = caption_shapes.PHRASE_TOKENIZER
IMAGE = ImageTower(size=8, patch=4, width=8, depth=1, heads=2, mlp_features=12, projection=6)
TEXT = TextTower(vocabulary=WORDS.size, length=16, width=8, depth=1, heads=2, mlp_features=12, end=1, projection=6)
CAPTIONS = ["a red disc at the top", "there is a blue box on the left side"]
PICTURES = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def params():
    batch = {"image": PICTURES.astype(np.float32), "tokens": WORDS(CAPTIONS)}
    shapes = jax.eval_shape(lambda b: CLIP(IMAGE, TEXT, (8, 8, 3)).init(jax.random.key(0), b, 0, {}, {}, {})[0], batch)
    chance = np.random.default_rng(1)
    return jax.tree.map(lambda x: np.asarray(0.3 * chance.normal(size=x.shape), np.float32), shapes)


@pytest.fixture(scope="module")
def folder(params, tmp_path_factory):
    place = tmp_path_factory.mktemp("towers")
    save_towers(place, IMAGE, TEXT, params, WORDS)
    return place


def test_towers_come_back_as_they_were(params, folder):
    image, text, found = load_towers(folder)
    assert (image, text) == (IMAGE, TEXT)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, params)
    for group in ("image", "text", "logit_scale"):
        loaded, memory, origin = load_group(f"clip:{folder}#{group}", group)
        jax.tree.map(np.testing.assert_array_equal, loaded, found[group])
        assert memory is None and origin["step"] == 0
    with pytest.raises(UserError, match="no group 'txt'.*did you mean 'text'"):
        load_group(f"clip:{folder}#txt", "text")


@pytest.mark.nightly
def test_the_clip_score_of_a_folder_is_the_cosine_of_its_towers(params, folder):
    found = clip_score(Clip(folder), PICTURES, CAPTIONS, batch=2)
    method = CLIP(IMAGE, TEXT, (8, 8, 3))
    image = method.embed_image(params, PICTURES.astype(np.float32) / 127.5 - 1)
    cosine = np.asarray((image * method.embed_text(params, WORDS(CAPTIONS))).sum(-1))
    np.testing.assert_allclose(found.values, 100 * np.maximum(cosine, 0), atol=1e-3)
    with pytest.raises(UserError, match="'mauve'"):
        clip_score(Clip(folder), PICTURES, ["a mauve disc", "a red disc"])


def test_what_transformers_has_not_is_not_written(params, tmp_path):
    for image, says in (
        (IMAGE.clone(timed=True), "ImageTower of noisy images"),
        (ResNetTower(size=8, projection=6), "ResNetTower and TextTower"),
    ):
        with pytest.raises(UserError, match=says):
            save_towers(tmp_path, image, TEXT, params)
    with pytest.raises(UserError, match="captions alone"):
        save_towers(tmp_path, IMAGE, TEXT, {"image": params["image"], "text": params["text"]})
    assert not list(tmp_path.iterdir())


def test_a_damaged_normalisation_is_said(folder, tmp_path, params):
    save_towers(tmp_path, IMAGE, TEXT, params)
    for content, says in (
        ({"image_mean": [0.5] * 3, "image_std": [0.5, 0.5, 0.0]}, "above 0"),
        ({"image_mean": [0.5] * 2, "image_std": [0.5] * 2}, "have 3 channels"),
        ({"image_mean": "half"}, "image_mean"),
    ):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=says):
            load_towers(tmp_path)
