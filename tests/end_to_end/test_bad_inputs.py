"""Bad input ends in status 2 and one sentence that names the thing, and what was there stays as it was."""

from __future__ import annotations

import json
import os
import pathlib
import resource
import shutil
import subprocess

import numpy as np
import pytest
import tiny
from PIL import Image

# name of the case: (what is added to a sound command, what the sentence names)
ARGUMENTS = {
    "misspelt shared key": (["--config.train.batch_sise=8"], "'batch_size'"),
    "misspelt section": (["--config.trian.batch_size=8"], "trian"),
    "section as a value": (["--config.train=5"], "config.train"),
    "key below a value": (["--config.seed.low=5"], "seed.low"),
    "word for a number": (["--config.train.batch_size=many"], "config.train.batch_size"),
    "fraction for a count": (["--config.train.batch_size=2.5"], "config.train.batch_size"),
    "no batch": (["--config.train.batch_size=0"], "config.train.batch_size"),
    "negative batch": (["--config.train.batch_size=-4"], "config.train.batch_size"),
    "no length": (["--config.train.total_images=0"], "config.train.total_images"),
    "endless": (["--config.train.total_images=5000000000"], "config.train.total_images"),
    "negative cadence": (["--config.train.checkpoint_every_images=-1"], "config.train.checkpoint_every_images"),
    "negative seed": (["--config.seed=-1"], "config.seed"),
    "decay of one": (["--config.train.ema_decay=1.0"], "config.train.ema_decay"),
    "no judging batch": (["--config.evaluate.batch_size=0"], "config.evaluate.batch_size"),
    "no judging": (["--config.evaluate.num=1"], "config.evaluate.num"),
    "negative crop": (["--config.data.crop=-1"], "config.data.crop"),
    "no pixels": (["--config.data.resolution=0"], "config.data.resolution"),
    "best of nothing": (["--config.train.keep_best=1"], "config.train.best_metric"),
    "accumulation that does not divide": (["--config.train.accumulate=3"], "config.train.accumulate"),
    "mesh that does not divide": (["--config.mesh.data=3"], "config.mesh.data=3"),
    "mesh larger than the machine": (["--config.mesh.data=64"], "config.mesh.data=64"),
    "misspelt method": (["--config.method.name=dppm"], "'ddpm'"),
    "unknown package": (["--config.method.name=nowhere.at_all:Thing"], "nowhere.at_all"),
    "misspelt key of the method": (["--config.method.predicton=v"], "'prediction'"),
    "misspelt key of the network": (["--config.method.network.chanels=8"], "'channels'"),
    "word for the network's number": (["--config.method.network.channels=wide"], "config.method.network.channels"),
    "unknown prediction": (["--config.method.prediction=noise"], "config.method.prediction"),
    "groups that do not divide": (["--config.method.network.norm_groups=3"], "norm_groups"),
    "misspelt sampler": (["--config.sampler.name=ddimm"], "'ddim'"),
    "misspelt key of the sampler": (["--config.sampler.step=4"], "'steps'"),
    "more steps than the schedule": (["--config.sampler.steps=2000"], "config.sampler.steps"),
    "eta out of range": (["--config.sampler.eta=2.0"], "config.sampler.eta"),
    "misspelt optimiser": (["--config.optimizer.name=adamv"], "'adamw'"),
    "misspelt key of the optimiser": (["--config.optimizer.weight_decai=0.1"], "'weight_decay'"),
    "negative learning rate": (["--config.optimizer.learning_rate=-1.0"], "learning_rate"),
    "unknown decay": (["--config.optimizer.decay=cosin"], "'cosine'"),
    "optimiser of no group": (["--config.optimizers.critic.learning_rate=0.1"], "critic"),
    "misspelt metric": (["--config.evaluate.metrics=('digitz',)"], "'digits'"),
    "misspelt source": (["--config.data.source=digitz"], "'digits'"),
    "source without its path": (["--config.data.source=folder"], "'folder'"),
    "misspelt split": (["--config.data.split=trian"], "'train'"),
    "misspelt held-out split": (["--config.data.eval_split=tets"], "'test'"),
    "too few classes": (["--config.data.num_classes=3"], "config.data.num_classes"),
    "colour asked of grey": (["--config.data.channels=3"], "config.data.channels"),
    "two channels": (["--config.data.channels=2"], "config.data.channels"),
    "unprepared data": (["--config.data.source=tfds:mnist", "--config.data.root=nowhere"], "tfds:mnist"),
    "weights from no run": (["--config.init_from.denoiser=nowhere"], "config.init_from.denoiser"),
    "unknown flag": (["--wrokdir=x"], "'workdir'"),
    "word without dashes": (["train"], "'train'"),
    "misspelt mode": (["--mode=trian"], "'train'"),
    "word for a count": (["--num=many"], "--num"),
    "no images": (["--mode=sample", "--num=0", "--out=x"], "--num"),
    "no place for images": (["--mode=sample"], "--out"),
    "labels that are words": (["--mode=sample", "--out=x", "--labels=three"], "three"),
    "sampling before training": (["--mode=sample", "--out=x"], "--mode=train"),
    "judging before training": (["--mode=evaluate"], "--mode=train"),
}


@pytest.fixture
def complaint(capsys):
    """Runs a command that must be refused; gives the one line it says."""

    def refused(*arguments: str | os.PathLike) -> str:
        status = tiny.call(*arguments)
        assert status == 2
        return tiny.Result(status, *capsys.readouterr()).complaint

    return refused


def snapshot(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file below a folder; without the log of events, which an attempt may be written into."""
    return {
        os.fspath(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("run.json", "report.html") and "tensorboard" not in path.parts
    }


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments(case, config, tmp_path, complaint):
    arguments, named = ARGUMENTS[case]
    workdir = tmp_path / "run"
    assert named in complaint(f"--config={config}", f"--workdir={workdir}", *arguments)
    assert not (workdir / "checkpoints").exists() or not any((workdir / "checkpoints").iterdir())
