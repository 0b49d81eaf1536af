"""Fetches repositories of the Hugging Face hub, and sends folders there, through the package `huggingface_hub`.

`hf:owner/name` and `hf:owner/name@revision` name a model repository and, of it, a branch, a tag or a commit. Fetched
files lie in the package's own cache; its environment variables hold here, too: HF_ENDPOINT, HF_HUB_CACHE, HF_TOKEN and
HF_HUB_OFFLINE. Only weights in safetensors, JSON, texts and the files of tokenizers are fetched, and no pickle.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from jaxgen.errors import UserError, first_line

log = logging.getLogger("jaxgen")

PREFIX = "hf:"
COMMIT = re.compile(r"[0-9a-f]{40}")
_WORD = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?"
_NAME = re.compile(rf"hf:(?P<repo>{_WORD}/{_WORD})(?:@(?P<revision>\w[\w./-]*))?", re.ASCII)
# Whole models in one file, such as v1-5-pruned.safetensors beside a pipeline's folders, have other names.
READ = ("*.json", "*.txt", "*.model", *(f"{x}*.safetensors" for x in (
    "model", "*/model", "diffusion_pytorch_model", "*/diffusion_pytorch_model")))  # fmt: skip
HALF = "*.fp16.*"  # fetched where there are no other weights
UNREAD = ("safety_checker/*", "feature_extractor/*", "image_encoder/*", "*.non_ema.*", "onnx/*", "*/onnx/*")
_folders: dict[HubName, pathlib.Path] = {}  # of the names that were asked for in this process


class HubName(NamedTuple):
    """Is what a text such as `hf:owner/name@main` says; the revision is "" where none is given."""

    repo: str
    revision: str

    @property
    def text(self) -> str:
        return f"{PREFIX}{self.repo}" + (f"@{self.revision}" if self.revision else "")


def names_hub(text: object) -> bool:
    """Returns whether a text names a repository of the hub, rightly or not."""
    return isinstance(text, str) and text.startswith(PREFIX)


def hub_name(text: str, named_by: str) -> HubName:
    """Returns what a text names; nothing is fetched.

    Raises:
      UserError: it is not `hf:owner/name` or `hf:owner/name@revision`.
    """
    found = _NAME.fullmatch(text)
    if found is None or ".." in text or "--" in (found["repo"] or ""):
        raise UserError(
            f"{named_by}={text}: a repository of the hub is named hf:<owner>/<name>, or hf:<owner>/<name>@<revision>; "
            f"a folder of that name is ./{text}."
        )
    return HubName(found["repo"], found["revision"] or "")


def check_package(named_by: str, text: str) -> None:
    """Raises a UserError where the package that speaks with the hub is not installed."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise UserError(
            f'{named_by}={text}: the package huggingface_hub is not installed; run pip install "jaxgen[hub]".'
        )


def hub_folder(text: str, named_by: str) -> pathlib.Path:
    """Returns the local folder of a repository's files, which are fetched if they are not there yet.

    A name is asked for once in a process, so that all that reads it has the same commit.

    Raises:
      UserError: the name is malformed or unknown, needs a token, has no weights that are read here, or the hub cannot
        be reached and the files are not in the cache.
    """
    name = hub_name(text, named_by)
    check_package(named_by, text)
    if name not in _folders:
        _folders[name] = _fetched(name, named_by)
    return _folders[name]


def commit_of(folder: pathlib.Path) -> str:
    """Returns the commit of the files in a folder that `hub_folder` gave."""
    return folder.name


def _fetched(name: HubName, named_by: str) -> pathlib.Path:
    from huggingface_hub import snapshot_download

    def fetch(*more: str) -> pathlib.Path:
        revision = name.revision or None
        patterns: dict[str, Any] = {"allow_patterns": [*READ], "ignore_patterns": [*UNREAD, *more]}
        return pathlib.Path(snapshot_download(name.repo, revision=revision, **patterns))

    with _told(f"{named_by}={name.text}", name):
        folder = fetch(HALF)
        if not _has_weights(folder):
            folder = fetch()
    if not (_has_weights(folder) or _has_tokenizer(folder)):
        raise UserError(
            f"{named_by}={name.text} has no weights that are read here: the repository has no model.safetensors and no "
            "diffusion_pytorch_model.safetensors, and pickles (.bin, .ckpt, .pt) are never fetched; name a repository "
            "with safetensors."
        )
    commit = commit_of(folder)
    if name.revision == commit:
        log.info("%s is in %s", name.text, folder)
    elif name.revision:
        log.info("%s is the commit %s, in %s", name.text, commit, folder)
    else:
        log.warning(
            "%s has no revision and is the commit %s today, in %s; hf:%s@%s names the same files for good",
            name.text, commit, folder, name.repo, commit,
        )  # fmt: skip
    return folder


def _has_weights(folder: pathlib.Path) -> bool:
    return any(folder.rglob("*.safetensors"))


def _has_tokenizer(folder: pathlib.Path) -> bool:
    return any((folder / name).exists() for name in ("spiece.model", "tokenizer.json", "merges.txt"))


@contextlib.contextmanager
def _told(what: str, name: HubName) -> Iterator[None]:
    """Makes one sentence of each error that the hub's package raises."""
    from huggingface_hub import errors

    login = "give a token that has been let in, by `hf auth login` or HF_TOKEN"
    try:
        yield
    except errors.GatedRepoError as error:
        raise UserError(f"{what}: this repository is gated; ask for access on its page, and {login}.") from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{what}: the hub has no repository {name.repo!r} that this token may read; correct the name or, if it is "
            f"private, {login}."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(
            f"{what}: the repository {name.repo!r} has no revision {name.revision!r}; name a branch, a tag or a whole "
            "commit that is there."
        ) from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        offline = isinstance(error, errors.OfflineModeIsEnabled) or isinstance(
            error.__cause__, errors.OfflineModeIsEnabled
        )
        why = "HF_HUB_OFFLINE is set" if offline else "the hub cannot be reached"
        raise UserError(
            f"{what}: {why}, and its files are not all in the cache of this machine; fetch them once with a network "
            f"(hf download {name.repo})."
        ) from error
    except errors.LocalTokenNotFoundError as error:
        raise UserError(f"{what}: the hub needs to know who asks; {login}.") from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "an error")
        more = f"; {login}" if status in (401, 403) else ""
        said = (getattr(error, "server_message", None) or first_line(error)).rstrip(".")
        raise UserError(f"{what}: the hub answers {status} ({said}){more}.") from error
    except OSError as error:
        raise UserError(f"{what}: {first_line(error).rstrip('.')}.") from error
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2", "huggingface_hub", "requests"):
            raise
        raise UserError(f"{what}: the hub cannot be reached ({first_line(error).rstrip('.')}).") from error


def send_folder(folder: pathlib.Path, files: Sequence[str], text: str, message: str, private: bool) -> str:
    """Sends files of a folder to a repository, which is made if it does not exist; returns the commit's address.

    Args:
      folder: the folder.
      files: the files' paths in it; no other file is sent.
      text: the repository and, after "@", the branch, which is made if it does not exist.
      message: the commit's first line.
      private: whether a repository that is made is private; if not, the hub's default holds.

    Raises:
      UserError: the hub refuses, or cannot be reached.
    """
    name = hub_name(text, "--push_to")
    check_package("--push_to", text)
    from huggingface_hub import HfApi

    api, size = HfApi(library_name="jaxgen"), sum(os.path.getsize(folder / file) for file in files)
    log.info(
        "sending %d files (%.1f MB: %s) to %s at %s; a repository that is not there yet is made, %s",
        len(files), size / 1e6, ", ".join(files), name.text, api.endpoint,
        "private" if private else "and everybody can read it unless your account makes private ones",
    )  # fmt: skip
    with _told(f"--push_to={text}", name):
        api.create_repo(name.repo, private=private or None, exist_ok=True)
        if name.revision:
            api.create_branch(name.repo, branch=name.revision, exist_ok=True)
        done = api.upload_folder(
            repo_id=name.repo, folder_path=folder, revision=name.revision or None, commit_message=message,
            allow_patterns=[*files],
        )  # fmt: skip
    return str(getattr(done, "commit_url", done))
