"""TensorBoard: event files in the run's folder, which `tensorboard --logdir` shows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxgen.errors import UserError
from jaxgen.runs.trackers.base import Start, Tracker

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8


class TensorBoard(Tracker):
    """Event files in `workdir/tensorboard`. A resumed run hides the events that it writes again."""

    config_name = ""  # `config.train.tensorboard` switches it
    rewinds = True

    def begin(self, start: Start) -> dict[str, str]:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise UserError(
                "TensorBoard output needs tensorboardX: install it, or set train.tensorboard=False."
            ) from error
        folder = os.fspath(start.workdir / "tensorboard")
        self._events: Any = SummaryWriter(folder, purge_step=start.restart, flush_secs=10)
        return {}

    def scalars(self, images: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._events.add_scalar(name, value, images)

    def image(self, name: str, images: int, picture: UInt8[np.ndarray, "H W 3"]) -> None:
        self._events.add_image(name, picture, images, dataformats="HWC")

    def flush(self) -> None:
        self._events.flush()

    def close(self) -> None:
        self._events.close()
