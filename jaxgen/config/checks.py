"""Checks configs: it refuses a misspelt key, a value of a wrong type, and a value out of its range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxgen.config.schema import defaults
from jaxgen.errors import UserError, check_entry_name
from jaxgen.renamed import unknown_key

# Sections that may have further keys: `jaxgen.build` checks their keys, or their keys are names that users choose.
OPEN = ("method", "sampler", "guidance", "optimizer", "optimizers", "init_from", "data.extra",
        "data.corruptions", "data.rename", "data.options")  # fmt: skip

# {key: (its least value, the words for this in a message)}
AT_LEAST_1, NEVER = (1, "at least 1"), (0, "0 (never) or more")
LEAST = {
    "train.batch_size": AT_LEAST_1,
    "train.total_images": AT_LEAST_1,
    "train.accumulate": AT_LEAST_1,
    "train.keep_last": AT_LEAST_1,
    "train.log_every_images": AT_LEAST_1,
    "train.checkpoint_every_images": NEVER,
    "train.sample_every_images": NEVER,
    "train.evaluate_every_images": NEVER,
    "train.keep_best": NEVER,
    "evaluate.num": (2, "at least 2"),
    "evaluate.real": (2, "at least 2"),
    "evaluate.batch_size": AT_LEAST_1,
    "data.crop": (0, "0 (none) or more"),
    "data.token_length": (0, "0 (what is usual for the tokenizer) or more"),
    "data.num_classes": (0, "0 (none) or more"),
    "data.examples": (0, "0 (all) or more"),
    "data.workers": (0, "0 (none) or more"),
    "mesh.data": (0, "0 (as many as divide the batch) or more"),
    "mesh.fsdp": (1, "1 (no splitting) or more"),
    "mesh.tensor": (1, "1 (no splitting) or more"),
    "sharding.min_size": (0, "0 or more"),
    "distributed.heartbeat": (1, "at least 1 second"),
    "distributed.timeout": (1, "at least 1 second"),
}
CHOICES = {"evaluate.resize": ("", "legacy", "clean"), "train.best_mode": ("min", "max")}
# The keys of each section of `data.extra`, and a value of the type that each must have.
EXTRA = {"source": "", "split": "", "eval_split": "", "channels": 0, "rename": ConfigDict(), "options": ConfigDict(),
         "captions": (), "num": 0}  # fmt: skip
SAMPLED = "sampled"  # the source of `data.extra` whose images the pretrained model draws
NEEDED = {
    "data.source": "name a data set, such as 'digits' or 'folder:photos'",
    "method.name": "name a method, such as 'ddpm'",
}


def check(config: ConfigDict) -> None:
    """Checks the keys that all configs share: their names and types, then their ranges, then whether they fit together.

    Raises:
      UserError: a key is wrong; the message names it and, if it is unknown, the most similar known key.
    """
    _check_section(config, defaults(), "config")
    _check_ranges(config)
    _check_together(config)
    _check_named_sections(config)


def check_sections(config: ConfigDict, where: str = "") -> None:
    """Checks only that what the code takes for a section is one: a stored config may hold anything in its place.

    Args:
      where: what is put before the sentence, such as the config's file and a colon.

    Raises:
      UserError: a number, a text or a list stands in place of a section.
    """
    _check_section_kinds(config, defaults(), f"{where} config" if where else "config")


def _check_section_kinds(config: ConfigDict, schema: ConfigDict, path: str) -> None:
    for key, known in schema.items():
        if isinstance(known, ConfigDict) and key in config:
            if not isinstance(config[key], ConfigDict):
                raise UserError(f"{path}.{key} must be a section with keys, not {config[key]!r}.")
            _check_section_kinds(config[key], known, f"{path}.{key}")


def _check_section(config: ConfigDict, schema: ConfigDict, path: str) -> None:
    for key, value in config.items():
        here = f"{path}.{key}"
        if key not in schema:
            if path.removeprefix("config.") in OPEN:
                continue
            raise unknown_key(path, key, schema.keys())
        known = schema[key]
        if isinstance(known, ConfigDict):
            if not isinstance(value, ConfigDict):
                raise UserError(f"{here} must be a section with keys, not {value!r}.")
            _check_section(value, known, here)
        else:
            _check_type(value, known, here)
    for key in schema:
        if key not in config:
            raise UserError(f"{path}.{key} is missing; start the config from jaxgen.config.defaults().")


def _check_type(value: Any, known: object, path: str) -> None:
    """Raises a UserError unless `value` has the type of the default `known`."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if path == "config.data.resolution":
        sides = value if isinstance(value, tuple | list) else (value, value)
        ok = len(sides) == 2 and all(isinstance(s, int) and s > 0 for s in sides)
    elif path == "config.evaluate.network":
        ok = isinstance(value, str | ConfigDict)
    elif isinstance(known, bool) or isinstance(known, str):
        ok = isinstance(value, type(known))
    elif isinstance(known, int):
        ok = isinstance(value, int) and not isinstance(value, bool)
    elif isinstance(known, float):
        ok = number and math.isfinite(value)
    else:
        ok = isinstance(value, tuple | list)
    if not ok:
        size = "a size in pixels or (height, width), of which one may be 0 on the command line for one picture's ratio"
        wanted = size if path.endswith("resolution") else f"of type {type(known).__name__}"
        raise UserError(f"{path} must be {wanted}, not {value!r}.")


def _check_ranges(config: ConfigDict) -> None:
    """Checks the range of each key."""

    def value_of(key: str) -> Any:
        name, _, last = key.partition(".")
        return config[name].get(last)

    for key, (least, words) in LEAST.items():
        if key == "train.total_images" and config.method.get("name") == "cascade":
            continue  # it does not train
        if value_of(key) < least:
            raise UserError(f"config.{key} is {value_of(key)}; it must be {words}.")
    if not 0 <= config.seed < 2**32:
        raise UserError(f"config.seed is {config.seed}; it must be in [0, 2**32).")
    if config.train.total_images >= 2**32:
        raise UserError("config.train.total_images must be below 2**32, the range of the image counter.")
    if not 0 <= config.train.ema_decay < 1:
        raise UserError(f"config.train.ema_decay is {config.train.ema_decay}; it must be in [0, 1).")
    for key, choices in CHOICES.items():
        if value_of(key) not in choices:
            raise UserError(f"config.{key}={value_of(key)!r} is unknown; it is {' or '.join(map(repr, choices))}.")
    for key, words in NEEDED.items():
        if not value_of(key):
            raise UserError(f"config.{key} is empty; {words}.")


def _check_together(config: ConfigDict) -> None:
    """Checks keys that must fit one another."""
    train = config.train
    if train.batch_size % train.accumulate:
        raise UserError(
            f"config.train.accumulate={train.accumulate} does not divide "
            f"config.train.batch_size={train.batch_size}; choose a divisor."
        )
    if train.keep_best and not train.best_metric:
        raise UserError("config.train.keep_best needs config.train.best_metric, the number that decides which is best.")
    if train.best_metric and not train.keep_best:
        raise UserError(
            f"config.train.best_metric={train.best_metric!r} has no effect while config.train.keep_best is 0: set it "
            "to the number of best checkpoints to keep, or leave best_metric empty."
        )
    _check_evaluation(config)


def _check_evaluation(config: ConfigDict) -> None:
    """Checks that the options of the evaluation's network have a network to change."""
    for key in ("weights", "resize"):
        if config.evaluate[key] and not config.evaluate.network:
            raise UserError(
                f"config.evaluate.{key} has no effect without config.evaluate.network, whose option it is; name one "
                "there, such as 'inception', or leave it out."
            )


def _check_named_sections(config: ConfigDict) -> None:
    """Checks the sections whose keys are names that users choose."""
    shared = defaults().optimizer
    for group, source in config.init_from.items():
        if group == "pretrained" and isinstance(source, tuple | list) and all(isinstance(run, str) for run in source):
            if len(source) > 1 or config.method.get("name") == "cascade":
                continue  # the runs of a chain
        if not isinstance(source, str):
            found = "a section" if isinstance(source, ConfigDict) else repr(source)
            raise UserError(f"config.init_from.{group} must be a text, such as the workdir of a run, not {found}.")
    for group, own in config.optimizers.items():
        if not isinstance(own, ConfigDict):
            raise UserError(f"config.optimizers.{group} must be a section with keys, not {own!r}.")
        for key in own:
            if key in shared:
                _check_type(own[key], shared[key], f"config.optimizers.{group}.{key}")
    for name, corruption in config.data.corruptions.items():
        check_entry_name(name, "config.data.corruptions")
        if not isinstance(corruption, str | Mapping | ConfigDict):
            raise UserError(f"config.data.corruptions.{name} must be a section with a 'name', not {corruption!r}.")
        if name in ("image", "label", "tokens", "mask"):
            raise UserError(
                f"config.data.corruptions.{name}: the entry {name!r} has a meaning of its own; use another name, such "
                "as 'condition'."
            )
    _check_rename(config.data.rename, "config.data.rename")
    _check_captions(config.data.captions, "config.data.captions")
    for name, extra in config.data.extra.items():
        check_entry_name(name, "config.data.extra")
        drawn = isinstance(extra, Mapping | ConfigDict) and extra.get("source") == SAMPLED
        if not isinstance(extra, Mapping | ConfigDict) or "source" not in extra or not drawn and "split" not in extra:
            raise UserError(f"config.data.extra.{name} must be a section with 'source' and 'split'.")
        for key, value in extra.items():
            if key not in EXTRA:
                raise unknown_key(f"config.data.extra.{name}", key, EXTRA)
            if key == "rename":
                _check_rename(value, f"config.data.extra.{name}.rename")
            elif key == "options":
                if not isinstance(value, Mapping | ConfigDict):
                    raise UserError(f"config.data.extra.{name}.options must be a section with keys, not {value!r}.")
            else:
                _check_type(value, EXTRA[key], f"config.data.extra.{name}.{key}")
        _check_captions(extra.get("captions", ()), f"config.data.extra.{name}.captions")
        _check_sampled(name, extra, drawn)


def _check_sampled(name: str, extra: Mapping[str, Any], drawn: bool) -> None:
    key = f"config.data.extra.{name}"
    if not drawn:
        if "num" in extra:
            raise UserError(f"{key}.num is for source='sampled', whose images are drawn; remove it.")
        return
    if not name.isidentifier():
        raise UserError(f"{key}: its images are kept in a file of this name; use a plain word, such as 'prior'.")
    if not extra.get("captions") or extra.get("num", 0) < 1:
        raise UserError(f"{key} draws images: it needs captions, such as ('a photo of a dog',), and num, how many.")
    for other in ("split", "eval_split", "channels", "rename", "options"):
        if extra.get(other):
            raise UserError(f"{key}.{other} has no use with source='sampled', whose images are drawn; remove it.")


def _check_captions(texts: Any, path: str) -> None:
    wrong = [text for text in texts if not isinstance(text, str) or not text.strip()]
    if wrong:
        raise UserError(f"{path} must be texts, such as ('a photo of a cat',), of which {wrong[0]!r} is none.")


def _check_rename(names: Any, path: str) -> None:
    if not isinstance(names, Mapping | ConfigDict):
        raise UserError(f"{path} must be a section of new and old names, such as section(condition='style').")
    for new, old in names.items():
        if not isinstance(old, str) or not old:
            raise UserError(f"{path}.{new} must be the old name of an entry, such as 'style', not {old!r}.")
