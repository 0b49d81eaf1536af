"""What the training loop costs beside the update, and how far the loader is ahead.

    python benchmarks/loop_overhead.py --config=configs/ddpm_digits.py --steps=100 --rounds=7

In one process, in turn: `steps` bare calls of the jitted update on one batch, and the same number of steps of
the real loop (loader, placement, stage and turn bookkeeping, metrics, log lines; no sampling and no checkpoint). Prints
the ratio of their speeds in each round and the median, then how many times faster the loader alone is.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import tempfile
import time

from jaxgen.commandline import load_config
from jaxgen.train.mesh import await_cpu, place, use_cpu_cores
from jaxgen.train.xla import use_compilation_cache


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="configs/ddpm_digits.py")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=7)
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

        def bare() -> float:
            start = time.perf_counter()
            for _ in range(options.steps):
                trainer.state, metrics = update(trainer.state, trainer.frozen, batches)
                await_cpu(trainer.mesh, metrics)
            float(metrics[f"{turns[0].name}/loss"])
            return time.perf_counter() - start

        def loop() -> float:
            train.total_images = trainer.images + options.steps * size
            start = time.perf_counter()
            trainer.train()
            return time.perf_counter() - start

        bare(), loop()
        ratios = []
        for round_number in range(options.rounds):
            times = {}
            for run in (bare, loop) if round_number % 2 else (loop, bare):
                times[run.__name__] = run()
            ratios.append(times["bare"] / times["loop"])
            step = times["bare"] / options.steps
            print(f"bare {1e3 * step:.2f} ms a step, loop at {ratios[-1]:.3f} of its speed", flush=True)
        for _ in range(20):
            next(trainer.loader)
        start = time.perf_counter()
        for _ in range(500):
            next(trainer.loader)
        batch = (time.perf_counter() - start) / 500
    print(f"loop / bare update, speed: median {statistics.median(ratios):.3f} of {options.rounds} rounds")
    print(f"loader: {1e3 * batch:.3f} ms a batch, {step / (len(batches) * batch):.0f} times what training eats")


if __name__ == "__main__":
    main()
