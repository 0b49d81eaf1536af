"""Holds Palette (Saharia et al. 2022, "Palette: Image-to-Image Diffusion Models"): one model restores images.

It is told a picture of which a part is unknown, and draws that part: holes, the surroundings of a crop, or the whole
image of which there is a grey or a compressed copy. What it is trained for is `config.data.corruptions.condition`;
`one_of` mixes several tasks in one model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Float, Key

from jaxgen.arrays import Array, Batch, Params
from jaxgen.conditions.base import Condition
from jaxgen.conditions.masked_image import MaskedImage
from jaxgen.diffusion.prediction import Denoiser, Prediction
from jaxgen.diffusion.schedules import Schedule
from jaxgen.errors import UserError
from jaxgen.methods.base import Model
from jaxgen.methods.diffusion.ddpm import DDPM

OWN = "source"  # the name of the condition that the method has of its own
DRAWS = 2  # of each image in the panel


@dataclasses.dataclass(frozen=True)
class Palette(DDPM):
    """Learns as `DDPM` does, but only what is unknown of an image; it keeps what is known.

    With m = 1 where the mask says that the image is unknown, and y the picture that is known,
      - the network sees m x_t + (1 - m) y at all times, in training and in sampling, beside the picture whose unknown
        part is noise;
      - the loss of an example is the mean squared error over the pixels with m = 1;
      - in sampling, x0 is y where m = 0, after each evaluation and at the end, so that known pixels are exact.
    Batches have `condition` and `mask`, which come from data or `config.data.corruptions`. Where the mask is 1
    everywhere, the whole image is drawn (colourisation, JPEG restoration).

    Attributes:
      fill: what the network sees in the unknown part of the picture, see `MaskedImage`.
    """

    fill: Literal["noise", "grey"] = "noise"

    panel_inputs = ("image",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.learned_variance:
            raise UserError("config.method.learned_variance has no bound over a part of an image; leave it out here.")
        if self.coding.group or self.shape != self.image_shape:
            raise UserError("The known pixels of palette are kept exactly: leave config.method.codec at 'pixels'.")

    @property
    def own_parts(self) -> Mapping[str, Condition]:
        return {**super().own_parts, OWN: MaskedImage(fill=self.fill)}

    @property
    def columns(self) -> Mapping[str, int]:
        return {"restored": 2 * (DRAWS + 2)}

    def network_inputs(self, condition: Batch) -> Batch:
        return {name: value for name, value in condition.items() if name not in ("known", "unknown")}

    def counted(self, condition: Batch) -> Array:
        return condition["unknown"]

    def denoiser(
        self,
        params: Params,
        group: str = "denoiser",
        network: nn.Module | None = None,
        schedule: Schedule | None = None,
        **options: Any,
    ) -> Denoiser:
        denoise = super().denoiser(params, group, network, schedule, **options)

        def of_unknown(x: Array, t: Array, **condition: Array) -> Prediction:
            return denoise(jnp.where(condition["unknown"], x, condition["known"]), t, **condition)

        return of_unknown

    def panels(self, model: Model, keys: Key[Array, " B"], batch: Batch) -> dict[str, Float[Array, "*F N H W C"]]:
        """Returns also `restored`: the picture, two draws and, where there is one, the true image of each example."""
        draws = []
        for number in range(DRAWS):
            own = jax.vmap(lambda key, number=number: jax.random.fold_in(key, number))(keys)
            draws.append(self.sample(model, own, batch))
        cells = [batch["condition"], *draws, batch.get("image", jnp.zeros_like(draws[0]))]
        shown = jnp.stack(cells, axis=1).reshape(-1, *self.image_shape)
        return {"restored": shown, **super().panels(model, keys, batch)}
