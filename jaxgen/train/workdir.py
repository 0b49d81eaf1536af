"""The folder of a run: what is in it, and what may change when the same command is given again."""

from __future__ import annotations

import errno
import os
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from jaxgen.config import differences, from_json, may_change, to_json
from jaxgen.errors import UserError
from jaxgen.report.files import write_bytes

# Beside lengths, cadences and mesh, these may differ when a trained model is used.
_IN_USE = ("sampler", "train.total_images")


def adopt(workdir: epath.PathLike, config: ConfigDict, *, training: bool) -> tuple[ConfigDict, dict[str, Any]]:
    """Makes or enters a workdir, and settles the config against the one it was begun with.

    Returns:
      The config to use and what changed, `{key: (old, new)}`.

    Raises:
      UserError: where the folder cannot be written, or a key differs that may not; all such keys are named.
    """
    workdir = epath.Path(workdir)
    stored = workdir / "config.json"
    old = _stored_config(stored)
    if old is None:
        if not training:
            raise UserError(f"{workdir} holds no run (it has no config.json); train one first, with --mode=train.")
        _settle(config, config)
        _writable(workdir)
        if (workdir / "checkpoints").exists() and any((workdir / "checkpoints").iterdir()):
            raise UserError(f"{workdir} holds checkpoints but no config.json; use another workdir.")
        write_bytes(stored, to_json(config).encode())
        return config, {}
    _settle(config, old)
    changed = differences(old, config)
    refused = {k: v for k, v in changed.items() if not may_change(k, () if training else _IN_USE)}
    if refused:
        keys = "; ".join(f"config.{k} was {a!r} and is {b!r}" for k, (a, b) in refused.items())
        raise UserError(f"{workdir} was begun with another config: {keys}. Use another workdir, or the values there.")
    if training:
        _writable(workdir)
        if changed:
            write_bytes(stored, to_json(config).encode())
    return config, changed


def _settle(config: ConfigDict, begun: ConfigDict) -> None:
    """Fixes what depends on the length a run was begun with, so that a longer one goes on alike."""
    for path in ("optimizer", *(f"optimizers.{g}" for g in config.optimizers)):
        own, old = config, begun
        for key in path.split("."):
            own, old = own[key], old.get(key, {})
        decays = own.get("decay", config.optimizer.decay) != "constant"
        if decays and not own.get("decay_images", 0) and (path == "optimizer" or "decay" in own):
            own.decay_images = old.get("decay_images", 0) or begun.train.total_images


def _stored_config(path: epath.Path) -> ConfigDict | None:
    if not path.exists():
        return None
    try:
        return from_json(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not readable as JSON ({error}); restore it, or use another workdir.") from error


def _writable(workdir: epath.Path) -> None:
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        probe = workdir / f".write_test_{os.getpid()}"
        probe.write_bytes(b"0" * 4096)
        probe.unlink()
    except OSError as error:
        raise UserError(f"--workdir={workdir}: {sentence(error)}") from error


def sentence(error: OSError) -> str:
    """An operating system's refusal as one sentence with the mend."""
    where = f" ({error.filename})" if error.filename else ""
    mends = {
        errno.ENOSPC: "the disk is full; free some space and give the same command again",
        errno.EDQUOT: "the disk quota is used up; free some space and give the same command again",
        errno.EFBIG: "a file would be larger than is allowed here; raise the limit or use another disk",
        errno.EROFS: "the disk is read-only; choose another folder",
        errno.EACCES: "permission denied; choose a folder you may write to",
        errno.EPERM: "not permitted; choose a folder you may write to",
        errno.ENOTDIR: "a part of the path is a file; choose another folder",
        errno.EEXIST: "it is a file; choose another folder",
    }
    return f"{mends.get(error.errno, error.strerror or str(error))}{where}."
