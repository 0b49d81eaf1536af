"""Writes a run's config as JSON and reads it again, and decides which keys may differ when the run is resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxgen.config.schema import defaults, section

# Keys that may change when a run is resumed: lengths, cadences, devices, and the places of data. "*" is any group.
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
    "train.trackers",
    "optimizer.warmup_images",
    "optimizer.constant_images",
    "optimizer.decay_images",
    "optimizers.*.warmup_images",
    "optimizers.*.constant_images",
    "optimizers.*.decay_images",
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
    before, after = (dict(leaves(c)) for c in (old, new))
    keys = sorted({*before, *after})
    return {k: (before.get(k), after.get(k)) for k in keys if before.get(k) != after.get(k)}


def leaves(config: ConfigDict) -> Iterator[tuple[str, Any]]:
    """Yields `(key, value)` of every value of a config, as JSON has it; an empty section has none."""
    return _leaves(json.loads(to_json(config)))


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
    words = key.split(".")
    return any(_begins(words, k.split(".")) for k in CHANGEABLE + extra)


def _begins(words: list[str], pattern: list[str]) -> bool:
    return len(words) >= len(pattern) and all(p in ("*", w) for w, p in zip(words, pattern, strict=False))


def follow_total(begun: ConfigDict, config: ConfigDict | None = None) -> list[str]:
    """Lets the decays of a stored config follow `train.total_images` where an older version stored that number.

    A `decay_images` of 0 means that the rate falls until the end of the run. Older versions of jaxgen stored the length
    that the run began with in its place, so that a longer run would have ended at a rate of 0.

    Args:
      begun: the stored config, which is changed.
      config: the config to go on with. Where it gives a `decay_images` itself, `begun` keeps its own.

    Returns:
      The keys that are set to 0, or removed where the group then inherits 0.
    """
    found = []
    for path, own in _optimizer_sections(begun).items():
        whole = {**begun.optimizer, **own}
        if whole.get("decay", "constant") == "constant" or own.get("decay_images") != begun.train.get("total_images"):
            continue
        if config is not None:
            chosen = {**config.optimizer, **_optimizer_sections(config).get(path, {})}
            if chosen.get("decay_images", 0):
                continue
        if path != "optimizer" and not begun.optimizer.get("decay_images", 0):
            del own["decay_images"]
        else:
            own.decay_images = 0
        found.append(f"{path}.decay_images")
    return found


def _optimizer_sections(config: ConfigDict) -> dict[str, ConfigDict]:
    """Returns `{path: section}` of `optimizer` and of each group's own section, the shared one first."""
    groups = {f"optimizers.{group}": own for group, own in config.get("optimizers", {}).items()}
    sections = {"optimizer": config.optimizer, **groups}
    return {path: own for path, own in sections.items() if isinstance(own, ConfigDict)}
