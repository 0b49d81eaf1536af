"""Opens the folder of a run: says what is in it, and what may change when the same command is given again."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from jaxgen.config import defaults, differences, follow_total, from_json, may_change, to_json
from jaxgen.config.trust import check_names
from jaxgen.errors import UserError
from jaxgen.files import FolderLock, check_writable, write_bytes

log = logging.getLogger("jaxgen")

# These keys, and those of lengths, intervals and the mesh, may differ when a trained model is used.
_IN_USE = ("sampler", "guidance", "init_from", "train.total_images")


@contextlib.contextmanager
def alone_in(workdir: epath.PathLike) -> Iterator[FolderLock]:
    """Holds the lock of a workdir, so that no other training writes there; `jaxgen.files.lock` states the law.

    The first of several processes takes it for all of them. Other commands do not need it: while a run is trained, they
    read finished checkpoints and write complete files only, none of which the training reads.

    Raises:
      UserError: in every process, if another training holds the workdir, or it cannot be written.
    """
    from jaxgen.parallel.distributed import all_agree, is_first  # here, since it imports JAX

    lock, refusal = FolderLock(workdir, "--workdir"), None
    try:
        if is_first():
            try:
                lock.take()
            except UserError as error:
                refusal = error
        if not all_agree(refusal is None):
            raise refusal or UserError(f"process 0 of this run was refused --workdir={workdir}; see what it says.")
        yield lock
    finally:
        lock.release()


def open_workdir(workdir: epath.PathLike, config: ConfigDict, *, training: bool, writes: bool = True
) -> tuple[ConfigDict, dict[str, Any]]:
    """Makes or enters a workdir, and settles the config against the one it was begun with.

    `config.json` is written where nothing was trained yet; later changes to it are `record`'s to write.

    Args:
      writes: whether this process is the one that writes.

    Returns:
      The config to use and what changed, `{key: (old, new)}`.

    Raises:
      UserError: where the folder cannot be written, or a key differs that may not; all such keys are named.
    """
    workdir = epath.Path(workdir)
    saved = (workdir / "checkpoints").exists() and any(p.name.isdigit() for p in (workdir / "checkpoints").iterdir())
    if not saved and training:  # nothing was trained yet, so that another config hurts nobody
        if writes:
            check_writable(workdir, "--workdir")
            write_bytes(workdir / "config.json", to_json(config).encode())
        return config, {}
    old = _read(workdir)  # which is compared, and nothing is built from it
    if old is None:
        advice = "restore it, or use another workdir" if saved else "train first, with --mode=train"
        raise UserError(f"{workdir} holds no run that can be used (it has no config.json); {advice}.")
    total = old.train.get("total_images")
    followed = follow_total(old, config)
    changed = differences(old, config)
    refused = {k: v for k, v in changed.items() if not may_change(k, () if training else _IN_USE)}
    if refused:
        keys = "; ".join(f"config.{k} was {a!r} and is {b!r}" for k, (a, b) in refused.items())
        raise UserError(f"{workdir} was begun with another config: {keys}. Use another workdir, or the values there.")
    if training and writes:
        check_writable(workdir, "--workdir")
    if training and writes and followed and "train.total_images" in changed:
        keys = ", ".join(f"config.{key}" for key in followed)
        log.info(
            "%s was %s, the length of the run; the decay is understood to end with the run, now at %s images",
            keys, total, config.train.total_images,
        )  # fmt: skip
    return config, changed


def stored_config(workdir: epath.PathLike, trust: Collection[str] = ()) -> ConfigDict | None:
    """Returns the config that a run was begun with; None where there is no `config.json`.

    Args:
      trust: packages beside jaxgen whose classes it may name. The file may be anybody's, and an import runs code.

    Raises:
      UserError: where the file is damaged, or names a class of another package.
    """
    config = _read(workdir)
    if config is not None:
        check_names(config, epath.Path(workdir) / "config.json", trust)
        follow_total(config)
        config.distributed = defaults().distributed  # whom a process connects to is no file's to say
    return config


def _read(workdir: epath.PathLike) -> ConfigDict | None:
    path = epath.Path(workdir) / "config.json"
    if not path.exists():
        return None
    try:
        config = from_json(path.read_text())
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is not readable as JSON ({error}); restore it, or use another workdir.") from error
    if not isinstance(config, ConfigDict) or not {"method", "data", "train"} <= set(config):
        raise UserError(f"{path} is not the config of a run; restore it, or use another workdir.")
    return config
