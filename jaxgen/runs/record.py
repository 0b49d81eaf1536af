"""Who ran what on what: `run.json` and `config.json` of a run."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from jaxgen.config_record import to_json
from jaxgen.files import read_json, write_bytes
from jaxgen.runs.logs import hardware, run_record, versions


def record(workdir: epath.Path, command: str, summary: str, config: ConfigDict, params: Mapping[str, Any]) -> None:
    """Writes `config.json`, as resolved, and `run.json`: command, method, versions, hardware, parameter counts.

    Args:
      command: the whole command line. summary: a sentence about the experiment. params: a tree for each group.
    """
    write_bytes(workdir / "config.json", to_json(config).encode())
    known = read_json(workdir / "run.json") if (workdir / "run.json").exists() else {}
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    run_record(
        workdir,
        command=command,
        method=config.method.name,
        summary=summary,
        versions=versions(),
        hardware=hardware(),
        started=known.get("started", now),
        parameters={g: sum(x.size for x in jax.tree.leaves(p)) for g, p in params.items()},
    )
