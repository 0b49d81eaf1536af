"""Dynamic thresholding: an image that strong guidance has driven out of [-1, 1] is scaled into it, not cut."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from jaxgen.diffusion.prediction import Prediction
from jaxgen.diffusion.prediction_types import X0
from jaxgen.diffusion.process import append_dims
from jaxgen.errors import UserError


def dynamic_threshold(now: Prediction, quantile: float = 0.995) -> Prediction:
    """Returns the prediction whose x0 is clipped to [-s, s] and divided by s, so that it is in [-1, 1].

    s is the quantile of |x0| over each image's own values, and at least 1, so that an image whose values are in [-1, 1]
    stays as it is (Saharia et al. 2022, Section 2.3 and Appendix A.2). It is for pixels, not for latents.

    Raises:
      UserError: the quantile is outside (0, 1].
    """
    check_quantile(quantile)
    x0 = now.x0
    size = jnp.quantile(jnp.abs(x0).reshape(len(x0), -1), quantile, axis=1)
    size = append_dims(jnp.maximum(size, 1.0), x0)
    return dataclasses.replace(now, value=jnp.clip(x0, -size, size) / size, prediction_type=X0())


def check_quantile(quantile: float) -> None:
    """Raises a UserError for a quantile outside (0, 1]."""
    if not 0 < quantile <= 1:
        raise UserError(f"A dynamic threshold is a quantile above 0 and at most 1, such as 0.995, not {quantile}.")
