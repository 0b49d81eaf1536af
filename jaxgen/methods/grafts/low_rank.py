"""Adds low-rank updates to linear layers (Hu et al. 2022, LoRA)."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import zlib
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jaxtyping import Float

from jaxgen.arrays import Array, Batch, Params, Tree
from jaxgen.errors import UserError
from jaxgen.methods.base import Method
from jaxgen.methods.grafts.base import Graft, Hooked, Order, with_network
from jaxgen.networks.hooks import Hook


@dataclasses.dataclass(frozen=True)
class LowRank(Graft):
    """A linear layer's output becomes W x + (alpha / rank) B A x, where A and B learn (Hu et al. 2022, Eq. 3).

    The update is a hook on the layer's output, in training and in sampling alike. If it were added to a weight in
    bfloat16, a small one would be rounded away: at a hundredth of the weight's size, a sixth of its effect is lost.
    `merged` adds it in float32, for export.

    A part is `{path of a layer: {"a": [in, rank], "b": [rank, out]}}` with "|" for the "/" of paths. A starts as normal
    noise of standard deviation 1 / rank and B as zero, so that training starts from the method as it was.

    Raises:
      UserError: the rank is below 1, or `where` is not a regular expression.
    """

    group: str = "denoiser"  # the group whose network is updated
    # Layers whose path contains this regular expression: by default the projections of all attentions.
    where: str = r"attention(_\d+)?/(query|key|value|out)$"
    rank: int = 4
    alpha: float = 0.0  # 0 takes the rank, so that the factor alpha / rank is 1
    learns: bool = True  # False: the weights are config.init_from.<name of the graft>
    order: ClassVar[Order] = "hooks"

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha < 0:
            raise UserError(f"A low-rank graft has a rank of 1 or more and an alpha of 0 or more, not {self}.")
        try:
            re.compile(self.where)
        except re.error as error:
            raise UserError(f"A low-rank graft's where={self.where!r} is no regular expression ({error}).") from error

    @property
    def scale(self) -> float:
        """Returns what the product of both matrices is multiplied by: alpha / rank."""
        return (self.alpha or self.rank) / self.rank

    def start(self, name: str, key: Array, trained: Method, params: Params, batch: Batch) -> Tree:
        found = {}
        for path, kernel in layers(params[self.group]).items():
            if not re.search(self.where, path):
                continue
            if kernel.ndim != 2:
                raise UserError(
                    f"config.method.grafts.{name}: {path!r} has a kernel of shape {kernel.shape}, and only linear "
                    "layers [in, out] that are not scanned can be updated; narrow `where`, or unset the network's "
                    "scan_blocks."
                )
            rows, columns = kernel.shape
            noise = jax.random.normal(jax.random.fold_in(key, zlib.crc32(path.encode())), (rows, self.rank))
            found[path.replace("/", "|")] = {"a": noise / self.rank, "b": jnp.zeros((self.rank, columns))}
        if not found:
            raise UserError(
                f"config.method.grafts.{name}: no layer's path in the group {self.group!r} contains {self.where!r}; "
                "set `where` to a part of the paths that --mode=plan lists."
            )
        return found

    def onto(self, trained: Method) -> Method:
        return with_network(trained, self.group, lambda network: Hooked(network, self._hooks))

    def grafted(self, params: Params, part: Tree) -> Params:
        return {**params, self.group: {"network": params[self.group], "part": part}}

    def merged(self, params: Params, part: Tree) -> Params:
        """Returns the method's own parameters with the update added to its weights, in float32, for export."""
        return {**params, self.group: _merged(params[self.group], part, self.scale)}

    def _hooks(self, part: Tree) -> Mapping[str, Hook]:
        return {
            path.replace("|", "/"): functools.partial(_updated, part=matrices, scale=self.scale)
            for path, matrices in part.items()
        }


def layers(params: Tree) -> dict[str, Array]:
    """Returns `{path: kernel}` of the layers of a network that have a kernel; the inner part of a hooked network's."""
    while set(params) == {"network", "part"}:
        params = params["network"]
    return {"/".join(path[:-1]): leaf for path, leaf in flatten_dict(params).items() if path[-1] == "kernel"}


def _updated(
    output: Float[Array, "*B out"], x: Float[Array, "*B in"], *_: Any, part: Tree, scale: float
) -> Float[Array, "*B out"]:
    update = (x.astype(jnp.float32) @ part["a"].astype(jnp.float32)) @ part["b"].astype(jnp.float32)
    return output + (scale * update).astype(output.dtype)


def _merged(params: Tree, part: Tree, scale: float) -> Tree:
    def changed(tree: Tree, path: str) -> Tree:
        found = {}
        for name, entry in tree.items():
            inner = f"{path}|{name}" if path else name
            if name == "kernel" and path in part:
                update = jnp.matmul(part[path]["a"], part[path]["b"], precision="highest")
                entry = entry.astype(jnp.float32) + scale * update
            found[name] = changed(entry, inner) if isinstance(entry, Mapping) else entry
        return found

    return changed(params, "")


def parameters(part: Tree) -> int:
    """Returns the number of values of a part."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(part))
