"""Writes a run's config as JSON and reads it again, and decides which keys may differ when the run is resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxgen.config.schema import defaults, section

# Keys that may change when a run is resumed: lengths, cadences, devices, and the places of data.
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
    """Returns the resolved config as JSON text with sorted keys. Raises ValueError for a number that is not finite."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True, allow_nan=False, default=_plain_section)


def _plain_section(value: object) -> dict[str, Any]:
    """Returns a section within a tuple as a dict; `to_dict` leaves such sections unchanged."""
    if isinstance(value, ConfigDict):
        return value.to_dict()
    raise TypeError(f"a config holds numbers, texts, tuples and sections, not {value!r}")


def from_json(text: str) -> Any:
    """Reads a config from JSON text; the inverse of `to_json`. Lists become tuples.

    A key that the config of a run lacks gets its default, so that runs of an older version of jaxgen can be resumed.
    JSON that is not the config of a run is returned without defaults.

    Raises:
      ValueError: the text is not JSON.
    """
    config = _plain(json.loads(text))
    if isinstance(config, ConfigDict) and ALWAYS <= set(config):
        _fill(config, defaults())
    return config


def _plain(value: object) -> Any:
    if isinstance(value, dict):
        return section(**{k: _plain(v) for k, v in value.items()})
    return tuple(_plain(v) for v in value) if isinstance(value, list) else value


def _fill(config: ConfigDict, known: ConfigDict) -> None:
    """Adds the keys of `known` that `config` lacks, also within the sections that both have."""
    for key, value in known.items():
        if key not in config:
            config[key] = value
        elif isinstance(value, ConfigDict) and isinstance(config[key], ConfigDict):
            _fill(config[key], value)


def differences(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Returns `{key: (old, new)}` for every value that differs; None stands for a missing one."""
    before, after = (dict(_leaves(json.loads(to_json(c)))) for c in (old, new))
    keys = sorted({*before, *after})
    return {k: (before.get(k), after.get(k)) for k in keys if before.get(k) != after.get(k)}


def _leaves(value: object, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else key)
    else:
        yield path, value


def may_change(key: str, extra: tuple[str, ...] = ()) -> bool:
    """Returns whether a run may be resumed with another value of a key.

    Args:
      key: the key's path without the leading `config.`.
      extra: further keys and sections that may change, in addition to `CHANGEABLE`.
    """
    return any(key == k or key.startswith(k + ".") for k in CHANGEABLE + extra)
