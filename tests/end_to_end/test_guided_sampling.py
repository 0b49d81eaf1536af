"""Guidance through the command line: weights of another run, a section added when a trained model is used."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A classifier of digits that has learned something."""
    workdir = tmp_path_factory.mktemp("runs") / "classifier"
    lean = [
        "--config.train.total_images=12800",
        "--config.train.checkpoint_every_images=0",
        "--config.evaluate.at_end=False",
    ]
    assert tiny.call("--config=configs/classifier_digits.py", f"--workdir={workdir}", *lean) == 0
    return workdir


@pytest.fixture(scope="module")
def blind(tmp_path_factory):
    """A config of a model that does not see the labels of its data, and its run."""
    folder = tmp_path_factory.mktemp("configs")
    path = tiny.write_config(folder, conditional=True)
    path.write_text(path.read_text().replace("            num_classes=10,", "            num_classes=0,"))
    lean = ["--config.train.sample_every_images=0", "--config.evaluate.at_end=False"]
    assert tiny.call(f"--config={path}", f"--workdir={folder / 'run'}", *lean) == 0
    return path, folder / "run"


@pytest.mark.slow
def test_a_trained_model_is_guided_by_another_run(classifier, blind, tmp_path):
    """Universal guidance of a hardly trained model: what it draws is what the classifier takes for the label."""
    config, workdir = blind
    guided = [
        "--config.guidance.name=universal",
        "--config.guidance.scale=3.0",
        "--config.guidance.network.name=classifier",
        "--config.guidance.network.widths=(12,16,16)",
        f"--config.init_from.classifier={classifier}",
        "--config.sampler.steps=10",
    ]
    shown = {}
    for scale in ("0.0", "3.0"):
        out = tmp_path / scale
        guided[1] = f"--config.guidance.scale={scale}"
        arguments = [f"--config={config}", f"--workdir={workdir}", "--mode=sample", "--num=8", f"--out={out}"]
        labels = ["--labels=0,1"] if scale == "3.0" else []  # at scale 0 they have no effect
        assert tiny.call(*arguments, *labels, *guided) == 0
        shown[scale] = np.load(out / "samples.npz")
        assert not labels or shown[scale]["labels"].tolist() == [0, 1] * 4
    apart = np.abs(shown["0.0"]["images"].astype(int) - shown["3.0"]["images"].astype(int))
    assert apart.mean() > 3


@pytest.mark.slow
def test_guidance_without_its_weights_says_which(blind, tmp_path, capsys):
    config, workdir = blind
    arguments = [f"--config={config}", f"--workdir={workdir}", "--mode=sample", "--num=2", f"--out={tmp_path}"]
    network = ["--config.guidance.network.name=classifier", "--config.guidance.name=universal"]
    assert tiny.call(*arguments, *network) == 2
    assert "config.init_from.classifier" in capsys.readouterr().err


def test_classifier_free_guidance_needs_dropped_labels(labelled, tmp_path, capsys):
    resolved = json.loads((labelled / "config.json").read_text())
    assert resolved["guidance"] == {}
    config = tiny.write_config(tmp_path / "c", conditional=True)
    arguments = [f"--config={config}", f"--workdir={labelled}", "--mode=sample", "--num=2", f"--out={tmp_path}"]
    assert tiny.call(*arguments, "--config.guidance.name=classifier_free", "--config.guidance.scale=2.0") == 2
    assert "trained with its condition and without" in capsys.readouterr().err
