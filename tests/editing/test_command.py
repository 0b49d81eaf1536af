"""The pictures, and the command that draws them for a trained run."""

import json

import jax
import numpy as np
import pytest
import tiny
from exact import LINEAR, make_keys, modes
from PIL import Image

from jaxgen.diffusion.samplers.ddim import DDIM as ddim
from jaxgen.editing.__main__ import MOVING, edit, main
from jaxgen.editing.model import DiffusionModel
from jaxgen.editing.panels import CAPTIONS, coarse, editing_panels, right_half


def test_the_pictures_show_what_their_captions_say():
    images = jax.random.uniform(jax.random.key(0), (2, 8, 8, 1), minval=-1.0)
    panels = jax.jit(
        lambda x, k: editing_panels(
            DiffusionModel(modes(LINEAR), LINEAR, ddim(10, eta=1.0)), k, x, 20, 4, (1.0, 0.0), (0.0, 0.5)
        )
    )(images, make_keys(2))
    assert set(panels) == set(CAPTIONS)
    for frames in panels.values():
        assert frames.shape[-3:] == (8, 8, 1) and np.isfinite(frames).all()
    np.testing.assert_array_equal(panels["inversion"][0], images)
    assert panels["inversion"].shape[:2] == (9, 2)
    # the arc from noise 0 to noise 1 ends where the arc from noise 1 begins
    np.testing.assert_allclose(panels["interpolation"][-1, 0], panels["interpolation"][0, 1], atol=1e-4)
    # two images by four branches, the branches of an image beside each other
    last = panels["branching"][1]
    np.testing.assert_array_equal(last[:4], np.repeat(last[:1], 4, axis=0))
    assert np.abs(last[0] - last[4]).max() > 0.1
    np.testing.assert_array_equal(panels["sdedit"][1], coarse(images))
    kept = np.asarray(right_half(images))[0, 0, :, 0] == 0
    np.testing.assert_array_equal(panels["masked_edit"][1][:, :, kept], images[:, :, kept])
    assert np.abs(panels["masked_edit"][1] - panels["masked_edit"][2])[:, :, ~kept].max() > 0.1


@pytest.mark.slow
def test_a_trained_run_is_drawn(tmp_path):
    """With labels: those of the held-out images."""
    config = tiny.write_config(tmp_path, conditional=True)
    lean = ["--config.train.sample_every_images=0", "--config.evaluate.at_end=False"]
    assert tiny.call(f"--config={config}", f"--workdir={tmp_path / 'run'}", *lean) == 0
    out = tmp_path / "out"
    edit(tmp_path / "run", out, 2, steps=8, inversion_steps=(6,), branch_times=(1.0,), strengths=(0.5,))
    numbers = json.loads((out / "editing.json").read_text())
    assert numbers["inversion_error_refined"]["6"] != numbers["inversion_error"]["6"] > 0
    assert numbers["branching_diversity"]["1.0"] > 0
    assert set(json.loads((out / "captions.json").read_text())) == set(CAPTIONS)
    for name in CAPTIONS:
        with Image.open(out / (f"{name}.png" if name in MOVING else f"panel_{name}.png")) as rows:
            assert rows.size[0] > 2 * 8 and rows.size[1] > 2 * 8
    with Image.open(out / "inversion.gif") as moving:
        assert moving.n_frames > 8


def test_a_folder_without_a_run_is_refused(tmp_path, capsys):
    assert main([f"--workdir={tmp_path}", f"--out={tmp_path}"]) == 2
    assert "no run" in capsys.readouterr().err
