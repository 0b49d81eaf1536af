"""Checks that what a config asks for fits into this machine's memory; only products of its numbers are looked at."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from jaxgen.config.schema import image_shape
from jaxgen.errors import UserError
from jaxgen.sizes import LARGEST, PER_STEP, check_fits

PER_VALUE = 5  # bytes of an image's value: as uint8 from the data, and as float32 for the network
MOST_WORKERS = 1024


def check_sizes(config: ConfigDict, processes: int = 1) -> None:
    """Checks the sizes that follow from the config alone; the state's size is known once its shapes are.

    Args:
      config: a checked config.
      processes: the number of processes that share a batch.

    Raises:
      UserError: a number is too large; the message says what it would take and what to lower.
    """
    for key, value in _numbers(config, "config"):
        if abs(value) > LARGEST:
            raise UserError(f"{key} is {value}, which is larger than any size here; lower it.")
    shape = image_shape(config)
    size = "x".join(map(str, shape))
    train, evaluate = config.train, config.evaluate
    batches = {
        "train.batch_size": train.batch_size // processes,
        "evaluate.batch_size": evaluate.batch_size // processes,
        "evaluate.num": evaluate.num if evaluate.metrics else 0,
    }
    for key, count in batches.items():
        what = f"config.{key}={count} images of {size}"
        check_fits(count * math.prod(shape) * PER_VALUE, what, f"lower config.{key} or config.data.resolution")
    for key, value in _numbers({name: config[name] for name in ("method", "sampler", "guidance")}, "config"):
        if key.endswith(".steps"):
            check_fits(value * PER_STEP, f"{key}={value}", "lower it")
    if config.data.workers > MOST_WORKERS:
        raise UserError(f"config.data.workers={config.data.workers} is more than {MOST_WORKERS} processes; lower it.")


def check_count(config: ConfigDict, num: int) -> None:
    """Raises a UserError if `--num` images of the config's data cannot be held."""
    shape = image_shape(config)
    what = f"--num={num} images of {'x'.join(map(str, shape))}"
    check_fits(num * math.prod(shape) * PER_VALUE, what, "ask for fewer, with several seeds")


def _numbers(value: Any, path: str) -> Iterator[tuple[str, int]]:
    """Yields `(key, number)` of every whole number in a config, also of those in tuples."""
    if isinstance(value, int) and not isinstance(value, bool):
        yield path, value
    elif isinstance(value, tuple | list):
        for inner in value:
            yield from _numbers(inner, path)
    elif hasattr(value, "items"):
        for key, inner in value.items():
            yield from _numbers(inner, f"{path}.{key}")
