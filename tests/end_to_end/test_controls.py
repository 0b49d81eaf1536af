"""A ControlNet and keys that learn, from the command line: train, resume, sample with a hint, export both."""

from __future__ import annotations

import re

import jax
import numpy as np
import pytest
import tiny
import tiny_finetune
import tiny_pipeline
from PIL import Image

from jaxgen.config.files import load_config
from jaxgen.planning.programs import Job
from jaxgen.runs.comparison import compare
from jaxgen.sampling.export import main as export

pytestmark = pytest.mark.slow

TEXT = '''"""Steers a tiny model by edges.

Paper: none; it exists to be tested.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    kv = section(name="leaves", where="cross_attention/(key|value)/")
    config.method = section(name="tuned", grafts=section(control=section(name="control", hint_widths=(4, 6)), kv=kv))
    config.init_from.pretrained = "BASE"
    config.data.update(source="folder:PICTURES", resolution=16, channels=3)
    config.data.captions = ("a cat",)
    config.data.corruptions.hint = section(name="edges")
    config.optimizer.learning_rate = 3e-2
    config.train.update(
        batch_size=8, total_images=48, log_every_images=8, checkpoint_every_images=0, sample_every_images=0,
        ema_decay=0.5, tensorboard=False,
    )
    config.evaluate.update(num=8, batch_size=8, at_end=False)
    config.sampler = section(name="ddim", steps=2, clip=False, guidance_scale=2.0)
    return config
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder of diffusers, a config, two hints, and a run of that config."""
    place = tmp_path_factory.mktemp("controls")
    tiny_pipeline.write(place / "base")
    tiny_finetune.write_pictures(place / "few", captions=False)
    (place / "control.py").write_text(TEXT.replace("BASE", str(place / "base")).replace("PICTURES", str(place / "few")))
    chance = np.random.default_rng(0)
    (place / "hints").mkdir()
    for name in "ab":
        drawing = np.where(chance.random((16, 16)) < 0.3, 255, 0).astype(np.uint8)
        Image.fromarray(drawing).save(place / "hints" / f"{name}.png")
    assert tiny.call(f"--config={place / 'control.py'}", f"--workdir={place / 'run'}") == 0
    return place


def drawn(place, out, *words):
    status = tiny.call(
        *words, "--mode=sample", "--num=4", "--prompt=a red cat", f"--hint={place / 'hints'}", f"--out={out}"
    )
    assert status == 0
    return np.load(out / "samples.npz")["images"].astype(int)


def of_base(place, *adapters):
    return (
        "--config=configs/stable_diffusion.py", f"--config.init_from.pretrained={place / 'base'}", *adapters,
        "--config.sampler.name=ddim", "--config.sampler.steps=2", "--config.sampler.guidance_scale=2.0",
        "--config.evaluate.batch_size=4",
    )  # fmt: skip


@pytest.mark.nightly
def test_a_stopped_run_ends_as_one_that_was_not(place, tmp_path):
    for total in (24, 48):
        words = (f"--config={place / 'control.py'}", f"--workdir={tmp_path / 'parts'}")
        assert tiny.call(*words, f"--config.train.total_images={total}") == 0
    assert compare(place / "run", tmp_path / "parts") == []


@pytest.mark.nightly
def test_the_exported_folder_on_the_base_draws_the_runs_images(place, tmp_path, capsys):
    assert export([str(place / "run"), str(tmp_path / "out")]) == 0
    assert "out/control: a ControlNet of the hint 'hint'" in capsys.readouterr().out
    images = drawn(place, tmp_path / "run", f"--workdir={place / 'run'}")
    adapter = f"--adapter=controlnet:{tmp_path / 'out' / 'control'}"
    found = drawn(place, tmp_path / "with", *of_base(place, adapter, f"--adapter=custom_diffusion:{tmp_path / 'out'}"))
    assert np.abs(found - images).max() <= 1
    none = drawn(place, tmp_path / "none", *of_base(place, f"{adapter}:0"))
    words = [word for word in of_base(place)]
    assert tiny.call(*words, "--mode=sample", "--num=4", "--prompt=a red cat", f"--out={tmp_path / 'plain'}") == 0
    np.testing.assert_array_equal(none, np.load(tmp_path / "plain" / "samples.npz")["images"])
    assert (images != none).mean() > 0.2 and (images[0] != images[1]).mean() > 0.2
    assert export([str(place / "run"), str(tmp_path / "merged"), "--merge"]) == 2
    assert "cannot be merged" in capsys.readouterr().err


@pytest.mark.nightly
def test_the_scale_of_a_run_may_be_another_where_it_is_used_but_not_where_it_learns(place, tmp_path, capsys):
    """0 draws as the scale 0 of the exported folder; a resumed training keeps its own."""
    other = "--config.method.grafts.control.scale=0.0"
    images = drawn(place, tmp_path / "run", f"--workdir={place / 'run'}")
    none = drawn(place, tmp_path / "none", f"--workdir={place / 'run'}", other)
    assert (images != none).mean() > 0.2 and (none[0] == none[2]).mean() < 1
    white = place / "white.png"
    Image.fromarray(np.full((16, 16), 255, np.uint8)).save(white)
    words = ("--mode=sample", "--num=4", "--prompt=a red cat", f"--hint={white}", f"--out={tmp_path / 'white'}")
    assert tiny.call(f"--workdir={place / 'run'}", other, *words) == 0
    np.testing.assert_array_equal(none, np.load(tmp_path / "white" / "samples.npz")["images"])
    config = (f"--config={place / 'control.py'}", f"--workdir={place / 'run'}")
    assert "control.scale was" in complaint(capsys, *config, other)


def test_it_is_planned_with_the_hint_that_its_images_give(place):
    """The hint is no entry of the data; a plan of a control failed for want of it."""
    config, _ = load_config(str(place / "control.py"))
    job = Job(config, jax.devices()[:1])
    assert not job.absent and "hint" not in job.example
    job.trace_update()
    assert job.state.params["control"]


@pytest.mark.nightly
def test_its_hint_error_is_measured(place, capsys):
    assert tiny.call(f"--workdir={place / 'run'}", "--mode=evaluate", "--config.evaluate.metrics=('hint_error',)") == 0
    assert "hint_error" in capsys.readouterr().out


def complaint(capsys, *arguments):
    assert tiny.call(*arguments) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("jaxgen: "))
    return line


@pytest.mark.nightly
def test_what_cannot_be_is_one_sentence(place, tmp_path, capsys):
    assert export([str(place / "run"), str(tmp_path / "out")]) == 0
    capsys.readouterr()
    new = ("--mode=sample", "--prompt=a red cat", f"--out={tmp_path / 'new'}")
    adapter = f"--adapter=controlnet:{tmp_path / 'out' / 'control'}"
    for words, told in {
        of_base(place, adapter): "give --hint",
        of_base(place, adapter, f"--mask={place / 'hints' / 'a.png'}"): "--mask",
        of_base(place, f"--hint={place / 'hints'}"): "has no use for it",
        of_base(place, f"--adapter=controlnet:{place / 'base'}", f"--hint={place / 'hints'}"): "config.json",
        of_base(place, "--adapter=controlnet:", f"--hint={place / 'hints'}"): "names no file",
    }.items():
        said = complaint(capsys, *words, *new)
        assert re.search(told, said), said
    assert not (tmp_path / "new").exists()
    config = (f"--config={place / 'control.py'}", f"--workdir={tmp_path / 'bad'}")
    for change, told in {
        "method.grafts.control.entry=sketch": "reads the entry 'sketch'",
        "method.grafts.control.hint_widths=(4,)": "give one width more",
        "method.grafts.control.start_share=1.0": "start_share to end_share",
        f"method.grafts.control.file={place / 'few'}": "config.json",
    }.items():
        said = complaint(capsys, *config, f"--config.{change}")
        assert re.search(told, said), said
    assert not (tmp_path / "bad").exists()
