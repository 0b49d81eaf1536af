"""Both stages of latent diffusion, the second on latents that were written once."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny

from jaxgen.sampling.latents import main

SMALL = ("channels=8", "blocks=1", "channel_multipliers=(1,1)", "middle_attention=False")


def shrunk(*networks):
    lengths = ("train.batch_size=8", "train.total_images=16", "train.log_every_images=8", "train.sample_every_images=0",
               "evaluate.num=16", "evaluate.batch_size=250")  # fmt: skip
    return [f"--config.{key}" for key in lengths] + [
        f"--config.method.{network}.{key}" for network in networks for key in SMALL
    ]


@pytest.mark.nightly
def test_the_second_stage_trains_samples_and_is_evaluated_without_its_encoder(tmp_path, capsys):
    first, second, data = tmp_path / "first", tmp_path / "second", tmp_path / "latents.npz"
    command = ["--config=configs/kl_autoencoder_digits.py", f"--workdir={first}", *shrunk("network")]
    assert tiny.call(*command) == 0
    assert (first / "samples" / "panel_reconstructions.png").exists()
    assert {"psnr", "l1", "kl", "feature_distance"} <= set(json.loads((first / "metrics.json").read_text()))

    assert main([str(first), str(data)]) == 0
    arrays = np.load(data)
    assert arrays["train_moments"].shape == (1297, 4, 4, 4) and arrays["test_labels"].shape == (500,)
    command = [
        "--config=configs/latent_diffusion_digits.py", f"--workdir={second}", f"--config.init_from.autoencoder={first}",
        f"--config.data.source=npz:{data}", "--config.sampler.steps=2", *shrunk("network", "autoencoder"),
    ]  # fmt: skip
    assert tiny.call(*command) == 0
    numbers = json.loads((second / "metrics.json").read_text())
    assert np.isfinite(numbers["denoising_loss"]["value"]) and 0.2 < numbers["latent_std"]["value"] < 5
    assert tiny.call(*command, "--mode=sample", "--num=3", f"--out={tmp_path / 'out'}") == 0
    assert np.load(tmp_path / "out" / "samples.npz")["images"].shape == (3, 8, 8, 1)
    capsys.readouterr()

    left_out = "autoencoder.channels", "--workdir"
    other = [a for a in command if not any(part in a for part in left_out)]  # a first stage of another size
    assert tiny.call(*other, f"--workdir={tmp_path / 'other'}") == 2
    assert "init_from.autoencoder" in capsys.readouterr().err
