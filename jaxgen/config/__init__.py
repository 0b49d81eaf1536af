"""Configs: their keys and defaults, the check that refuses a wrong one, their files, and what a run keeps of its own.

Nothing here imports JAX, so that a config error answers at once.
"""

from __future__ import annotations

from jaxgen.config.checks import check
from jaxgen.config.record import differences, from_json, may_change, to_json
from jaxgen.config.schema import DEFAULTS, SAMPLE_METRICS, defaults, image_shape, section

__all__ = [
    "DEFAULTS",
    "SAMPLE_METRICS",
    "check",
    "defaults",
    "differences",
    "from_json",
    "image_shape",
    "may_change",
    "section",
    "to_json",
]
