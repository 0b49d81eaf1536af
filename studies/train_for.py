"""Trains a config for so many seconds, start and compilation included, and then evaluates it.

    python -m studies.train_for --seconds=420 --workdir=runs/fashion \\
        --config=configs/ddpm_fashion_mnist_classes.py \\
        --config.method.network.channels=64 --config.method.network.blocks=2 \\
        --config.method.network.dtype=bfloat16 --config.optimizer.decay=constant \\
        --config.optimizer.learning_rate=3e-4 \\
        --config.train.batch_size=256 --config.train.total_images=100000000 \\
        --config.evaluate.num=5000 --config.evaluate.batch_size=500

With the evaluation this is nine minutes of class-conditional training on Fashion-MNIST on a GPU. Further flags are
those of main.py; the run is an ordinary one, with its report, curves and checkpoints. Where data cannot be fetched,
bring them as a file: --config.data.source=npz:FILE. Prints images seen, images a second, and the scores.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

from studies.harness import command, run


def main(*extra: str, config: str, workdir: Path, seconds: float) -> int:
    words = [*command(config, workdir), *extra]
    begun = time.perf_counter()
    process = subprocess.Popen(words)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)  # it saves, and ends with 0
        process.wait()
    took = time.perf_counter() - begun
    if process.returncode:
        return process.returncode
    evaluated = subprocess.run([*words, "--mode=evaluate"], stdout=subprocess.PIPE, text=True, check=True)
    last = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
    scores = json.loads(evaluated.stdout.splitlines()[-1])
    facts = {"seconds": round(took, 1), "images": last["images"], "images_per_second": last["images_per_second"]}
    print(json.dumps({**facts, "scores": {name: entry["value"] for name, entry in scores.items()}}))
    return 0


if __name__ == "__main__":
    sys.exit(run(main))
