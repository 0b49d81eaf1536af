"""What the training loop costs beside the update, and how far the loader is ahead.

    python -m benchmarks.loop_overhead --config=configs/ddpm_digits.py --steps=600

One process, one call of the real loop (loader, placement, stage and turn bookkeeping, metrics, log lines; no sampling
and no checkpoint), in which every `--block` steps are followed by as many bare calls of the jitted update: what
else the machine does meets both alike. Prints the ratio of their speeds, start and end of the loop included, the
quartiles of the blocks' own ratios, and how many times faster the loader alone is.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import tempfile
import time

from jaxgen.commandline import load_config
from jaxgen.host import use_compilation_cache, use_cpu_cores
from jaxgen.parallel.mesh import await_cpu, place


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/ddpm_digits.py")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--block", type=int, default=10)
    options = parser.parse_args()
    use_cpu_cores()
    use_compilation_cache()
    from jaxgen.train.loop import Trainer
    from jaxgen.train.update import draws

    config, _ = load_config(pathlib.Path(options.config))
    train = config.train
    train.sample_every_images = train.evaluate_every_images = train.checkpoint_every_images = 0
    train.total_images = 1
    with tempfile.TemporaryDirectory() as workdir:
        trainer = Trainer(config, workdir)
        trainer.save = lambda: None
        trainer.train()
        turns = trainer.method.turns(trainer.stage)
        batches = tuple(place(next(trainer.loader), trainer.mesh) for _ in range(draws(turns)))
        size = train.batch_size * len(batches)
        update = trainer.update(turns, size)

        real, bare, marks = trainer.take_step, [], []

        def take_step() -> dict:
            metrics = real()
            if len(marks) % options.block == options.block - 1:
                start = time.perf_counter()
                for _ in range(options.block):
                    trainer.state, values = update(trainer.state, trainer.frozen, batches)
                    await_cpu(trainer.mesh, values)
                bare.append(time.perf_counter() - start)
            marks.append(time.perf_counter())
            return metrics

        for _ in range(20):  # warm
            real()
        trainer.take_step = take_step
        train.total_images = trainer.images + options.steps * size
        start = time.perf_counter()
        trainer.train()
        total = time.perf_counter() - start
        blocks = [b - a for a, b in zip(marks[:: options.block][:-1], marks[:: options.block][1:], strict=True)]
        ratios = [b / (both - b) for b, both in zip(bare, blocks, strict=False)]
        step = sum(bare) / options.steps
        for _ in range(20):
            next(trainer.loader)
        start = time.perf_counter()
        for _ in range(500):
            next(trainer.loader)
        batch = (time.perf_counter() - start) / 500
    quartiles = ", ".join(f"{q:.3f}" for q in statistics.quantiles(ratios, n=4))
    print(f"bare update: {1e3 * step:.2f} ms a step")
    print(f"the loop runs at {sum(bare) / (total - sum(bare)):.3f} of its speed; quartiles of blocks: {quartiles}")
    print(f"loader: {1e3 * batch:.3f} ms a batch, {step / (len(batches) * batch):.0f} times what training eats")


if __name__ == "__main__":
    main()
