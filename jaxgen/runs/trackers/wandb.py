"""Weights & Biases: a run on its site or on a server of your own, or offline in the run's folder."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jaxgen.files import is_remote
from jaxgen.runs.trackers.base import Start, Tracker

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8


class WandB(Tracker):
    """Weights & Biases: online, or in `workdir/wandb` with WANDB_MODE=offline. It sends in the background and retries.

    The package reads its own environment variables, such as WANDB_API_KEY, WANDB_ENTITY and WANDB_BASE_URL. The project
    is WANDB_PROJECT, or "jaxgen"; the run is called WANDB_NAME, or as its folder.
    """

    config_name = "wandb"
    package = "wandb"

    def begin(self, start: Start) -> dict[str, str]:
        import wandb

        known = {
            "id": os.environ.get("WANDB_RUN_ID") or secrets.token_hex(4),
            "project": os.environ.get("WANDB_PROJECT") or "jaxgen",
            **start.known,
        }
        self._picture = wandb.Image
        self._run: Any = wandb.init(
            **known,
            name=os.environ.get("WANDB_NAME") or start.workdir.name,
            dir=None if "WANDB_DIR" in os.environ or is_remote(start.workdir) else os.fspath(start.workdir),
            config=start.config.to_dict(),
            allow_val_change=True,  # a resumed run may be longer
            resume="allow",
            reinit="create_new",  # a run that the program has opened itself is left alone
            settings=wandb.Settings(console="off"),
        )
        # W&B counts the calls of `log` itself; the x axis of all that jaxgen shows is a number of its own
        self._run.define_metric("images")
        self._run.define_metric("*", step_metric="images")
        return known

    def scalars(self, images: int, values: Mapping[str, float]) -> None:
        self._run.log({"images": images, **values})

    def image(self, name: str, images: int, picture: UInt8[np.ndarray, "H W 3"]) -> None:
        self._run.log({"images": images, name: self._picture(picture)})

    def flush(self) -> None:  # its process sends and keeps what it is given
        pass

    def close(self) -> None:
        self._run.finish()
