"""Reads the trained models of a chain, ready to be sampled from and evaluated as one model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxgen.config import check
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.methods.cascade import Cascade, fitted
from jaxgen.runs.chains.stages import chain_runs, stage_configs
from jaxgen.runs.setup import make_method, new_words
from jaxgen.runs.tuning.words import base_tokenizer, own_tokenizer
from jaxgen.sampling.generator import Generator
from jaxgen.sampling.restore import TrainedModel, restore

log = logging.getLogger("jaxgen")


def open_chain(config: ConfigDict, checkpoint: str = "last") -> TrainedModel:
    """Returns the model of a chain, `config.init_from.pretrained = (run, run, ...)`.

    Its `step` and `images` are those of the last stage. Logs one line for each stage.

    Args:
      checkpoint: "last" or "best", of every stage.

    Raises:
      UserError: a run cannot be used, or the stages do not fit each other or the config.
    """
    check(config)
    if checkpoint not in ("last", "best"):
        raise UserError(f"--checkpoint={checkpoint} is a step of one run, and a chain has several: give last or best.")
    method = make_method(config)
    if not isinstance(method, Cascade):
        raise UserError(
            f"config.init_from.pretrained names several runs, which the method cascade samples, not "
            f"{config.method.name!r}: set config.method.name='cascade'."
        )
    generator = Generator(method, config)
    stages = stage_configs(config)
    if "tokens" in method.conditions:
        generator.words.update(_words(generator, method, stages))
    params: dict[str, Any] = {}
    memory: dict[str, Any] = {}
    step = images = 0
    for number, (run, stage) in enumerate(zip(chain_runs(config), stages, strict=True)):
        found = restore(stage, run, checkpoint)
        if found.model.stage != method.chain[number].method.stages[-1][1]:
            raise UserError(f"{method.told(number)} has not reached its last stage of training; train it to the end.")
        params |= {f"{number}/{group}": tree for group, tree in found.model.params.items()}
        memory |= {f"{number}/{name}": tree for name, tree in found.model.memory.items()}
        step, images = found.step, found.images
        log.info(_line(method, number, found))
    return TrainedModel(generator, Model(params, memory), step, images, dict(method.entries))


def _line(method: Cascade, number: int, found: TrainedModel) -> str:
    """Returns a line that says what a stage is, what it reads, and what that costs."""
    part = method.chain[number]
    evaluations = getattr(getattr(part.method, "sampler", None), "evaluations", None)
    said = [f"{method.told(number)} at step {found.step}: {'x'.join(map(str, part.image_shape))}"]
    said += [f"{evaluations} network evaluations an image"] if evaluations is not None else []
    reads = [*method.outside(number)]
    if number:
        link = method.link(number)
        change = ""
        if method.chain[number - 1].method.gives == "image":
            change = fitted(method.chain[number - 1].image_shape, tuple(part.entries[link][0]))
        reads.append(f"{link} from stage {number - 1}" + (f" ({change})" if change else ""))
    return "; ".join([*said, f"reads {', '.join(reads)}" if reads else "reads nothing"])


def _words(generator: Generator, method: Cascade, stages: tuple[ConfigDict, ...]) -> Mapping[str, tuple[int, ...]]:
    """Returns the words that stages learned beside those of their tokenizer, `{word: token ids}`.

    Raises:
      UserError: a stage learned its texts with another tokenizer, or other words, than the chain's data or other stages
        have: all are given the same tokens.
    """
    config = generator.config
    tokenizer = getattr(generator.source(config.data.eval_split), "tokenizer", None)
    reading = [number for number in range(len(stages)) if "tokens" in method.outside(number)]
    words = [new_words(stages[number]) for number in reading]
    for number, own in zip(reading, words, strict=True):
        stage = stages[number]
        try:
            other = base_tokenizer(stage) or own_tokenizer(stage)
        except UserError as error:
            raise UserError(f"the tokenizer of {method.told(number)} cannot be read: {error}") from error
        if other != tokenizer:
            raise UserError(
                f"{method.told(number)} learned with the words of {stage.data.source}, which are others than those of "
                f"config.data.source={config.data.source!r}: a prompt goes to every stage, so all need one tokenizer."
            )
        if own != words[0]:
            raise UserError(
                f"{method.told(reading[0])} knows the new words {', '.join(words[0]) or 'none'}, and "
                f"{method.told(number)} {', '.join(own) or 'none'}: a prompt goes to every stage, so all need the same."
            )
    return words[0]
