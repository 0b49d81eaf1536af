"""Keeps the history of a run: `metrics.jsonl`, one line for each time that it logs, and the same for TensorBoard.

In a run of several processes only the first one writes: it has a `MetricsLog`, the others a `NoLog`.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from jaxgen.errors import UserError
from jaxgen.files import is_remote, metric_lines, strict_json, write_bytes
from jaxgen.report.images import to_rgb

REMOTE_SECONDS = 30.0  # least time between two rewrites of a remote metrics.jsonl


def check_history(workdir: epath.PathLike) -> None:
    """Raises a UserError if the folder's `metrics.jsonl` is damaged before its last line, so that it cannot go on."""
    path = epath.Path(workdir) / "metrics.jsonl"
    if path.exists():
        metric_lines(path)


class MetricsLog:
    """Writes one line for each logged step to `workdir/metrics.jsonl`, and the same numbers to `workdir/tensorboard`.

    Opening the log to resume at step s removes the lines of later steps, and a last line that a kill cut off, so that
    the file never holds two histories; TensorBoard is told to hide its later events. A line of a local file is on disk
    when `write` returns. An object store cannot append to a file. There the file is rewritten at `flush`, at `close`
    and at most every 30 seconds, so call `flush` before a checkpoint is saved.

    Args:
      workdir: the run's folder, local or remote.
      tensorboard: whether event files are written too (their x axis is the training images seen).
      resume_step: the step of the restored state; 0 for a fresh start.

    Raises:
      UserError: where an existing `metrics.jsonl` is damaged before its last line, or tensorboardX is not installed
        but TensorBoard output is requested.
    """

    def __init__(self, workdir: epath.PathLike, *, tensorboard: bool = True, resume_step: int = 0):
        self._path = epath.Path(workdir) / "metrics.jsonl"
        self._remote = is_remote(workdir)
        lines = metric_lines(self._path) if self._path.exists() else []
        kept = [(line, row) for line, row in lines if row["step"] <= resume_step]
        text = b"".join(line + b"\n" for line, _ in kept)
        if not self._path.exists() or self._path.read_bytes() != text:
            write_bytes(self._path, text)
        self._pending = bytearray(text)  # the full content of a remote file
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
          step: the number of updates done.
          images: the number of training images seen.
          seconds: the duration of training, with that of earlier starts of the run.
          scalars: `{"<turn>/<name>": number}`, of Python, NumPy or JAX. A number that is not finite is written as null,
            and its name is listed under `nonfinite`.
        """
        values = {name: float(value) for name, value in scalars.items()}
        taken = {"step", "images", "seconds", "nonfinite"} & set(values)
        if taken:
            raise UserError(f"A metric cannot be called {sorted(taken)[0]!r}: metrics.jsonl uses that name itself.")
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
        """Waits until every line is in the file, and sends the events to TensorBoard's file."""
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
    """Stands in for the log in all processes but the first: it has the methods of `MetricsLog` and writes nothing."""

    def write(self, step: int, images: int, seconds: float, scalars: Mapping[str, float]) -> None: ...

    def image(self, name: str, images: int, array: np.ndarray) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


def _event_writer(folder: epath.Path, purge_step: int | None) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError("TensorBoard output needs tensorboardX: install it, or set train.tensorboard=False.") from error
    return SummaryWriter(os.fspath(folder), purge_step=purge_step, flush_secs=10)
