"""Reads a trained model from a workdir, or from a folder of diffusers, ready to be sampled from and evaluated."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Collection, Mapping, Sequence

import jax
from etils import epath
from jax.typing import DTypeLike
from ml_collections import ConfigDict

from jaxgen.config import check
from jaxgen.errors import UserError
from jaxgen.interop.diffusers_pipeline import read_params, read_pipeline
from jaxgen.methods.base import Model, State
from jaxgen.methods.diffusion.stable_diffusion import StableDiffusion
from jaxgen.parallel.mesh import replicated
from jaxgen.runs import state as states
from jaxgen.runs.checkpoint import Checkpoints, Meta
from jaxgen.runs.hub.model import published_model
from jaxgen.runs.loaded_groups import load_groups
from jaxgen.runs.pretrained import pretrained_folder
from jaxgen.runs.setup import make_method
from jaxgen.runs.state_builder import StateBuilder
from jaxgen.runs.workdir import config_of_run, is_published
from jaxgen.sampling.generator import Generator
from jaxgen.sampling.grafts.adapted import adapted
from jaxgen.sampling.grafts.requests import Adapter
from jaxgen.sampling.prompts import TextRequest, text_conditions

log = logging.getLogger("jaxgen")

Shape = tuple[tuple[int, ...], DTypeLike]  # of an entry of a batch, without the batch axis


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """Holds a model, and the generator that draws from it."""

    generator: Generator  # of the model's method
    model: Model  # EMA parameters
    step: int  # updates that it was trained for
    images: int  # training images that it has seen
    example: Mapping[str, Shape] = dataclasses.field(default_factory=dict)  # the entries of the batches it learned from
    given_groups: tuple[str, ...] = ()  # that `config.init_from` loaded
    given_memory: tuple[str, ...] = ()  # memory entries that came with them


def restore_run(workdir: epath.PathLike, trust: Collection[str] = (), flag: str = "") -> TrainedModel:
    """Reads the model of a run's newest checkpoint, by the config that the run was begun with.

    Args:
      workdir: the run's folder.
      trust: packages beside jaxgen whose classes the config may name.
      flag: how the user named the folder, such as "--clip"; "" leaves it out of what is said.

    Raises:
      UserError: the folder holds no run, or one without a finished checkpoint.
    """
    return restore(config_of_run(workdir, trust, f"{flag}={workdir}" if flag else ""), workdir)


def restore(
    config: ConfigDict, workdir: epath.PathLike, checkpoint: str | int = "last", adapters: Sequence[Adapter] = ()
) -> TrainedModel:
    """Reads the model of a run's checkpoint.

    Args:
      config: the run's config.
      workdir: the run's folder.
      checkpoint: "last" is the newest that can be read, "best" the best by the config's `train.best_metric`; a number
        is a step.
      adapters: files of small parts that are put on the model.

    Raises:
      UserError: where there is no such checkpoint.
    """
    check(config)  # a stored one may hold anything
    method = make_method(config)
    generator = Generator(method, config)
    read = _published if is_published(workdir) else _of_checkpoint
    found = read(config, generator, workdir, checkpoint)
    if said := method.told_at(found.model.stage):
        log.warning(said)
    if not adapters:
        return found
    method, params, words = adapted(method, found.model.params, adapters)
    generator, model = generator.changed(method, {}, words), dataclasses.replace(found.model, params=params)
    return dataclasses.replace(found, generator=generator, model=model)


def _of_checkpoint(
    config: ConfigDict, generator: Generator, workdir: epath.PathLike, checkpoint: str | int
) -> TrainedModel:
    train = config.train
    checkpoints = Checkpoints(
        workdir, train.keep_last, train.keep_best, train.best_metric, train.best_mode, read_only=True
    )
    loaded = load_groups(config, generator.mesh, checkpoints.origins())

    def abstract(meta: Meta) -> State:
        example = {k: jax.ShapeDtypeStruct(shape, dtype) for k, (shape, dtype) in meta.example.items()}
        return StateBuilder(config, generator.method, generator.mesh, loaded, example).abstract(meta.stage)

    if checkpoint == "last":
        found = checkpoints.restore(abstract)
    else:
        found = checkpoints.restore_step(_step(checkpoints, checkpoint, workdir), abstract)
    if found is None:
        raise UserError(f"{workdir} has no finished checkpoint yet; train first, with --mode=train.")
    state, meta = found
    model = states.model_of(state, states.frozen_groups(loaded.params, state), meta.stage)
    example = {name: (tuple(shape[1:]), dtype) for name, (shape, dtype) in meta.example.items()}
    given = tuple(loaded.params), tuple(loaded.memory)
    return TrainedModel(generator, model, meta.step, meta.images, example, *given)


def _published(
    config: ConfigDict, generator: Generator, workdir: epath.PathLike, checkpoint: str | int
) -> TrainedModel:
    model, record = published_model(config, generator.method, generator.mesh, workdir)
    if checkpoint not in ("last", record.step, str(record.step)):
        raise UserError(
            f"--checkpoint={checkpoint}: {workdir} is a published run, which has step {record.step} only; leave it out."
        )
    example = {name: (shape[1:], kind) for name, (shape, kind) in record.example.items()}
    given = record.given, record.given_memory
    return TrainedModel(generator, model, record.step, record.images, example, *given)


def pretrained(config: ConfigDict, request: TextRequest, adapters: Sequence[Adapter] = ()) -> TrainedModel:
    """Reads the diffusers pipeline that `config.init_from.pretrained` names, with the texts of a request and adapters.

    Raises:
      UserError: for a folder, texts or noise that cannot be used.
    """
    folder = pretrained_folder(config)
    method = make_method(config)
    if not isinstance(method, StableDiffusion):
        raise UserError(
            f"config.init_from.pretrained is for the method stable_diffusion, not for {config.method.name!r}: use "
            "--config=configs/stable_diffusion.py."
        )
    if method.spacing is not None:
        log.info(read_pipeline(folder).noise.told)
    given = {} if adapters else text_conditions(method, folder, request)  # before the weights are read
    generator = Generator(method, config)
    place = functools.partial(jax.device_put, device=replicated(generator.mesh))
    params = read_params(folder, method.param_dtype, place)
    if adapters:
        method, params, words = adapted(method, params, adapters)
        assert isinstance(method, StableDiffusion)  # with other networks
        given = text_conditions(method, folder, request, words)
    return TrainedModel(generator.changed(method, given), Model(params, {}), 0, 0)


def check_checkpoint(asked: str | int) -> None:
    """Raises a UserError for what can be no checkpoint of any run."""
    if asked not in ("last", "best"):
        try:
            int(asked)
        except ValueError as error:
            raise UserError(f"--checkpoint={asked} is neither last, nor best, nor a step.") from error


def _step(checkpoints: Checkpoints, asked: str | int, workdir: epath.PathLike) -> int:
    if asked != "best":
        check_checkpoint(asked)
        return int(asked)
    best = checkpoints.best_step()
    if best is None:
        raise UserError(
            f"{workdir} has no best checkpoint: it was trained without config.train.keep_best, best_metric and "
            "evaluate_every_images. Leave --checkpoint out for the newest."
        )
    return best
