"""Reranking keeps the draw that a CLIP finds nearest to its text, of the draws that there would be without it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxgen.data import open_source
from jaxgen.methods.base import Method, Model
from jaxgen.sampling.generator import ANOTHER
from jaxgen.sampling.rerank import OF_JUDGE, Reranked

SHAPE = (2, 2, 1)
TOKENS = jnp.array([[1], [5], [9], [2], [7]], jnp.int32)


@dataclasses.dataclass(frozen=True)
class Levels(Method):
    """Draws a grey level for each text; a picture of `broken` is not finite."""

    image_shape: tuple[int, int, int] = SHAPE
    broken: float = 2.0
    conditions = ("tokens",)

    def sample(self, model, keys, batch):
        level = jax.vmap(lambda key: jax.random.uniform(key, minval=-1))(keys) * model.params["net"]
        images = jnp.broadcast_to(level[:, None, None, None], (len(keys), *SHAPE))
        return {"image": jnp.where(images > self.broken, jnp.nan, images), "codes": jnp.round(100 * level).astype(int)}


@dataclasses.dataclass(frozen=True)
class Nearness(Method):
    """Finds an image near a text whose tenth is its grey level."""

    image_shape: tuple[int, int, int] = SHAPE

    def embed_image(self, params, image):
        angle = params["image"] * image.mean(axis=(1, 2, 3))
        return jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)

    def embed_text(self, params, tokens):
        angle = params["image"] * tokens[:, 0] / 10
        return jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)


PAINTER = '''"""Pictures of texts."""

import tiny_methods


def get_config():
    config = tiny_methods.tiny_config("Painter", reads=("tokens",))
    config.data.channels = 3
    config.evaluate.at_end = False
    return config
'''
MODEL = Model({"net": jnp.ones(()), f"{OF_JUDGE}image": jnp.ones(()), f"{OF_JUDGE}text": jnp.zeros(())}, {})


def keys(draw=0):
    own = jax.random.split(jax.random.key(4), 5)
    fold = lambda key: jax.random.fold_in(jax.random.fold_in(key, ANOTHER), draw)  # noqa: E731
    return jax.vmap(fold)(own) if draw else own


def test_the_nearest_of_all_draws_is_kept_with_what_belongs_to_it():
    found = jax.jit(Reranked(Levels(), Nearness(), 6).sample)(MODEL, keys(), {"tokens": TOKENS})
    levels = np.stack([np.asarray(Levels().sample(MODEL, keys(k), {})["image"])[:, 0, 0, 0] for k in range(6)])
    distance = np.abs(levels - np.asarray(TOKENS)[:, 0] / 10)
    best = distance.argmin(axis=0)
    np.testing.assert_array_equal(found["rerank_draw"], best)
    kept = levels[best, np.arange(5)]
    np.testing.assert_allclose(found["image"][:, 0, 0, 0], kept)
    np.testing.assert_array_equal(found["codes"], np.round(100 * kept))
    np.testing.assert_allclose(found["rerank_cosine"], np.cos(distance.min(axis=0)), rtol=1e-5)
    assert len(set(best)) > 1


def test_a_draw_that_is_not_finite_is_not_kept():
    found = jax.jit(Reranked(Levels(broken=0.0), Nearness(), 6).sample)(MODEL, keys(), {"tokens": TOKENS})
    assert np.isfinite(found["image"]).all() and (np.asarray(found["image"]) <= 0).all()


@pytest.mark.slow
def test_a_run_of_clip_chooses_among_the_draws_of_a_run(tmp_path, capsys):
    shown = open_source("caption_shapes:phrases", "test", 8, 3)
    rows = shown.take(range(24))
    splits = ("train", "test", "unseen")
    np.savez(tmp_path / "data.npz", **{f"{split}_{k}": v for split in splits for k, v in rows.items()})
    (tmp_path / "data.npz.tokenizer.json").write_text(shown.tokenizer.to_json())
    data = f"--config.data.source=npz:{tmp_path / 'data.npz'}"
    tower = dict(width=8, depth=1, heads=2, mlp_features=8, projection=6)
    small = [
        *(f"--config.method.{name}.{k}={v}" for name in ("image", "text") for k, v in tower.items()),
        "--config.method.image.size=8", "--config.method.captioner.width=8", "--config.data.resolution=8",
        "--config.train.batch_size=8", "--config.train.total_images=16", "--config.train.log_every_images=8",
        "--config.train.checkpoint_every_images=8", "--config.evaluate.at_end=False", "--config.evaluate.batch_size=8",
        "--config.evaluate.metrics=()",
    ]  # fmt: skip
    clip = tmp_path / "clip"
    assert tiny.call("--config=configs/clip_shapes.py", f"--workdir={clip}", data, *small) == 0
    (tmp_path / "painter.py").write_text(PAINTER)
    run = tmp_path / "run"
    assert tiny.call(f"--config={tmp_path / 'painter.py'}", f"--workdir={run}", data) == 0

    prompts = ["--prompt=a red circle at the top left", "--prompt=a blue star at the centre"]
    sample = [f"--workdir={run}", "--mode=sample", *prompts, "--trust=tiny_methods", "--draws=3"]
    assert tiny.call(*sample, f"--out={tmp_path / 'all'}") == 0
    assert tiny.call(*sample, f"--out={tmp_path / 'best'}", f"--rerank={clip}") == 0
    every, best = (np.load(tmp_path / name / "samples.npz") for name in ("all", "best"))
    assert every["images"].shape == (6, 8, 8, 3) and best["images"].shape == (2, 8, 8, 3)
    chosen = every["images"].reshape(3, 2, 8, 8, 3)[best["rerank_draw"], [0, 1]]
    np.testing.assert_array_equal(best["images"], chosen)
    capsys.readouterr()
    assert tiny.call(*sample[:-1], f"--out={tmp_path / 'x'}", f"--rerank={clip}") == 2
    assert "give --draws=8" in capsys.readouterr().err
    assert tiny.call(*sample, f"--out={tmp_path / 'x'}", f"--rerank={run}") == 2
    assert "is a run of Painter, which does not compare images with texts" in capsys.readouterr().err
    assert tiny.call(*sample, f"--out={tmp_path / 'x'}", f"--rerank={tmp_path / 'none'}") == 2
    assert "holds no run that can be used" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
