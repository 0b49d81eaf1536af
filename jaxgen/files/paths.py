"""Checks paths: those that a user gives, and names that a file gives.

Every path on the command line and in a config passes through `user_path` once, so that `~`, stores such as `gs://` and
texts that no file can be called are understood in one way everywhere.
"""

from __future__ import annotations

import os
import stat
from typing import Any

import fsspec
from etils import epath

from jaxgen.errors import UserError, os_refusal
from jaxgen.files.hub import hub_folder, hub_name, names_hub

# The package that opens a store, by the start of its paths.
DRIVERS = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs"}


def is_remote(path: epath.PathLike) -> bool:
    """Returns whether a path is in an object store (`gs://...`), which can neither rename nor append."""
    return "://" in os.fspath(path)


def user_path(text: epath.PathLike, named_by: str, hub: bool = False) -> epath.Path:
    """Returns the path that a user gives; nothing is opened, and it need not exist.

    A leading `~` is the home folder. A relative path is taken from the current folder, and stays relative.

    Args:
      named_by: the flag or the key that gives it, such as "--out" or "config.data.source", for messages.
      hub: whether it may be `hf:owner/name`, a repository of the Hugging Face hub, whose files are then fetched
        (`jaxgen.files.hub`).

    Raises:
      UserError: the text is empty or no name that a file can have, the user after `~` is unknown, it is of a store
        that no installed package opens, or names a repository where none is read or that cannot be fetched.
    """
    text = os.fspath(text)
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{named_by} is empty; give a path.")
    if "\0" in text:
        raise UserError(f"{named_by}={text!r} holds a zero byte, which no path can; correct it.")
    try:
        os.fsencode(text).decode("utf-8")
    except UnicodeError as error:
        raise UserError(f"{named_by}={text!r} is not a name in UTF-8; rename the file or folder.") from error
    if names_hub(text):
        return epath.Path(hub_folder(text, named_by)) if hub else _not_fetched(text, named_by)
    if is_remote(text):
        return _in_store(text, named_by)
    expanded = os.path.expanduser(text)
    if expanded.startswith("~") and not os.path.exists(expanded):
        user = expanded.split("/")[0]
        raise UserError(f"{named_by}={text}: there is no user {user[1:]!r}; write ./{text} for a folder of that name.")
    made = epath.Path(expanded)
    return made.absolute() if names_hub(os.fspath(made)) else made  # "./hf:..." loses its "./", and is a folder


def _not_fetched(text: str, named_by: str) -> epath.Path:
    name = hub_name(text, named_by)
    raise UserError(
        f"{named_by}={text}: a repository of the hub is named in config.init_from, and in --workdir for --mode=sample "
        f"and --mode=demo; for other uses fetch it (hf download {name.repo} --local-dir=DIR), and name DIR."
    )


def _in_store(text: str, named_by: str) -> epath.Path:
    store = text.split("://")[0]
    if store not in DRIVERS:
        known = ", ".join(f"{name}://" for name in DRIVERS)
        raise UserError(f"{named_by}={text}: {store}:// is not read or written here; use a local path, or {known}.")
    try:
        fsspec.get_filesystem_class(store)
    except ImportError as error:
        raise UserError(
            f"{named_by}={text}: the package {DRIVERS[store]} opens {store}:// and is not installed; "
            f"run pip install {DRIVERS[store]}."
        ) from error
    return epath.Path(text)


def regular_file(path: epath.PathLike, named_by: str) -> epath.Path:
    """Returns the path of a file that can be read; a name that a user gives passes through `user_path` first.

    Args:
      named_by: what gives the name, for messages.

    Raises:
      UserError: there is nothing, a folder, or a FIFO, device or socket, which would be waited for without an end.
    """
    path = epath.Path(path)
    kind = _kind(path, named_by)
    if kind == "a folder":
        raise UserError(f"{_named(named_by, path)} is a folder; name a file.")
    if kind != "a file":
        raise UserError(f"{_named(named_by, path)} is {kind}, not a file; name a file.")
    return path


def folder(path: epath.PathLike, named_by: str) -> epath.Path:
    """Returns the path of a folder that is there; a name that a user gives passes through `user_path` first.

    Raises:
      UserError: there is nothing, or something that is not a folder.
    """
    path = epath.Path(path)
    kind = _kind(path, named_by)
    if kind != "a folder":
        raise UserError(f"{_named(named_by, path)} is {kind}, not a folder; name a folder.")
    return path


def _named(named_by: str, path: object) -> str:
    """Returns "--out=a" for a path that a flag or a key gives, and "the file a" for one that is not given by name."""
    return f"{named_by} {path}" if named_by.startswith("the ") else f"{named_by}={path}"


def _kind(path: epath.Path, named_by: str) -> str:
    if is_remote(path):
        if path.is_dir():
            return "a folder"
        if not path.exists():
            raise UserError(f"{_named(named_by, path)}: there is no such file or folder.")
        return "a file"
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        bare = OSError(error.errno, error.strerror)  # without the path, which stands before it
        raise UserError(f"{_named(named_by, path)}: {os_refusal(bare)}") from error
    except ValueError as error:
        raise UserError(f"{_named(named_by, repr(os.fspath(path)))} cannot be the name of a file ({error}).") from error
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISREG(mode):
        return "a file"
    return "a pipe (FIFO)" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"


def inside(folder: epath.PathLike, name: Any, named_by: epath.PathLike = "") -> epath.Path:
    """Returns the path of a name that is given by a file, not by the user; it must not lead out of the folder.

    Links are followed before the check, `gs://` paths are checked by their text. In Hugging Face's cache, whose folders
    hold links into a folder `blobs` of the repository, and those into one of the whole cache, these are accepted too.

    Args:
      named_by: the file that gives the name, if one file does.

    Raises:
      UserError: the name leads out of the folder, or is not text.
    """
    folder, giver = epath.Path(folder), named_by or folder
    if not isinstance(name, str) or not name or "\0" in name:
        raise UserError(f"{giver} gives {name!r} where the name of a file is needed; correct or remove the file.")
    path = folder / name
    if is_remote(folder):
        target, within = os.fspath(path), ".." not in name.split("/") and not name.startswith("/")
    else:
        target, roots = _followed(path), [_followed(folder), *(_blobs(named_by) if named_by else ())]
        within = any(os.path.commonpath([root, target]) == root for root in roots)
    if not within or is_remote(name):
        raise UserError(
            f"{giver} names {name!r}, which leads to {target}, outside of its folder, and is not read; remove the "
            "entry, or copy the file into the folder."
        )
    return path


def _blobs(file: epath.PathLike) -> list[str]:
    """Returns the folders that files beside this one may lie in, where it is one of Hugging Face's cache."""
    blobs = os.path.dirname(_followed(file))
    repository = os.path.dirname(blobs)
    if os.path.basename(blobs) != "blobs":
        return []
    of_all = os.path.join(os.path.dirname(repository), "blobs")  # files that several repositories have, since 2.0
    return [blobs, *([of_all] if os.path.basename(repository).startswith("models--") else [])]


def _followed(path: epath.PathLike) -> str:
    try:
        return os.path.realpath(os.fspath(path))
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise UserError(f"{os.fspath(path)!r} cannot be the name of a file ({error}).") from error
