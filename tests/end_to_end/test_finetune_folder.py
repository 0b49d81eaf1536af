"""Fine-tuning of a whole folder of diffusers: what learns, that it resumes, and what is written back."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
import running
import tiny
import tiny_finetune
import tiny_pipeline

from jaxgen.config import section
from jaxgen.errors import UserError
from jaxgen.interop import diffusers_pipeline as interop
from jaxgen.runs.setup import make_method, open_split
from jaxgen.sampling.export import export
from jaxgen.sampling.restore import restore


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of diffusers, one of pictures, and the config of a run on both."""
    place = tmp_path_factory.mktemp("finetune")
    _, params = tiny_pipeline.write(place / "made")
    tiny_finetune.write_pictures(place / "pictures")
    return place, params, tiny_finetune.finetune_config(place / "made", place / "pictures")


@pytest.fixture(scope="module")
def trained(made):
    place, _, config = made
    return place / "run", running.run(config, place / "run")


def loss(config, params) -> float:
    """The mean denoising loss on the training pictures, each with its own noise."""
    from jaxgen.methods.base import Model
    from jaxgen.sampling.generator import Generator

    generator = Generator(make_method(config), config, 8)
    return generator.scores(Model(params, {}), 0, open_split(config, "train"))["denoising_loss"]


@pytest.mark.nightly
def test_the_denoiser_alone_learns_and_the_loss_falls(made, trained):
    _, start, config = made
    _, state = trained
    assert state.params.keys() == state.ema.keys() == state.opt_state.keys() == {"denoiser"}
    assert loss(config, {**start, **state.params}) < 0.9 * loss(config, start)
    rows = open_split(config, "train").take([0])["tokens"]
    assert rows.shape == (1, tiny_pipeline.LENGTH)
    assert rows.max() == config_end(config) == make_method(config).pad


def config_end(config) -> int:
    return interop.read_tokenizer(config.init_from.pretrained).end


@pytest.mark.nightly
def test_it_resumes_bit_for_bit(made, trained, tmp_path):
    _, _, config = made
    running.run(config, tmp_path / "run", 32)
    assert not running.differing(running.run(config, tmp_path / "run", 80), trained[1])


@pytest.mark.nightly
def test_what_is_written_back_draws_the_images_of_the_run(made, trained, tmp_path):
    place, start, config = made
    workdir, state = trained
    told = {"model_index.json": "a StableDiffusionPipeline; denoiser learned, the rest is as it was"}
    assert export(workdir, tmp_path / "out") == told
    back = interop.read_params(tmp_path / "out")
    assert not running.differing(back["denoiser"], state.ema["denoiser"])
    assert not any(running.differing(back[group], start[group]) for group in ("text", "autoencoder"))
    said = ("--mode=sample", "--prompt=a red cat", "--prompt=a dog", "--num=2")
    assert tiny.call(f"--workdir={workdir}", *said, f"--out={tmp_path / 'ours'}") == 0
    status = tiny.call(
        "--config=configs/stable_diffusion.py", f"--config.init_from.pretrained={tmp_path / 'out'}", *said,
        "--config.sampler.steps=3", "--config.evaluate.batch_size=2", f"--out={tmp_path / 'theirs'}",
    )  # fmt: skip
    assert status == 0
    ours, theirs = (np.load(tmp_path / name / "samples.npz")["images"].astype(int) for name in ("ours", "theirs"))
    assert ours.std() > 5 and np.abs(ours - theirs).max() <= 1
    with pytest.raises(UserError, match="has files already"):
        export(workdir, tmp_path / "out")


@pytest.mark.nightly
def test_what_does_not_learn_may_be_bfloat16(made, tmp_path):
    _, _, config = made
    config = config.copy_and_resolve_references()
    config.init_from.dtype = "bfloat16"
    config.method.network.dtype = "bfloat16"
    assert make_method(config).network.dtype == "bfloat16"
    running.run(config, tmp_path / "run", 4)
    params = restore(config, tmp_path / "run").model.params
    kinds = {group: {str(x.dtype) for x in jax.tree.leaves(params[group])} for group in params}
    assert kinds == {"denoiser": {"float32"}, "text": {"bfloat16"}, "autoencoder": {"bfloat16"}}


@pytest.mark.nightly
def test_the_text_encoder_learns_too_where_it_is_asked_for(made, tmp_path):
    _, start, config = made
    config = config.copy_and_resolve_references()
    config.method.text_learns = True
    state = running.run(config, tmp_path / "run", 4)
    assert state.params.keys() == {"denoiser", "text"}
    assert running.largest_difference(state.params["text"], start["text"]) < 0.01


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("init_from.pretrained", "", "pretrained is empty"),
        ("init_from.pretrained", "gone", "There is no folder"),
        ("init_from.pretrained", ".", "model_index.json"),
        ("init_from.dtype", "int8", "no type of floating-point numbers"),
        ("method.network.remta", "block", "did you mean 'remat'"),
        ("data.resolution", 18, "multiples of 4"),
        ("data.channels", 1, "channels"),
        ("method.name", "ddpm", "not for 'ddpm'"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_is_written(key, value, told, made, tmp_path, capsys):
    place, _, config = made
    words = [f"--config.init_from.pretrained={place / 'made'}", f"--config.data.source=folder:{place / 'pictures'}"]
    words = tiny.replaced([*words, "--config.data.resolution=16"], f"--config.{key}={value}")
    assert tiny.call("--config=configs/stable_diffusion_finetune.py", *words, f"--workdir={tmp_path / 'run'}") == 2
    complaints = [line for line in capsys.readouterr().err.splitlines() if line.startswith("jaxgen: ")]
    assert len(complaints) == 1 and told in complaints[0], complaints
    assert not (tmp_path / "run" / "checkpoints").exists() and not (tmp_path / "run" / "run.json").exists()


def test_pictures_without_captions_and_another_vocabulary_are_refused(made, tmp_path):
    place, _, config = made
    tiny_finetune.write_pictures(tmp_path / "bare", captions=False)
    config = config.copy_and_resolve_references()
    config.data.source = f"folder:{tmp_path / 'bare'}"
    with pytest.raises(UserError, match="have no captions"):
        open_split(config, "train")


@pytest.mark.nightly
def test_grafts_are_tuned_on_a_folder(made, tmp_path):
    place, start, _ = made
    config = tiny_finetune.finetune_config(place / "made", place / "pictures")
    config.method = section(name="tuned", grafts=section(lora=section(name="low_rank", rank=1)))
    state = running.run(config, tmp_path / "run", 8)
    assert state.params.keys() == {"lora"}
    assert any(np.abs(part["b"]).max() > 0 for part in state.params["lora"].values())
    found = restore(config, tmp_path / "run")
    assert found.generator.method.trained.text_learns is False
    assert not running.differing(found.model.params["denoiser"], start["denoiser"])


@pytest.mark.nightly
def test_weights_that_have_changed_are_refused_at_the_next_start(made, tmp_path):
    place, _, config = made
    pipeline, params = tiny_pipeline.write(tmp_path / "other")
    config = config.copy_and_resolve_references()
    config.init_from.pretrained = str(tmp_path / "other")
    running.run(config, tmp_path / "run", 4)
    text = {**params, "text": jax.tree.map(lambda x: x + 1, params["text"])}
    interop.save_pipeline(tmp_path / "other", pipeline, text)
    with pytest.raises(UserError, match="weights of 'text' are not those that this run began with"):
        running.run(config, tmp_path / "run", 8)
    assert json.loads((tmp_path / "run" / "config.json").read_text())
