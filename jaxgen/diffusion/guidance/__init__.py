"""Guidance is a function from denoisers to denoisers, so that no sampler knows of it.

    guidance(inputs) -> denoise(x, t) -> Prediction

`inputs` holds what a guidance may use: the model, its conditions, a classifier, a weaker model. `Compose` joins two
guidances, and so any number.

Guidance that takes gradients runs inside a sampler's loop, where those of convolutions are slow on a CPU: hand over
networks that are traced under `jaxgen.networks.layers.convolution.gradients_in_loops`.
"""

from jaxgen.diffusion.guidance.base import (
    ClassifierLogits,
    Compose,
    Condition,
    Guidance,
    GuidanceInputs,
    Interval,
    Similarity,
    Towers,
    Unguided,
)
from jaxgen.diffusion.guidance.clip import CLIP, UniversalCLIP
from jaxgen.diffusion.guidance.contrast import Autoguidance, ClassifierFree
from jaxgen.diffusion.guidance.gradient import Classifier, Universal

__all__ = [
    "CLIP",
    "Autoguidance",
    "Classifier",
    "ClassifierFree",
    "ClassifierLogits",
    "Compose",
    "Condition",
    "Guidance",
    "GuidanceInputs",
    "Interval",
    "Similarity",
    "Towers",
    "Unguided",
    "Universal",
    "UniversalCLIP",
]
