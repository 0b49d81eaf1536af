"""Objects in space from the command line: trained, stopped, resumed, and drawn as pictures, orbits and meshes."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import tiny

from jaxgen.runs.workdir import stored_config
from jaxgen.sampling.restore import restore

SMALL = (
    "--config.data.resolution=8", "--config.train.batch_size=8", "--config.train.log_every_images=8",
    "--config.train.checkpoint_every_images=16", "--config.train.tensorboard=False", "--config.train.ema_decay=0.9",
    "--config.train.sample_every_images=0", "--config.evaluate.at_end=False", "--config.evaluate.batch_size=8",
    "--config.method.generator.widths=(8,)", "--config.method.generator.features=4",
    "--config.method.generator.words=8", "--config.method.generator.samples=4",
    "--config.method.generator.z_dim=4", "--config.method.r1_every=2",
    "--config.method.discriminator.widths=(4,8)", "--config.method.discriminator.words=8",
)  # fmt: skip
KINDS = {"volume": (), "surface": ("--config.method.generator.surface=True", "--config.method.masks=True")}
CONFIG = f"--config={tiny.ROOT / 'configs' / 'triplane_solids.py'}"


@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_run_has_the_bits_of_one_that_was_never_stopped_and_draws_objects(kind, tmp_path, capsys):
    words = (CONFIG, *SMALL, *KINDS[kind])
    for name, images in (("resumed", 24), ("resumed", 48), ("whole", 48)):
        assert tiny.call(*words, f"--workdir={tmp_path / name}", f"--config.train.total_images={images}") == 0
    assert tiny.logged(tmp_path / "resumed") == tiny.logged(tmp_path / "whole")
    first, second = (
        restore(stored_config(tmp_path / name), tmp_path / name).model.params for name in ("resumed", "whole")
    )
    jax.tree.map(np.testing.assert_array_equal, first, second)
    common = (f"--workdir={tmp_path / 'whole'}", "--mode=sample")
    out, told = tmp_path / "out", "--prompt=a red cube on a blue sphere"
    assert tiny.call(*common, told, "--num=2", f"--out={out}") == 0
    drawn = np.load(out / "samples.npz")
    assert drawn["images"].shape == (2, 8, 8, 3) and drawn["depth"].shape == drawn["opacity"].shape == (2, 8, 8, 1)
    assert (out / "orbit.gif").exists() and (out / "panel_depth.png").exists()
    capsys.readouterr()
    assert tiny.call(*common, "--prompt=a red elephant", f"--out={tmp_path / 'no'}") == 2
    assert "elephant" in capsys.readouterr().err and not (tmp_path / "no").exists()
