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
from jaxgen.build import path_of
from jaxgen.errors import UserError
from jaxgen.networks.layers.calls import check_call


def init_params(network: nn.Module, key: jax.Array, *inputs: Any, **options: Any) -> Tree:
    """Returns fresh parameters of a network for inputs of these shapes. Inputs and options are those of its call."""
    check_call(network, inputs, options)
    variables = network.init(key, *inputs, **options)
    if "batch_stats" in variables or "spectral" in variables:
        raise UserError(
            f"{path_of(network) or 'config.method'} names the network {type(network).__name__}, which carries "
            f"{' and '.join(sorted(variables.keys() - {'params'}))} beside its parameters, and the method keeps none: "
            "set its norm to another one, such as 'layer' or 'group', or name another network."
        )
    return variables["params"]


def apply_params(network: nn.Module, params: Tree, *inputs: Any, **options: Any) -> Any:
    """Returns what a network computes with these parameters.

    Args:
      inputs: arguments of the call.
      options: keyword arguments of the call, and flax's own: `rngs` for random numbers, `method` for another method
        than `__call__`.
    """
    check_call(network, inputs, options)
    return network.apply({"params": params}, *inputs, **options)
