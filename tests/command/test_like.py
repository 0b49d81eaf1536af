"""`--like=picture.png` draws a picture again, to the bit, and says in a sentence why it cannot."""

from __future__ import annotations

import dataclasses
import json
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tiny_methods import ddpm_config, gan_config, tiny_config

from jaxgen.command import modes, settings
from jaxgen.command.parse import parse
from jaxgen.config import section, to_json
from jaxgen.errors import UserError
from jaxgen.files.carried import INDEX, carried_texts, carrying
from jaxgen.methods.base import Model
from jaxgen.report.images import save_png
from jaxgen.runs.setup import make_method
from jaxgen.sampling.generator import Generator
from jaxgen.sampling.restore import TrainedModel


def dit_config():
    config = ddpm_config()
    config.method.network = section(name="dit", out_channels=1, patch_size=4, width=8, depth=1, heads=1)
    return config


def restorer_config():
    config = tiny_config("Restorer")
    config.data.corruptions.condition = section(name="hole", form="free_form")
    return config


# The config of a tiny run, how it is sampled, and the file whose settings are followed.
CALLS = {
    "gan": (gan_config, ["--num=5", "--seed=7"], "samples.png"),
    "ddpm": (dit_config, ["--num=3", "--config.sampler.steps=2", "--config.evaluate.batch_size=4"], "samples.png"),
    "restorer": (restorer_config, ["--degrade", "--num=4", "--image={pictures}"], "images/b_2.png"),
}


def untrained(config, workdir, monkeypatch):
    """A run that has its config and the weights of its first step, which takes no training and no checkpoint."""
    workdir.mkdir()
    (workdir / "config.json").write_text(to_json(config))

    def model(config, flags):
        generator = Generator(make_method(config), config)
        picture = jnp.zeros((8, 8, 8, 1))
        batch = {"image": picture, "condition": picture, "mask": jnp.zeros((8, 8, 8), jnp.int32)}
        params, memory = jax.jit(lambda key: generator.method.init(key, batch, 0, {}, {}, {}))(jax.random.key(0))
        return TrainedModel(generator, Model(params, memory), 0, 0)

    monkeypatch.setattr(modes, "_trained", model)


@pytest.mark.parametrize("method", CALLS)
def test_the_same_bytes(method, tmp_path, monkeypatch):
    make, words, followed = CALLS[method]
    untrained(make(), tmp_path / "run", monkeypatch)
    pictures = tmp_path / "pictures"
    for name, level in (("a", 40), ("b", 200)):
        save_png(pictures / f"{name}.png", np.full((8, 8, 1), level, np.uint8))
    words = [word.format(pictures=pictures) for word in words]
    common = ["--mode=sample", f"--workdir={tmp_path / 'run'}", "--trust=tiny_methods"]
    assert tiny.call(*common, f"--out={tmp_path / 'first'}", *words) == 0
    like = [f"--like={tmp_path / 'first' / followed}", *(word for word in words if word.startswith("--image"))]
    assert tiny.call(*common, f"--out={tmp_path / 'again'}", *like) == 0
    files = [path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*.png")]
    assert len(files) >= (4 if method == "restorer" else 1)
    for file in files:
        one, two = (tmp_path / of / file for of in ("first", "again"))
        assert one.read_bytes() == two.read_bytes()
        said = carried_texts(one, "--like")
        assert json.loads(said[settings.KEYWORD])["asked"]["seed"] == (7 if method == "gan" else 0)
        assert str(tmp_path) not in str(said)  # no path of this machine
    if method == "restorer":
        assert [carried_texts(tmp_path / "first" / "images" / f"{name}.png", "")[INDEX] for name in (
            "a_1", "b_1", "a_2", "b_2")] == ["0", "1", "2", "3"]  # fmt: skip


@pytest.fixture
def told(tmp_path):
    """What is parsed of `--like`, for a picture with some settings changed, in the workdir of a run of a DDPM."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(to_json(ddpm_config()))

    def call(changed=None, words=(), text=None):
        known = {"method": "ddpm", "step": 3, "weights": "0", "asked": {"num": 2, "seed": 1}}
        chunks = PngInfo()
        chunks.add_itxt(settings.KEYWORD, json.dumps(known | (changed or {})) if text is None else text)
        Image.new("L", (2, 2)).save(tmp_path / "picture.png", pnginfo=chunks)
        like = f"--like={tmp_path / 'picture.png'}"
        return parse(["--mode=sample", f"--workdir={run}", f"--out={tmp_path / 'out'}", like, *words])

    return call


def test_what_is_given_takes_the_place_of_what_the_picture_says(told):
    asked = {"num": 2, "seed": 1, "labels": [3], "prompt": ["a disc"]}
    said = {"asked": asked, "sections": {"sampler": {"name": "ddpm", "steps": 9}}, "keys": {"evaluate.batch_size": 2}}
    config, flags = told(said)
    assert (flags.num, flags.seed, flags.labels, flags.prompt) == (2, 1, (3,), ("a disc",))
    assert flags.checkpoint == "3" and config.sampler.name == "ddpm" and config.evaluate.batch_size == 2
    config, flags = told(said, ["--seed=4", "--prompt=a box", "--config.sampler.steps=5", "--checkpoint=best"])
    assert (flags.num, flags.seed, flags.prompt) == (2, 4, ("a box",))
    assert flags.checkpoint == "best" and config.sampler.to_dict() == {"name": "ddpm", "steps": 5}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"method": "gan", "config": "gan_digits"}, "was drawn by gan_digits (gan)"),
        ({"files": {"--image": {"count": 1, "name": "cat.png", "checksum": "0"}}}, "with --image (cat.png)"),
        ({"own": ["init_from.classifier"]}, "--config.init_from.classifier"),
        ({"sections": {"sampler": {"name": "evil.module:Run"}}}, "'evil'"),
        ({"keys": {"method.trust": ["evil"]}}, "may not trust a package"),
        ({"keys": {"data.resolution.deep": 1}}, "is no section"),
        ({"asked": {"num": 0, "seed": 1}}, "num"),
        ({"asked": {"num": 1, "seed": -1}}, "seed"),
        ({"asked": {"num": 1, "seed": 1, "strength": 0.5}}, "--strength is the share of an image"),
    ],
)
def test_a_picture_that_the_run_cannot_draw(told, changed, named):
    with pytest.raises(UserError) as refused:
        told(changed)
    assert named in str(refused.value) and "picture.png" in str(refused.value)


def test_a_picture_without_settings(told, tmp_path):
    with pytest.raises(UserError, match="not valid JSON"):
        told(text="{")
    save_png(tmp_path / "plain.png", np.zeros((2, 2, 1), np.uint8))
    for name, named in (("plain.png", "carries no settings"), ("none.png", "none.png")):
        with pytest.raises(UserError, match=named):
            parse(["--mode=sample", f"--like={tmp_path / name}", "--workdir=w", "--out=o"])


def test_a_picture_does_not_choose_files(told):
    """A stranger's picture names neither weights nor data."""
    config, _ = told({"keys": {"init_from.classifier": "/etc/x", "data.root": "/", "train.batch_size": 1}})
    assert "classifier" not in config.init_from and not config.data.root and config.train.batch_size == 8


def test_other_weights(told):
    """They are refused, unless the call asks for another step, or for other parts of the model."""
    _, flags = told()
    here = dataclasses.replace(flags.settings, weights="1")
    assert settings.check_model(flags, flags.settings) == []
    with pytest.raises(UserError, match="step 3 .weights 0.*weights 1"):
        settings.check_model(flags, here)
    _, best = told(words=["--checkpoint=best"])
    adapted = dataclasses.replace(here, files={"--adapter": settings.GivenFiles(1, "x", "0")})
    for found in (settings.check_model(best, here), settings.check_model(flags, adapted)):
        assert len(found) == 1 and "another picture" in found[0]
    newer = dataclasses.replace(flags.settings, versions={"jax": "99"})
    assert "last bits" in settings.check_model(flags, newer)[0]


def test_another_file_is_told(told, tmp_path, caplog):
    save_png(tmp_path / "cat.png", np.zeros((2, 2, 1), np.uint8))
    files = {"files": {"--image": {"count": 1, "name": "dog.png", "checksum": "0"}}}
    with caplog.at_level(logging.WARNING, "jaxgen"):
        told(files, [f"--image={tmp_path / 'cat.png'}"])
    assert "dog.png" in caplog.text


def test_a_text_that_readers_refuse_is_left_out(tmp_path):
    with carrying({"long": "x" * 2**20, "short": "y"}):
        save_png(tmp_path / "x.png", np.zeros((2, 2, 1), np.uint8))
    assert carried_texts(tmp_path / "x.png", "") == {"short": "y"}


def test_a_text_that_no_reader_takes_is_told(tmp_path, caplog):
    with carrying({"short": "a", "long": "x" * 2**20}):
        save_png(tmp_path / "a.png", np.zeros((2, 2, 3), np.uint8))
    assert carried_texts(tmp_path / "a.png", "--like") == {"short": "a"}
    assert "'long'" in caplog.text and "1048576" in caplog.text
