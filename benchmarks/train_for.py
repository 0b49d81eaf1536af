"""A config trained for so many seconds, start and compilation included, then judged: what a machine
makes of a short time.

    python benchmarks/train_for.py --seconds=420 --workdir=runs/fashion \\
        --config=configs/ddpm_fashion_mnist_classes.py \\
        --config.method.network.channels=64 --config.method.network.blocks=2 \\
        --config.method.network.dtype=bfloat16 --config.optimizer.decay=constant \\
        --config.optimizer.learning_rate=3e-4 \\
        --config.train.batch_size=256 --config.train.total_images=100000000 \\
        --config.evaluate.num=5000 --config.evaluate.batch_size=500

With the judging this is nine minutes of class-conditional training on Fashion-MNIST on a GPU. Flags are those of
main.py; the run is an ordinary one, with its report, curves and checkpoints. Where data cannot be fetched, bring them
as a file: --config.data.source=npz:FILE. Prints images seen, images a second, and the scores.
"""

from __future__ import annotations

import json
import pathlib
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]


def main() -> int:
    flags = sys.argv[1:]
    given = [flag for flag in flags if flag.startswith("--seconds=")]
    workdir = [flag for flag in flags if flag.startswith("--workdir=")]
    if len(given) != 1 or len(workdir) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    flags.remove(given[0])
    seconds = float(given[0].partition("=")[2])
    command = [sys.executable, str(ROOT / "main.py"), *flags]
    begun = time.perf_counter()
    process = subprocess.Popen(command)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)  # it saves, and ends with 0
        process.wait()
    took = time.perf_counter() - begun
    if process.returncode:
        return process.returncode
    judged = subprocess.run([*command, "--mode=evaluate"], stdout=subprocess.PIPE, text=True, check=True)
    lines = (pathlib.Path(workdir[0].partition("=")[2]) / "metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    scores = json.loads(judged.stdout.splitlines()[-1])
    facts = {"seconds": round(took, 1), "images": last["images"], "images_per_second": last["images_per_second"]}
    print(json.dumps({**facts, "scores": {name: entry["value"] for name, entry in scores.items()}}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
