"""Reads schedulers of diffusers: noise, prediction type and levels that a `scheduler_config.json` describes.

`classes` is the table of the classes and of their entries, `levels` says which levels a class visits, and `noise` reads
and writes the file.
"""

from jaxgen.interop.diffusers_scheduler.levels import Levels, Walk
from jaxgen.interop.diffusers_scheduler.noise import Noise, noise_from_diffusers, noise_to_diffusers

__all__ = ["Levels", "Noise", "Walk", "noise_from_diffusers", "noise_to_diffusers"]
