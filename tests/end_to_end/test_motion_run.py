"""Videos from the command line: temporal layers on a run of images, trained, stopped, resumed, sampled and measured."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tiny
from PIL import Image

from jaxgen.report.images import animation
from jaxgen.runs.comparison import compare
from jaxgen.sampling.export import main as export

TEXT = '''"""Tiny images of moving shapes, and videos of them.

Paper: none; it exists to be tested.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="ddpm",
        network=section(
            name="unet", out_channels=3, channels=8, channel_multipliers=(1,), blocks=1, attention_resolutions=(),
            middle_attention=False, norm_groups=4,
        ),
        schedule=section(name="cosine", steps=1000),
        prediction_type="v",
    )
    if BASE:
        config.method = section(name="tuned", grafts=section(motion=section(name="motion", frames=3, heads=2)))
        config.init_from.pretrained = BASE
    config.sampler = section(name="ddim", steps=2)
    config.data.update(source="moving_shapes", resolution=8, channels=3)
    config.data.options = section(frames=3)
    config.optimizer.update(learning_rate=0.02, warmup_images=0)
    config.train.update(
        batch_size=8, total_images=32, log_every_images=8, checkpoint_every_images=0, sample_every_images=0,
        ema_decay=0.5, tensorboard=False,
    )
    config.evaluate.update(num=8, real=8, batch_size=8, at_end=False)
    if BASE:
        config.evaluate.metrics = ("tracks",)
    return config
'''


def train(config, workdir, *more):
    return tiny.call(f"--config={config}", f"--workdir={workdir}", *more)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The config of videos, and a trained run of it."""
    place = tmp_path_factory.mktemp("motion")
    (place / "images.py").write_text(TEXT.replace("BASE", "''"))
    assert train(place / "images.py", place / "base") == 0
    (place / "videos.py").write_text(TEXT.replace("BASE", repr(str(place / "base"))))
    assert train(place / "videos.py", place / "run") == 0
    return place / "videos.py", place / "run"


@pytest.mark.nightly
def test_a_stopped_run_ends_as_one_that_was_not(made, tmp_path):
    config, straight = made
    assert train(config, tmp_path / "parts", "--config.train.total_images=16") == 0
    assert train(config, tmp_path / "parts") == 0
    assert compare(straight, tmp_path / "parts") == []


@pytest.mark.slow
def test_samples_are_videos_and_the_gif_has_their_frames(made, tmp_path):
    _, workdir = made
    out = tmp_path / "out"
    assert tiny.call(f"--workdir={workdir}", "--mode=sample", "--num=8", f"--out={out}") == 0
    videos = np.load(out / "samples.npz")["video"]
    assert videos.shape == (8, 3, 8, 8, 3) and videos.dtype == np.uint8
    wanted = animation(videos.swapaxes(0, 1))
    with Image.open(out / "samples.gif") as gif:
        assert gif.n_frames == 3
        seen = []
        for i in range(3):
            gif.seek(i)
            seen.append(np.asarray(gif.convert("RGB")).astype(int))
    apart = np.array([[np.abs(one - frame).mean() for frame in wanted] for one in seen])
    assert (apart.argmin(1) == np.arange(3)).all() and np.diag(apart).max() < 4  # 256 colours a frame
    assert (out / "videos.gif").exists()


@pytest.mark.nightly
def test_the_folder_of_a_run_put_on_its_base_draws_its_videos(made, tmp_path, capsys):
    config, workdir = made
    assert export([str(workdir), str(tmp_path / "out")]) == 0
    assert "motion: temporal layers, for MotionAdapter.from_pretrained" in capsys.readouterr().out
    drawn = {}
    adapter = f"--adapter=motion:{tmp_path / 'out' / 'motion'}:3"
    for name, place, more in (("run", workdir, []), ("base", config.with_name("base"), [adapter])):
        words = [f"--workdir={place}", "--mode=sample", "--num=8", f"--out={tmp_path / name}", *more]
        assert tiny.call(*words) == 0
        drawn[name] = np.load(tmp_path / name / "samples.npz")["video"]
    np.testing.assert_array_equal(drawn["run"], drawn["base"])
    part = f"--config.method.grafts.motion.file={tmp_path / 'out' / 'motion'}"
    assert train(config, tmp_path / "heads", part, "--config.method.grafts.motion.heads=4") == 2
    assert "has temporal layers of heads=2, and the graft has 4" in capsys.readouterr().err
    assert export([str(workdir), str(tmp_path / "merged"), "--merge"]) == 2


@pytest.mark.slow
def test_a_run_of_videos_is_measured_by_its_tracks(made):
    _, workdir = made
    assert tiny.call(f"--workdir={workdir}", "--mode=evaluate") == 0
    found = json.loads((workdir / "metrics.json").read_text())
    assert {"track_error", "track_length", "flicker", "change_of_look", "denoising_loss"} <= {*found}


@pytest.mark.slow
def test_data_that_do_not_fit_are_refused_before_anything_is_written(made, tmp_path, capsys):
    config, _ = made
    for change, told in {
        "--config.data.options.frames=4": "is of 3 frames, and the data's videos have 4 frames",
        "--config.method.grafts.motion.frames=40": "positions=32 cannot see frames=40",
    }.items():
        assert train(config, tmp_path / "run", change) == 2
        assert told in capsys.readouterr().err and not (tmp_path / "run").exists()
    still = [line.replace("moving_shapes", "concept_shapes") for line in config.read_text().splitlines()]
    (tmp_path / "still.py").write_text("\n".join(line for line in still if "options" not in line))
    assert train(tmp_path / "still.py", tmp_path / "run") == 2
    assert "learns from videos, and a batch has" in capsys.readouterr().err and not (tmp_path / "run").exists()
