"""A T5 of a folder as the frozen text encoder of a base model, from the command line: trained, resumed, asked."""

from __future__ import annotations

import re

import jax
import numpy as np
import pytest
import tiny
from tiny_t5 import TEXTS, pieces, write_spiece

from jaxgen.interop.text_encoders.t5 import save_t5
from jaxgen.networks.pretrained.t5 import T5Encoder
from jaxgen.runs.comparison import compare

LENGTH = 24
SIZES = dict(width=8, depth=1, heads=2, head_width=4, mlp_features=8, buckets=8, farthest=6)


def write_t5(folder, vocabulary):
    """Writes a folder with weights, config and tokenizer, as a published T5's is."""
    encoder = T5Encoder(vocabulary, LENGTH, **SIZES)
    params = encoder.init(jax.random.key(0), np.zeros((1, 3), np.int32))["params"]
    save_t5(folder, encoder, params, shard=2000)
    chance = np.random.default_rng(0)
    arrays = {f"{split}_images": chance.integers(0, 256, (16, 8, 8, 3), np.uint8) for split in ("train", "test")}
    np.savez(folder / "data.npz", **arrays, **{f"{split}_captions": TEXTS * 4 for split in ("train", "test")})
    return write_spiece(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_t5(tmp_path_factory.mktemp("t5"), len(pieces()) + 100)


def options(folder, **changes):
    """Overrides of the shipped config: a network of a few thousand parameters, and the T5 of a folder."""
    network = {"name": "t5_encoder", "vocabulary": len(pieces()) + 100, "length": LENGTH, **SIZES}
    told = {
        "init_from.text": f"t5_encoder:{folder}",
        "data.source": f"npz:{folder / 'data.npz'}",
        "data.eval_split": "test",
        "data.tokenizer": folder,
        "data.token_length": LENGTH,
        "data.resolution": 8,
        "method.parts.text.network": network,
        "method.network.context_dim": 8,
        "method.network.vector_dim": 8,
        "method.network.channels": 8,
        "method.network.channel_multipliers": "(1,)",
        "method.network.attention_levels": "(0,)",
        "method.network.norm_groups": 4,
        "sampler.steps": 2,
        "train.batch_size": 8,
        "train.total_images": 32,
        "train.log_every_images": 8,
        "train.checkpoint_every_images": 8,
        "train.tensorboard": False,
        "evaluate.at_end": False,
        "evaluate.batch_size": 8,
        **changes,
    }
    return [f"--config.{key}={value}" for key, value in told.items()]


CONFIG = "--config=configs/imagen_shapes_base.py"


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "straight"
    assert tiny.call(CONFIG, f"--workdir={workdir}", *options(folder)) == 0
    return workdir


@pytest.mark.nightly
def test_the_encoder_stays_frozen_and_a_stopped_run_ends_as_one_that_was_not(run, folder, tmp_path):
    for images in (16, 32):
        changed = options(folder, **{"train.total_images": images, "optimizer.decay_images": 32})
        assert tiny.call(CONFIG, f"--workdir={tmp_path / 'parts'}", *changed) == 0
    assert compare(run, tmp_path / "parts") == []
    saved = {path.name for path in (run / "checkpoints").glob("*/params/*")}
    assert not any("text" in name for name in saved)


@pytest.mark.nightly
def test_prompts_of_every_kind_are_drawn_and_what_is_lost_of_them_is_told(run, tmp_path, caplog):
    def sampled(name, *more):
        caplog.clear()
        assert tiny.call(f"--workdir={run}", "--mode=sample", f"--out={tmp_path / name}", *more) == 0
        return np.load(tmp_path / name / "samples.npz")["images"], caplog.text

    texts = (TEXTS[0], "", "a star " * 40, "a \u6728 circle")
    images, said = sampled("kinds", *(f"--prompt={text}" for text in texts), "--negative_prompt=a circle")
    assert images.shape == (4, 8, 8, 3)
    assert "are cut" in said and "not in the vocabulary: '\u6728'" in said
    many = tmp_path / "many.txt"
    many.write_text("\n".join(TEXTS[i % 4] for i in range(2000)))
    few = tiny.call(f"--workdir={run}", "--mode=sample", f"--out={tmp_path / 'many'}", f"--prompts={many}", "--num=10")
    assert few == 2 and not (tmp_path / "many").exists()  # of 2,000 texts none is left out silently


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "network", "says"),
    [
        ({"init_from.text": "t5_encoder:gone"}, {}, "no file .*gone/config.json"),
        ({"data.tokenizer": "gone"}, {}, "no folder .*gone with a tokenizer"),
        ({"data.token_length": 30}, {}, "24 tokens at most, not 30"),
        ({}, {"mlp_features": 16}, "has shape .* in the loaded weights"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(folder, tmp_path, capsys, change, network, says):
    network = {"name": "t5_encoder", "vocabulary": len(pieces()) + 100, "length": LENGTH, **SIZES, **network}
    flags = options(folder, **{**change, "method.parts.text.network": network})
    assert tiny.call(CONFIG, f"--workdir={tmp_path / 'run'}", *flags) == 2
    said = capsys.readouterr().err
    assert re.search(says, said) and "Traceback" not in said, said
    assert not (tmp_path / "run").exists()
