"""MLflow: a run on a tracking server, or in a database in the run's folder."""

from __future__ import annotations

import json
import os
import pathlib
import re
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import jaxgen
from jaxgen.config import leaves, to_json
from jaxgen.errors import UserError
from jaxgen.files import is_remote
from jaxgen.runs.trackers.base import Start, Tracker

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8

LONGEST = 6000  # characters of a parameter; a longer one would be cut or refused
TOGETHER = {"params": 100, "metrics": 1000}  # most entries of one call


class MLflow(Tracker):
    """MLflow: on the server of MLFLOW_TRACKING_URI, or in `workdir/mlflow`. A call waits until the server has answered.

    The experiment is MLFLOW_EXPERIMENT_NAME, or "jaxgen"; the run is called MLFLOW_RUN_NAME, or as its folder. The
    config is its parameters, one for each key, and the file `config.json`. MLflow's parameters never change: where a
    resumed run has another value of a key, the tag `config.<key>` says which.
    """

    config_name = "mlflow"
    package = "mlflow"

    def begin(self, start: Start) -> dict[str, str]:
        from mlflow import MlflowClient

        uri, artifacts = _store(start)
        self._client: Any = MlflowClient(tracking_uri=uri)
        if start.known:
            self._run = start.known["run"]
            self._client.update_run(self._run, status="RUNNING")
        else:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "jaxgen"
            experiment = self._client.get_experiment_by_name(name)
            number = experiment.experiment_id if experiment else self._client.create_experiment(name, artifacts)
            called = os.environ.get("MLFLOW_RUN_NAME") or start.workdir.name
            tags = {"jaxgen.version": jaxgen.__version__}
            self._run = self._client.create_run(number, run_name=called, tags=tags).info.run_id
        self._tell(start)
        return {"run": self._run}

    def _tell(self, start: Start) -> None:
        """Writes the config: as parameters where the run has none of that name, and as tags where another value."""
        from mlflow.entities import Param

        told = self._client.get_run(self._run).data
        there, tags = told.params, told.tags
        found = {_allowed(key): _text(value) for key, value in leaves(start.config)}
        for several in _parts("params", [Param(key, text) for key, text in found.items() if key not in there]):
            self._client.log_batch(self._run, params=several)
        for key in found.keys() & there.keys():
            if found[key] != tags.get(f"config.{key}", there[key]):
                self._client.set_tag(self._run, f"config.{key}", found[key])
        self._client.log_text(self._run, to_json(start.config), "config.json")

    def scalars(self, images: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        made = [Metric(_allowed(name), value, now, images) for name, value in values.items()]
        for several in _parts("metrics", made):
            self._client.log_batch(self._run, metrics=several)

    def image(self, name: str, images: int, picture: UInt8[np.ndarray, "H W 3"]) -> None:
        self._client.log_image(self._run, picture, key=name, step=images)

    def flush(self) -> None:  # nothing waits
        pass

    def close(self) -> None:
        self._client.set_terminated(self._run)


def _store(start: Start) -> tuple[str, str | None]:
    """Returns where runs are kept and where their files are; None for the place that the server chooses."""
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri, None
    if is_remote(start.workdir):
        raise UserError(
            "config.train.trackers='mlflow' needs a server where --workdir is remote: set MLFLOW_TRACKING_URI."
        )
    folder = pathlib.Path(os.fspath(start.workdir)).resolve() / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()


def _allowed(name: str) -> str:
    """Returns a name of the characters that MLflow allows."""
    return re.sub(r"[^\w.\- /]", "_", name)


def _text(value: object) -> str:
    """Returns the value of a config's key as a parameter; of one that is too long, where it stands."""
    text = value if isinstance(value, str) and value else json.dumps(value)
    return text if len(text) <= LONGEST else f"({len(text):,} characters: see config.json)"


def _parts(what: str, entries: list[Any]) -> Iterator[list[Any]]:
    size = TOGETHER[what]
    for start in range(0, len(entries), size):
        yield entries[start : start + size]
