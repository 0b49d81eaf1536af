"""Lets a diffusion model begin with the noise that a user gives, in place of that of the random seed."""

from __future__ import annotations

import dataclasses
import os

from jaxgen.editing.edited import editable
from jaxgen.errors import UserError
from jaxgen.sampling.prompts import read_noise
from jaxgen.sampling.restore import TrainedModel


def with_noise(trained: TrainedModel, path: str | os.PathLike[str], num: int) -> TrainedModel:
    """Returns a model whose image i begins with row i of a file of standard normal noise.

    Args:
      trained: a diffusion model, or one with grafts.
      path: an npy file of floats `[N, h, w, c]` or `[N, c, h, w]`, of the shape of what is diffused.
      num: how many images are drawn; the file must have at least as many rows.

    Raises:
      UserError: the model does not begin with noise of its images, or the file cannot be used.
    """
    generator = trained.generator
    diffusion = editable(generator.method)
    shape = getattr(diffusion, "shape", None)
    if shape is None:
        raise UserError(
            "--noise was given, but this model does not begin with noise of its images' shape, as only diffusion "
            "models do; leave it out."
        )
    noise = {"noise": read_noise(path, shape, num)}
    return dataclasses.replace(trained, generator=generator.changed(generator.method, noise))
