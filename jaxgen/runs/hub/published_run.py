"""Reads and writes the weights of a published run, a folder without optimiser state that others sample from.

    config.json         the run's config
    checkpoint.json     what a checkpoint records beside its weights: step, images, stage, shapes of a batch, checksums
    model.safetensors   all groups, each its average where there is one, and the memory: params/<group>/..., memory/...
    tokenizer/          the files of the tokenizer, where the run's texts have one of their own

`jaxgen.sampling.publishing` adds the card, numbers and pictures.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import msgspec
import numpy as np
from etils import epath

from jaxgen.errors import UserError
from jaxgen.files import parse_json, read_text, write_json
from jaxgen.interop.diffusers_files import Entry, open_weights, save_weights
from jaxgen.runs.integrity import checksums, verify
from jaxgen.runs.workdir import RECORD

STEM = "model"
WEIGHTS = f"{STEM}.safetensors"

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


@dataclasses.dataclass(frozen=True)
class PublishedRecord:
    """Holds what `checkpoint.json` says.

    Attributes:
      step: updates done.
      images: training images seen.
      stage: the stage whose shapes the arrays have.
      example: `{name: (shape, dtype)}` of a batch.
      given: the groups that the run was given (`config.init_from`) and that are in the file as all others.
      given_memory: the memory entries that came with them.
      sums: a checksum of every array.
    """

    step: Count
    images: Count
    stage: Count
    example: dict[str, tuple[tuple[Count, ...], str]]
    given: tuple[str, ...] = ()
    given_memory: tuple[str, ...] = ()
    sums: dict[str, Count] = dataclasses.field(default_factory=dict)


def write_weights(folder: pathlib.Path, record: PublishedRecord, params: Any, memory: Any) -> list[str]:
    """Writes `model.safetensors` and `checkpoint.json`; returns their names.

    Raises:
      UserError: an array has a type that a safetensors file does not hold, or two have one name.
    """
    leaves = jax.tree_util.tree_flatten_with_path({"params": params, "memory": memory})[0]
    named = [(jax.tree_util.keystr(path, simple=True, separator="/"), np.asarray(leaf)) for path, leaf in leaves]
    arrays = dict(named)
    if len(arrays) != len(named):
        raise UserError("two arrays of the model have the same name in a safetensors file; rename a group or a layer.")
    save_weights(folder / WEIGHTS, [Entry(name, x, tuple(range(x.ndim))) for name, x in named])
    write_json(folder / RECORD, dataclasses.asdict(dataclasses.replace(record, sums=checksums(arrays))))
    return [WEIGHTS, RECORD]


def read_record(workdir: epath.PathLike) -> PublishedRecord:
    """Reads `checkpoint.json`.

    Raises:
      UserError: it is damaged.
    """
    path = epath.Path(workdir) / RECORD
    record = parse_json(read_text(path), str(path), PublishedRecord)
    try:
        for _, kind in record.example.values():
            np.dtype(kind)
    except TypeError as error:
        raise UserError(f"{path}: {error}; fetch it again.") from error
    return record


def read_arrays(workdir: epath.PathLike) -> tuple[PublishedRecord, dict[str, np.ndarray]]:
    """Returns the record, and every array by its name, such as `params/denoiser/conv_in/kernel`.

    Raises:
      UserError: a file is missing or damaged.
    """
    record, weights = read_record(workdir), open_weights(os.fspath(workdir), STEM)
    arrays = dict(weights)
    try:
        verify(checksums(arrays), record.sums)
        lost = next((name for name in record.sums if name not in arrays), None)
        if lost is not None:
            raise ValueError(f"it has no {lost!r}")
    except ValueError as error:
        raise UserError(f"{epath.Path(workdir) / WEIGHTS} is damaged ({error}); fetch it again.") from error
    return record, arrays


def nested(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """Returns `{"params": {group: parameters}, "memory": {...}}` of arrays by their names."""
    found: dict[str, Any] = {"params": {}, "memory": {}}
    for name, array in arrays.items():
        *above, last = name.split("/")
        inner = found
        for part in above:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise UserError(f"{WEIGHTS} has an array {name!r} below another one; fetch it again.")
        inner[last] = array
    return found
