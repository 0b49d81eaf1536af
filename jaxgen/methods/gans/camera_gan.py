"""A GAN whose networks are told a camera, and a caption where the generator has a vocabulary.

With `camera_generator` it draws pictures from cameras without any object in space: the control of `TriplaneGAN`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxgen.arrays import Array, Batch, Memory, Params, Tree, check_entries
from jaxgen.errors import UserError
from jaxgen.geometry import cameras
from jaxgen.methods.base import Method
from jaxgen.methods.gans.gan import GAN, Outputs
from jaxgen.networks.layers.stateless import apply_params, init_params

TEXT, WORDS = "text", "words"  # the group of the frozen encoder, and what networks read of it


@dataclasses.dataclass(frozen=True)
class CameraGAN(GAN):
    """Turns are those of a GAN. Fakes have the cameras, and the captions, of the batch that they are made beside.

    Attributes:
      text: an encoder of captions that does not learn, such as the text tower of a CLIP, whose weights are
        `config.init_from.text`; both networks then have `frozen_text=True`. Its features are brought to a mean of 0 and
        a standard deviation of 1. With None each network learns an encoder of its own.

    Raises:
      UserError: a network is not told the camera, the discriminator knows other words than the generator, or only one
        side speaks of a frozen encoder.
    """

    r1: float = 1.0
    r1_every: int = 8
    text: nn.Module | None = None  # `tokens [B, L] -> features [B, L, K]`, or a tuple that begins with them

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

        for name in ("generator", "discriminator"):
            network = getattr(self, name)
            frozen = getattr(network, "vocabulary", 0) and getattr(network, "frozen_text", False)
            if bool(frozen) != (self.text is not None and bool(getattr(network, "vocabulary", 0))):
                raise UserError(
                    f"config.method.{name}.frozen_text is {bool(frozen)}, and config.method.text is "
                    f"{'missing' if self.text is None else 'set'}: a frozen text encoder needs both."
                )

    @property
    def required_groups(self) -> tuple[str, ...]:
        return (TEXT,) if self.text is not None else ()

    @property
    def conditions(self) -> tuple[str, ...]:
        return tuple(name for name in self.generator.reads if name != WORDS)

    def untrained(self, key: Array, batch: Batch) -> tuple[Params, Memory]:
        return ({TEXT: init_params(self.text, key, batch["tokens"])} if self.text is not None else {}), {}

    def with_words(self, params: Params, batch: Batch) -> Batch:
        """Returns the batch with the features of its captions by the frozen encoder, where there is one."""
        if self.text is None:
            return batch
        outputs = apply_params(self.text, params[TEXT], batch["tokens"])
        features = outputs[0] if isinstance(outputs, tuple) else outputs
        words = jax.nn.standardize(features.astype(jnp.float32), axis=-1)
        return {**batch, WORDS: jax.lax.stop_gradient(words)}

    def generate(self, params: Params, memory: Memory, z: Tree, batch: Batch, train: bool) -> tuple[Array, Memory]:
        return super().generate(params, memory, z, self.with_words(params, batch), train)

    def discriminate(
        self, params: Params, memory: Memory, images: Array, batch: Batch, train: bool = True
    ) -> tuple[Outputs, Memory]:
        return super().discriminate(params, memory, images, self.with_words(params, batch), train)

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
        check_entries(batch, self.conditions, "A GAN of cameras", "a config.data.source such as 'solids'")
        return super().init(key, self.with_words({**given, **params}, batch), stage, given, params, memory)

    latent_plane = Method.latent_plane  # its images have cameras, which a place of a plane does not choose
