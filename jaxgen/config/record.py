"""How a run keeps its config: as JSON, there and back, and which keys may differ when it is resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxgen.config.schema import defaults, section

# Keys that may change between the runs of one workdir: how long, how often, on what, and where things lie.
CHANGEABLE = (
    "train.total_images",
    "train.log_every_images",
    "train.checkpoint_every_images",
    "train.sample_every_images",
    "train.evaluate_every_images",
    "train.keep_last",
    "train.keep_best",
    "train.best_metric",
    "train.best_mode",
    "train.max_nonfinite_updates",
    "train.tensorboard",
    "mesh",
    "sharding",
    "distributed",
    "data.workers",
    "data.root",
    "evaluate",
)
# A JSON object with these sections is the config of a run.
ALWAYS = {"method", "data", "train"}


def to_json(config: ConfigDict) -> str:
    """The resolved config as JSON text, keys sorted. Raises ValueError for a number that is not finite."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True, allow_nan=False, default=_plain_section)


def _plain_section(value: Any) -> dict[str, Any]:
    """A section that stands in a tuple, where `to_dict` leaves it as it is."""
    if isinstance(value, ConfigDict):
        return value.to_dict()
    raise TypeError(f"a config holds numbers, texts, tuples and sections, not {value!r}")


def from_json(text: str) -> Any:
    """The inverse of `to_json`; lists are tuples.

    A key that the config of a run lacks, since it was written before the key was there, has its default: runs of an
    older version resume. Other JSON comes back as it is. Raises ValueError for text that is no JSON.
    """
    config = _plain(json.loads(text))
    if isinstance(config, ConfigDict) and ALWAYS <= set(config):
        _fill(config, defaults())
    return config


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return section(**{k: _plain(v) for k, v in value.items()})
    return tuple(_plain(v) for v in value) if isinstance(value, list) else value


def _fill(config: ConfigDict, known: ConfigDict) -> None:
    """Adds the keys of `known` that `config` lacks, in sections of both too."""
    for key, value in known.items():
        if key not in config:
            config[key] = value
        elif isinstance(value, ConfigDict) and isinstance(config[key], ConfigDict):
            _fill(config[key], value)


def differences(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """`{key: (old, new)}` for every leaf that differs; a missing one reads as None."""
    before, after = (dict(_leaves(json.loads(to_json(c)))) for c in (old, new))
    keys = sorted({*before, *after})
    return {k: (before.get(k), after.get(k)) for k in keys if before.get(k) != after.get(k)}


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else key)
    else:
        yield path, value


def may_change(key: str, extra: tuple[str, ...] = ()) -> bool:
    """Whether a run may be resumed with another value of `key` (without the leading `config.`).

    Args:
      extra: further keys and sections that may change, beside `CHANGEABLE`.
    """
    return any(key == k or key.startswith(k + ".") for k in CHANGEABLE + extra)
