"""Latent diffusion (Rombach et al. 2022) is diffusion in the latents of a trained autoencoder.

Only what is diffused and what it is conditioned on differs from `jaxgen.methods.diffusion.ddpm`: schedules, prediction
types, weightings, solvers and guidance are the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import numpy as np

from jaxgen.arrays import Array, Batch, Params
from jaxgen.codecs.latents import Latents
from jaxgen.codecs.pixels import Pixels
from jaxgen.conditions.base import Condition
from jaxgen.conditions.text import Text
from jaxgen.diffusion.schedules import Schedule
from jaxgen.errors import UserError
from jaxgen.methods.diffusion.ddpm import DDPM
from jaxgen.variational.gaussian import Gaussian


@dataclasses.dataclass(frozen=True)
class LatentDiffusion(DDPM):
    """It has one turn over `denoiser`, and over `text` where that learns; the group `autoencoder` is frozen.

    It is `DDPM` with the codec `latents` and, where there is a text encoder, the part `text`, whose options are fields
    here. Images become latents z = scale * (a sample of the encoder's posterior), of a standard deviation close to 1,
    and samples become images by decode(z / scale). Where a batch has `moments` `[B, h, w, 2 D]`, written by
    `python -m jaxgen.sampling.latents`, no image is encoded. The network sees `label` where it has classes, and
    `context`, the features of the batch's `tokens`, where there is a text encoder. Scores are those of DDPM, in
    latents, and `latent_std`, the standard deviation of a whole data set's latents, which should be close to 1.

    Where `config.init_from.pretrained` names a folder of diffusers, its networks, noise, scale and empty caption are
    the fields that the config does not set (`jaxgen.runs.pretrained`), and `denoiser` learns from its weights on. A
    batch to sample for may also have `null_tokens` int32 [B, L], the texts that guidance leads away from, and `noise`
    float32 [B, h, w, D], the noise to start from.

    Attributes:
      autoencoder: the network of the first stage, equal to that run's `method.network`; its weights are
        `config.init_from.autoencoder`.
      scale: what latents are multiplied by; 0 for the number that the first stage measured and that its weights bring.
      text: tokens `[B, L]` and a mask -> features `[B, L, context_dim]`, the first of several outputs; or None.
      text_learns: whether the text encoder is trained; if not, its weights are `config.init_from.text`.
      empty: ids of the empty caption, which replaces a dropped one; it is filled up with `pad` to the captions' length.
      pad: the id of the tokens after a caption's end.
      mask_padding: whether attention leaves these positions out.
      spacing: a function from the number of steps to the schedule to sample with, whose network may be told other
        levels, and the sampler's times; None for the sampler's own spacing.
      cached: whether every batch must have `moments`, so that a plan, which sees no data, knows of them.
      decode_batch: number of images that are decoded at a time; 0 for the whole batch.
      decode_tile: side of a tile in latents; 0 decodes complete images.
      decode_overlap: latents that neighbouring tiles share; see `jaxgen.networks.layers.tiling.decode_tiled`.
    """

    autoencoder: nn.Module = dataclasses.field(kw_only=True)
    scale: float = 0.0
    text: nn.Module | None = None
    text_learns: bool = True
    empty: tuple[int, ...] = (1,)
    pad: int = 0
    mask_padding: bool = True
    spacing: Callable[[int], tuple[Schedule, np.ndarray]] | None = None
    cached: bool = False
    decode_batch: int = 0
    decode_tile: int = 0
    decode_overlap: int = 8

    network_needs = Latents.network_needs

    def __post_init__(self) -> None:
        if not isinstance(self.codec, Pixels):
            raise UserError(
                "latent_diffusion makes its codec of config.method.autoencoder: remove config.method.codec, or set "
                "config.method.name='ddpm'."
            )
        super().__post_init__()
        context = self.text is not None or "context" in self.told.gives
        if context != (getattr(self.network, "context_dim", 0) > 0):
            raise UserError(
                "A text encoder and a network with context belong together: set both config.method.text and "
                "config.method.network.context_dim, or neither."
            )

    @property
    def own_codec(self) -> Latents:
        options = (self.cached, self.decode_batch, self.decode_tile, self.decode_overlap)
        return Latents(self.autoencoder, self.scale, *options)

    @property
    def own_parts(self) -> Mapping[str, Condition]:
        if self.text is None:
            return super().own_parts
        text = Text(self.text, self.text_learns, "tokens", self.empty, self.pad, self.mask_padding)
        return {**super().own_parts, "text": text}

    def _init_keys(self, key: Array) -> tuple[Array, Mapping[str, Array]]:
        of_denoiser, of_text, _ = jax.random.split(key, 3)
        return of_denoiser, {**super()._init_keys(key)[1], "text": of_text}

    def encode(self, params: Params, batch: Batch) -> Gaussian:
        """Returns q(z | x), over latents `[B, h, w, D]` before scaling."""
        self.own_codec.check_cached(batch)
        return self.own_codec.posterior(params["autoencoder"], batch)

    def walk(self) -> tuple[Schedule, np.ndarray | None]:
        return super().walk() if self.spacing is None else self.spacing(self.sampler.steps)
