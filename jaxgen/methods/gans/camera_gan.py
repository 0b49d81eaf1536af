"""A GAN whose networks are told a camera, and a caption where the generator has a vocabulary.

With `camera_generator` it draws pictures from cameras without any object in space: the control of `TriplaneGAN`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jax.typing import DTypeLike

from jaxgen.arrays import Array, Batch, Memory, Params, check_entries
from jaxgen.errors import UserError
from jaxgen.geometry import cameras
from jaxgen.methods.base import Method
from jaxgen.methods.gans.gan import GAN


@dataclasses.dataclass(frozen=True)
class CameraGAN(GAN):
    """Turns are those of a GAN. Fakes have the cameras, and the captions, of the batch that they are made beside.

    Raises:
      UserError: a network is not told the camera, or the discriminator knows other words than the generator.
    """

    r1: float = 1.0
    r1_every: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("generator", "discriminator"):
            if "camera" not in getattr(getattr(self, name), "reads", ("camera",)):
                raise UserError(
                    f"config.method.{name} is not told the camera: name 'triplane_generator' or 'camera_generator' for "
                    "the generator, and 'camera_discriminator' for the discriminator."
                )
        known = [getattr(network, "vocabulary", 0) for network in (self.generator, self.discriminator)]
        if known[1] not in (0, known[0]):
            raise UserError(
                f"The discriminator knows {known[1]} tokens, and the generator {known[0]}: set "
                "config.method.discriminator.vocabulary to the generator's, or to 0."
            )

    @property
    def entries(self) -> Mapping[str, tuple[tuple[int, ...], DTypeLike]]:
        text = {"tokens": ((self.generator.length,), np.int32)} if "tokens" in self.generator.reads else {}
        return {"camera": ((cameras.NUMBERS,), np.float32), **text}

    @property
    def limits(self) -> Mapping[str, int]:
        words = getattr(self.generator, "vocabulary", 0)
        return {**super().limits, **({"tokens": words} if words else {})}

    def init(
        self, key: Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        check_entries(batch, self.generator.reads, "A GAN of cameras", "a config.data.source such as 'solids'")
        return super().init(key, batch, stage, given, params, memory)

    latent_plane = Method.latent_plane  # its images have cameras, which a place of a plane does not choose
