"""This room holds the keys and defaults of configs, their checks, their files, and the copy that a run keeps.

Nothing here imports JAX, so that an error in a config is reported at once.
"""

from __future__ import annotations

from jaxgen.config.checks import SAMPLED, check, check_sections
from jaxgen.config.record import differences, follow_total, from_json, leaves, may_change, to_json
from jaxgen.config.schema import DEFAULTS, SAMPLE_METRICS, defaults, image_shape, section
from jaxgen.config.sizes import check_count, check_sizes

__all__ = [
    "DEFAULTS",
    "SAMPLED",
    "SAMPLE_METRICS",
    "check",
    "check_count",
    "check_sections",
    "check_sizes",
    "defaults",
    "differences",
    "follow_total",
    "from_json",
    "image_shape",
    "leaves",
    "may_change",
    "section",
    "to_json",
]
