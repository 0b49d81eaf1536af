"""Both stages of an autoregressive model: they resume to the bit, codes are written once, and prompts are drawn."""

from __future__ import annotations

import json

import numpy as np
import pytest
import running
import tiny

from jaxgen.config import files
from jaxgen.data import open_source
from jaxgen.runs.comparison import compare
from jaxgen.runs.workdir import stored_config
from jaxgen.sampling.latents import main as latents

NETWORK = {"channels": 8, "channel_multipliers": (1, 1), "latent_channels": 3, "codes": 7, "middle_attention": False}


def config_of(name, network, source):
    """A shipped config at 8x8 pixels, with four codes a side."""
    config, _ = files.load_config(tiny.ROOT / "configs" / f"{name}.py")
    config.method[network].update(NETWORK)
    config.data.update(source=source, resolution=8)
    config.train.update(batch_size=4, log_every_images=8, checkpoint_every_images=8, sample_every_images=0)
    config.train.update(total_images=16, tensorboard=False)
    config.evaluate.update(num=8, real=8, batch_size=8)
    return config


@pytest.mark.nightly
def test_both_stages_resume_and_draw_what_a_prompt_says(tmp_path, capsys):
    shown = open_source("caption_shapes:phrases", "test", 8, 3)
    arrays = {}
    for split, rows in {"train": range(24), "test": range(24, 40)}.items():
        arrays |= {f"{split}_{name}": values for name, values in shown.take(rows).items()}
    np.savez(tmp_path / "data.npz", **arrays)
    (tmp_path / "data.npz.tokenizer.json").write_text(shown.tokenizer.to_json())

    first = config_of("vq_autoencoder_shapes", "network", f"npz:{tmp_path / 'data.npz'}")
    running.run(first, tmp_path / "vq")
    for images in (8, 16):
        running.run(first, tmp_path / "parts", images)
    assert compare(tmp_path / "vq", tmp_path / "parts") == []

    codes = tmp_path / "codes.npz"
    assert latents([str(tmp_path / "vq"), str(codes)]) == 0
    found = np.load(codes)
    assert found["train_codes"].shape == (24, 4, 4) and found["test_codes"].dtype == np.int32
    assert 0 <= found["train_codes"].min() and found["train_codes"].max() < 7

    second = config_of("autoregressive_shapes", "autoencoder", f"npz:{codes}")
    second.method.network.update(width=8, depth=1, heads=2, dropout=0.1)
    second.init_from.autoencoder = str(tmp_path / "vq")
    running.run(second, tmp_path / "straight")
    for images in (8, 16):
        running.run(second, tmp_path / "halves", images)
    assert compare(tmp_path / "straight", tmp_path / "halves") == []
    assert stored_config(tmp_path / "straight") is not None

    capsys.readouterr()
    run = [f"--workdir={tmp_path / 'straight'}"]
    assert tiny.call(*run, "--mode=evaluate") == 0
    numbers = json.loads(capsys.readouterr().out)
    assert 0 < numbers["bits_per_code"]["value"] < 2 * np.log2(7) and "attribute_accuracy" in numbers
    sample = [*run, "--mode=sample", "--num=2"]
    assert tiny.call(*sample, "--prompt=a red circle at the top left", "--prompt=", f"--out={tmp_path / 'out'}") == 0
    drawn = np.load(tmp_path / "out" / "samples.npz")
    assert drawn["images"].shape == (2, 8, 8, 3) and drawn["codes"].shape == (2, 4, 4)
    assert (tmp_path / "out" / "panel_completions.png").exists()
    assert tiny.call(*sample, "--prompt=a red dog", f"--out={tmp_path / 'no'}") == 2
    assert "'dog' is not in the captions' vocabulary" in capsys.readouterr().err
    assert tiny.call(*sample, "--config.sampler.top_p=1.5", f"--out={tmp_path / 'no'}") == 2
    assert "config.sampler.top_p is 1.5" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
