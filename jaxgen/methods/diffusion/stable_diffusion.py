"""Makes images from text with the networks of Stable Diffusion (Rombach et al. 2022).

The networks, their noise and their weights come from a folder that diffusers wrote, `config.init_from.pretrained`, as
`jaxgen.interop.diffusers_pipeline` reads it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Key

from jaxgen.arrays import Array, Batch, Memory, Params
from jaxgen.diffusion.guidance import Guidance, GuidanceInputs
from jaxgen.diffusion.noise import per_image_noise
from jaxgen.diffusion.prediction import Denoiser, check_prediction_type, denoiser
from jaxgen.diffusion.prediction_types import Epsilon, PredictionType
from jaxgen.diffusion.samplers.base import Sampler
from jaxgen.diffusion.schedules import Schedule
from jaxgen.errors import UserError
from jaxgen.methods.base import Method, Model, Turn
from jaxgen.networks.layers.stateless import apply_params
from jaxgen.variational.gaussian import Gaussian


@dataclasses.dataclass(frozen=True)
class StableDiffusion(Method):
    """Samples latents for texts and decodes them. It does not train.

    A batch has the token ids of the wanted texts, `tokens` int32 [B, L], and of the unwanted ones, `null_tokens`, both
    with start, end and padding. It may also have `noise` float32 [B, h, w, D], the noise to start from.

    Attributes:
      network: `(x [B, h, w, D], time [B], context=[B, L, C]) -> [B, h, w, D]`; its group is `denoiser`.
      autoencoder: has `decode(z [B, h, w, D]) -> [B, H, W, 3]` and `factor`; group `autoencoder`.
      text: `tokens [B, L] -> (hidden [B, L, C], pooled)`; group `text`.
      schedule: the noise schedule.
      prediction_type: what the network predicts.
      sampler: how latents are drawn; it must not clip.
      spacing: a function from the number of steps to the schedule to sample with, whose network may be told other
        levels, and the sampler's times; None for the sampler's own spacing.
      guidance: how sampling is steered; None takes the network as it is.
      scaling: 1 / the standard deviation of latents: what they were multiplied by before diffusion.
      latent_size: height and width of latents, used where `height` or `width` is 0.
      height, width: size of the images, in pixels; 0 takes what `latent_size` gives.
      dtype: type that the networks compute in, such as "bfloat16"; that of the weights may be another.
      param_dtype: type that weights are read as; "" for that of the files.
    """

    network: nn.Module
    autoencoder: nn.Module
    text: nn.Module
    schedule: Schedule
    sampler: Sampler
    prediction_type: PredictionType = Epsilon()
    spacing: Callable[[int], tuple[Schedule, np.ndarray]] | None = None
    guidance: Guidance | None = None
    scaling: float = 0.18215
    latent_size: tuple[int, int] = (64, 64)
    height: int = 0
    width: int = 0
    dtype: str = "float32"
    param_dtype: str = "float32"

    def __post_init__(self) -> None:
        check_prediction_type(self.schedule, self.prediction_type)
        if self.sampler.clip:
            raise UserError("config.sampler.clip must be False here: latents do not lie in [-1, 1].")
        if self.guidance is not None and self.guidance.required_groups:
            needs = ", ".join(self.guidance.required_groups)
            raise UserError(f"config.guidance needs {needs}, which stable_diffusion cannot give; take classifier_free.")
        for name in ("height", "width"):
            if getattr(self, name) % self.autoencoder.factor:
                raise UserError(
                    f"config.method.{name} is {getattr(self, name)}; it must be a multiple of the autoencoder's "
                    f"{self.autoencoder.factor}."
                )

    @property
    def required_groups(self) -> tuple[str, ...]:
        return ("denoiser", "autoencoder", "text")

    @property
    def conditions(self) -> tuple[str, ...]:
        return ("tokens", "null_tokens")

    @property
    def ignored(self) -> Mapping[str, str]:
        if self.guidance is None:
            return {"null_tokens": "there is no config.guidance"}
        names = {"condition": "tokens", "null": "null_tokens"}
        return {name: self.guidance.unread for what, name in names.items() if what not in self.guidance.reads}

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Returns (h, w, D) of the latents of one image."""
        factor = self.autoencoder.factor
        height, width = (
            given // factor or usual for given, usual in zip((self.height, self.width), self.latent_size, strict=True)
        )
        return height, width, self.autoencoder.latent_channels

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Returns `(H, W, C)` of the images."""
        height, width, _ = self.latent_shape
        return self.autoencoder.factor * height, self.autoencoder.factor * width, self.autoencoder.out_channels

    def init(
        self, key: Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        raise UserError("stable_diffusion samples and does not train: use --mode=sample.")

    def turns(self, stage: int) -> tuple[Turn, ...]:
        raise UserError("stable_diffusion samples and does not train: use --mode=sample.")

    def sample(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> Float[Array, "B H W C"]:
        start = batch["noise"] if "noise" in batch else per_image_noise(keys, 0, self.latent_shape)
        schedule, times = self.walk()
        x = schedule.prior_std * start.astype(jnp.float32)
        latents = self.sampler(self.guided(model, batch), schedule, x, keys, times=times)
        return self.decode(model, latents)

    def walk(self) -> tuple[Schedule, np.ndarray | None]:
        """Returns the schedule to sample with, and the sampler's times; None for those of the sampler's own spacing."""
        return (self.schedule, None) if self.spacing is None else self.spacing(self.sampler.steps)

    def guided(self, model: Model, batch: Batch) -> Denoiser:
        """Returns the denoiser of samplers: `(x, t) -> Prediction` under the texts of a batch."""
        denoise = self.denoiser(model.params)
        wanted = {"context": self.encode_text(model.params, batch["tokens"])}
        if self.guidance is None:
            return lambda x, t: denoise(x, t, **wanted)
        null = {"context": self.encode_text(model.params, batch["null_tokens"])}
        return self.guidance(GuidanceInputs(denoise, wanted, null))

    def denoiser(self, params: Params) -> Denoiser:
        """Returns the denoiser `(x, t, context) -> Prediction`."""
        apply = functools.partial(apply_params, self._typed(self.network), params["denoiser"])
        return denoiser(self.walk()[0], self.prediction_type, apply)

    def encode_text(self, params: Params, tokens: Int[Array, "B L"]) -> Float[Array, "B L C"]:
        """Returns the context, float32, of token ids: the last block's output after the last normalisation."""
        hidden, _ = apply_params(self._typed(self.text), params["text"], tokens)
        return hidden.astype(jnp.float32)

    def diffused(self, model: Model, batch: Batch) -> Float[Array, "B h w D"]:
        """Returns the latents of a batch's images [B, H, W, 3], in the scale of diffusion: the posteriors' means."""
        network = self._typed(self.autoencoder)
        moments = apply_params(network, model.params["autoencoder"], batch["image"], method="encode")
        return Gaussian.of(moments).mean * self.scaling

    def decode(self, model: Model, z: Float[Array, "B h w D"]) -> Float[Array, "B H W C"]:
        """Returns the images [B, H, W, 3] of latents in the scale of diffusion."""
        network = self._typed(self.autoencoder)
        return apply_params(network, model.params["autoencoder"], z / self.scaling, method="decode")

    def _typed(self, network: nn.Module) -> nn.Module:
        return network.clone(dtype=self.dtype)
