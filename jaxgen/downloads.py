"""Published weights of other projects: where their files are, and fetching them once."""

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
FOLDER = "JAXGEN_WEIGHTS"  # environment variable: a folder that is searched before the cache


@dataclasses.dataclass(frozen=True)
class Published:
    """A file that its authors publish.

    Attributes:
      file: its name. url: where it is fetched. what: what it holds, as in "the Inception network of FID".
      sha256: its SHA-256 in hexadecimal digits, whole or the first of them.
      also: other names under which the same file goes.
    """

    file: str
    url: str
    sha256: str
    what: str
    also: tuple[str, ...] = ()


def cache_folder() -> pathlib.Path:
    """`jaxgen/weights` in the user's cache folder: XDG_CACHE_HOME, or `~/.cache`."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "jaxgen" / "weights"


def locate(published: Published, path: str | os.PathLike[str] = "") -> pathlib.Path:
    """The file on this machine, its hash checked.

    The first of: `path`, a file or a folder that holds it; the folder that the environment variable JAXGEN_WEIGHTS
    names; the cache, into which it is fetched where it is missing.

    Raises:
      UserError: where `path` is not there, the file is another one than was published, or it can not be fetched.
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
    """The SHA-256 of a file, 64 hexadecimal digits."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _within(folder: pathlib.Path, published: Published) -> pathlib.Path:
    """The file in a folder under any of its names, or its place there."""
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
    """Into a temporary file beside `target`, then renamed: a file under its own name is whole."""
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
                raise http.client.HTTPException(f"{opened.tell()} of {size} bytes came")
        _checked(part, published)
        part.chmod(0o644)
        part.replace(target)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(
            f"{published.file} ({published.what}) could not be fetched from {published.url} ({error}); fetch it "
            f"elsewhere and put it into {target.parent}, or into a folder that {FOLDER} names."
        ) from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
