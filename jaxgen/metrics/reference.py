"""Keeps on the disk what networks have seen of reference sets, so that a reference is seen once.

A file is found by everything that its content depends on: data set, split, size, channels, number and content of the
images, network, weights, resize, and the format. A change of any of them is another file.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxgen.errors import UserError
from jaxgen.files import parse_json
from jaxgen.files.arrays import read_npz
from jaxgen.metrics.moments import Moments
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.metrics.summary import Summary, in_batches, summarise

FORMAT = 1  # of the files; a new one leaves old files unread
BATCH = 500

log = logging.getLogger("jaxgen")


def folder() -> pathlib.Path:
    """Returns `jaxgen/reference` in the user's cache folder: XDG_CACHE_HOME, or `~/.cache`."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "jaxgen" / "reference"


def key_of(
    network: FeatureNetwork, name: str, shape: Sequence[int | str], count: int, content: str, keep: bool
) -> dict[str, Any]:
    """Returns what a summary depends on.

    Args:
      name: data set and split.
      shape: `(H, W, C)` as the network is given the images, or what says their sizes.
      content: a hash of the images.
      keep: whether the features are kept.
    """
    return {
        "format": FORMAT,
        "set": name,
        "shape": list(shape),
        "count": count,
        "content": content,
        "network": network.name,
        "digest": network.digest,
        "resize": network.resize,
        "tap": str(getattr(network, "tap", "")),
        "keep": keep,
    }


def path_of(key: dict[str, Any]) -> pathlib.Path:
    """Returns the file of a key, whether it exists or not."""
    found = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    return folder() / f"{key['network']}-{found}.npz"


def cached(key: dict[str, Any], make: Callable[[], Summary], recompute: bool = False) -> Summary:
    """Returns the summary of a key: it is read, or made and then kept.

    Where the folder cannot be written the summary is returned all the same, and a warning says so.

    Args:
      recompute: makes it again and replaces the file.

    Raises:
      UserError: for a file that is damaged, or another one than its name says.
    """
    path = path_of(key)
    if path.exists() and not recompute:
        return _read(path, key)
    summary = make()
    try:
        _write(path, key, summary)
    except OSError as error:
        log.warning("%s cannot be written (%s): reference statistics are not kept.", path, error.strerror or error)
    return summary


def of_array(network: FeatureNetwork, images: np.ndarray, name: str, keep: bool = True) -> Summary:
    """Returns the cached summary of uint8 images `[N, H, W, C]` that are in memory."""
    key = key_of(network, name, images.shape[1:], len(images), content_hash(images), keep)
    return cached(key, lambda: summarise(network, in_batches(images, BATCH), keep))


def content_hash(images: np.ndarray) -> str:
    """Returns the SHA-256 of an array's type, shape and bytes."""
    found = hashlib.sha256(f"{images.dtype.str} {images.shape}".encode())
    found.update(np.ascontiguousarray(images).data)
    return found.hexdigest()


def _write(path: pathlib.Path, key: dict[str, Any], summary: Summary) -> None:
    """Writes the file under a temporary name and then renames it: a file under its own name is complete."""
    arrays: dict[str, np.ndarray] = {"key": np.frombuffer(json.dumps(key, sort_keys=True).encode(), np.uint8)}
    arrays |= {"mean": summary.moments.mean, "scatter": summary.moments.scatter}
    arrays |= {k: v for k in ("features", "probabilities") if (v := getattr(summary, k)) is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as opened:
        part = pathlib.Path(opened.name)
        try:
            np.savez(opened, **arrays)  # type: ignore[arg-type]  # mypy fears an array called "allow_pickle"
            opened.close()
            part.chmod(0o644)
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _read(path: pathlib.Path, key: dict[str, Any]) -> Summary:
    try:
        arrays = read_npz(path)
        known = parse_json(np.asarray(arrays["key"], np.uint8).tobytes(), f"{path}, 'key'")
        moments = Moments(key["count"], arrays["mean"], arrays["scatter"])
    except (UserError, KeyError, ValueError) as error:
        raise UserError(
            f"The reference statistics in {path} are damaged ({str(error).rstrip('.')}); remove the file, or make it "
            "again with 'python -m jaxgen.metrics --recompute ...'."
        ) from error
    if known != key:
        raise UserError(
            f"The reference statistics in {path} are of another set than the name of the file says; remove it, or "
            "make it again with 'python -m jaxgen.metrics --recompute ...'."
        )
    return Summary(key["count"], moments, arrays.get("features"), arrays.get("probabilities"))
