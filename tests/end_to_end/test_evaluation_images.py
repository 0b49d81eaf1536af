"""How many real images a model is evaluated against."""

from __future__ import annotations

import json

import pytest
import tiny


@pytest.mark.slow
def test_no_more_real_images_are_looked_at_than_asked_for(config, run):
    command = [f"--config={config}", f"--workdir={run}", "--mode=evaluate", "--config.evaluate.real=40"]
    assert tiny.call(*command) == 0
    numbers = json.loads((run / "metrics.json").read_text())
    loss, distance = numbers["denoising_loss"], numbers["frechet_digits"]
    assert (loss["n"], loss["reference_n"], loss["floor_n"]) == (40, 40, 40)
    assert "digits/test (40)" in loss["reference"] and "digits/test (40)" in distance["reference"]
