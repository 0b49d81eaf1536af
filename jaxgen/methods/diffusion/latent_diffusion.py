"""Latent diffusion (Rombach et al. 2022) is diffusion in the latents of a trained autoencoder.

Only what is diffused and what it is conditioned on differs from `jaxgen.methods.diffusion.ddpm`: schedules, prediction
types, weightings, solvers and guidance are the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Float, Key

from jaxgen.arrays import Array, Batch, Memory, Params
from jaxgen.diffusion.noise import per_image_noise
from jaxgen.diffusion.schedules import Schedule
from jaxgen.errors import UserError
from jaxgen.methods.autoencoders.kl_autoencoder import scale_of
from jaxgen.methods.base import LossResult, LossState, Model, Turn, check_loaded
from jaxgen.methods.diffusion.ddpm import DDPM
from jaxgen.networks.layers.stateless import apply_params, init_params
from jaxgen.networks.layers.tiling import decode_tiled, in_chunks
from jaxgen.variational.gaussian import Gaussian

# `scores` draws latents from the posterior with this number folded into an image's key; samplers use smaller ones
OF_POSTERIOR = 1_000


@dataclasses.dataclass(frozen=True)
class LatentDiffusion(DDPM):
    """It has one turn over `denoiser`, and over `text` where that learns; the group `autoencoder` is frozen.

    Images become latents z = scale * (a sample of the encoder's posterior), of a standard deviation close to 1, and
    samples become images by decode(z / scale). Where a batch has `moments` `[B, h, w, 2 D]`, written by
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

    network_needs = {"autoencoder": ("encode", "decode", "factor", "latent_channels")}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.learned_variance:
            raise UserError("config.method.learned_variance is for pixels, whose likelihood it needs, not for latents.")
        if getattr(self.sampler, "clip", False):
            raise UserError("Latents do not lie within [-1, 1]: set config.sampler.clip to False.")
        if self.guidance is not None and self.guidance.classifier is not None:
            raise UserError("A classifier sees images, not latents: choose another config.guidance.")
        if (self.text is not None) != (getattr(self.network, "context_dim", 0) > 0):
            raise UserError(
                "A text encoder and a network with context belong together: set both config.method.text and "
                "config.method.network.context_dim, or neither."
            )
        factor, again = getattr(self.autoencoder, "factor", 1), getattr(self.network, "side_multiple", 1)
        height, width, _ = self.image_shape
        if again > 0 and (height % (factor * again) or width % (factor * again)):
            raise UserError(
                f"config.data.resolution is {height}x{width} pixels, whose sides must be multiples of {factor * again} "
                f"here: the autoencoder divides them by {factor}, and the network works on multiples of {again}."
            )
        if self.scale < 0 or self.decode_batch < 0:
            raise UserError("config.method.scale and config.method.decode_batch must be at least 0.")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Returns `(h, w, D)` of an image's latents."""
        height, width, _ = self.image_shape
        factor = self.autoencoder.factor
        return height // factor, width // factor, self.autoencoder.latent_channels

    @property
    def conditional(self) -> bool:
        return self.labelled or self.text is not None

    @property
    def required_groups(self) -> tuple[str, ...]:
        frozen = ("autoencoder",) if self.text is None or self.text_learns else ("autoencoder", "text")
        return frozen + super().required_groups

    @property
    def conditions(self) -> tuple[str, ...]:
        return super().conditions + (("tokens",) if self.text is not None else ())

    @property
    def entries(self) -> Mapping[str, tuple[tuple[int, ...], DTypeLike]]:
        length = getattr(self.text, "length", 0)
        found: dict[str, tuple[tuple[int, ...], DTypeLike]] = {"tokens": ((length,), np.int32)} if length else {}
        height, width, channels = self.shape
        return found | ({"moments": ((height, width, 2 * channels), np.float32)} if self.cached else {})

    def untrained(self, key: Array, batch: Batch) -> tuple[Params, Memory]:
        made = {"autoencoder": init_params(self.autoencoder, key, jnp.zeros((1, *self.image_shape)))}
        if self.text is not None and not self.text_learns:
            made["text"] = init_params(self.text, key, batch["tokens"])
        moments = {name: jnp.ones(()) for name in ("weight", "mean", "square")}
        return made, {} if self.scale else {"autoencoder": moments}

    def init(
        self, key: Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        of_denoiser, of_text, of_shape = jax.random.split(key, 3)
        if "autoencoder" in given:
            fresh = jax.eval_shape(self.autoencoder.init, of_shape, jnp.zeros((1, *self.image_shape)))["params"]
            check_loaded("autoencoder", given["autoencoder"], fresh)
        self._scale(memory)
        learned: Params = {}
        if self.text is not None and self.text_learns:
            learned["text"] = init_params(self.text, of_text, batch["tokens"])
        latents = {**batch, "image": jnp.zeros((len(batch["image"]), *self.shape))}
        more, carried = super().init(of_denoiser, latents, stage, {**given, **learned}, params, memory)
        return {**more, **learned}, carried

    def turns(self, stage: int) -> tuple[Turn, ...]:
        learns = self.text is not None and self.text_learns
        return (Turn("denoise", ("denoiser", "text") if learns else ("denoiser",), self.loss),)

    def loss(self, params: Params, batch: Batch, key: Array, state: LossState) -> LossResult:
        of_latent, rest = jax.random.split(key)
        posterior = self.encode(params, batch)
        z = posterior.at(jax.random.normal(of_latent, posterior.mean.shape)) * self._scale(state.memory)
        return super().loss(params, {**batch, "image": z}, rest, state)

    def encode(self, params: Params, batch: Batch) -> Gaussian:
        """Returns q(z | x), over latents `[B, h, w, D]` before scaling."""
        if self.cached and "moments" not in batch:
            raise UserError(
                "config.method.cached is set, and the data have no 'moments': write them with python -m "
                "jaxgen.sampling.latents, or unset it to encode the images at each step."
            )
        return self._posterior(params, batch)

    def _posterior(self, params: Params, batch: Batch) -> Gaussian:
        if "moments" in batch:
            return Gaussian.of(batch["moments"])
        return Gaussian.of(apply_params(self.autoencoder, params["autoencoder"], batch["image"], method="encode"))

    def diffused(self, model: Model, batch: Batch) -> Float[Array, "B h w D"]:
        """Returns the means of the posteriors of images, scaled as `decode` takes them; `moments` need not be there."""
        return self._posterior(model.params, batch).mean * self._scale(model.memory)

    def decode(self, model: Model, z: Float[Array, "B h w D"]) -> Float[Array, "B H W C"]:
        """Returns the images, in [-1, 1], of scaled latents of any size."""

        def whole(z: Array) -> Array:
            return apply_params(self.autoencoder, model.params["autoencoder"], z, method="decode")

        def one(z: Array) -> Array:
            return decode_tiled(whole, z, self.decode_tile, self.decode_overlap) if self.decode_tile else whole(z)

        return jnp.clip(in_chunks(one, z / self._scale(model.memory), self.decode_batch), -1, 1)

    def sample(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> Float[Array, "B H W C"]:
        return self.decode(model, super().sample(model, keys, batch))

    def walk(self) -> tuple[Schedule, np.ndarray | None]:
        return super().walk() if self.spacing is None else self.spacing(self.sampler.steps)

    def panels(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "*F N H W C"]]:
        """Returns `trajectory`, decoded. The first frames, decoded from noise, do not look like noise."""
        found = super().panels(model, keys, batch)
        return {name: jax.lax.map(lambda z: self.decode(model, z), frames) for name, frames in found.items()}

    def scores(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "B ..."]]:
        posterior = self.encode(model.params, batch)
        z = posterior.at(per_image_noise(keys, OF_POSTERIOR, self.shape)) * self._scale(model.memory)
        moments = {name: x.mean(axis=(1, 2, 3)) for name, x in (("latent_mean", z), ("latent_square", jnp.square(z)))}
        return super().scores(model, keys, {**batch, "image": z}) | moments

    def summary(self, scores: Mapping[str, np.ndarray]) -> dict[str, float]:
        found = super().summary(scores)
        return found | {"latent_std": float(np.sqrt(found.pop("latent_square") - found.pop("latent_mean") ** 2))}

    def better(self, score: str) -> str | None:
        return None if score == "latent_std" else super().better(score)

    def _scale(self, memory: Memory) -> Array | float:
        if self.scale:
            return self.scale
        if "autoencoder" not in memory:
            raise UserError(
                "The weights of config.init_from.autoencoder came without the scale of their latents: set "
                "config.method.scale to 1 / their standard deviation (0.18215 for Stable Diffusion's)."
            )
        return scale_of(memory["autoencoder"])

    def condition(self, params: Params, batch: Batch) -> Batch:
        condition = super().condition(params, batch)
        if self.text is None:
            return condition
        tokens = batch["tokens"]
        masks = (tokens != self.pad,) if self.mask_padding else ()
        found = apply_params(self.text, params["text"], tokens, *masks)
        condition["context"] = found[0] if isinstance(found, tuple) else found
        return condition | ({"context_mask": masks[0]} if masks else {})

    def _null(self, batch: Batch) -> Batch:
        null = super()._null(batch)
        if self.text is None:
            return null
        if "null_tokens" in batch:
            return null | {"tokens": batch["null_tokens"]}
        tokens = batch["tokens"]
        filled = jnp.full(tokens.shape[1:], self.pad, tokens.dtype).at[: len(self.empty)].set(jnp.asarray(self.empty))
        return null | {"tokens": jnp.broadcast_to(filled, tokens.shape)}
