"""Names the types of the arrays and trees that the rooms pass to each other."""

from __future__ import annotations

from typing import Any

import jax

Array = jax.Array
Tree = Any  # nested dicts of arrays, such as the parameters of one network
Params = dict[str, Tree]  # the parameters of each group: {"generator": ..., "discriminator": ...}
Memory = dict[str, Tree]  # carried from step to step without gradients: {"generator": batch statistics, ...}
Batch = dict[str, Array]  # arrays with a leading batch axis: {"image": [B, H, W, C], "label": [B], ...}
Metrics = dict[str, Array]  # scalars to be logged
