"""The contract of a tracker: a place where a run is shown while it is trained, beside its own files."""

from __future__ import annotations

import abc
import dataclasses
import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from etils import epath
from ml_collections import ConfigDict

from jaxgen.errors import UserError
from jaxgen.registry import config_name

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8


@dataclasses.dataclass(frozen=True)
class Start:
    """Holds what a tracker is told when a training begins or goes on.

    Attributes:
      workdir: the run's folder, local or remote.
      config: the run's config.
      restart: None for a first start; else the number of images from which on the history is written again.
      known: what `Tracker.begin` returned when the run was first shown there; empty if this is the first time.
    """

    workdir: epath.Path
    config: ConfigDict
    restart: int | None = None
    known: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Tracker(abc.ABC):
    """Shows one run. Only the first process has one; its methods are called from one thread, `begin` first.

    Any method may raise: `jaxgen.runs.trackers.opened` says what follows. x axes count the training images seen.

    A resumed run goes on from its newest checkpoint, so that its history since then is written again. A tracker that
    `rewinds` hides what it has from `Start.restart` on, and is shown all of it again. Any other is never shown a number
    twice: it keeps what it has, and gets the lines that it does not have.

    Attributes:
      rewinds: whether it can take back what it was shown.
      package: the optional package that it imports, also the name of jaxgen's extra that brings it; "" for none.
    """

    rewinds: ClassVar[bool] = False
    package: ClassVar[str] = ""

    @classmethod
    def check(cls) -> None:
        """Raises a UserError if what it needs is not installed. Nothing is imported."""
        if cls.package and importlib.util.find_spec(cls.package) is None:
            name = config_name(cls)
            raise UserError(
                f"config.train.trackers={name!r} needs the package {cls.package}, which is not installed: "
                f'pip install "jaxgen[{cls.package}]", or leave {name!r} out.'
            )

    @abc.abstractmethod
    def begin(self, start: Start) -> dict[str, str]:
        """Opens the run in the tracker, or goes on with the one that `start.known` names.

        Returns:
          What the next start needs to find it again. It is kept in `workdir/trackers.json`: no secrets.
        """

    @abc.abstractmethod
    def scalars(self, images: int, values: Mapping[str, float]) -> None:
        """Shows numbers `{"<turn>/<name>": number}`, finite or not, at so many images seen."""

    @abc.abstractmethod
    def image(self, name: str, images: int, picture: UInt8[np.ndarray, "H W 3"]) -> None:
        """Shows a picture at so many images seen."""

    @abc.abstractmethod
    def flush(self) -> None:
        """Sends or writes what waits; it is called before each checkpoint."""

    @abc.abstractmethod
    def close(self) -> None:
        """Ends the showing; a later start may go on with it."""
