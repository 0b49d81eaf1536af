"""Reads the numbers of training steps from the device late, so that reading them does not hold it up."""

from __future__ import annotations

from typing import NamedTuple

import jax
import numpy as np

from jaxgen.arrays import Metrics


class Undone(NamedTuple):
    """Describes an update that the guard undid: which step and turn, and whose gradient (or loss) was not finite."""

    step: int
    turn: str
    group: str


class StepMetrics:
    """Holds the metrics of the steps since the last line in the log: first as arrays on the device, then as floats."""

    def __init__(self) -> None:
        self._on_device: list[tuple[int, Metrics]] = []
        self._read: list[dict[str, float]] = []

    def add(self, step: int, metrics: Metrics) -> None:
        """Adds the metrics of an update, without waiting for them."""
        self._on_device.append((step, metrics))

    @property
    def waiting(self) -> int:
        """Returns the number of steps whose numbers have not been read."""
        return len(self._on_device)

    def read(self, leave: int = 0) -> list[Undone]:
        """Reads the numbers of all steps but the newest `leave`; returns the updates among them that were undone."""
        count = len(self._on_device) - leave
        steps, self._on_device = self._on_device[:count], self._on_device[count:]
        values = jax.device_get([metrics for _, metrics in steps])
        undone = []
        for (step, _), metrics in zip(steps, values, strict=True):
            for name, ok in metrics.items():
                if name.startswith("finite/") and not ok:
                    undone.append(Undone(step, *name.split("/")[1:]))
        self._read += [{k: float(v) for k, v in m.items() if not k.startswith("finite/")} for m in values]
        return undone

    def take_means(self) -> dict[str, float]:
        """Returns the mean of each number over the steps that were read and have it, and forgets these steps."""
        rows, self._read = self._read, []
        names = dict.fromkeys(name for row in rows for name in row)
        return {n: float(np.mean([row[n] for row in rows if n in row])) for n in names}
