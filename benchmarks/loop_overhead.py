"""Measures what the training loop costs beside the update, and how far the loader is ahead.

    python -m benchmarks.loop_overhead --config=configs/ddpm_digits.py --steps=600

One process, one call of the real loop (loader, placement, stage and turn bookkeeping, metrics, log lines; no sampling
and no checkpoint), in which every `--block` steps are followed by as many bare calls of the jitted update: what
else the machine does meets both alike. Prints the ratio of their speeds, start and end of the loop included, the
quartiles of the blocks' own ratios, and how many times faster the loader alone is.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from jaxgen.config.files import load_config
from jaxgen.parallel.mesh import await_cpu, place
from studies import harness


class Interleaved:
    """Takes the trainer's steps, every `block` of which are followed by as many bare calls of the update.

    Attributes:
      bare: seconds of each block of bare calls. marks: when each step, with the bare calls behind it, was over.
    """

    def __init__(self, trainer: Any, update: Callable, batches: tuple, block: int):
        self.trainer, self.update, self.batches, self.block = trainer, update, batches, block
        self.real: Callable[[], dict] = trainer.take_step
        self.bare: list[float] = []
        self.marks: list[float] = []

    def __call__(self) -> dict:
        trainer, metrics = self.trainer, self.real()
        if len(self.marks) % self.block == self.block - 1:
            start = time.perf_counter()
            for _ in range(self.block):
                trainer.state, values = self.update(trainer.state, trainer.frozen, self.batches)
                await_cpu(trainer.mesh, values)
            self.bare.append(time.perf_counter() - start)
        self.marks.append(time.perf_counter())
        return metrics

    def ratios(self) -> list[float]:
        """Returns the loop's speed over that of the bare update, by blocks."""
        ends = self.marks[:: self.block]
        blocks = [after - before for before, after in zip(ends[:-1], ends[1:], strict=True)]
        return [bare / (both - bare) for bare, both in zip(self.bare, blocks, strict=False)]


def seconds_a_batch(loader: Any, batches: int = 500) -> float:
    """The loader alone, after its queue is empty."""
    for _ in range(20):
        next(loader)
    start = time.perf_counter()
    for _ in range(batches):
        next(loader)
    return (time.perf_counter() - start) / batches


def main(
    config: Path = Path("configs/ddpm_digits.py"),
    steps: int = 600,
    block: Annotated[int, "steps in a row, of either kind"] = 10,
) -> None:
    harness.prepare()
    from jaxgen.train.loop import Trainer
    from jaxgen.train.update import draws

    loaded, _ = load_config(config)
    train = loaded.train
    train.sample_every_images = train.evaluate_every_images = train.checkpoint_every_images = 0
    train.total_images = 1
    with tempfile.TemporaryDirectory() as workdir:
        trainer = Trainer(loaded, workdir)
        trainer.save = lambda: None
        trainer.train()
        turns = trainer.method.turns(trainer.stage)
        batches = tuple(place(next(trainer.loader), trainer.mesh) for _ in range(draws(turns)))
        size = train.batch_size * len(batches)
        both = Interleaved(trainer, trainer.update(turns), batches, block)
        for _ in range(20):  # warm
            both.real()
        trainer.take_step = both
        train.total_images = trainer.images + steps * size
        start = time.perf_counter()
        trainer.train()
        total = time.perf_counter() - start
        batch = seconds_a_batch(trainer.loader)
    bare = sum(both.bare)
    quartiles = ", ".join(f"{q:.3f}" for q in statistics.quantiles(both.ratios(), n=4))
    print(f"bare update: {1e3 * bare / steps:.2f} ms a step")
    print(f"the loop runs at {bare / (total - bare):.3f} of its speed; quartiles of blocks: {quartiles}")
    eaten = bare / steps / (len(batches) * batch)
    print(f"loader: {1e3 * batch:.3f} ms a batch, {eaten:.0f} times what training eats")


if __name__ == "__main__":
    sys.exit(harness.run(main))
