"""Makes one of each sort of input that the commands read, all sound and tiny."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import socket

import numpy as np
import tiny
import tiny_pipeline
from PIL import Image

from jaxgen.report.answers import FORMAT

CONFIG = '''"""A tiny DDPM on 8x8 digits, with ten classes."""

from jaxgen.config import defaults, section


def get_config():
    config = defaults()
    network = section(name="dit", out_channels=1, patch_size=4, width=8, depth=1, heads=1, num_classes=10)
    schedule = section(name="cosine", steps=10)
    config.method = section(name="ddpm", network=network, schedule=schedule, prediction_type="v")
    config.sampler = section(name="ddim", steps=2)
    config.data.update(source="digits", resolution=8, channels=1, num_classes=10)
    config.train.update(batch_size=8, total_images=16, log_every_images=8, checkpoint_every_images=0, ema_decay=0.9)
    config.evaluate.update(num=8, real=16, batch_size=8, network="digits", metrics=("frechet",))
    return config
'''


def make(folder: pathlib.Path) -> None:
    """Fills a folder with sound inputs, and with `odd`: the things that may stand in the place of a file."""
    for name in ("pictures", "odd/folder", "cwd", "home"):
        (folder / name).mkdir(parents=True)
    (folder / "config.py").write_text(CONFIG)
    words = [f"--config={folder / 'config.py'}", f"--workdir={folder / 'run'}"]
    assert tiny.call(*words) == 0 and tiny.call(*words, "--mode=evaluate", "--quiz", "--num=2") == 0
    tiny_pipeline.write(folder / "pipeline")
    chance = np.random.default_rng(0)
    images, labels = chance.integers(0, 256, (12, 8, 8, 1), np.uint8), chance.integers(0, 10, 12)
    for i, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(folder / f"pictures/{i:02d}.png")
    lines = [json.dumps({"file": f"{i:02d}.png", "caption": f"a red cat {i}"}) for i in range(12)]
    (folder / "pictures/captions.jsonl").write_text("\n".join(lines))
    np.savez(folder / "arrays.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    np.savez(folder / "samples.npz", images=images)
    np.save(folder / "noise.npy", chance.standard_normal((1, 8, 8, 4)).astype(np.float32))
    (folder / "prompts.txt").write_text("a red cat\n")
    answers = [{"a": "0", "b": "1", "chosen": "a", "real": side, "ms": 1000} for side in "abba"]
    about = {"title": "", "details": {"run": "r"}, "seed": 0, "digest": "d", "limit_ms": 0}
    (folder / "answers.json").write_text(json.dumps({"format": FORMAT, "quiz": about, "answers": answers}))
    odd = folder / "odd"
    (odd / "file").write_text("not what was wanted")
    os.mkfifo(odd / "fifo")
    (odd / "loop").symlink_to("loop")
    (odd / "dangling").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as made, contextlib.chdir(odd):
        made.bind("socket")
