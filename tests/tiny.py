"""A tiny experiment and the command line to run it with: what the tests of whole runs share.

`call` runs main.py's command line in this process, `spawn` in one of its own: use the second where the process is the
point (signals, kills, what gets imported, how many devices there are).
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import types
from collections.abc import Sequence

from jaxgen import host
from jaxgen.command.run import main

ROOT = pathlib.Path(__file__).resolve().parents[1]
BATCH = 32
LONG = {"xla_backend_optimization_level": 1}  # of XLA's compiler, for functions that compute for seconds: conftest.py
USUAL = {"xla_cpu_use_fusion_emitters": True}  # as jaxgen compiles: two programs may then have equal bits

TEXT = '''"""A tiny DDPM on 8x8 digits.

Paper: none; it exists to be tested.
"""

from jaxgen.config import SAMPLE_METRICS, defaults, section


def get_config():
    config = defaults()
    config.method = section(
        name="ddpm",
        network=section(
            name="unet",
            out_channels=1,
            channels=8,
            channel_multipliers=(1,),
            blocks=1,
            attention_resolutions=(),
            middle_attention=False,
            norm_groups=4,
            num_classes={classes},
        ),
        schedule=section(name="cosine", steps=1000),
        prediction_type="v",
    )
    config.sampler = section(name="ddim", steps=4)
    config.data.update(source="digits", resolution=8, channels=1, num_classes={classes})
    config.optimizer.update(name="adamw", learning_rate=1e-3, warmup_images=64, decay="cosine", clip_norm=1.0)
    config.train.update(
        batch_size=32,
        total_images=256,
        log_every_images=64,
        checkpoint_every_images=128,
        sample_every_images=128,
        ema_decay=0.9,
    )
    config.evaluate.update(num=64, batch_size=64, network="digits", metrics=(*SAMPLE_METRICS, "memorisation"))
    return config
'''


def write_config(folder: pathlib.Path, *, conditional: bool = False) -> pathlib.Path:
    """Writes the tiny experiment as a config file, with ten classes where conditional; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ("tiny_labels.py" if conditional else "tiny.py")
    path.write_text(TEXT.replace("{classes}", "10" if conditional else "0"))
    return path


@dataclasses.dataclass(frozen=True)
class Result:
    """What a command left: its status, and all of its two streams."""

    status: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line of an expected error.

        Raises:
          AssertionError: where there is none, more than one, or a traceback.
        """
        lines = [line for line in self.err.splitlines() if line.startswith("jaxgen: ")]
        assert len(lines) == 1 and "Traceback" not in self.err, self.err
        assert self.out == "", self.out
        return lines[0]


def load(path: pathlib.Path) -> types.ModuleType:
    """A file of the project that is not in the package, as a module."""
    spec = importlib.util.spec_from_file_location(f"loaded_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def replaced(words: Sequence[str], *more: str) -> list[str]:
    """Words of a command line with others, in whose favour those of the same flag are left out."""
    again = {word.partition("=")[0] for word in more}
    return [*(word for word in words if word.partition("=")[0] not in again), *more]


def logged(workdir: pathlib.Path) -> list[dict]:
    """The rows of a run's metrics.jsonl without what the clock says."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]


def call(*arguments: str | os.PathLike) -> int:
    """The status of `main.py arguments` in this process, in the project's folder."""
    with contextlib.chdir(ROOT):
        return main([os.fspath(argument) for argument in arguments])


def environment(devices: int = 1, **extra: str) -> dict[str, str]:
    """For a process with so many CPU devices."""
    found = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.fspath(ROOT), **extra}
    found["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=1"
    if devices > 2:  # as a process sets it that begins with main.py; others would wait for themselves
        found["XLA_FLAGS"] += f" {host.IN_ORDER}"
    return found


def command(*arguments: str | os.PathLike) -> list[str]:
    """`python main.py arguments`."""
    return [sys.executable, os.fspath(ROOT / "main.py"), *map(os.fspath, arguments)]


def spawn(*arguments: str | os.PathLike, devices: int = 1, argv: Sequence[str] = ()) -> Result:
    """`main.py arguments` in a process of its own, in the project's folder.

    Args:
      argv: what to run in its place.
    """
    words = list(argv) or command(*arguments)
    done = subprocess.run(words, cwd=ROOT, env=environment(devices), capture_output=True, text=True, timeout=300)
    return Result(done.returncode, done.stdout, done.stderr)
