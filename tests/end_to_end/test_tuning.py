"""Tuning by grafts from the command line: train, stop, resume, sample with a new word, and put the files on models."""

from __future__ import annotations

import pathlib
import re

import jax
import numpy as np
import pytest
import safetensors.numpy
import tiny
import tiny_finetune
import tiny_pipeline

from jaxgen.runs.comparison import compare
from jaxgen.runs.loaded_groups import read_item
from jaxgen.sampling.export import main as export

TEXT = '''"""Tunes a tiny model.

Paper: none; it exists to be tested.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    lora = section(name="low_rank", rank=2)
    config.method = section(
        name="tuned", grafts=section(lora=lora, token=section(name="token_rows", word="<toy>", initial="INITIAL"))
    )
    config.init_from.pretrained = "BASE"
    config.data.update(source="folder:PICTURES", resolution=16, channels=3)
    config.data.captions = ("a {}", "the {} at the left")
    config.data.extra.prior = section(source="sampled", captions=("a star",), num=8)
    config.optimizer.learning_rate = 1e-2
    config.train.update(
        batch_size=8, total_images=48, log_every_images=8, checkpoint_every_images=0, sample_every_images=0,
        ema_decay=0.5, tensorboard=False,
    )
    config.evaluate.update(num=8, batch_size=8, at_end=False)
    config.sampler = section(name="ddim", steps=2, clip=False, guidance_scale=2.0)
    return config
'''
PROMPTS = ("--prompt=a red <toy>", "--prompt=a <TOY> at the left", "--num=8")
SMALL = ("channels=8", "blocks=1", "channel_multipliers=(1,1)")


def lean(*networks):
    lengths = ("data.resolution=16", "train.batch_size=8", "train.total_images=8", "train.sample_every_images=0",
               "train.tensorboard=False", "evaluate.at_end=False")  # fmt: skip
    keys = [*lengths, *(f"method.{network}.{key}" for network in networks for key in SMALL)]
    return [f"--config.{key}" for key in keys]


def write_run(place: pathlib.Path) -> pathlib.Path:
    """A run that draws pictures from captions of a vocabulary of its own, and learned its text encoder."""
    first, second = place / "first", place / "base"
    assert tiny.call("--config=configs/kl_autoencoder_concepts.py", f"--workdir={first}", *lean("network")) == 0
    status = tiny.call(
        "--config=configs/latent_diffusion_concepts.py", f"--workdir={second}",
        f"--config.init_from.autoencoder={first}",
        "--config.method.network.heads=2", "--config.method.network.attention_resolutions=(8,)",
        "--config.method.text.width=16", "--config.method.network.context_dim=16",
        # layers that begin at zero have to leave it, or nothing in front of them changes a picture
        "--config.optimizer.learning_rate=0.05", "--config.optimizer.warmup_images=0",
        *tiny.replaced(lean("network", "autoencoder"), "--config.train.total_images=64"),
    )  # fmt: skip
    assert status == 0
    return second


@pytest.fixture(scope="module", params=["folder", pytest.param("run", marks=pytest.mark.nightly)])
def tuning(request, tmp_path_factory):
    """The config file of a tuning run on a folder of diffusers, or on a run, and that base."""
    place = tmp_path_factory.mktemp("tuning")
    if request.param == "folder":
        tiny_pipeline.write(place / "base")
    else:
        write_run(place)
    tiny_finetune.write_pictures(place / "few", captions=False)
    initial = "cat" if request.param == "folder" else "star"
    text = TEXT.replace("INITIAL", initial).replace("BASE", str(place / "base")).replace("PICTURES", str(place / "few"))
    (place / "tuning.py").write_text(text)
    return place / "tuning.py", place / "base"


def train(config, workdir, *more):
    assert tiny.call(f"--config={config}", f"--workdir={workdir}", *more) == 0


def drawn(workdir, out, *more):
    assert tiny.call(f"--workdir={workdir}", "--mode=sample", *PROMPTS, f"--out={out}", *more) == 0
    return np.load(out / "samples.npz")["images"].astype(int)


@pytest.fixture(scope="module")
def tuned(tuning, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("tuned") / "run"
    train(tuning[0], workdir)
    return workdir


@pytest.mark.nightly
def test_a_stopped_run_ends_as_one_that_was_not(tuning, tuned, tmp_path):
    """On eight devices; test_doors.py has one on a single device."""
    train(tuning[0], tmp_path / "parts", "--config.train.total_images=24")
    train(tuning[0], tmp_path / "parts")
    assert compare(tuned, tmp_path / "parts") == []


@pytest.mark.nightly
@pytest.mark.parametrize("tuning", ["run"], indirect=True)  # of configs/latent_diffusion_concepts.py
@pytest.mark.parametrize("name", ["textual_inversion", "dreambooth", "custom_diffusion", "lora"])
def test_the_shipped_configs_tune_their_base(tuning, name, tmp_path):
    _, base = tuning
    shorter = ["data.resolution=16", "train.total_images=16", "train.log_every_images=8", "train.tensorboard=False"]
    shorter.append("evaluate.at_end=False")
    shorter += [] if name == "textual_inversion" else ["data.extra.prior.num=8"]
    config = tiny.ROOT / "configs" / f"{name}_concepts.py"
    train(config, tmp_path, f"--config.init_from.pretrained={base}", *(f"--config.{key}" for key in shorter))
    after = read_item(tmp_path / "checkpoints" / "2" / "params")
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(after))
    assert {*after} <= {"unet", "encoder", "kv", "token", "lora"} and after


@pytest.mark.slow
def test_a_checkpoint_holds_the_grafts_alone(tuning, tuned):
    found = {item: read_item(tuned / "checkpoints" / "6" / item) for item in ("params", "ema", "opt_state")}
    assert all(groups.keys() == {"lora", "token"} for groups in found.values())
    params = found["params"]
    layers = params["lora"].values()
    assert all(layer["a"].shape[1] == layer["b"].shape[0] == 2 and np.abs(layer["b"]).max() > 0 for layer in layers)
    assert params["token"]["rows"].shape == (1, 16)
    values = sum(layer["a"].shape[0] * 2 + 2 * layer["b"].shape[1] for layer in layers) + 16
    assert sum(x.size for x in jax.tree.leaves(params)) == values
    # parameters, their average and the two moments of the optimiser, with a page of names and shapes for each array
    on_disk = sum(path.stat().st_size for path in (tuned / "checkpoints" / "6").rglob("*") if path.is_file())
    assert on_disk < 4 * 4 * values + 4 * 1024 * len(jax.tree.leaves(found))


@pytest.mark.nightly
def test_prompts_have_the_new_word_on_any_devices(tuning, tuned, tmp_path):
    images = drawn(tuned, tmp_path / "eight")
    assert images.shape == (8, 16, 16, 3) and (images[0] != images[2]).mean() > 0.5  # the same text, another number
    words = [f"--workdir={tuned}", "--mode=sample", *PROMPTS, f"--out={tmp_path / 'one'}"]
    assert tiny.spawn(*words, devices=1).status == 0
    one = np.load(tmp_path / "one" / "samples.npz")["images"].astype(int)
    assert np.abs(one - images).max() <= 1
    assert tiny.call(f"--workdir={tuned}", "--mode=sample", "--prompt=a red star", f"--out={tmp_path / 'plain'}") == 0


@pytest.mark.slow
def test_the_files_of_a_run_put_on_its_base_draw_its_images(tuning, tuned, tmp_path, capsys):
    """The base is sampled from as it is, and with both files; the files are read by flags."""
    config, base = tuning
    assert export([str(tuned), str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "pytorch_lora_weights.safetensors: low-rank updates" in said and "the word <toy>" in said
    (rows,) = safetensors.numpy.load_file(tmp_path / "out" / "learned_embeds.safetensors").values()
    assert rows.shape == (16,)
    files = (f"--adapter=lora:{tmp_path / 'out'}", f"--adapter=embedding:{tmp_path / 'out'}")
    if (base / "model_index.json").exists():
        where = ("--config=configs/stable_diffusion.py", f"--config.init_from.pretrained={base}",
                 "--config.sampler.steps=2", "--config.sampler.guidance_scale=2.0")  # fmt: skip
    else:
        where = (
            f"--workdir={base}",
            "--config.sampler.name=ddim",
            "--config.sampler.steps=2",
            "--config.sampler.spacing=uniform",
            "--config.sampler.clip=False",
            "--config.guidance.scale=2.0",
        )
    where += ("--mode=sample", "--config.evaluate.batch_size=8")
    found = {}
    for name, adapters in (("with", files), ("tenth", (f"{files[0]}:0.1", files[1])), ("without", ())):
        prompts = PROMPTS if adapters else [text.replace("<toy>", "star").replace("<TOY>", "star") for text in PROMPTS]
        assert tiny.call(*where, *prompts, *adapters, f"--out={tmp_path / name}") == 0
        found[name] = np.load(tmp_path / name / "samples.npz")["images"].astype(int)
    images = drawn(tuned, tmp_path / "tuned")
    assert np.abs(found["with"] - images).max() <= 1
    assert (found["tenth"] != images).mean() > 0.2 and (found["without"] != images).mean() > 0.2


def complaint(capsys, *arguments):
    assert tiny.call(*arguments) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("jaxgen: "))
    return line


@pytest.mark.slow
def test_bad_words_files_and_adapters_are_one_sentence_before_anything_is_written(tuning, tuned, tmp_path, capsys):
    config, base = tuning
    new = tmp_path / "new"
    known = "cat" if (base / "model_index.json").exists() else "star"
    (tmp_path / "old.bin").write_bytes(b"\x80\x02}q\x00.")
    grafts = {
        f"token.word={known}": f"grafts.token: The word '{known}' is in .* already",
        "token.word=": "{} stands for the word .* teaches none",
        "token.initial=zzyzx": "grafts.token.*zzyzx",
        "token.initial_ids=(1,)": "both initial and initial_ids|starts from",
        f"token.file={tmp_path / 'old.bin'}": "is a pickle",
        f"lora.file={tmp_path / 'old.bin'}": "is a pickle",
        f"lora.file={tmp_path / 'gone.safetensors'}": "there is no such file",
        "lora.where=('": "no regular expression",
    }
    for change, told in grafts.items():
        said = complaint(capsys, f"--config={config}", f"--workdir={new}", f"--config.method.grafts.{change}")
        assert re.search(told, said), said
    adapters = {
        "lroa:x": "'lroa' is no kind of adapter; did you mean 'lora'",
        "lora:": "names no file",
        f"lora:{tmp_path / 'old.bin'}": "is a pickle",
        f"embedding:{tmp_path / 'gone.safetensors'}": "there is no such file",
    }
    for adapter, told in adapters.items():
        words = (f"--workdir={tuned}", "--mode=sample", f"--adapter={adapter}", f"--out={new}")
        assert told in complaint(capsys, *words)
    if not (base / "model_index.json").exists():
        assert export([str(tuned), str(new), "--merge"]) == 2
        assert "is no run of latent_diffusion that began with a folder of diffusers" in capsys.readouterr().err
    assert not new.exists()
