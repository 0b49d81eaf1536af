"""Opens the folder of a run: says what is in it, and what may change when the same command is given again."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from jaxgen.config import check_sections, defaults, differences, follow_total, from_json, may_change, to_json
from jaxgen.config.trust import check_names
from jaxgen.errors import UserError
from jaxgen.files import FolderLock, check_writable, is_remote, metric_lines, read_text, write_bytes
from jaxgen.sizes import whole

log = logging.getLogger("jaxgen")

RECORD, TOKENIZER = "checkpoint.json", "tokenizer"  # of a published run (jaxgen.runs.hub)
_FOLDERS = ("checkpoints", "samples", "tensorboard", "damaged")
_FILES = (
    "config.json", "run.json", "metrics.jsonl", "metrics.json", "metrics_best.json", "report.html", "trackers.json",
)  # fmt: skip

# These keys, and those of lengths, intervals and the mesh, may differ when a trained model is used.
_IN_USE = (
    "sampler", "guidance", "init_from", "train.total_images", "data.corruptions.*.only",
    *(f"method.grafts.*.{key}" for key in ("scale", "start_share", "end_share")),
    *(f"method.{key}" for key in ("zero_shot", "same", "recall", "caption_temperature")),  # what is asked of a CLIP
)  # fmt: skip


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


def open_workdir(
    workdir: epath.PathLike, config: ConfigDict, *, training: bool, writes: bool = True
) -> tuple[ConfigDict, dict[str, Any]]:
    """Makes or enters a workdir, and settles the config against the one it was begun with.

    `config.json` is written where nothing was trained yet; later changes to it are `record`'s to write.

    Args:
      writes: whether this process is the one that writes.

    Returns:
      The config to use and what changed, `{key: (old, new)}`.

    Raises:
      UserError: where the folder cannot be written, or a part of it is a link that leads nowhere; where its checkpoints
        are gone; or where a key differs that may not; all such keys are named.
    """
    workdir = epath.Path(workdir)
    _check_places(workdir)
    if training and is_published(workdir):
        raise UserError(
            f"{workdir} is a published run, whose optimiser's state is not there, so that its training cannot go on; "
            f"begin a run with its weights in another workdir: config.init_from.<group>={workdir}."
        )
    folder = workdir / "checkpoints"
    saved = folder.exists() and any(whole(path.name) is not None for path in folder.iterdir())
    if not saved and training:  # nothing was trained yet, so that another config hurts nobody
        _check_history(workdir)
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


def _check_places(workdir: epath.Path) -> None:
    """Checks that what a run writes is not in the way of itself: links that lead nowhere, files in place of folders.

    Raises:
      UserError: naming the first such place. Nothing is written.
    """
    if is_remote(workdir):
        return
    for name in (*_FOLDERS, *_FILES):
        path, folder = Path(os.fspath(workdir)) / name, name in _FOLDERS
        if path.is_symlink() and not path.exists():
            raise UserError(
                f"{path} is a link to {os.readlink(path)}, where there is nothing; restore that, or remove the link."
            )
        if path.exists() and path.is_dir() != folder:
            kinds = ("a file", "a folder") if folder else ("a folder", "a file")
            raise UserError(f"{path} is {kinds[0]}, and a run keeps {kinds[1]} there; move it, or use another workdir.")


def _check_history(workdir: epath.Path) -> None:
    """Checks that a run without checkpoints is one that never had any, so that it may start again.

    The second checkpoint is written only once the first is complete, so the history of a run that was killed before its
    first one is not longer than two intervals.

    Raises:
      UserError: the run had checkpoints, and they are gone.
    """
    path, old = workdir / "metrics.jsonl", _read(workdir)
    rows = metric_lines(path) if path.exists() else []
    if not rows:
        return
    images, every = rows[-1][1]["images"], old.train.get("checkpoint_every_images") if old else 0
    if not (workdir / "checkpoints").exists() or (every and images > 2 * every):
        raise UserError(
            f"{workdir} holds the history of a run up to {images} images, and no checkpoint of it; restore "
            f"{workdir / 'checkpoints'}, use another workdir, or move {path} away to begin again."
        )


def keep_history(workdir: epath.Path) -> None:
    """Renames the history of a run that starts again, since it was killed before its first checkpoint."""
    path, number = workdir / "metrics.jsonl", 1
    if not path.exists() or not metric_lines(path):
        return
    while (kept := workdir / f"metrics.{number}.jsonl").exists():
        number += 1
    path.rename(kept)
    log.info("the run starts again; the history of the one that was killed before its first checkpoint is in %s", kept)


def is_published(workdir: epath.PathLike) -> bool:
    """Returns whether a folder is one of a published run, which has weights and no checkpoints."""
    folder = epath.Path(workdir)
    return not is_remote(folder) and (folder / RECORD).exists() and not (folder / "checkpoints").exists()


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


def config_of_run(workdir: epath.PathLike, trust: Collection[str] = (), named: str = "") -> ConfigDict:
    """Returns the config that a run was begun with, as `stored_config` does, of a folder that has to hold a run.

    Args:
      named: what the user wrote, such as "--rerank=runs/clip"; by default the folder itself.

    Raises:
      UserError: where there is no run, and as `stored_config`.
    """
    config = stored_config(workdir, trust)
    if config is None:
        raise UserError(
            f"{named or workdir} holds no run that can be used (it has no config.json); name the workdir of a run."
        )
    return config


def recorded_sources(workdir: epath.PathLike) -> dict[str, Any]:
    """Returns `config.init_from` as the run in a workdir recorded it, to be compared; {} where there is no run.

    Raises:
      UserError: where the file is damaged.
    """
    config = _read(workdir)
    return {} if config is None else dict(config.init_from.items())


def _read(workdir: epath.PathLike) -> ConfigDict | None:
    path = epath.Path(workdir) / "config.json"
    if not path.exists():
        return None
    try:
        config = from_json(read_text(path))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path} is not readable as JSON ({error}); restore it, or use another workdir.") from error
    if not isinstance(config, ConfigDict) or not {"method", "data", "train"} <= set(config):
        raise UserError(f"{path} is not the config of a run; restore it, or use another workdir.")
    check_sections(config, f"{path}:")
    if is_published(workdir) and config.data.get("tokenizer") == TOKENIZER:
        config.data.tokenizer = os.fspath(epath.Path(workdir) / TOKENIZER)
    return config
