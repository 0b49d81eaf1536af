"""Keeps the history of a run: `metrics.jsonl`, one line for each time that it logs, and the same for its trackers.

In a run of several processes only the first one writes: it has a `MetricsLog`, the others a `NoLog`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from jaxgen.errors import UserError
from jaxgen.files import is_remote, metric_lines, strict_json, write_bytes
from jaxgen.runs.trackers.opened import Trackers

REMOTE_SECONDS = 30.0  # least time between two rewrites of a remote metrics.jsonl


def check_history(workdir: epath.PathLike) -> None:
    """Raises a UserError if the folder's `metrics.jsonl` is damaged before its last line, so that it cannot go on."""
    path = epath.Path(workdir) / "metrics.jsonl"
    if path.exists():
        metric_lines(path)


class MetricsLog:
    """Writes one line for each logged step to `workdir/metrics.jsonl`, and shows the trackers the same numbers.

    Opening the log to resume at step s removes the lines of later steps, and a last line that a kill cut off, so that
    the file never holds two histories; the trackers are opened with what was there. A line of a local file is on disk
    when `write` returns. An object store cannot append to a file. There the file is rewritten at `flush`, at `close`
    and at most every 30 seconds, so call `flush` before a checkpoint is saved.

    Args:
      workdir: the run's folder, local or remote.
      trackers: where the run is shown too; they are begun, and closed with the log.
      resume_step: the step of the restored state; 0 for a fresh start.

    Raises:
      UserError: where an existing `metrics.jsonl` is damaged before its last line, or a tracker cannot begin.
    """

    def __init__(self, workdir: epath.PathLike, trackers: Trackers | None = None, *, resume_step: int = 0):
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
        self._trackers = trackers
        if trackers is not None:
            trackers.begin([row for _, row in lines], resume_step)

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
        if self._trackers is not None:
            self._trackers.scalars(int(images), values)

    def image(self, name: str, images: int, array: np.ndarray) -> None:
        """Shows a picture `[H, W, C]` (uint8, or float in [-1, 1]) to the trackers, at `images` seen."""
        if self._trackers is not None:
            self._trackers.image(name, int(images), array)

    def flush(self) -> None:
        """Waits until every line is in the file, and has the trackers send what waits."""
        if self._file is None:
            write_bytes(self._path, bytes(self._pending))
            self._written = time.monotonic()
        if self._trackers is not None:
            self._trackers.flush()

    def close(self) -> None:
        """Flushes and closes; calling it again does nothing."""
        if self._path is None:
            return
        self.flush()
        if self._file is not None:
            self._file.close()
        if self._trackers is not None:
            self._trackers.close()
        self._path = None


class NoLog:
    """Stands in for the log in all processes but the first: it has the methods of `MetricsLog` and writes nothing."""

    def write(self, step: int, images: int, seconds: float, scalars: Mapping[str, float]) -> None: ...

    def image(self, name: str, images: int, array: np.ndarray) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...
