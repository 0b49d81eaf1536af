"""Lets a model draw at another size than it learned with: a diffusion model whose network takes any, or a method that
has a function `at_size`."""

from __future__ import annotations

import dataclasses

import jax
from ml_collections import ConfigDict

from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.methods.diffusion.ddpm import DDPM
from jaxgen.sampling.generator import Generator
from jaxgen.sampling.restore import TrainedModel
from jaxgen.sizes import check_fits


def at_size(trained: TrainedModel, size: tuple[int, int], num: int) -> TrainedModel:
    """Returns a trained model that draws, and reads pictures, at (height, width) in pixels.

    A network's weights are used as they are: that of a diffusion model attends at the levels at which it learned to. A
    method with a function `at_size((height, width)) -> method`, as SinGAN's, says itself how it draws at a size.

    Args:
      trained: the model.
      size: the height and the width.
      num: how many images are drawn in all; no more are drawn at a time.

    Raises:
      UserError: the model is of another kind, its network does not take the size, or the images need more memory than
        there is.
    """
    generator = trained.generator
    method, height, width = generator.method, *size
    at_once = min(generator.batch_size, num)
    if hasattr(method, "at_size"):
        made = Generator(method.at_size(size), generator.config, at_once, given=generator.given)
        return dataclasses.replace(trained, generator=made)
    if not isinstance(method, DDPM):
        raise UserError(
            f"--size is for a diffusion model that learned by itself, or a model of one picture, and "
            f"{type(method).__name__} is neither: leave it out."
        )
    if size == method.image_shape[:2]:
        return trained
    factor = method.coding.factor
    multiple = factor * max(1, getattr(method.network, "side_multiple", 1))
    if height % multiple or width % multiple:
        near = "x".join(str(max(1, round(side / multiple)) * multiple) for side in size)
        raise UserError(
            f"--size={height}x{width}: this model's sides are multiples of {multiple} pixels; the nearest is {near}."
        )
    network = method.network
    if hasattr(network, "levels_kept"):
        network = network.levels_kept(method.shape[0], method.shape[1])
    changed = dataclasses.replace(method, image_shape=(height, width, method.image_shape[2]), network=network)
    config = ConfigDict(generator.config.to_dict(), type_safe=False)
    config.data.resolution = size
    made = Generator(changed, config, at_once, given=generator.given, words=generator.words)
    before = method.image_shape[:2]  # pictures of this size that the data brought are now read at the new one
    example = {
        name: ((*size, *shape[2:]) if shape[:2] == before else shape, dtype)
        for name, (shape, dtype) in trained.example.items()
    }
    return dataclasses.replace(trained, generator=made, example=example)


def check_memory(generator: Generator, model: Model, size: tuple[int, int]) -> None:
    """Compiles the program that draws, and raises a UserError where it needs more memory than this machine has."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), model)
    found = generator.trace("sample", shapes).lower().compile().memory_analysis()
    if found is None:  # this compiler does not say
        return
    height, width = size
    check_fits(
        found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes,
        f"--size={height}x{width}, {generator.batch_size} at a time,",
        "give a smaller --size, or --config.evaluate.batch_size=1",
    )
