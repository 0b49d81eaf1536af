"""unCLIP's edits, on a decoder whose images are known: Gaussian about a linear map of the embedding."""

from __future__ import annotations

import dataclasses
import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact import SMOOTH, gaussian, make_keys
from PIL import Image
from tiny_methods import tiny_config

from jaxgen.conditions.embedding import Embedding
from jaxgen.conditions.text import Text
from jaxgen.data import Arrays
from jaxgen.data.word_tokenizer import WordTokenizer
from jaxgen.diffusion.guidance import ClassifierFree
from jaxgen.diffusion.samplers.ddim import DDIM
from jaxgen.editing import unclip as command
from jaxgen.editing.embeddings import Decoder, changed, interpolated, nulls, text_difference
from jaxgen.editing.unclip import FRAMES, Request, edit, main
from jaxgen.methods.base import Method, Model
from jaxgen.methods.diffusion.ddpm import DDPM
from jaxgen.networks.pretrained.text_encoder import TextEncoder
from jaxgen.sampling.generator import Generator
from jaxgen.sampling.restore import TrainedModel

WIDTH, SHAPE, STD = 3, (8, 8, 1), 0.05
MAP = np.linalg.qr(np.random.default_rng(0).normal(size=(64, WIDTH)))[0].T.astype(np.float32) * 2.5
ENCODER = TextEncoder(vocabulary=8, length=3, width=4, depth=1, heads=1)
WORDS = WordTokenizer(("cat", "dog", "cow"), 3, strict=True)


class Blind(nn.Module):
    """Takes what a decoder's network is told, and is not called."""

    def __call__(self, x, time, vector, context=None, context_mask=None):
        return x


@dataclasses.dataclass(frozen=True)
class Exact(DDPM):
    """Draws N(z MAP, STD^2 I) of an embedding z."""

    def denoiser(self, params, schedule=None, **options):
        def denoise(x, t, vector, **others):
            return gaussian(self.schedule, image_of(vector), STD)(x, t)

        return denoise


@dataclasses.dataclass(frozen=True)
class Linear(Method):
    """A CLIP that undoes the decoder's map; the embedding of a text is an axis, that of its first word."""

    image_shape: tuple[int, int, int] = SHAPE
    width: int = WIDTH

    def embed_image(self, params, image):
        z = (image.reshape(len(image), -1) @ jnp.linalg.pinv(jnp.asarray(MAP)))[:, : self.width]
        return z / jnp.linalg.norm(z, axis=-1, keepdims=True)

    def embed_text(self, params, tokens):
        return jnp.eye(WIDTH)[tokens[:, 0] - 3]


def image_of(z):
    return (z @ MAP).reshape(-1, *SHAPE)


def method(text=False, **options):
    parts = {"embedding": Embedding(dropout=0.1)}
    if text:
        parts["text"] = Text(ENCODER, **{"dropout": 0.5, **options})
    return Exact(Blind(), SMOOTH, DDIM(steps=20, clip=False), image_shape=SHAPE, parts=parts)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


Z = unit(np.random.default_rng(1).normal(size=(4, WIDTH))).astype(np.float32)
IMAGES = np.asarray(image_of(Z)) + STD * np.random.default_rng(2).normal(size=(4, *SHAPE)).astype(np.float32)


def test_a_text_difference_turns_an_embedding_on_the_sphere():
    before, after = np.eye(WIDTH, dtype=np.float32)[:2]
    shares = [0.0, 0.25, 0.5, 1.0]
    found = [np.asarray(text_difference(Z, before[None], after[None], share)) for share in shares]
    np.testing.assert_allclose(found[0], Z, atol=1e-6)
    np.testing.assert_allclose(found[-1], np.broadcast_to(unit(after - before), Z.shape), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-5)
    towards = np.asarray(found) @ (after - before)
    assert (np.diff(towards, axis=0) > 0).all()


def test_variations_keep_the_embedding_and_differ_in_the_rest():
    decoder = Decoder(method(), Model({}, {}), {})
    drawn = np.asarray(jax.jit(decoder.variations)(np.repeat(Z, 2, axis=0), make_keys(8)))
    np.testing.assert_allclose(drawn, np.repeat(image_of(Z), 2, axis=0), atol=5 * STD)
    assert np.abs(drawn[::2] - drawn[1::2]).mean() > STD / 2


def test_an_interpolation_begins_and_ends_with_the_pictures():
    decoder = Decoder(method(), Model({}, {}), {}, steps=100)
    walk = jax.jit(lambda x, z, keys: interpolated(decoder, x, z, keys, 5))
    frames = np.asarray(walk((IMAGES[:2], IMAGES[2:]), (Z[:2], Z[2:]), make_keys(2)))
    assert frames.shape == (5, 2, *SHAPE)
    np.testing.assert_allclose(frames[0], IMAGES[:2], atol=0.02)
    np.testing.assert_allclose(frames[-1], IMAGES[2:], atol=0.02)
    nearer = [np.square(frame - IMAGES[2:]).sum() for frame in frames]
    assert (np.diff(nearer) < 0).all()


def test_a_text_difference_changes_what_the_texts_say_and_keeps_the_rest():
    decoder = Decoder(method(), Model({}, {}), {}, steps=100)
    axes = np.eye(WIDTH, dtype=np.float32)
    texts = np.broadcast_to(axes[0], Z.shape), np.broadcast_to(axes[1], Z.shape)
    frames = np.asarray(jax.jit(lambda keys: changed(decoder, IMAGES, Z, texts, keys, 0.4, 3))(make_keys(4)))
    np.testing.assert_allclose(frames[0], IMAGES, atol=0.02)
    wanted = image_of(np.asarray(text_difference(Z, *texts, 0.4))) - image_of(Z)
    np.testing.assert_allclose(frames[-1] - frames[0], wanted, atol=0.05)  # the picture's own noise is in both


def test_the_null_stands_for_what_the_decoder_is_not_told():
    assert nulls(method()) == {}
    found = nulls(method(text=True))
    np.testing.assert_array_equal(found["tokens"], [[1, 0, 0]])
    assert nulls(method(text=True, dropout=0.0)) == {}


def runs(monkeypatch, decoder, clip):
    """Puts methods in the place of runs: what is said about them is read of their names."""
    config = tiny_config("Plain")
    config.data.eval_split = "test"
    source = Arrays({"image": np.zeros((2, 8, 8, 1), np.uint8), "tokens": np.zeros((2, 3), np.int32)}, split="test")
    source.tokenizer = WORDS
    example = {"embedding": ((WIDTH,), "float32")}
    made = {
        name: TrainedModel(Generator(one, config, 1, {"test": source}), Model({}, {}), 7, 0, example)
        for name, one in (("decoder", decoder), ("clip", clip))
    }
    monkeypatch.setattr(command, "restore_run", lambda workdir, trust, flag: made[str(workdir).split("/")[-1]])


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(IMAGES[:3]):
        levels = np.clip((image[..., 0] + 1) * 127.5, 0, 255).astype(np.uint8)
        Image.fromarray(levels).save(tmp_path / "photos" / f"{i}.png")
    return [f"--image={tmp_path / 'photos'}", f"--out={tmp_path / 'out'}", "--workdir=decoder", "--clip=clip"]


@pytest.mark.slow
def test_the_command_writes_pictures_and_numbers(tmp_path, monkeypatch, pictures, capsys):
    runs(monkeypatch, method(), Linear())
    assert main([*pictures, "--num=2", "--steps=20", "--before=cat", "--after=cow", "--most=0.5"]) == 0
    out = tmp_path / "out"
    assert capsys.readouterr().out.splitlines()[-1] == str(out)
    numbers = json.loads((out / "unclip.json").read_text())
    assert numbers["_meta"]["num"] == 3 and numbers["variation_cosine"]["mean"] > 0.9
    for name in ("interpolation_cosine", "text_difference_cosine"):
        values = list(numbers[name].values())
        assert len(values) == FRAMES and (np.diff(values) > 0).all()
    assert numbers["interpolation_cosine"]["1"] > 0.95
    drawn = np.load(out / "unclip.npz")
    assert drawn["variations"].shape == (3, 2, *SHAPE) and drawn["interpolation"].shape == (FRAMES, 2, *SHAPE)
    assert drawn["text_difference"].shape == (FRAMES, 3, *SHAPE)
    for name in ("panel_variations.png", "interpolation.png", "interpolation.gif", "text_difference.gif"):
        Image.open(out / name).verify()
    assert set(json.loads((out / "captions.json").read_text())) == {"variations", "interpolation", "text_difference"}


def test_what_cannot_be_edited_is_one_sentence(tmp_path, monkeypatch, pictures, capsys):
    def refused(*more, decoder=None, clip=None):
        runs(monkeypatch, decoder or method(), clip or Linear())
        assert main([*pictures, *more]) == 2
        said = capsys.readouterr().err.strip()
        assert "\n" not in said and not (tmp_path / "out" / "unclip.json").exists()
        return said

    assert "give both or none" in refused("--before=cat")
    assert "elephant" in refused("--before=cat", "--after=elephant")
    assert "in (0, 1]" in refused("--most=1.5")
    assert "gives 2: give the CLIP that wrote the decoder's data" in refused(clip=Linear(width=2))
    assert "embeds no images and texts: give that of CLIP" in refused(clip=method())
    assert "no diffusion model of images that reads the entry 'embedding'" in refused(decoder=Linear())
    assert "is not conditional on text" in refused("--prompt=cat")
    told = refused(decoder=method(text=True, dropout=0.0))
    assert "also reads tokens, for which it has no null" in told and "or give --prompt" in told
    broken = tmp_path / "no_picture.png"
    broken.write_text("no picture")
    assert "no_picture.png" in refused(f"--image={broken}")


def test_a_prompt_is_told_to_the_decoder_too(tmp_path, monkeypatch, pictures):
    runs(monkeypatch, method(text=True, dropout=0.0), Linear())
    seen = {}
    condition = Exact.condition

    def spied(self, params, batch, keys=None, train=False):
        seen["tokens"] = batch["tokens"]
        return {name: value for name, value in condition(method(), params, batch, keys, train).items()}

    monkeypatch.setattr(Exact, "condition", spied)
    files = [pictures[0].partition("=")[2] + "/0.png"]
    numbers = edit("decoder", "clip", files, tmp_path / "out", Request(num=2, steps=3, prompt="dog"))
    assert set(numbers) == {"variation_cosine"} and seen["tokens"].shape == (2, 3)


def test_the_decoders_guidance_is_used_for_variations():
    plain = method()
    guided = dataclasses.replace(plain, guidance=ClassifierFree(scale=1.5))
    draw = functools.partial(Decoder, model=Model({}, {}), told={})
    found = [np.asarray(jax.jit(draw(one).variations)(Z, make_keys(4))) for one in (plain, guided)]
    assert np.abs(found[1]).mean() > 1.2 * np.abs(found[0]).mean()  # farther from the null's grey
