"""A noise schedule says how much signal, alpha(t), and how much noise, sigma(t), there is at a time t in [0, 1]."""

from jaxgen.diffusion.schedules.base import Schedule
from jaxgen.diffusion.schedules.continuous import VP, ContinuousCosine, RectifiedFlow, SubVP
from jaxgen.diffusion.schedules.discrete import Betas, Cosine, Discrete, Linear, ScaledLinear, Sigmoid
from jaxgen.diffusion.schedules.exploding import EDM, VE

__all__ = [
    "EDM",
    "VE",
    "VP",
    "Betas",
    "ContinuousCosine",
    "Cosine",
    "Discrete",
    "Linear",
    "RectifiedFlow",
    "ScaledLinear",
    "Schedule",
    "Sigmoid",
    "SubVP",
]
