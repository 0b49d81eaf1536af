"""Weights that come from no run, and latents that are written once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.codecs.latents import scale_of
from jaxgen.data import open_source
from jaxgen.errors import UserError
from jaxgen.files import write_json
from jaxgen.interop.clip import save_text
from jaxgen.interop.diffusers_autoencoder import autoencoder_config, autoencoder_to_diffusers
from jaxgen.interop.diffusers_files import save_weights
from jaxgen.metrics.networks.digits import Digits
from jaxgen.networks.autoencoder_kl import AutoencoderKL
from jaxgen.networks.pretrained.clip import TextTower
from jaxgen.runs.loaded_groups import load_group
from jaxgen.runs.published import published
from jaxgen.sampling.latents import encoded, main


def test_the_packages_classifiers_are_weights_like_any_others():
    weights, memory, origin = load_group("classifier:digits", "perceptual")
    np.testing.assert_array_equal(weights["conv_0"]["kernel"], Digits().weights()["conv_0"]["kernel"])
    assert memory is None and origin["source"] == "classifier:digits" and len(origin["sha256"]) == 64
    assert load_group("classifier:digits", "perceptual")[2] == origin
    assert load_group("classifier:fashion", "perceptual")[2] != origin


def test_an_autoencoder_of_diffusers_comes_with_its_scale(tmp_path):
    network = AutoencoderKL(channels=4, channel_multipliers=(1, 2), blocks=1, latent_channels=3, norm_groups=2)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 4, 4, 3)))["params"]
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda x: random.normal(size=x.shape).astype(np.float32), shapes)
    write_json(tmp_path / "config.json", autoencoder_config(network, 3, scaling_factor=0.25))
    save_weights(tmp_path / "diffusion_pytorch_model.safetensors", autoencoder_to_diffusers(params, network))
    found, memory, _ = load_group(f"autoencoder_kl:{tmp_path}", "autoencoder")
    jax.tree.map(np.testing.assert_array_equal, found, params)
    np.testing.assert_allclose(scale_of(memory), 0.25, rtol=1e-6)
    with pytest.raises(UserError, match=r"config\.json"):
        load_group(f"autoencoder_kl:{tmp_path / 'other'}", "autoencoder")


def test_a_text_encoder_of_transformers_is_read(tmp_path):
    tower = TextTower(vocabulary=20, length=6, width=8, depth=1, heads=2, mlp_features=12)
    shapes = jax.eval_shape(tower.init, jax.random.key(0), jnp.zeros((1, 6), jnp.int32))["params"]
    random = np.random.default_rng(0)
    params = jax.tree.map(lambda x: random.normal(size=x.shape).astype(np.float32), shapes)
    save_text(tmp_path, tower, params)
    found, memory, _ = load_group(f"clip_text:{tmp_path}", "text")
    assert memory is None
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_folders_are_left_to_others_and_mistakes_are_named(tmp_path):
    assert published("runs/classifier") is None and published("gs://bucket/lpips") is None
    with pytest.raises(UserError, match="'digit' is unknown; did you mean 'digits'"):
        published("classifier:digit")
    with pytest.raises(UserError, match="'judge:digits' is called 'classifier:digits' now"):
        published("judge:digits")
    with pytest.raises(UserError, match="'alexx'.*alex"):
        published("lpips:alexx")
    with pytest.raises(UserError, match="alexnet"):
        published(f"lpips:alex:{tmp_path}")


def encode(params, image):
    """Rows and columns are told apart, so that a mirrored image has other moments."""
    return params * jnp.concatenate([image, jnp.cumsum(image, 2)], -1)


def test_every_example_is_encoded_once_in_order():
    source = open_source("digits", "test", 8, 1)
    found = encoded(source, encode, jnp.float32(2), 64)
    assert set(found) == {"image", "label", "moments"} and found["moments"].dtype == np.float32
    np.testing.assert_array_equal(found["image"], source.arrays["image"])
    np.testing.assert_array_equal(found["label"], source.arrays["label"])
    image = source.arrays["image"].astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(found["moments"][..., :1], 2 * image, atol=1e-6)


def test_captions_stay_with_their_latents(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 1), np.uint8)
    captions = np.array(["a red ring", "a ring", "two blue rings", "a", "red"])
    np.savez(tmp_path / "data.npz", train_images=images, train_captions=captions)
    found = encoded(open_source(f"npz:{tmp_path / 'data.npz'}", "train", 4, 1), encode, jnp.float32(1), 2)
    assert list(found["caption"]) == list(captions) and len(found["moments"]) == 5


def test_mirrored_images_have_moments_of_their_own():
    source = open_source("digits", "test", 8, 1)
    found = encoded(source, encode, jnp.float32(1), 500, flip=True)
    assert len(found["image"]) == len(found["label"]) == 1000
    np.testing.assert_array_equal(found["image"][500:], found["image"][:500, :, ::-1])
    mirrored = found["image"][500:].astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(found["moments"][500:], encode(1, mirrored), atol=1e-5)


def test_a_folder_without_a_run_is_one_sentence(tmp_path, capsys):
    assert main([str(tmp_path), str(tmp_path / "out.npz")]) == 2
    assert "holds no run" in capsys.readouterr().err
