"""WGAN with a gradient penalty (Gulrajani et al. 2017)."""

from __future__ import annotations

import dataclasses

from jaxgen.methods.gans.wgan import WGAN


@dataclasses.dataclass(frozen=True)
class WGANGP(WGAN):
    """The critic's slope is pulled to 1 between real and fake images, one alpha and one norm for each; no BatchNorm in
    the critic; Adam with betas 0 and 0.9 (Algorithm 1)."""

    gradient_penalty: float = 10.0
