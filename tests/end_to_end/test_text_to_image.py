"""Text to image from the command line, with a tiny pipeline in the place of Stable Diffusion."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
import tiny_pipeline

from jaxgen.interop import diffusers_pipeline as interop

CONFIG = "--config=configs/stable_diffusion.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pipeline") / "made"
    tiny_pipeline.write(folder)
    return folder


def command(folder, out, *more):
    return (CONFIG, f"--config.init_from.pretrained={folder}", "--mode=sample", f"--out={out}", *more)


def drawn(folder, out, *more):
    assert tiny.call(*command(folder, out, "--config.sampler.steps=2", *more)) == 0
    assert (out / "samples.png").stat().st_size > 0
    return np.load(out / "samples.npz")


@pytest.mark.slow
def test_an_image_depends_on_the_seed_its_number_and_its_text(folder, tmp_path):
    three = drawn(folder, tmp_path / "three", "--prompt=a red cat", "--prompt=a dog", "--num=3")
    assert three["images"].shape == (3, 16, 16, 3) and three["images"].dtype == np.uint8
    assert three["prompts"].tolist() == ["a red cat", "a dog", "a red cat"]
    (tmp_path / "prompts.txt").write_text("a red cat\n\n")
    one = drawn(folder, tmp_path / "one", f"--prompts={tmp_path / 'prompts.txt'}")
    assert len(one["images"]) == 1
    np.testing.assert_array_equal(one["images"][0], three["images"][0])
    assert (three["images"][0] != three["images"][2]).mean() > 0.5  # the same text, another number


@pytest.mark.nightly
def test_sizes_types_scales_and_batches(folder, tmp_path):
    plain = drawn(folder, tmp_path / "plain", "--prompt=a red cat", "--prompt=a dog")["images"].astype(int)
    batched = drawn(folder, tmp_path / "b", "--prompt=a red cat", "--prompt=a dog", "--config.evaluate.batch_size=2")
    assert np.abs(batched["images"].astype(int) - plain).max() <= 1
    sized = drawn(folder, tmp_path / "sized", "--prompt=a", "--config.method.height=24", "--config.method.width=8")
    assert sized["images"].shape == (1, 24, 8, 3)
    half = drawn(folder, tmp_path / "half", "--prompt=a red cat", "--config.method.dtype=bfloat16")
    assert 0 < np.abs(half["images"][0].astype(int) - plain[0]).mean() < 30
    interop.save_pipeline(tmp_path / "f16", interop.read_pipeline(folder), interop.read_params(folder), "float16")
    widened = drawn(tmp_path / "f16", tmp_path / "widened", "--prompt=a red cat")
    kept = drawn(tmp_path / "f16", tmp_path / "kept", "--prompt=a red cat", "--config.method.param_dtype=")
    assert np.abs(kept["images"].astype(int) - widened["images"]).max() <= 1  # computed in float32 all the same
    assert np.abs(kept["images"][0].astype(int) - plain[0]).mean() < 10
    unsteered = drawn(folder, tmp_path / "one", "--prompt=a red cat", "--config.sampler.guidance_scale=1.0")
    assert (unsteered["images"][0] != plain[0]).mean() > 0.5
    other = drawn(
        folder,
        tmp_path / "dpm",
        "--prompt=a red cat",
        "--config.sampler.name=dpmpp_2m",
        "--config.sampler.spacing=log_snr",
    )
    assert (other["images"][0] != plain[0]).mean() > 0.5
    away = drawn(folder, tmp_path / "away", "--prompt=a red cat", "--negative_prompt=a dog")
    assert (away["images"][0] != plain[0]).mean() > 0.5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ((), "give --prompt='a text'"),
        (("--prompt=a", "--workdir=run"), "leave --workdir out"),
        (("--prompt=a", "--mode=train"), "it is for --mode=sample"),
        (("--prompt=a", "--labels=1"), "leave it out"),
        (("--prompt=a", "--config.init_from.pretrained="), "config.init_from.pretrained is empty"),
        (("--prompt=a", "--config.init_from.pretrained=gone"), "gone with a pretrained pipeline"),
        (("--prompt=a", "--config.sampler.clip=True"), "set config.sampler.clip to False"),
        (("--prompt=a", "--config.sampler.guidance_scale=much"), "could not convert string to float"),
        (("--prompt=a", "--config.method.heigth=8"), "did you mean 'height'"),
        (("--prompt=a", "--prompts=gone.txt"), "--prompts=gone.txt: there is no such file"),
        (("--prompt=a", "--noise=gone.npy"), "--noise=gone.npy: there is no such file"),
        (("--prompt=a", "--config.sampler.steps=1001"), "1000 levels to visit"),
        (
            ("--prompt=a", "--negative_prompt=dog", "--config.sampler.guidance_scale=1.0"),
            "--negative_prompt has no effect: the guidance 'classifier_free' of scale 1 leaves it out",
        ),
        (("--prompt=a", "--config.sampler.guidance_scale=0"), "--prompt has no effect"),
        (("--prompt=a", "--prompt=b", "--num=1"), "--num=1 draws fewer images than --prompt names (2)"),
    ],
)
def test_bad_input_is_one_sentence(change, words, folder, tmp_path, capsys):
    assert tiny.call(*tiny.replaced(command(folder, tmp_path / "out"), *change)) == 2
    said = capsys.readouterr().err
    complaints = [line for line in said.splitlines() if line.startswith("jaxgen: ")]
    assert len(complaints) == 1 and words in complaints[0], said
    assert not (tmp_path / "out").exists()


def test_a_pipeline_needs_its_method(folder, tmp_path, capsys):
    config = tiny.write_config(tmp_path)
    assert tiny.call(f"--config={config}", *command(folder, tmp_path / "out")[1:], "--prompt=a") == 2
    assert "--workdir is needed" in capsys.readouterr().err  # of a run that is built on a trained one
