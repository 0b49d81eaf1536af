"""All trackers of a run at once: what each was shown is remembered, so that each shows one history and all of it.

`workdir/trackers.json` holds, for each tracker that cannot take back what it shows, what finds the run there again and
the images up to which each number was shown. A start after a kill adds the lines of `metrics.jsonl` that were written
since. From both follows which lines a tracker lacks (it was named later, or was out of reach) and which ones it has
(the work since the last checkpoint is done again, with the same numbers).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from jaxgen.errors import UserError, first_line
from jaxgen.files import metric_lines, read_json, write_json
from jaxgen.registry import find
from jaxgen.report.images import to_rgb
from jaxgen.runs.record import add_event
from jaxgen.runs.trackers.base import Start, Tracker
from jaxgen.runs.trackers.tensorboard import TensorBoard

log = logging.getLogger("jaxgen")

FILE = "trackers.json"
OWN = ("step", "images", "seconds", "nonfinite")  # what a line of metrics.jsonl holds beside numbers
TENSORBOARD = "tensorboard"
Row = Mapping[str, Any]


class Entry(TypedDict):
    """What `trackers.json` holds of a tracker.

    `known` is what its `begin` returned; `shown` the images up to which each number, or "picture:<name>", was shown;
    `live` says that lines may have been shown since this was written.
    """

    known: dict[str, str]
    shown: dict[str, int]
    live: bool


def check_trackers(config: ConfigDict) -> None:
    """Checks the names in `config.train.trackers`, and that their packages are installed. Nothing is opened.

    Raises:
      UserError: a name is unknown or given twice, or a package is missing.
    """
    found: set[type[Tracker]] = set()
    for name in config.train.trackers:
        if not isinstance(name, str):
            raise UserError(f"config.train.trackers must be names, such as ('wandb',), of which {name!r} is none.")
        if name == TENSORBOARD:
            raise UserError(f"config.train.trackers: {name!r} has a key of its own, config.train.tensorboard.")
        cls = _class(name)
        if cls in found:
            raise UserError(f"config.train.trackers names {name!r} twice; name it once.")
        found.add(cls)
        cls.check()


def _class(name: str) -> type[Tracker]:
    return find("tracker", name, "config.train.trackers")


class Trackers:
    """The trackers that a config names, with TensorBoard unless `config.train.tensorboard` is off.

    A tracker that cannot begin ends the command where it begins for the first time. Later failures do not end a
    training, which may have run for days: the tracker is left out until the next start, a warning and an event in
    `run.json` say so, and the next start shows it what it missed.

    Args:
      config: a checked config.
      workdir: the run's folder.
      tensorboard: whether TensorBoard is among them, if the config asks for it.
    """

    def __init__(self, config: ConfigDict, workdir: epath.PathLike, tensorboard: bool = True):
        check_trackers(config)
        self._config, self._workdir = config, epath.Path(workdir)
        self._tensorboard = tensorboard and config.train.tensorboard
        self._entries: dict[str, Entry] = {}
        self._open: dict[str, Tracker] = {}

    def begin(self, rows: Sequence[Row], resume_step: int) -> None:
        """Opens all of them, and shows each the lines that it lacks.

        Args:
          rows: the lines of `metrics.jsonl`, with those of steps after `resume_step`, which will be written again.
          resume_step: the step that the run goes on from. At 0 it begins, as a new run in each tracker.

        Raises:
          UserError: a tracker cannot begin to show the run.
        """
        kept = [row for row in rows if row["step"] <= resume_step]
        restart = None if not rows else int(kept[-1]["images"]) + 1 if kept else 0
        self._entries = self._stored() if resume_step else {}
        for entry in self._entries.values():
            if entry["live"]:
                _add(entry["shown"], rows)
                entry["live"] = False
        if self._tensorboard:
            self._begin(TENSORBOARD, TensorBoard(), restart)
        for name in self._config.train.trackers:
            self._begin(name, _class(name)(), restart)
        self._write()  # before they are shown anything: what is lost in between is shown again
        for row in kept:
            values = {key: math.nan if value is None else value for key, value in row.items() if key not in OWN}
            self._show(values, int(row["images"]), [name for name in self._open if name != TENSORBOARD])
        for name in self._open.keys() & self._entries.keys():
            self._entries[name]["live"] = True
        self._write()

    def _begin(self, name: str, tracker: Tracker, restart: int | None) -> None:
        entry = self._entries.get(name)
        try:
            known = tracker.begin(Start(self._workdir, self._config, restart, entry["known"] if entry else {}))
        except Exception as error:  # of another package
            if entry is not None:
                self._lose(name, error)
                return
            if isinstance(error, UserError):
                raise
            raise UserError(f"the tracker {name!r} cannot begin: {first_line(error)}") from error
        self._open[name] = tracker
        if not tracker.rewinds:
            self._entries[name] = Entry(known=known, shown=entry["shown"] if entry else {}, live=False)

    def scalars(self, images: int, values: Mapping[str, float]) -> None:
        """Shows numbers, finite or not, to each tracker that has not shown them yet."""
        self._show(values, images, list(self._open))

    def _show(self, values: Mapping[str, float], images: int, names: Iterable[str]) -> None:
        for name in names:
            shown = self._entries[name]["shown"] if name in self._entries else {}
            new = {key: value for key, value in values.items() if images > shown.get(key, -1)}
            if new and self._call(name, "scalars", images, new):
                shown.update(dict.fromkeys(new, images) if name in self._entries else {})

    def image(self, name: str, images: int, array: np.ndarray) -> None:
        """Shows a picture `[H, W, C]` (uint8, or float in [-1, 1])."""
        picture, key = to_rgb(array), f"picture:{name}"
        for one in list(self._open):
            shown = self._entries[one]["shown"] if one in self._entries else {}
            if images > shown.get(key, -1):
                if self._call(one, "image", name, images, picture) and one in self._entries:
                    shown[key] = images
        self._write()  # a picture leaves no line in metrics.jsonl

    def flush(self) -> None:
        """Has each send or write what waits."""
        for name in list(self._open):
            self._call(name, "flush")

    def close(self) -> None:
        """Closes all; calling it again does nothing."""
        for name in list(self._open):
            closed = self._call(name, "close")
            if closed and name in self._entries:
                self._entries[name]["live"] = False
        if self._open:
            self._write()
        self._open = {}

    def _call(self, name: str, method: str, *arguments: Any) -> bool:
        """Calls a tracker's method; returns whether it worked. A failed one is left out from then on."""
        try:
            getattr(self._open[name], method)(*arguments)
        except Exception as error:  # of another package
            del self._open[name]
            self._lose(name, error)
            return False
        return True

    def _lose(self, name: str, error: Exception) -> None:
        text = f"the tracker {name!r} failed and is left out until the next start: {first_line(error)}"
        log.warning("%s", text)
        add_event(self._workdir, "tracker failed", text)
        if name in self._entries:
            self._entries[name]["live"] = False
            self._write()

    def _stored(self) -> dict[str, Entry]:
        path = self._workdir / FILE
        return read_json(path, dict[str, Entry]) if path.exists() else {}

    def _write(self) -> None:
        if self._entries:
            write_json(self._workdir / FILE, self._entries)


def show_scores(config: ConfigDict, workdir: epath.PathLike, step: int, images: int, scores: Row) -> None:
    """Shows the numbers of the evaluation at a run's end, `{name: number}`, as `evaluate/<name>`.

    TensorBoard is left out: `metrics.json` and the report have them.
    """
    if config.train.trackers:
        path = epath.Path(workdir) / "metrics.jsonl"
        trackers = Trackers(config, workdir, tensorboard=False)
        trackers.begin([row for _, row in metric_lines(path)] if path.exists() else [], step)
        trackers.scalars(images, {f"evaluate/{name}": value for name, value in scores.items()})
        trackers.close()


def _add(shown: dict[str, int], rows: Iterable[Row]) -> None:
    """Adds the numbers of lines to what was shown."""
    for row in rows:
        for key in row.keys() - set(OWN):
            shown[key] = max(shown.get(key, -1), int(row["images"]))
