"""Finds the published weights of other projects on this machine, or fetches them once."""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import os
import pathlib
import tempfile
import urllib.request

import tqdm

from jaxgen.errors import UserError

TIMEOUT = 30.0  # seconds without a byte
CHUNK = 1 << 20
FOLDER = "JAXGEN_WEIGHTS"  # this environment variable names a folder that is searched before the cache


@dataclasses.dataclass(frozen=True)
class Published:
    """Describes a file that its authors publish.

    Attributes:
      file: the file's name.
      url: the address that it is fetched from.
      sha256: its SHA-256 in hexadecimal digits, all 64 of them or only the first ones.
      what: what it holds, for messages, such as "the Inception network of FID".
      also: other names under which the same file is published.
    """

    file: str
    url: str
    sha256: str
    what: str
    also: tuple[str, ...] = ()


def cache_folder() -> pathlib.Path:
    """Returns `jaxgen/weights` in the user's cache folder, which is XDG_CACHE_HOME or else `~/.cache`."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "jaxgen" / "weights"


def locate(published: Published, path: str | os.PathLike[str] = "") -> pathlib.Path:
    """Returns the path of the file on this machine after checking its hash.

    If `path` is given, it is the file or a folder that holds it. Otherwise the file is looked for in the folder that
    the environment variable JAXGEN_WEIGHTS names, then in the cache folder, into which it is fetched if it is missing.

    Raises:
      UserError: `path` does not exist, the file is not the published one, or it cannot be fetched.
    """
    if path:
        given = pathlib.Path(path).expanduser()
        given = _within(given, published) if given.is_dir() else given
        if not given.is_file():
            raise UserError(f"There is no file {given} with {published.what}; fetch {published.url} and name it.")
        return _checked(given, published)
    if folder := os.environ.get(FOLDER):
        if not pathlib.Path(folder).expanduser().is_dir():
            raise UserError(f"{FOLDER} names the folder {folder}, which is not there; create it or unset {FOLDER}.")
        found = _within(pathlib.Path(folder).expanduser(), published)
        if found.is_file():
            return _checked(found, published)
    kept = _within(cache_folder(), published)
    if not kept.is_file():
        _fetch(published, kept)
    return _checked(kept, published)


def sha256(path: pathlib.Path) -> str:
    """Returns the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _within(folder: pathlib.Path, published: Published) -> pathlib.Path:
    """Returns the file in a folder under any of its names, or else the path that it would have there."""
    places = [folder / name for name in (published.file, *published.also)]
    return next((place for place in places if place.is_file()), places[0])


def _checked(path: pathlib.Path, published: Published) -> pathlib.Path:
    found = sha256(path)
    if not found.startswith(published.sha256):
        raise UserError(
            f"{path} is not the published {published.file}: its SHA-256 begins with {found[:8]}, not "
            f"{published.sha256[:8]}; remove it and fetch {published.url} again."
        )
    return path


def _fetch(published: Published, target: pathlib.Path) -> None:
    """Fetches into a temporary file beside `target` and renames it, so that a file with its final name is complete."""
    part = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            urllib.request.urlopen(published.url, timeout=TIMEOUT) as answer,
            tempfile.NamedTemporaryFile(dir=target.parent, suffix=".part", delete=False) as opened,
        ):
            part = pathlib.Path(opened.name)
            size = int(answer.headers.get("Content-Length") or 0)
            with tqdm.tqdm(total=size or None, unit="B", unit_scale=True, desc=published.file, leave=False) as bar:
                while chunk := answer.read(CHUNK):
                    opened.write(chunk)
                    bar.update(len(chunk))
            if size and opened.tell() != size:
                raise http.client.HTTPException(f"only {opened.tell()} of {size} bytes arrived")
        _checked(part, published)
        part.chmod(0o644)
        part.replace(target)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"{published.file} ({published.what}) could not be fetched from {published.url} ({error}); fetch it "
            f"on another machine and put it into {target.parent}, or into a folder that {FOLDER} names. "
            "The feature network 'filters' needs no weights."
        ) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
