"""The pictures, and the command that draws them for a trained run."""

import json

import jax
import numpy as np
import pytest
import tiny
import tiny_latents
from exact import LINEAR, make_keys, modes
from PIL import Image
from tiny_methods import tiny_config

from jaxgen.config import section
from jaxgen.data import Arrays
from jaxgen.diffusion.samplers.ddim import DDIM as ddim
from jaxgen.editing import __main__ as command
from jaxgen.editing.__main__ import MOVING, edit, main
from jaxgen.editing.model import DiffusionModel
from jaxgen.editing.panels import CAPTIONS, coarse, editing_panels, right_half
from jaxgen.errors import UserError
from jaxgen.runs.setup import make_method
from jaxgen.sampling.generator import Generator
from jaxgen.sampling.restore import TrainedModel


@pytest.mark.slow
def test_the_pictures_show_what_their_captions_say():
    images = jax.random.uniform(jax.random.key(0), (2, 8, 8, 1), minval=-1.0)
    panels = jax.jit(
        lambda x, k: editing_panels(
            DiffusionModel(modes(LINEAR), LINEAR, ddim(10, eta=1.0)), k, x, 20, 4, (1.0, 0.0), (0.0, 0.5)
        )
    )(images, make_keys(2))
    assert set(panels) == set(CAPTIONS)
    for frames in panels.values():
        assert frames.shape[-3:] == (8, 8, 1) and np.isfinite(frames).all()
    np.testing.assert_array_equal(panels["inversion"][0], images)
    assert panels["inversion"].shape[:2] == (9, 2)
    # the arc from noise 0 to noise 1 ends where the arc from noise 1 begins
    np.testing.assert_allclose(panels["interpolation"][-1, 0], panels["interpolation"][0, 1], atol=1e-4)
    # two images by four branches, the branches of an image beside each other
    last = panels["branching"][1]
    np.testing.assert_array_equal(last[:4], np.repeat(last[:1], 4, axis=0))
    assert np.abs(last[0] - last[4]).max() > 0.1
    np.testing.assert_array_equal(panels["sdedit"][1], coarse(images))
    kept = np.asarray(right_half(images))[0, 0, :, 0] == 0
    np.testing.assert_array_equal(panels["masked_edit"][1][:, :, kept], images[:, :, kept])
    assert np.abs(panels["masked_edit"][1] - panels["masked_edit"][2])[:, :, ~kept].max() > 0.1


@pytest.fixture(scope="module")
def trained_ddpm(tmp_path_factory):
    """A run with labels."""
    folder = tmp_path_factory.mktemp("labelled")
    config = tiny.write_config(folder, conditional=True)
    lean = ["--config.train.sample_every_images=0", "--config.evaluate.at_end=False", "--config.train.total_images=32"]
    assert tiny.call(f"--config={config}", f"--workdir={folder / 'run'}", *lean) == 0
    return folder / "run"


@pytest.mark.slow
def test_a_trained_run_is_drawn(tmp_path, trained_ddpm):
    """With labels: those of the held-out images."""
    out = tmp_path / "out"
    edit(trained_ddpm, out, 2, steps=8, inversion_steps=(6,), branch_times=(1.0,), strengths=(0.5,))
    numbers = json.loads((out / "editing.json").read_text())
    assert numbers["inversion_error_refined"]["6"] != numbers["inversion_error"]["6"] > 0
    assert numbers["branching_diversity"]["1.0"] > 0
    assert set(json.loads((out / "captions.json").read_text())) == set(CAPTIONS)
    for name in CAPTIONS:
        with Image.open(out / (f"{name}.png" if name in MOVING else f"panel_{name}.png")) as rows:
            assert rows.size[0] > 2 * 8 and rows.size[1] > 2 * 8
    with Image.open(out / "inversion.gif") as moving:
        assert moving.n_frames > 8


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert main([f"--workdir={tmp_path}", f"--out={tmp_path}"]) == 2
    assert "no run" in capsys.readouterr().err


@pytest.fixture
def of_texts(monkeypatch):
    """A model of latents and captions, in the place of a run's: 16x16 images, an autoencoder that loses nothing."""
    method, model = tiny_latents.make(text=True), tiny_latents.begun(text=True)
    config = tiny_config("Plain")
    config.data.eval_split = "test"
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 1), dtype=np.uint8)
    source = Arrays({"image": images, "tokens": np.asarray([[4, 5, 1, 0, 0]] * 5, np.int32)}, split="test")
    source.tokenizer = lambda texts: np.asarray([[len(text), 7, 1, 0, 0] for text in texts], np.int32)
    trained = TrainedModel(Generator(method, config, 1, {"test": source}), model, 0, 0)
    monkeypatch.setattr(command, "_diffusion_model", lambda workdir, trust, prompts: (trained, method))
    return trained


@pytest.mark.nightly
def test_a_model_of_latents_and_texts_is_edited_in_latents_and_decoded(tmp_path, of_texts, monkeypatch):
    seen = {}
    draw = command._drawn

    def drawn(method, model, batch, *more):
        seen["tokens"] = np.asarray(batch["tokens"])
        seen["pictures"], numbers = draw(method, model, batch, *more)
        return seen["pictures"], numbers

    monkeypatch.setattr(command, "_drawn", drawn)
    few = dict(num=3, steps=3, inversion_steps=(3,), branch_times=(1.0,), strengths=(0.0, 0.5))
    numbers = edit("run", tmp_path, **few)
    np.testing.assert_array_equal(seen["tokens"], [[4, 5, 1, 0, 0]] * 3)
    own, image = seen["pictures"], of_texts.generator.source("test").take(range(3))["image"] / 127.5 - 1
    assert own["inversion"].shape == (1 + 3 + 3, 3, 16, 16, 1)
    np.testing.assert_allclose(own["inversion"][0], image, atol=1e-5)  # encoded and decoded
    np.testing.assert_allclose(own["sdedit"][1], coarse(image.astype(np.float32)), atol=1e-5)  # of pixels, not latents
    np.testing.assert_allclose(own["masked_edit"][1][:, :, :8], image[:, :, :8], atol=1e-5)
    assert numbers["inversion_error"]["3"] > 0 and numbers["branching_diversity"]["1.0"] > 0

    said = edit("run", tmp_path, **few, prompts=["ab", "abc"])
    np.testing.assert_array_equal(seen["tokens"], [[2, 7, 1, 0, 0], [3, 7, 1, 0, 0], [2, 7, 1, 0, 0]])
    assert np.abs(seen["pictures"]["sdedit"][2] - own["sdedit"][2]).max() > 0.01
    assert said["inversion_error"] != numbers["inversion_error"]
    with pytest.raises(UserError, match=r"tokens 10, .* those in \[0, 9\)"):
        edit("run", tmp_path, **few, prompts=["abcdefghij"])


def test_what_a_model_reads_is_made_of_the_held_out_images():
    config = tiny_config("Restorer")
    config.data.corruptions.condition = section(name="hole", form="centre", share=0.5)
    generator = Generator(make_method(config), config, 4)
    batch, keys = command._examples(TrainedModel(generator, None, 0, 0), 3, 0, ())
    assert batch.keys() == {"image", "condition", "mask"} and len(keys) == len(batch["image"]) == 3
    np.testing.assert_array_equal(batch["condition"], np.where(batch["mask"][..., None] == 1, 0, batch["image"]))
    assert 0 < batch["mask"].mean() < 1


@pytest.mark.slow
def test_pictures_of_the_user_take_the_place_of_held_out_images(tmp_path, of_texts, caplog):
    own = np.random.default_rng(1).integers(0, 256, (3, 16, 16), dtype=np.uint8)
    for i, picture in enumerate(own):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    files = [tmp_path / f"{i}.png" for i in range(3)]
    with caplog.at_level("INFO", logger="jaxgen"):
        batch, keys = command._examples(of_texts, 2, 0, files)  # at most two
    np.testing.assert_allclose(batch["image"][..., 0], own[:2] / 127.5 - 1, atol=1e-6)
    assert len(keys) == 2 and "with the tokens of held-out data" in caplog.text
    with pytest.raises(UserError, match="--image=.*nothing"):
        edit("run", tmp_path / "out", images=[tmp_path / "nothing.png"])
    assert not (tmp_path / "out").exists()


@pytest.mark.nightly
def test_nothing_is_drawn_with_weights_that_are_not_finite(tmp_path, of_texts):
    network = of_texts.model.params["denoiser"]["conv_out"]
    broken = jax.tree.map(lambda x: x * np.nan, network)
    params = {**of_texts.model.params, "denoiser": {**of_texts.model.params["denoiser"], "conv_out": broken}}
    object.__setattr__(of_texts, "model", of_texts.model.replace(params=params))
    few = dict(num=2, steps=2, inversion_steps=(2,), branch_times=(1.0,), strengths=(0.5,))
    with pytest.raises(UserError, match="2 of 2 images are not finite.*the weights of denoiser"):
        edit("run", tmp_path, **few)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_prompt_is_for_models_of_text(tmp_path, trained_ddpm, capsys):
    assert main([f"--workdir={trained_ddpm}", f"--out={tmp_path}", "--prompt=a"]) == 2
    assert "not conditional on text" in capsys.readouterr().err
    assert main([f"--workdir={trained_ddpm}", f"--out={tmp_path}", "--eta=2"]) == 2
    assert "--eta=2" in capsys.readouterr().err and not list(tmp_path.iterdir())
