"""A package of somebody else, outside the checkout: every kind of class that a config may name comes from it, by
`package.module:Class`, and nothing of jaxgen is edited."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess

import numpy as np
import pytest
import tiny

from jaxgen.files import read_metrics

FILES = {
    "__init__.py": "",
    "data.py": '''
import numpy as np
from jaxgen.data import Source

class Cells(Source):
    """Round cells, the smaller ones of class 0."""

    def __len__(self):
        return 60

    def __getitem__(self, index):
        height, width = self.request.resolution
        y, x = np.mgrid[:height, :width]
        radius = 2 + index % 2 + len(self.request.argument)
        inside = np.hypot(y - height / 2, x - width / 2) < radius
        return {"image": np.where(inside, 255 - index, index).astype(np.uint8)[..., None], "label": np.int32(index % 2)}
''',
    "networks.py": '''
import flax.linen as nn
import jax.numpy as jnp

class Blur(nn.Module):
    """Two convolutions that see the time as one more channel."""

    width: int = 4

    @nn.compact
    def __call__(self, x, time, train=False):
        t = jnp.broadcast_to(time.reshape(-1, 1, 1, 1) / 1000, (*x.shape[:-1], 1))
        hidden = nn.silu(nn.Conv(self.width, (3, 3))(jnp.concatenate([x, t], axis=-1)))
        return nn.Conv(x.shape[-1], (3, 3))(hidden)
''',
    "diffusion.py": '''
import dataclasses
import jax
import jax.numpy as jnp
import numpy as np
from jaxgen.diffusion.samplers.base import LinearSampler
from jaxgen.diffusion.samplers.coefficients import SolverCoefficients
from jaxgen.diffusion.schedules import VP
from jaxgen.diffusion.prediction_types import PredictionType
from jaxgen.diffusion.timesteps import TimestepSampler
from jaxgen.diffusion.weighting import Weighting

@dataclasses.dataclass(frozen=True)
class Sum(PredictionType):
    """The clean image and the noise added up."""

    def pair(self, schedule, t):
        return 1.0, 1.0

@dataclasses.dataclass(frozen=True)
class Even(Weighting):
    """The same at every level."""

    factor: float = 1.0

    def __call__(self, schedule, t, prediction_type):
        return jnp.full_like(t, self.factor)

@dataclasses.dataclass(frozen=True)
class Gentle(VP):
    """Half the usual noise rate."""

    beta_max: float = 10.0

@dataclasses.dataclass(frozen=True)
class Late(TimestepSampler):
    """Every time is the last."""

    t: float = 1.0

    def sample(self, key, count, schedule, memory=None):
        return jnp.full(count, self.t), jnp.ones(count)

@dataclasses.dataclass(frozen=True)
class Straight(LinearSampler):
    """DDIM without noise, written again."""

    def coefficients(self, schedule, times):
        alpha, sigma = schedule.alpha(times), schedule.sigma(times)
        move = sigma[1:] / sigma[:-1]
        steps = zip(times[:-1], times[1:], move, alpha[1:] - move * alpha[:-1], strict=True)
        return SolverCoefficients.from_rows("x0", [{"t": t, "s": s, "move": m, "step": [a]} for t, s, m, a in steps])
''',
    "games.py": '''
import dataclasses
import jax
from jaxgen.adversarial.losses import GANLoss

@dataclasses.dataclass(frozen=True)
class Slope(GANLoss):
    """A Wasserstein game on a scale."""

    scale: float = 1.0

    def discriminator(self, real, fake):
        return -self.scale * real, self.scale * fake

    def generator(self, fake, real=None):
        return -self.scale * fake
''',
    "metrics.py": '''
from jaxgen.metrics.base import RunMetric
from jaxgen.metrics.score import Score

class MeanGrey(RunMetric):
    """The mean value of all pixels, beside that of training images."""

    better = None

    def scores(self, images, network):
        floor = float(images.train.mean())
        value = float(images.samples.mean())
        return {"mean_grey": Score(value, n=len(images.samples), reference=images.held_out_name, floor=floor)}
''',
    "methods.py": '''
import dataclasses
from jaxgen.adversarial.losses import GANLoss, Hinge
from jaxgen.methods.diffusion.ddpm import DDPM

@dataclasses.dataclass(frozen=True)
class Sceptic(DDPM):
    """DDPM whose error is what a game's generator descends."""

    game: GANLoss = Hinge()

    def loss(self, params, batch, key, state):
        error, (metrics, memory) = super().loss(params, batch, key, state)
        return self.game.generator(-error), ({**metrics, "error": error}, memory)
''',
}

CONFIG = '''"""A stranger's experiment.

Paper: none; it exists to be tested.
"""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="cell_lab.methods:Sceptic",
        network="cell_lab.networks:Blur",
        schedule=section(name="cell_lab.diffusion:Gentle", beta_max=12.0),
        prediction_type="cell_lab.diffusion:Sum",
        weighting=section(name="cell_lab.diffusion:Even", factor=0.5),
        timesteps=section(name="cell_lab.diffusion:Late", t=0.5),
        game=section(name="cell_lab.games:slope", scale=2.0),
    )
    config.sampler = section(name="cell_lab.diffusion:Straight", steps=3, clip=True)
    config.data.update(source="cell_lab.data:Cells:xx", resolution=8, channels=1)
    config.optimizer.update(name="sgd", learning_rate=1e-3)
    config.train.update(
        batch_size=8, total_images=32, log_every_images=8, checkpoint_every_images=0, sample_every_images=0,
        ema_decay=0.5,
    )
    config.evaluate.update(num=16, batch_size=16, metrics=("cell_lab.metrics:MeanGrey",))
    return config
'''


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> pathlib.Path:
    """A folder with the package `cell_lab` and a config."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "cell_lab").mkdir()
    for name, text in FILES.items():
        (folder / "cell_lab" / name).write_text(text)
    (folder / "experiment.py").write_text(CONFIG)
    return folder


def run(lab: pathlib.Path, *arguments: str) -> tiny.Result:
    """`main.py arguments` in the stranger's folder, whose package Python can import."""
    done = subprocess.run(
        tiny.command(*arguments), cwd=lab, env=tiny.environment(PYTHONPATH=os.fspath(lab)), capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip
    return tiny.Result(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def workdir(lab) -> pathlib.Path:
    """A run of the experiment."""
    done = run(lab, "--config=experiment.py", "--workdir=run")
    assert done.status == 0, done.err
    return lab / "run"


def test_it_trains_with_all_of_its_own_classes(workdir):
    rows = read_metrics(workdir / "metrics.jsonl")
    assert [row["images"] for row in rows] == [8, 16, 24, 32]
    for row in rows:  # the game's scale, on the method's own error
        np.testing.assert_allclose(row["denoise/loss"], 2 * row["denoise/error"], rtol=1e-6)
    assert (workdir / "report.html").exists()


def test_it_samples_from_the_run(lab, workdir):
    done = run(lab, "--mode=sample", "--workdir=run", "--num=4", "--out=drawn", "--trust=cell_lab")
    assert done.status == 0, done.err
    with np.load(lab / "drawn" / "samples.npz") as drawn:
        assert next(iter(drawn.values())).shape == (4, 8, 8, 1)
    assert "network evaluations" in done.err


def test_a_stored_config_alone_does_not_make_the_package_run(lab, workdir):
    done = run(lab, "--mode=sample", "--workdir=run", "--num=4", "--out=not_drawn")
    assert done.status == 2 and "add --trust=cell_lab." in done.err and done.err.count("\n") == 1
    assert not (lab / "not_drawn").exists()


def test_its_metric_is_evaluated_at_the_end(workdir):
    entry = json.loads((workdir / "metrics.json").read_text())["mean_grey"]
    assert entry["n"] == 16 and 0 < entry["value"] < 255 and 0 < entry["floor"] < 255
    assert entry["reference"] == "cell_lab.data:Cells:xx/test (60)"


def test_the_same_command_resumes(lab, workdir):
    done = run(lab, "--config=experiment.py", "--workdir=run", "--config.train.total_images=40")
    assert done.status == 0, done.err
    assert [row["images"] for row in read_metrics(workdir / "metrics.jsonl")][-1] == 40


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("method.game.name=cell_lab.games:Slop", "cell_lab.games defines no 'Slop'; did you mean 'Slope'?"),
        ("method.game.name=cell_lab.data:Cells", "='cell_lab.data:Cells' is not a GANLoss (jaxgen.adversarial.losses:"),
        ("sampler.name=cell_lab.games:Slope", "config.sampler.name='cell_lab.games:Slope' is not a Sampler"),
        ("data.source=cell_lab.data:Cell", "cell_lab.data defines no 'Cell'; did you mean 'Cells'?"),
        ("evaluate.metrics=('cell_lab.games:Slope',)", "='cell_lab.games:Slope' is not a RunMetric ("),
        ("data.channels=3", "The images of 'cell_lab.data:Cells:xx' are uint8 (8, 8, 1)"),
        ("method.schedule.beta_maximum=1.0", ".beta_maximum does not exist; did you mean 'beta_max'?"),
        ("method.name=no_lab.methods:Sceptic", "there is no module 'no_lab'"),
    ],
)
def test_a_mistake_is_one_sentence(lab, change, message, monkeypatch, capsys):
    monkeypatch.syspath_prepend(lab)
    arguments = [f"--config={lab / 'experiment.py'}", f"--workdir={lab / 'wrong'}", f"--config.{change}"]
    assert tiny.call(*arguments) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
