"""Keeps the record of a run in `run.json` and `config.json`: its command, versions, hardware and events.

In a run of several processes only the first one writes.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

import jaxgen
from jaxgen.arrays import Params
from jaxgen.config import to_json
from jaxgen.files import read_json, write_bytes, write_json

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def record(workdir: epath.Path, command: str, summary: str, config: ConfigDict, params: Params) -> None:
    """Writes `config.json`, as resolved, and `run.json`: command, method, versions, hardware, parameter counts.

    Args:
      workdir: the run's folder.
      command: the command line.
      summary: a sentence about the experiment.
      config: the resolved config.
      params: the parameters of each group, to be counted.
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


def run_record(workdir: epath.PathLike, **entries: object) -> None:
    """Sets top-level entries of `workdir/run.json` (made if missing, other entries kept), atomically."""
    path = epath.Path(workdir) / "run.json"
    write_json(path, {**(read_json(path) if path.exists() else {}), **entries})


def add_event(workdir: epath.PathLike, event: str, detail: object = "") -> None:
    """Appends {time (ISO, UTC), event, detail} to the `events` of `workdir/run.json`, atomically."""
    path = epath.Path(workdir) / "run.json"
    events = (read_json(path) if path.exists() else {}).get("events", [])
    stamp = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    run_record(workdir, events=[*events, {"time": stamp, "event": event, "detail": detail}])


def versions() -> dict[str, str]:
    """Returns the versions of Python, of jaxgen and of the packages in `PACKAGES`."""
    found = {"python": platform.python_version(), "jaxgen": jaxgen.__version__}
    return found | {name: importlib.metadata.version(name) for name in PACKAGES}


def hardware() -> dict[str, Any]:
    """Describes the machine and its devices. Starts JAX's backend if it has not started."""
    devices = jax.devices()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "platform": devices[0].platform,
        "device": devices[0].device_kind,
        "devices": len(devices),
        "processes": jax.process_count(),
        "cpu": _cpu_model(),
        "cores": cores,
        "system": f"{platform.system()} {platform.machine()}",
    }


def _cpu_model() -> str:
    """Returns the processor's name, from /proc/cpuinfo on Linux and from Python elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
