"""Makes images from text with the networks of Stable Diffusion (Rombach et al. 2022).

The networks, their noise and their weights come from a folder that diffusers wrote, `config.init_from.pretrained`, as
`jaxgen.interop.diffusers_pipeline` reads it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from jaxgen.arrays import Array, Batch, Memory, Params
from jaxgen.errors import UserError
from jaxgen.methods.diffusion.latent_diffusion import LatentDiffusion


@dataclasses.dataclass(frozen=True)
class StableDiffusion(LatentDiffusion):
    """Samples latents for texts and decodes them: latent diffusion whose every group is given, at the folder's size.

    A batch has the token ids of the wanted texts, `tokens` int32 [B, L], and of the unwanted ones, `null_tokens`, both
    with start, end and padding. It may also have `noise` float32 [B, h, w, D], the noise to start from. Other
    attributes are those of `LatentDiffusion`; a config that trains on a folder names that method.

    Attributes:
      image_shape: `(H, W, C)` of the images, made of the sizes below.
      latent_size: height and width of latents, used where `height` or `width` is 0.
      height, width: size of the images, in pixels; 0 takes what `latent_size` gives.
      dtype: type that the networks compute in, such as "bfloat16"; that of the weights may be another.
      param_dtype: type that weights are read as; "" for that of the files.
    """

    image_shape: tuple[int, int, int] = (0, 0, 0)
    scale: float = 0.18215
    text_learns: bool = False
    mask_padding: bool = False
    knows_null: bool = True
    latent_size: tuple[int, int] = (64, 64)
    height: int = 0
    width: int = 0
    dtype: str = "float32"
    param_dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.text is None:
            raise UserError("stable_diffusion needs a text encoder, which a folder of diffusers gives.")
        if self.guidance is not None and self.guidance.required_groups:
            needs = ", ".join(self.guidance.required_groups)
            raise UserError(f"config.guidance needs {needs}, which stable_diffusion cannot give; take classifier_free.")
        factor, again = self.autoencoder.factor, max(1, getattr(self.network, "side_multiple", 1))
        for name in ("height", "width"):
            if getattr(self, name) % (factor * again):
                raise UserError(
                    f"config.method.{name} is {getattr(self, name)}; it must be a multiple of {factor * again}: the "
                    f"autoencoder divides it by {factor}, and the network works on multiples of {again}."
                )
        height, width = (
            given or factor * usual for given, usual in zip((self.height, self.width), self.latent_size, strict=True)
        )
        made = {name: getattr(self, name).clone(dtype=self.dtype) for name in ("network", "autoencoder", "text")}
        made["image_shape"] = (height, width, self.autoencoder.out_channels)
        for name, value in made.items():
            object.__setattr__(self, name, value)  # a frozen dataclass sets its own fields so
        super().__post_init__()

    @property
    def required_groups(self) -> tuple[str, ...]:
        return ("denoiser", *super().required_groups)

    @property
    def conditions(self) -> tuple[str, ...]:
        return (*super().conditions, "null_tokens")

    @property
    def ignored(self) -> Mapping[str, str]:
        if self.guidance is None:
            return {"null_tokens": "there is no config.guidance"}
        names = {"condition": "tokens", "null": "null_tokens"}
        return {name: self.guidance.unread for what, name in names.items() if what not in self.guidance.reads}

    def init(
        self, key: Array, batch: Batch, stage: int, given: Params, params: Params, memory: Memory
    ) -> tuple[Params, Memory]:
        raise UserError(
            "stable_diffusion samples and does not train: use --mode=sample, or train by "
            "--config=configs/stable_diffusion_finetune.py."
        )
