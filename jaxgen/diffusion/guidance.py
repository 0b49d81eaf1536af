"""Guidance: functions from denoisers to denoisers, so that no sampler knows of it.

    guidance(means) -> denoise(x, t) -> Prediction

`means` holds what there is to draw on: the model, its conditions, a classifier, a weaker model. Each function of this
module is a name for `config.guidance.name`; `compose` joins two, and so any number. What they build is in
`guidance_base` (the contract, `Unguided`, `Compose`), `guidance_contrast` and `guidance_gradient`; all names can be
imported from here.

Guidance that takes gradients runs inside a sampler's loop, where those of convolutions are slow on a CPU: hand over
networks that are traced under `jaxgen.networks.layers.convolution.gradients_in_loops`.
"""

from __future__ import annotations

import flax.linen as nn

from jaxgen.diffusion.guidance_base import (
    ClassifierLogits,
    Compose,
    Condition,
    Guidance,
    GuidanceInputs,
    Interval,
    Unguided,
)
from jaxgen.diffusion.guidance_contrast import Autoguidance, ClassifierFree
from jaxgen.diffusion.guidance_gradient import Classifier, Universal

__all__ = [
    "Autoguidance",
    "Classifier",
    "ClassifierFree",
    "ClassifierLogits",
    "Compose",
    "Condition",
    "Guidance",
    "Interval",
    "GuidanceInputs",
    "Unguided",
    "Universal",
    "autoguidance",
    "classifier",
    "classifier_free",
    "compose",
    "unguided",
    "universal",
]

# configs look them up here: by name, and a section within a section (`compose`) in the module of its type
for _kind in (Guidance, Unguided, ClassifierFree, Autoguidance, Classifier, Universal, Compose):
    _kind.__module__ = __name__


def unguided(threshold: float = 0.0) -> Unguided:
    """See `Unguided`."""
    return Unguided(threshold=threshold)


def classifier_free(
    scale: float = 1.0, interval: Interval = (0.0, 1.0), rescale: float = 0.0, threshold: float = 0.0
) -> ClassifierFree:
    """See `ClassifierFree`."""
    return ClassifierFree(scale=scale, interval=interval, rescale=rescale, threshold=threshold)


def autoguidance(
    scale: float = 1.0,
    interval: Interval = (0.0, 1.0),
    rescale: float = 0.0,
    threshold: float = 0.0,
    network: nn.Module | None = None,
) -> Autoguidance:
    """See `Autoguidance`."""
    return Autoguidance(scale=scale, network=network, interval=interval, rescale=rescale, threshold=threshold)


def classifier(
    network: nn.Module, scale: float = 1.0, interval: Interval = (0.0, 1.0), threshold: float = 0.0
) -> Classifier:
    """See `Classifier`."""
    return Classifier(scale=scale, network=network, interval=interval, threshold=threshold)


def universal(
    network: nn.Module,
    scale: float = 1.0,
    backward_steps: int = 0,
    backward_rate: float = 0.1,
    interval: Interval = (0.0, 1.0),
    threshold: float = 0.0,
) -> Universal:
    """See `Universal`."""
    backward = {"backward_steps": backward_steps, "backward_rate": backward_rate}
    return Universal(scale=scale, network=network, **backward, interval=interval, threshold=threshold)


def compose(first: Guidance, then: Guidance, threshold: float = 0.0) -> Compose:
    """See `Compose`."""
    return Compose(first=first, then=then, threshold=threshold)
