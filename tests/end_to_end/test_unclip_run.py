"""unCLIP from a CLIP to a picture: embeddings are written, prior and decoder learn from them, and a chain samples."""

from __future__ import annotations

import json
import pathlib

import jax
import numpy as np
import pytest
import running
import tiny
from PIL import Image

from jaxgen.config import check, files, image_shape
from jaxgen.data import open_source
from jaxgen.data.corruptions import shapes_of
from jaxgen.editing.unclip import main as edit
from jaxgen.interop.unclip.prior import load_prior
from jaxgen.methods.cascade import Cascade, ChainStage
from jaxgen.planning.programs import Job
from jaxgen.planning.topology import devices
from jaxgen.runs.setup import make_corruptions, make_method
from jaxgen.runs.workdir import stored_config
from jaxgen.sampling.export import main as export
from jaxgen.sampling.latents import main as latents
from jaxgen.sampling.restore import restore

CONFIGS = tiny.ROOT / "configs"
SMALL = (
    "--config.data.resolution=8", "--config.train.batch_size=8", "--config.train.log_every_images=8",
    "--config.train.checkpoint_every_images=0", "--config.train.total_images=32", "--config.train.tensorboard=False",
    "--config.train.sample_every_images=0", "--config.train.ema_decay=0.9", "--config.evaluate.at_end=False",
    "--config.evaluate.batch_size=8",
)  # fmt: skip
TOWER = {"width": 6, "depth": 1, "heads": 2, "mlp_features": 8, "projection": 6}
UNET = {"patch_size": 1, "channels": 8, "channel_multipliers": "(1,)", "attention_levels": "(0,)", "heads": 1}


def flags(**sections):
    """`flags(image={"width": 8})` are `--config.method.image.width=8`; two underscores are a dot."""
    named = {f"{at.replace('__', '.')}.{key}": value for at, own in sections.items() for key, value in own.items()}
    return [f"--config.method.{key}={value}" for key, value in named.items()]


OF_CLIP = [*SMALL, *flags(image={**TOWER, "size": 8}, text=TOWER, captioner={"width": 6, "depth": 1, "heads": 2})]
OF_PRIOR = [
    *SMALL, *flags(parts__text__network=TOWER, codec={"width": 6, "scale": 2.4}, network={
        "outputs": 6, "context_dim": 6, "vector_dim": 6, "width": 16, "depth": 1, "heads": 2,
    }),
    "--config.sampler.steps=3",
]  # fmt: skip
OF_DECODER = [
    *SMALL, *flags(
        parts__text__network={k: v for k, v in TOWER.items() if k != "projection"},
        parts__embedding={"size": 6, "width": 6}, network={**UNET, "vector_dim": 6 + 6, "context_dim": 6},
    ),
    "--config.sampler.steps=3",
]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A CLIP, the embeddings of its data, a prior and a decoder, each of a few steps."""
    folder = tmp_path_factory.mktemp("unclip")
    shown = open_source("caption_shapes:phrases", "test", 8, 3)
    arrays = {}
    for split, rows in {"train": range(24), "test": range(24, 32), "unseen": range(32, 40)}.items():
        arrays |= {f"{split}_{name}": values for name, values in shown.take(rows).items()}
    np.savez(folder / "data.npz", **arrays)
    (folder / "data.npz.tokenizer.json").write_text(shown.tokenizer.to_json())
    data = f"--config.data.source=npz:{folder / 'data.npz'}"
    assert tiny.call(f"--config={CONFIGS / 'clip_shapes.py'}", f"--workdir={folder / 'clip'}", data, *OF_CLIP) == 0
    made = folder / "embeddings.npz"
    assert latents([str(folder / "clip"), str(made), "--splits=train,test,unseen"]) == 0
    data, first = f"--config.data.source=npz:{made}", f"--config.init_from.text={folder / 'clip'}#text"
    words = {"prior": [*OF_PRIOR, first], "decoder": OF_DECODER}
    for name, own in words.items():
        config = f"--config={CONFIGS / f'unclip_{name}_shapes.py'}"
        assert tiny.call(config, f"--workdir={folder / name}", data, *own) == 0
    return folder


def chain(folder, *words):
    pretrained = tuple(str(folder / name) for name in ("prior", "decoder"))
    return tiny.call(
        f"--config={CONFIGS / 'unclip_shapes.py'}", f"--config.init_from.pretrained={pretrained}",
        "--config.data.resolution=8", "--config.evaluate.batch_size=8", *words,
    )  # fmt: skip


@pytest.mark.nightly
def test_embeddings_are_written_with_all_else_that_the_data_have(runs):
    data, found = np.load(runs / "data.npz"), np.load(runs / "embeddings.npz")
    assert found["train_embedding"].shape == (24, 6) and found["train_embedding"].dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found["unseen_embedding"], axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(found["test_tokens"], data["test_tokens"])
    np.testing.assert_array_equal(found["test_images"], data["test_image"])
    assert "train_moments" not in found and (runs / "embeddings.npz.tokenizer.json").exists()


@pytest.mark.nightly
def test_images_are_given_the_captions_of_a_file(runs, tmp_path, capsys):
    texts = ["a red disc at the top", "there is a blue box on the left side"]
    (tmp_path / "captions.txt").write_text("\n".join(texts))
    made, flag = tmp_path / "told.npz", f"--captions={tmp_path / 'captions.txt'}"
    assert latents([str(runs / "clip"), str(made), "--splits=train", flag]) == 0
    found = np.load(made)
    assert set(found["train_captions"]) <= set(texts) and found["train_tokens"].shape[0] == 24
    source = open_source(f"npz:{made}", "train", 8, 3)
    np.testing.assert_array_equal(source.tokenizer([str(source[3]["caption"])])[0], source[3]["tokens"])
    (tmp_path / "captions.txt").write_text("a crimson elephant")
    capsys.readouterr()
    assert latents([str(runs / "clip"), str(tmp_path / "no.npz"), "--splits=train", flag]) == 2
    assert "elephant" in capsys.readouterr().err and not (tmp_path / "no.npz").exists()


@pytest.mark.nightly
def test_a_prior_is_sampled_with_a_prompt_and_counted(runs, tmp_path, capsys):
    common = (f"--workdir={runs / 'prior'}", "--mode=sample")
    assert tiny.call(*common, "--prompt=a crimson disc at the top", "--num=3", f"--out={tmp_path / 'out'}") == 0
    drawn = np.load(tmp_path / "out" / "samples.npz")["embedding"]
    assert drawn.shape == (3, 6)
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1, atol=1e-5)
    capsys.readouterr()
    assert tiny.call(*common, "--prompt=a crimson elephant", f"--out={tmp_path / 'no'}") == 2
    assert "elephant" in capsys.readouterr().err and not (tmp_path / "no").exists()
    assert tiny.call(f"--workdir={runs / 'prior'}", "--mode=evaluate", "--config.evaluate.num=8") == 0
    numbers = json.loads(capsys.readouterr().out)
    assert {"prior_distance", "text_distance", "shuffled_distance", "prior_over_text", "cosine_similarity"} <= {
        name.split("/")[0].removesuffix("_test") for name in numbers
    }


@pytest.mark.nightly
def test_a_resumed_prior_has_the_bits_of_one_that_was_never_stopped(runs, tmp_path):
    config = stored_config(runs / "prior")
    config.train.checkpoint_every_images = 8
    whole = running.run(config, tmp_path / "whole")
    running.run(config, tmp_path / "stopped", 16)
    assert running.differing(running.run(config, tmp_path / "stopped"), whole) == []


@pytest.mark.nightly
def test_a_prior_is_written_as_one_of_diffusers(runs, tmp_path, capsys):
    assert export([str(runs / "prior"), str(tmp_path / "out")]) == 0
    assert "PriorTransformer of diffusers" in capsys.readouterr().out
    network, params, statistics = load_prior(tmp_path / "out")
    trained = restore(stored_config(runs / "prior"), runs / "prior")
    assert network == trained.generator.method.network
    jax.tree.map(np.testing.assert_array_equal, params, trained.model.params["denoiser"])
    np.testing.assert_allclose(statistics.std, 1 / 2.4, rtol=1e-6)


@pytest.mark.nightly
def test_the_chain_draws_what_the_decoder_makes_of_the_priors_embeddings(runs, tmp_path):
    words = ("--mode=sample", "--prompt=a rosy hoop in the middle", "--prompt=", "--num=4", f"--out={tmp_path / 'out'}")
    assert chain(runs, *words) == 0
    drawn = np.load(tmp_path / "out" / "samples.npz")
    assert drawn["images"].shape == (4, 8, 8, 3) and drawn["stage_0"].shape == (4, 6)
    assert tiny.call(
        f"--workdir={runs / 'prior'}", *words[:-1], "--config.evaluate.batch_size=8", f"--out={tmp_path / 'prior'}"
    ) == 0  # fmt: skip
    np.testing.assert_array_equal(np.load(tmp_path / "prior" / "samples.npz")["embedding"], drawn["stage_0"])
    assert np.abs(drawn["stage_0"][0] - drawn["stage_0"][1]).max() > 1e-4


@pytest.mark.nightly
def test_pictures_are_edited_by_the_two_runs(runs, tmp_path):
    for i, image in enumerate(np.load(runs / "data.npz")["test_image"][:2]):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    words = [f"--workdir={runs / 'decoder'}", f"--clip={runs / 'clip'}", f"--image={tmp_path}", "--num=2", "--steps=3"]
    texts = ["--before=a red circle at the top", "--after=a blue circle at the top"]
    assert edit([*words, *texts, "--prompt=a red circle at the top", f"--out={tmp_path / 'out'}"]) == 0
    drawn = np.load(tmp_path / "out" / "unclip.npz")
    assert drawn["variations"].shape == (2, 2, 8, 8, 3) and drawn["text_difference"].shape[1:] == (2, 8, 8, 3)


def config_of(name):
    config, summary = files.load_config(CONFIGS / f"{name}.py")
    assert summary
    check(config)
    return config


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "gives"),
    [("unclip_prior_shapes", "embedding"), ("unclip_decoder_shapes", "images"), ("unclip_upsampler_shapes", "images")],
)
def test_update_and_sampler_of_the_shipped_configs_are_traced(name, gives):
    job = Job(config_of(name), devices("cpu:8"))
    updated, metrics = job.trace_update().out_info
    assert metrics and updated.params.keys() == job.state.params.keys()
    assert job.trace_sampler().out_info[gives].shape[0] == job.config.evaluate.batch_size


def test_the_stages_of_the_shipped_chains_fit_each_other():
    config = config_of("unclip_shapes_64")
    assert config.init_from.pretrained[:2] == config_of("unclip_shapes").init_from.pretrained
    stages = []
    for run in config.init_from.pretrained:
        own = config_of(pathlib.PurePath(run).name)
        made, method = shapes_of(make_corruptions(own), image_shape(own)), make_method(own)
        stages.append(ChainStage(method, run, image_shape(own), {**method.entries, **made}, tuple(made)))
    whole = Cascade(tuple(stages))
    assert [whole.link(i) for i in range(3)] == ["", "embedding", "condition"] and whole.conditions == ("tokens",)
    assert whole.image_shape == image_shape(config) and whole.entries["tokens"][0] == (16,)
