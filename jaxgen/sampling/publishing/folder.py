"""Writes the folder of a published run, which others sample from and which is sent to the hub as it is."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from jaxgen.config import to_json
from jaxgen.errors import UserError
from jaxgen.files import read_json, write_bytes, write_json
from jaxgen.files.carried import carrying
from jaxgen.report.images import save_png
from jaxgen.runs.hub.published_run import PublishedRecord, write_weights
from jaxgen.sampling.publishing.card import make_card, paper_of, public_command
from jaxgen.sampling.publishing.portable import portable_config, write_tokenizer
from jaxgen.sampling.restore import TrainedModel

CARD, NUMBERS, PICTURE, RUN = "README.md", "metrics.json", "samples.png", "run.json"
KEPT = ("method", "summary", "versions", "parameters", "paper")  # entries of run.json


def write_folder(
    out: epath.PathLike,
    trained: TrainedModel,
    workdir: epath.PathLike,
    *,
    licence: str,
    name: str,
    place: str,
    num: int,
    seed: int,
    carried: Mapping[str, str],
) -> list[str]:
    """Writes the folder and returns the names of its files; the card comes last.

    Args:
      out: the folder, which is made if it is missing.
      trained: the run's model.
      workdir: the run's folder.
      licence: the licence's identifier on the hub.
      name: the run's name, for the card.
      place: what a command names to sample from the folder.
      num: how many images are drawn for `samples.png`.
      seed: the seed that they are drawn with.
      carried: texts that the picture carries.

    Raises:
      UserError: a file of the run is damaged, or what it draws cannot be drawn or written.
    """
    folder, config = pathlib.Path(out), trained.generator.config
    method = trained.generator.method
    picture = _picture(trained, seed, num)  # before anything is written: the data may be missing
    numbers, run = _numbers(workdir, trained.step), _run(workdir, name)
    tokenizer = write_tokenizer(config, folder)
    made = portable_config(config, bool(tokenizer))
    files = [*tokenizer, *write_weights(folder, _record(config, trained), trained.model.params, trained.model.memory)]
    write_bytes(folder / "config.json", to_json(made).encode())
    write_json(folder / RUN, run)
    files += ["config.json", RUN]
    if numbers:
        write_json(folder / NUMBERS, numbers)
        files.append(NUMBERS)
    if picture is not None:
        with carrying(carried):
            save_png(epath.Path(folder / PICTURE), picture)
        files.append(PICTURE)
    card = make_card(
        made, method, run, numbers, name=name, place=place, licence=licence, step=trained.step, images=trained.images,
        pictured=picture is not None,
    )  # fmt: skip
    write_bytes(folder / CARD, card.encode())
    return sorted([*files, CARD])


def _record(config: ConfigDict, trained: TrainedModel) -> PublishedRecord:
    example = {
        name: ((config.train.batch_size, *map(int, shape)), np.dtype(kind).name)
        for name, (shape, kind) in trained.example.items()
    }
    given = trained.given_groups, trained.given_memory
    return PublishedRecord(trained.step, trained.images, trained.model.stage, example, *given)


def _picture(trained: TrainedModel, seed: int, num: int) -> np.ndarray | None:
    """Returns a picture of some samples; None where the method draws nothing that can be seen."""
    method = trained.generator.method
    if not method.has_sampler or not trained.generator.output.pictured:
        return None
    return trained.generator.draw(trained.model, seed, num).picture()


def _numbers(workdir: epath.PathLike, step: int) -> dict[str, Any]:
    """Returns the numbers of the checkpoint of a step; {} where these weights were not evaluated."""
    for name in (NUMBERS, "metrics_best.json"):
        path = epath.Path(workdir) / name
        found = read_json(path) if path.exists() else {}
        about = found.get("_meta")
        if isinstance(about, Mapping) and about.get("step") == step:
            return found
    return {}


def _run(workdir: epath.PathLike, name: str) -> dict[str, Any]:
    """Returns what is published of `run.json`: no path, no host and no event."""
    path = epath.Path(workdir) / RUN
    record = read_json(path) if path.exists() else {}
    command = str(record.get("command") or "")
    parameters = record.get("parameters")
    if parameters is not None and not (
        isinstance(parameters, Mapping) and all(isinstance(n, int) for n in parameters.values())
    ):
        raise UserError(f"{path}: 'parameters' is no table of counts; restore the file.")
    kept = {key: record[key] for key in KEPT if key in record}
    own = {"command": public_command(command, name), "paper": record.get("paper") or paper_of(command)}
    return kept | {key: text for key, text in own.items() if text}
