"""A game of two players with BatchNorm on both sides: killed and resumed, on one device and on eight."""

from __future__ import annotations

import json
import re

import jax
import numpy as np
import pytest
import tiny

from jaxgen.config import files as config_files
from jaxgen.parallel.mesh import place
from jaxgen.runs import comparison, rehearsal
from jaxgen.train.loop import Trainer

CONFIG = tiny.ROOT / "configs" / "gan_digits.py"
SMALL = [
    "--config.method.generator.channels=4",
    "--config.method.discriminator.channels=4",
    "--config.train.batch_size=16",
]


@pytest.mark.slow
def test_kills_leave_no_trace(tmp_path):
    lengths = [*SMALL, "--config.train.total_images=640", "--config.train.log_every_images=64"]
    lengths += ["--config.train.checkpoint_every_images=64", "--config.train.sample_every_images=0"]
    lengths += ["--config.evaluate.at_end=False"]
    environment, log = tiny.environment(devices=2), tmp_path / "log.txt"
    straight, killed = (
        tiny.command(f"--config={CONFIG}", f"--workdir={tmp_path / name}", *lengths) for name in ("straight", "killed")
    )
    rehearsal.run_once(straight, environment, log)
    done = rehearsal.kill_and_resume(killed, environment, log, tmp_path / "killed", 2, longest=0.5, seed=1)
    assert len(done) == 2
    assert comparison.compare(tmp_path / "straight", tmp_path / "killed") == []
    found = comparison.checkpoint(tmp_path / "straight")
    assert any(name.startswith("memory/discriminator") for name in found)


@pytest.mark.slow
def test_eight_devices_play_the_game_of_one(tmp_path, devices):
    """BatchNorm's moments are those of the whole batch, not of a device's part."""
    assert devices == 8
    config, _ = config_files.load_config(CONFIG)
    for player in ("generator", "discriminator"):
        config.method[player].channels = 4
    config.train.update(batch_size=16, tensorboard=False)
    config.optimizer.update(name="sgd", learning_rate=0.05)
    del config.optimizer["b1"], config.optimizer["b2"]
    losses, memories = {}, {}
    for mesh in (1, 8):
        config.mesh.data = mesh
        trainer = Trainer(config, tmp_path / str(mesh))
        steps = [jax.device_get(trainer.take_step()) for _ in range(3)]
        losses[mesh] = [[step["discriminator/loss"], step["generator/loss"]] for step in steps]
        memories[mesh] = jax.device_get(trainer.state.memory)
        if mesh == 8:
            batches = (place(next(trainer.loader), trainer.mesh),)
            update = trainer.update(trainer.method.turns(0))
            program = update.lower(trainer.state, trainer.frozen, batches).compile().as_text()
        trainer.checkpoints.close()
    seen = re.findall(r"= f32\[(\d+),\d+,\d+,\d+\]\S* convolution", program)
    assert seen and "16" not in seen, "every device makes or sees all of a step's images"
    np.testing.assert_allclose(losses[8], losses[1], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), memories[8], memories[1])


@pytest.mark.slow
def test_the_best_and_the_last_checkpoint_are_both_evaluated(config, tmp_path, capsys):
    workdir = tmp_path / "run"
    command = [f"--config={config}", f"--workdir={workdir}", "--config.train.evaluate_every_images=128"]
    command += ["--config.train.keep_best=1", "--config.train.keep_last=1", "--config.train.total_images=384"]
    # the worst by this number is the first
    command += ["--config.train.best_metric=denoising_loss", "--config.train.best_mode=max"]
    assert tiny.call(*command) == 0
    last, best = (json.loads((workdir / f"metrics{name}.json").read_text()) for name in ("", "_best"))
    assert (last["_meta"]["images"], best["_meta"]["images"]) == (384, 128)
    assert best["denoising_loss"]["value"] > last["denoising_loss"]["value"]
    assert "Numbers of the best checkpoint" in (workdir / "report.html").read_text()
    capsys.readouterr()
    assert tiny.call("--mode=evaluate", f"--workdir={workdir}", "--checkpoint=best") == 0
    assert json.loads(capsys.readouterr().out)["denoising_loss"] == best["denoising_loss"]
    assert tiny.call("--mode=evaluate", f"--workdir={workdir}", "--checkpoint=5") == 2
    assert "no checkpoint of step 5" in capsys.readouterr().err
