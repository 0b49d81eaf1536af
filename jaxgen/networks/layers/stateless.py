"""Makes fresh parameters of networks that carry nothing beside them, and calls such networks with given parameters.

    params["encoder"] = init_params(encoder, key, image)
    z = apply_params(encoder, params["encoder"], image)

`jaxgen.networks.layers.stateful` has the same for networks with batch statistics or spectral normalisation.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

from jaxgen.arrays import Tree


def init_params(network: nn.Module, key: jax.Array, *inputs: Any, **options: Any) -> Tree:
    """Returns fresh parameters of a network for inputs of these shapes. Inputs and options are those of its call."""
    return network.init(key, *inputs, **options)["params"]


def apply_params(network: nn.Module, params: Tree, *inputs: Any, **options: Any) -> Any:
    """Returns what a network computes with these parameters.

    Args:
      inputs: arguments of the call.
      options: keyword arguments of the call, and flax's own: `rngs` for random numbers, `method` for another method
        than `__call__`.
    """
    return network.apply({"params": params}, *inputs, **options)
