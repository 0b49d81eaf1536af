"""The shared keys of a config, their defaults, and the check that rejects a misspelt one.

A config is an `ml_collections.ConfigDict`. `defaults()` returns every key that all experiments share; a file
in `configs/` fills it in. Sections that a factory validates (`method`, `sampler`, `optimizer`, ...) are
*open*: which keys they may have is decided by what they name (see `jaxgen.build`).

Nothing here imports JAX, so that a config error answers at once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxgen.errors import UserError
from jaxgen.renamed import unknown_key

# Sections whose keys are checked by the factory that builds from them, or that hold names the user chooses.
OPEN = ("method", "sampler", "guidance", "optimizer", "optimizers", "init_from", "data.extra")

# Keys that may change between the runs of one workdir: how long, how often, on what, and where things lie.
CADENCES = (
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


def section(**entries: Any) -> ConfigDict:
    """A config section; values may change type (an int may be given where a float stands)."""
    return ConfigDict(entries, type_safe=False)


def defaults() -> ConfigDict:
    """Every shared key. Lengths and cadences count images drawn from the data, so that they survive
    a change of batch size; 0 means never, unless said otherwise."""
    return section(
        seed=0,
        method=section(name=""),
        data=section(
            source="",  # digits, shapes, tfds:<name>, folder:<path>, npz:<path>
            split="train",
            eval_split="test",
            resolution=32,  # pixels, or (height, width)
            channels=3,
            num_classes=0,  # 0: labels are not used
            flip=False,  # random horizontal flip
            crop=0,  # random crop after reflect-padding by this many pixels
            root="",  # TFDS data_dir; "" is the default one
            workers=0,  # reader processes, for data that do not fit in memory
            extra=section(),  # further named sources: extra.<name> = {source, split}
        ),
        optimizer=section(
            name="adamw",  # any optax optimiser that takes a learning rate
            learning_rate=1e-4,
            warmup_images=0,  # linear warm-up
            decay="constant",  # constant, cosine or linear: down to 0 at decay_images
            decay_images=0,  # 0: train.total_images as it was when the run began
            clip_norm=0.0,  # global norm over a turn's groups together; 0: none
            clip_weights=0.0,  # each weight stays in [-clip_weights, clip_weights] (WGAN's critic); 0: none
        ),
        optimizers=section(),  # optimizers.<group> = {...} overrides optimizer for one group
        train=section(
            batch_size=64,
            total_images=0,
            log_every_images=10_000,
            checkpoint_every_images=100_000,
            sample_every_images=100_000,
            evaluate_every_images=0,  # 0: at the end only
            accumulate=1,  # micro-batches per update
            ema_decay=0.999,  # per update, with a warm-up; 0: the EMA is the parameters
            keep_last=2,
            keep_best=0,
            best_metric="",  # a name in metrics.json or metrics.jsonl
            best_mode="min",  # whether the best is the lowest (min) or the highest (max)
            max_nonfinite_updates=10,  # consecutive non-finite updates before the run stops
            tensorboard=True,
        ),
        sampler=section(),
        guidance=section(),  # how sampling is steered; none where it is empty
        mesh=section(
            data=0,  # devices that a batch is split over; 0: as many as the others leave and as divide the batch
            fsdp=1,  # devices that both the batch and the state are split over
            tensor=1,  # devices that layers are split over
        ),
        sharding=section(
            rules=(),  # ((expression, (axis or None, ...)), ...): found in a parameter's path; of its dimensions
            min_size=1024,  # values of the smallest array that fsdp splits unasked
        ),
        distributed=section(
            coordinator="",  # host:port of the first of several processes, or auto; "": alone, unless the environment
            num_processes=0,  # names others: JAX_COORDINATOR_ADDRESS; 0: JAX_NUM_PROCESSES
            process_id=-1,  # -1: JAX_PROCESS_ID
            heartbeat=30,  # seconds after which a silent process counts as gone
            timeout=300,  # seconds that meeting and parting may take
        ),
        init_from=section(),  # init_from.<group> = <workdir of a run>[#<group there>]
        evaluate=section(
            num=1000,
            real=50_000,  # real images of each split that judges look at, at most
            batch_size=250,  # also the batch of --mode=sample
            metrics=(),
            weights="",  # a file or folder of the published weights that metrics look through; "": found or fetched
            resize="legacy",  # how images come to Inception's size: legacy (the first FID's) or clean (clean-FID's)
            at_end=True,
        ),
    )


def check(config: ConfigDict) -> None:
    """Checks the shared keys against `defaults()`: names, types, ranges.

    Raises:
      UserError: naming the key and, for an unknown one, the nearest known.
    """
    _check_section(config, defaults(), "config")
    train = config.train
    for key in ("batch_size", "total_images", "accumulate", "keep_last", "log_every_images"):
        if train[key] < 1:
            raise UserError(f"config.train.{key} is {train[key]}; it must be at least 1.")
    if not 0 <= config.seed < 2**32:
        raise UserError(f"config.seed is {config.seed}; it must lie in [0, 2**32).")
    if train.total_images >= 2**32:
        raise UserError("config.train.total_images must be below 2**32, the range of the image counter.")
    for key in ("checkpoint_every_images", "sample_every_images", "evaluate_every_images", "keep_best"):
        if train[key] < 0:
            raise UserError(f"config.train.{key} is {train[key]}; it must be 0 (never) or more.")
    if train.batch_size % train.accumulate:
        raise UserError(
            f"config.train.accumulate={train.accumulate} does not divide "
            f"config.train.batch_size={train.batch_size}; choose a divisor."
        )
    for key, least in (("num", 2), ("real", 2), ("batch_size", 1)):
        if config.evaluate[key] < least:
            raise UserError(f"config.evaluate.{key} is {config.evaluate[key]}; it must be at least {least}.")
    if config.evaluate.resize not in ("legacy", "clean"):
        raise UserError(f"config.evaluate.resize={config.evaluate.resize!r} is unknown; it is 'legacy' or 'clean'.")
    for key in ("crop", "num_classes", "workers"):
        if config.data[key] < 0:
            raise UserError(f"config.data.{key} is {config.data[key]}; it must be 0 (none) or more.")
    if config.mesh.data < 0:
        raise UserError(f"config.mesh.data is {config.mesh.data}; it must be 0 (as many as divide the batch) or more.")
    for key in ("fsdp", "tensor"):
        if config.mesh[key] < 1:
            raise UserError(f"config.mesh.{key} is {config.mesh[key]}; it must be 1 (no splitting) or more.")
    if config.sharding.min_size < 0:
        raise UserError(f"config.sharding.min_size is {config.sharding.min_size}; it must be 0 or more.")
    for key in ("heartbeat", "timeout"):
        if config.distributed[key] < 1:
            raise UserError(f"config.distributed.{key} is {config.distributed[key]}; it must be at least 1 second.")
    if not 0 <= train.ema_decay < 1:
        raise UserError(f"config.train.ema_decay is {train.ema_decay}; it must lie in [0, 1).")
    if not config.data.source:
        raise UserError("config.data.source is empty; name a data set, such as 'digits' or 'folder:photos'.")
    if not config.method.get("name"):
        raise UserError("config.method.name is empty; name a method, such as 'ddpm'.")
    if train.keep_best and not train.best_metric:
        raise UserError("config.train.keep_best needs config.train.best_metric, the metric to judge by.")
    if train.best_mode not in ("min", "max"):
        raise UserError(f"config.train.best_mode={train.best_mode!r} is unknown; it is 'min' or 'max'.")
    shared = defaults().optimizer
    for group, own in config.optimizers.items():
        if not isinstance(own, ConfigDict):
            raise UserError(f"config.optimizers.{group} must be a section with keys, not {own!r}.")
        for key in own:
            if key in shared:
                _check_type(own[key], shared[key], f"config.optimizers.{group}.{key}")
    for name, extra in config.data.extra.items():
        if not isinstance(extra, Mapping | ConfigDict) or "source" not in extra or "split" not in extra:
            raise UserError(f"config.data.extra.{name} must be a section with 'source' and 'split'.")


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


def _check_type(value: Any, known: Any, path: str) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if path == "config.data.resolution":
        sides = value if isinstance(value, tuple | list) else (value, value)
        ok = len(sides) == 2 and all(isinstance(s, int) and s > 0 for s in sides)
    elif isinstance(known, bool) or isinstance(known, str):
        ok = isinstance(value, type(known))
    elif isinstance(known, int):
        ok = isinstance(value, int) and not isinstance(value, bool)
    elif isinstance(known, float):
        ok = number and math.isfinite(value)
    else:
        ok = isinstance(value, tuple | list)
    if not ok:
        size = "a size in pixels or (height, width)"
        wanted = size if path.endswith("resolution") else f"of type {type(known).__name__}"
        raise UserError(f"{path} must be {wanted}, not {value!r}.")


def to_json(config: ConfigDict) -> str:
    """The resolved config as JSON text, keys sorted."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True, allow_nan=False)


def from_json(text: str) -> ConfigDict:
    """The inverse of `to_json` (tuples come back as tuples)."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return section(**{k: plain(v) for k, v in value.items()})
        return tuple(plain(v) for v in value) if isinstance(value, list) else value

    config = plain(json.loads(text))
    # a run may be judged, and laid out, by what was not there yet when it began
    for name in ("evaluate", "mesh", "sharding", "distributed") if isinstance(config, ConfigDict) else ():
        if name not in config and name != "evaluate" and "train" in config:
            config[name] = section()
        if isinstance(config.get(name), ConfigDict):
            for key, value in defaults()[name].items():
                if key not in config[name]:
                    config[name][key] = value
    return config


def differences(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """`{key: (old, new)}` for every leaf that differs; a missing one reads as None."""
    before, after = (dict(_leaves(json.loads(to_json(c)))) for c in (old, new))
    keys = sorted({*before, *after})
    return {k: (before.get(k), after.get(k)) for k in keys if before.get(k) != after.get(k)}


def may_change(key: str, extra: tuple[str, ...] = ()) -> bool:
    """Whether a run may be resumed with another value of `key` (without the leading `config.`)."""
    return any(key == k or key.startswith(k + ".") for k in CADENCES + extra)


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{path}.{key}" if path else key)
    else:
        yield path, value


def image_shape(config: ConfigDict) -> tuple[int, int, int]:
    """`(H, W, C)` of the images that the config's data gives."""
    side = config.data.resolution
    height, width = side if isinstance(side, tuple | list) else (side, side)
    return int(height), int(width), int(config.data.channels)
