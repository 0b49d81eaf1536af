"""Reads the numbers of training steps from the device late, so that reading them does not hold it up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax

from jaxgen.arrays import Metrics


class Undone(NamedTuple):
    """Describes an update that the guard undid: which step and turn, and whose gradient (or loss) was not finite."""

    step: int
    turn: str
    group: str


class StepMetrics:
    """Holds the metrics of the steps since the last line in the log: first as arrays on the device, then as sums.

    Args:
      sums: `{name: [sum, count]}` of earlier steps, as `sums` returned them; a sum of None was not finite.
    """

    def __init__(self, sums: Mapping[str, Sequence[float | None]] | None = None) -> None:
        self._on_device: list[tuple[int, Metrics]] = []
        self._sums: dict[str, tuple[float, int]] = {}
        for name, (total, count) in (sums or {}).items():
            self._sums[name] = (math.nan if total is None else float(total), int(count or 0))

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
            for name, value in metrics.items():
                if not name.startswith("finite/"):
                    total, number = self._sums.get(name, (0.0, 0))
                    self._sums[name] = (total + float(value), number + 1)
        return undone

    @property
    def sums(self) -> dict[str, list[float | None]]:
        """Returns `{name: [sum, count]}` over the steps that were read. A run that is resumed adds to them."""
        return {name: [total if math.isfinite(total) else None, n] for name, (total, n) in self._sums.items()}

    def take_means(self) -> dict[str, float]:
        """Returns the mean of each number over the steps that were read and have it, and forgets these steps."""
        sums, self._sums = self._sums, {}
        return {name: total / count for name, (total, count) in sums.items()}
