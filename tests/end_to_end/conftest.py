"""Finished tiny runs: train once, copy where a test changes them."""

from __future__ import annotations

import pathlib
import shutil

import pytest
import tiny


@pytest.fixture(scope="session")
def config(tmp_path_factory) -> pathlib.Path:
    """The tiny experiment's file."""
    return tiny.write_config(tmp_path_factory.mktemp("configs"))


@pytest.fixture(scope="session")
def trained(config, tmp_path_factory) -> pathlib.Path:
    """The workdir of the tiny experiment, finished. Only to be read."""
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    assert tiny.call(f"--config={config}", f"--workdir={workdir}") == 0
    return workdir


@pytest.fixture(scope="session")
def labelled(tmp_path_factory) -> pathlib.Path:
    """As `trained`, with ten classes."""
    config = tiny.write_config(tmp_path_factory.mktemp("configs"), conditional=True)
    workdir = tmp_path_factory.mktemp("runs") / "labelled"
    lean = ["--config.train.sample_every_images=0", "--config.evaluate.at_end=False"]
    assert tiny.call(f"--config={config}", f"--workdir={workdir}", *lean) == 0
    return workdir


@pytest.fixture
def run(trained, tmp_path) -> pathlib.Path:
    """A finished run of one's own."""
    return pathlib.Path(shutil.copytree(trained, tmp_path / "run"))
