"""What a run says while it trains: `metrics.jsonl`, TensorBoard, a progress bar, and `run.json`.

In a run of several processes only the first one writes: make these objects there only.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from etils import epath
from tqdm import tqdm

import jaxgen
from jaxgen.errors import UserError
from jaxgen.files import is_remote, metric_lines, read_json, strict_json, write_bytes, write_json
from jaxgen.report.images import to_rgb
from jaxgen.report.numbers import duration, number

REMOTE_SECONDS = 30.0  # least time between two rewrites of a remote metrics.jsonl
PLAIN_SECONDS = 10.0  # least time between two progress lines where there is no terminal
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class MetricsLog:
    """The history of a run: one line a step in `workdir/metrics.jsonl`, the same in `workdir/tensorboard`.

    Opening it for a resume at step s removes the lines of later steps and a last line cut by a kill, so that
    the file never holds two histories; TensorBoard is told to hide its own. Local lines are on disk when
    `write` returns. An object store cannot append: there the whole file is rewritten, at most every 30
    seconds, at `flush` and at `close`, so call `flush` before a checkpoint is saved.

    Args:
      workdir: the run's folder, local or remote.
      tensorboard: whether event files are written too (their x axis is the training images seen).
      resume_step: the step of the restored state; 0 for a fresh start.

    Raises:
      UserError: an existing `metrics.jsonl` is damaged before its last line, or TensorBoard output is asked
        for without tensorboardX.
    """

    def __init__(self, workdir: epath.PathLike, *, tensorboard: bool = True, resume_step: int = 0):
        self._path = epath.Path(workdir) / "metrics.jsonl"
        self._remote = is_remote(workdir)
        lines = metric_lines(self._path) if self._path.exists() else []
        kept = [(line, row) for line, row in lines if row["step"] <= resume_step]
        text = b"".join(line + b"\n" for line, _ in kept)
        if not self._path.exists() or self._path.read_bytes() != text:
            write_bytes(self._path, text)
        self._pending = bytearray(text)  # remote only: the file's whole content
        self._written = time.monotonic()
        self._file = None if self._remote else open(self._path, "ab")
        self._events = None
        if tensorboard:
            # Events at or after this x of an earlier history are hidden.
            restart = int(kept[-1][1]["images"]) + 1 if kept else 0
            self._events = _event_writer(epath.Path(workdir) / "tensorboard", restart if lines else None)

    def write(self, step: int, images: int, seconds: float, scalars: Mapping[str, float]) -> None:
        """Appends one line.

        Args:
          step: updates done. images: training images seen. seconds: of training, earlier runs included.
          scalars: `<turn>/<name>` to a number (Python, NumPy or a JAX scalar). One that is not finite is
            written as null and named under `nonfinite`.
        """
        values = {name: float(value) for name, value in scalars.items()}
        taken = {"step", "images", "seconds", "nonfinite"} & set(values)
        if taken:
            raise UserError(
                f"A metric cannot be called {sorted(taken)[0]!r}: metrics.jsonl uses that name itself."
            )
        row: dict[str, Any] = {
            "step": int(step),
            "images": int(images),
            "seconds": round(float(seconds), 3),
            **values,
        }
        lost = [name for name, value in values.items() if not math.isfinite(value)]
        if lost:
            row["nonfinite"] = lost
        line = strict_json(row).encode() + b"\n"
        if self._file is not None:
            self._file.write(line)
            self._file.flush()
        else:
            self._pending += line
            if time.monotonic() - self._written >= REMOTE_SECONDS:
                self.flush()
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, value, int(images))

    def image(self, name: str, images: int, array: np.ndarray) -> None:
        """Shows a picture `[H, W, C]` (uint8, or float in [-1, 1]) in TensorBoard, at `images` seen."""
        if self._events is not None:
            self._events.add_image(name, to_rgb(array), int(images), dataformats="HWC")

    def flush(self) -> None:
        """Returns once all that was written is in the file (and on its way to TensorBoard)."""
        if self._file is None:
            write_bytes(self._path, bytes(self._pending))
            self._written = time.monotonic()
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        """Flushes and closes; calling it again does nothing."""
        if self._path is None:
            return
        self.flush()
        if self._file is not None:
            self._file.close()
        if self._events is not None:
            self._events.close()
        self._path = None


class NoLog:
    """What the processes beside the first one write: nothing. Methods as in `MetricsLog`."""

    def write(self, step: int, images: int, seconds: float, scalars: Mapping[str, float]) -> None: ...

    def image(self, name: str, images: int, array: np.ndarray) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


def _event_writer(folder: epath.Path, purge_step: int | None) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError(
            "TensorBoard output needs tensorboardX: install it, or set train.tensorboard=False."
        ) from error
    return SummaryWriter(os.fspath(folder), purge_step=purge_step, flush_secs=10)


class Progress:
    """How far a run is, on stderr: a bar on a terminal, elsewhere a plain line at most every ten seconds.

    Args:
      total_images: training images asked for. start_images: seen before, by a resumed run.
      enabled: None chooses by the stream; True is always a bar, False says nothing.
      stream, clock: for tests.
    """

    def __init__(
        self,
        total_images: int,
        start_images: int = 0,
        enabled: bool | None = None,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._stream = sys.stderr if stream is None else stream
        self._total, self._clock = total_images, clock
        self._plain = enabled is None and not self._stream.isatty()
        self._images = self._last_images = start_images
        self._last_time = clock()
        self._scalars: dict[str, float] = {}
        self._bar = None
        if enabled or (enabled is None and not self._plain):
            self._bar = tqdm(
                total=total_images, initial=start_images, unit=" images", unit_scale=True, file=self._stream,
                dynamic_ncols=True, smoothing=0.1,
            )  # fmt: skip

    def update(self, images: int, scalars: Mapping[str, float] | None = None) -> None:
        """Says that `images` training images (in all, not since the last call) have been seen."""
        self._scalars.update({name: float(value) for name, value in (scalars or {}).items()})
        self._images = images
        if self._bar is not None:
            if scalars:
                self._bar.set_postfix({k: number(v) for k, v in self._scalars.items()}, refresh=False)
            self._bar.update(images - self._bar.n)
        elif self._plain and self._clock() - self._last_time >= PLAIN_SECONDS:
            self._line()

    def note(self, text: str) -> None:
        """Prints a line of its own, above the bar where there is one; nothing when not enabled."""
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        elif self._plain:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Ends the bar, or prints the last line."""
        if self._bar is not None:
            self._bar.close()
        elif self._plain and self._images > self._last_images:
            self._line()

    def _line(self) -> None:
        now = self._clock()
        rate = (self._images - self._last_images) / max(now - self._last_time, 1e-9)
        left = (self._total - self._images) / rate if rate > 0 else math.inf
        words = [f"{self._images:,} of {self._total:,} images", f"{number(rate)} images/s"]
        if self._images < self._total:
            words.append(f"{duration(left)} left" if math.isfinite(left) else "no progress")
        words += [f"{name} {number(value)}" for name, value in self._scalars.items()]
        print(", ".join(words), file=self._stream, flush=True)
        self._last_images, self._last_time = self._images, now


def run_record(workdir: epath.PathLike, **entries: Any) -> None:
    """Sets top-level entries of `workdir/run.json` (made if missing, other entries kept), atomically."""
    path = epath.Path(workdir) / "run.json"
    write_json(path, {**(read_json(path) if path.exists() else {}), **entries})


def add_event(workdir: epath.PathLike, event: str, detail: Any = "") -> None:
    """Appends {time (ISO, UTC), event, detail} to the `events` of `workdir/run.json`, atomically."""
    path = epath.Path(workdir) / "run.json"
    events = (read_json(path) if path.exists() else {}).get("events", [])
    stamp = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    run_record(workdir, events=[*events, {"time": stamp, "event": event, "detail": detail}])


def versions() -> dict[str, str]:
    """Versions of Python, jaxgen and what it stands on."""
    found = {"python": platform.python_version(), "jaxgen": jaxgen.__version__}
    return found | {name: importlib.metadata.version(name) for name in PACKAGES}


def hardware() -> dict[str, Any]:
    """What the run computes on. Starts JAX's backend if it has not started."""
    import jax

    devices = jax.devices()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "platform": devices[0].platform,
        "device": devices[0].device_kind,
        "devices": len(devices),
        "processes": jax.process_count(),
        "cpu": _cpu_model(),
        "cores": cores,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu_model() -> str:
    """The processor's name: Linux keeps it in /proc/cpuinfo, elsewhere Python's own word for it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
