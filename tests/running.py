"""What tests of runs share: beginning one, going on with it, and comparing states to the bit."""

from __future__ import annotations

import contextlib
import multiprocessing
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxgen.runs import comparison
from jaxgen.runs.workdir import open_workdir
from jaxgen.train.loop import Trainer


@contextlib.contextmanager
def opened(config: ConfigDict, workdir: pathlib.Path, **options: Any) -> Iterator[Trainer]:
    """A trainer in a workdir, as `--mode=train` makes one; its threads end with the block."""
    config, _ = open_workdir(workdir, ConfigDict(config.to_dict(), type_safe=False), training=True)
    trainer = Trainer(config, workdir, **options)
    try:
        yield trainer
    finally:
        trainer.checkpoints.close()
        trainer.loader.close()


def run(config: ConfigDict, workdir: pathlib.Path, images: int = 0, **options: Any) -> Any:
    """Trains to `images` (the config's total without); returns the state, on the host."""
    config = ConfigDict(config.to_dict(), type_safe=False)
    config.train.total_images = images or config.train.total_images
    with opened(config, workdir, **options) as trainer:
        trainer.train()
        return on_host(trainer.state)


def run_until_killed(config: ConfigDict, workdir: pathlib.Path) -> int:
    """Trains in a process of its own, which SIGKILL ends while it writes its second checkpoint or a later one.

    The server of the processes imports the code once, and does not start JAX. Returns the exit code.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["running", "jaxgen.sampling.restore", "tiny_methods"])
    process = context.Process(target=run, args=(config, workdir))
    process.start()
    while process.is_alive() and not (comparison.finished_steps(workdir) and comparison.partial_saves(workdir)):
        time.sleep(0.002)
    process.kill()
    process.join()
    return process.exitcode or 0


def on_host(tree: Any) -> Any:
    """Copies, which hold on to no device buffer."""
    return jax.tree.map(lambda x: np.array(x, copy=True), tree)


def named(tree: Any) -> dict[str, np.ndarray]:
    """`{path: array}`."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


def differing(a: Any, b: Any) -> list[str]:
    """Names of the leaves that are not equal to the bit, or are in one of the two only."""
    one, two = named(a), named(b)
    alike = [
        name
        for name in one.keys() & two.keys()
        if one[name].dtype == two[name].dtype
        and one[name].shape == two[name].shape
        and one[name].tobytes() == two[name].tobytes()
    ]
    return sorted((one.keys() | two.keys()) - set(alike))


def largest_difference(a: Any, b: Any) -> float:
    """Over all leaves of two trees of one structure."""
    gaps = jax.tree.map(lambda x, y: float(np.max(np.abs(np.asarray(x, np.float64) - np.asarray(y, np.float64)))), a, b)
    return max(jax.tree.leaves(gaps))
