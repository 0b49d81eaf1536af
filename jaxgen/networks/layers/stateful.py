"""Calls networks that carry something beside their parameters: batch statistics, vectors of spectral normalisation.

A method keeps what a network carries in its memory under the group's name, `{collection: values}`, empty where there is
nothing to carry:

    params["discriminator"], memory["discriminator"] = init_stateful(discriminator, key, image)
    outputs, carried = apply_stateful(
        discriminator, params["discriminator"], memory["discriminator"], image, train=True
    )
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

from jaxgen.arrays import Tree
from jaxgen.errors import UserError
from jaxgen.networks.layers.calls import check_call


def init_stateful(network: nn.Module, key: jax.Array, *inputs: Any, **options: Any) -> tuple[Tree, Tree]:
    """Returns fresh parameters and memory of a network for inputs of these shapes."""
    check_call(network, inputs, options)
    variables = dict(network.init(key, *inputs, **options))
    return variables.pop("params", {}), variables


def apply_stateful(
    network: nn.Module, params: Tree, memory: Tree, *inputs: Any, train: bool, **options: Any
) -> tuple[Any, Tree]:
    """Returns the network's outputs, and its memory after the call, which changes only in training."""
    check_call(network, inputs, {"train": train, **options})
    variables = {"params": params, **memory}
    if not train or not memory:
        return network.apply(variables, *inputs, train=train, **options), memory
    outputs, changed = network.apply(variables, *inputs, train=True, mutable=list(memory), **options)
    return outputs, {**memory, **changed}


def reestimate_statistics(network: nn.Module, params: Tree, memory: Tree, inputs: Any) -> Tree:
    """Returns the memory with batch statistics that fit these parameters: the mean of all batches' moments.

    Running statistics fit the parameters of training, and not an average of them. An averaged generator is therefore
    given some batches of fresh noise before sampling. Collections other than `batch_stats` stay as they are.

    Args:
      inputs: what the network is called with, a tuple of arrays [N, B, ...] (or None) for N batches, such
        as `(z,)` or `(z, label)`.

    Raises:
      UserError: there are no batches.
    """
    if "batch_stats" not in memory:
        return memory
    leaves = jax.tree.leaves(inputs)
    if not leaves or not leaves[0].shape[0]:
        raise UserError("Batch statistics are estimated from one batch at least.")

    def moments(batch: Any) -> Any:
        variables = {"params": params, **memory}
        return network.apply(variables, *batch, train=True, mutable=["batch_moments"])[1]["batch_moments"]

    found = jax.lax.map(moments, inputs)  # without gradients a loop is as fast as one large batch
    return {**memory, "batch_stats": jax.tree.map(lambda x: x.mean(0), found)}
