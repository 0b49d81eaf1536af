"""A trained model from a workdir, ready to sample from and to judge."""

from __future__ import annotations

import dataclasses

import jax
from etils import epath
from ml_collections import ConfigDict

from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.train import state as states
from jaxgen.train.checkpoint import Checkpoints, Meta
from jaxgen.train.generate import Generator
from jaxgen.train.setup import Stages, load_given, make_method


@dataclasses.dataclass(frozen=True)
class Trained:
    """Attributes:
    generator: draws from models of this method. model: EMA parameters. step, images: how far it was trained.
    """

    generator: Generator
    model: Model
    step: int
    images: int


def restore(config: ConfigDict, workdir: epath.PathLike) -> Trained:
    """The newest readable checkpoint's model.

    Raises:
      UserError: where there is none.
    """
    method = make_method(config)
    generator = Generator(method, config)
    checkpoints = Checkpoints(workdir, config.train.keep_last, read_only=True)
    given = load_given(config, generator.mesh, checkpoints.origins())

    def stages(meta: Meta) -> Stages:
        example = {k: jax.ShapeDtypeStruct(shape, dtype) for k, (shape, dtype) in meta.example.items()}
        return Stages(config, method, generator.mesh, given, example)

    found = checkpoints.restore(lambda meta: stages(meta).abstract(meta.stage))
    if found is None:
        raise UserError(f"{workdir} has no finished checkpoint yet; train first, with --mode=train.")
    state, meta = found
    frozen = {g: p for g, p in given.params.items() if g not in state.params}
    return Trained(generator, states.model(state, frozen, meta.stage), meta.step, meta.images)
