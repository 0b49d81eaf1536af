"""Writes commits beside the repositories that a run's config names, so that a resumed run reads the same files."""

from __future__ import annotations

import logging
import re

from etils import epath
from ml_collections import ConfigDict

from jaxgen.files.hub import commit_of, hub_folder
from jaxgen.runs.workdir import recorded_sources

log = logging.getLogger("jaxgen")

# A repository without a revision, also behind the kind of its files and before a group: autoencoder_kl:hf:owner/name.
NAMED = re.compile(r"(?:^|(?<=:))hf:[^@#:]+(?=$|#)")


def pin(config: ConfigDict, workdir: epath.PathLike) -> None:
    """Sets the commit of each repository in `config.init_from` that is named without a revision.

    It is the commit that the run in the workdir began with, or else today's. A branch or a tag stays as it is written;
    the checkpoint records a hash of the weights, so that a run is not resumed where these have changed.

    Raises:
      UserError: a repository cannot be fetched.
    """
    if not any(NAMED.search(source) for source in config.init_from.values() if isinstance(source, str)):
        return
    begun = recorded_sources(workdir)
    for key, source in list(config.init_from.items()):
        if isinstance(source, str):
            config.init_from[key] = _pinned(source, str(begun.get(key, "")), f"config.init_from.{key}")


def _pinned(source: str, begun: str, key: str) -> str:
    found = NAMED.search(source)
    if found is None:
        return source
    known = re.search(rf"{re.escape(found[0])}@(\w[\w./-]*)", begun)
    if known:
        log.info("%s=%s is that of the commit that this run began with: %s", key, found[0], known[0])
    name = known[0] if known else f"{found[0]}@{commit_of(hub_folder(found[0], key))}"
    return source[: found.start()] + name + source[found.end() :]
