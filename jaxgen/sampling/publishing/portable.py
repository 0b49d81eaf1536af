"""Makes the config and the tokenizer of a run such as they are of use where the run's own folders are not."""

from __future__ import annotations

import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxgen.config import from_json, to_json
from jaxgen.errors import UserError
from jaxgen.files import user_path, write_bytes
from jaxgen.files.hub import names_hub
from jaxgen.runs.workdir import TOKENIZER

PLACES = ("data", "evaluate", "init_from")  # sections whose texts may be paths


def check_portable(config: ConfigDict, workdir: str) -> None:
    """Checks that a run's model can be made without a folder that others do not have; nothing is read.

    Raises:
      UserError: the method is built on such a folder, or a graft starts from a file.
    """
    named = config.init_from.get("pretrained")
    if named and not names_hub(named):
        raise UserError(
            f"{workdir} is built on config.init_from.pretrained={named}, a folder that others lack: publish that "
            "first, and begin a run with config.init_from.pretrained=hf:<owner>/<name>; a folder of diffusers is "
            "written by python -m jaxgen.sampling.export."
        )
    grafts = config.method.get("grafts") or {}
    for name, graft in grafts.items():
        if isinstance(graft, Mapping | ConfigDict) and graft.get("file"):
            raise UserError(
                f"{workdir} starts config.method.grafts.{name} from the file {graft['file']}, which others lack; "
                "python -m jaxgen.sampling.export writes its grafts as files."
            )


def portable_config(config: ConfigDict, tokenizer: bool) -> ConfigDict:
    """Returns the config of a published run: without the user's folders, of which the last name stays, and without the
    sources of weights, all of which the published file has. A base on the hub stays, since its config is read there.

    Args:
      tokenizer: whether the folder has a tokenizer of its own.
    """
    plain = json.loads(to_json(config))
    for section in PLACES:
        plain[section] = _without_folders(plain[section])
    plain["data"]["root"] = ""
    if tokenizer:
        plain["data"]["tokenizer"] = TOKENIZER
    plain["init_from"] = {key: text for key, text in plain["init_from"].items() if key == "pretrained" and text}
    return from_json(json.dumps(plain))


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_folders(inner) for inner in value]
    return public_text(value) if isinstance(value, str) else value


def public_text(text: str) -> str:
    """Returns a text such as "folder:/home/me/photos" without the folders above: "folder:photos"."""
    return ":".join(_public_part(part) for part in text.split(":"))


def _public_part(part: str) -> str:
    private = re.match(r"~|/(?!/)|\.\.?/", part)
    return pathlib.PurePosixPath(part).name if private else part


def write_tokenizer(config: ConfigDict, folder: pathlib.Path) -> list[str]:
    """Writes the tokenizer of a run's texts where it lies in the user's files; returns the names of what it wrote.

    Raises:
      UserError: it cannot be read.
    """
    from jaxgen.data.sources.captions import subwords_of
    from jaxgen.data.subwords.t5_tokenizer import TOKENIZER_FILES, WORDS
    from jaxgen.data.word_tokenizer import WordTokenizer
    from jaxgen.runs.tuning.words import NAMED, own_tokenizer

    kind, _, argument = config.data.source.partition(":")
    if config.init_from.get("pretrained") or not (config.data.tokenizer or kind in ("captions", "npz")):
        return []
    tokenizer = own_tokenizer(config)
    if tokenizer is None:
        return []
    if isinstance(tokenizer, WordTokenizer):
        write_bytes(folder / TOKENIZER / WORDS, tokenizer.to_json().encode())
        return [f"{TOKENIZER}/{WORDS}"]
    named, root = config.data.tokenizer, config.data.root or None
    place = pathlib.Path(user_path(named, NAMED, hub=True) if named else subwords_of(argument, root))
    names = [name for name in TOKENIZER_FILES if (place / name).is_file()]
    for name in names:
        write_bytes(folder / TOKENIZER / name, (place / name).read_bytes())
    return [f"{TOKENIZER}/{name}" for name in names]
