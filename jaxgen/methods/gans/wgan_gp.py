"""Holds WGAN with a gradient penalty (Gulrajani et al. 2017)."""

from __future__ import annotations

import dataclasses

from jaxgen.methods.gans.wgan import WGAN


@dataclasses.dataclass(frozen=True)
class WGANGP(WGAN):
    """A penalty pulls the critic's slope to 1 at a random point between each real and fake image (Algorithm 1).

    The critic has no BatchNorm; the paper's optimiser is Adam with betas 0 and 0.9.
    """

    gradient_penalty: float = 10.0
