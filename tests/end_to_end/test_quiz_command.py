"""`--mode=evaluate --quiz`: the page shows the run's samples against held-out images."""

from __future__ import annotations

import base64
import io
import json
import re

import numpy as np
import pytest
import tiny
from PIL import Image

from jaxgen.data import open_source


@pytest.mark.nightly
def test_the_quiz_shows_samples_and_held_out_images(run, tmp_path, capsys):
    lean = ["--config.evaluate.metrics=()"]
    config = [f"--config={tiny.write_config(tmp_path)}", f"--workdir={run}"]
    assert tiny.call(*config, *lean, "--mode=evaluate", "--quiz", "--num=6", "--seed=3") == 0
    assert "denoising_loss" in json.loads(capsys.readouterr().out)
    assert tiny.call(*config, "--mode=sample", "--num=6", "--seed=3", f"--out={tmp_path / 'out'}") == 0
    samples = {image.tobytes() for image in np.load(tmp_path / "out" / "samples.npz")["images"]}
    held_out = {image.tobytes() for image in open_source("digits", "test", 8, 1).arrays["image"]}

    text = (run / "quiz.html").read_text()
    found = json.loads(re.search('<script type="application/json" id="quiz">(.*?)</script>', text, re.S)[1])
    shown = {
        name: np.asarray(Image.open(io.BytesIO(base64.b64decode(code)))).tobytes()
        for name, code in found["pictures"].items()
    }
    assert len(found["pairs"]) == 6 and found["details"]["run"] == run.name
    for pair in found["pairs"]:
        kinds = sorted((shown[name] in samples, shown[name] in held_out) for name in pair)
        assert kinds == [(False, True), (True, False)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--mode=sample", "--out=x"], "--quiz has no use in --mode=sample; it is for --mode=evaluate"),
        (["--mode=train"], "--quiz has no use in --mode=train; it is for --mode=evaluate"),
        (["--mode=evaluate", "--num=0"], "--num=0"),
        (["--mode=evaluate", "--labels=1"], "--labels has no use in --mode=evaluate"),
    ],
)
def test_where_it_does_not_belong_is_one_sentence(arguments, words, tmp_path, capsys):
    config = tiny.write_config(tmp_path)
    assert tiny.call(f"--config={config}", f"--workdir={tmp_path / 'run'}", "--quiz", *arguments) == 2
    assert words in tiny.Result(2, *capsys.readouterr()).complaint
    assert not (tmp_path / "run").exists()
