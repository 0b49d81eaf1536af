"""Decides where every array of a run is, by regular expressions over paths such as `denoiser/block_0/mlp/in/kernel`.

A rule `(expression, (axis, ...))` gives, for every parameter whose path the expression is found in, the mesh axis that
each dimension is split over, or None where it is not split; dimensions behind the rule's last entry are not split. The
first rule that is found wins: those of `config.sharding.rules`, then, where `config.mesh.tensor` is above 1, `TENSOR`.

Where `config.mesh.fsdp` is above 1, every other array of at least `config.sharding.min_size` values is split over
`fsdp` along its largest dimension that this divides (Rajbhandari et al. 2020, "ZeRO", stage 3, as a layout). The
leading layer axis of scanned blocks (paths under `blocks/`) is never split. All other arrays are replicated on every
device. Optimiser state and EMA are placed as their parameters are.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from jaxgen.arrays import Tree
from jaxgen.errors import UserError, nearest
from jaxgen.methods.base import Model, State
from jaxgen.parallel.mesh import AXES, replicated
from jaxgen.sizes import check_fits, memory_bytes

Part = str | tuple[str, ...] | None  # the axes of the mesh that one dimension is split over
Rule = tuple[str, tuple[Part, ...]]  # an expression for paths, and the axes of the dimensions

# Attention by heads and MLPs by hidden features (Shoeybi et al. 2019, "Megatron-LM", section 3): the first matrix is
# split by columns and the second by rows, so that each pair needs one sum over the devices.
TENSOR: tuple[Rule, ...] = (
    (r"(^|/)(query|key|value)/kernel$", (None, "tensor")),
    (r"(^|/)(query|key|value)/bias$", ("tensor",)),
    (r"(attention[^/]*|block_\d+)/out/kernel$", ("tensor", None)),
    (r"(^|/)mlp/in/kernel$|(^|/)mlp_in/kernel$", (None, "tensor")),
    (r"(^|/)mlp/in/bias$|(^|/)mlp_in/bias$", ("tensor",)),
    (r"(^|/)mlp/out/kernel$|(^|/)mlp_out/kernel$", ("tensor", None)),
    (r"(^|/)block(_\d+|s)/modulation/kernel$", ("tensor", None)),
)

# Arrays of layers that a network scans: the axis in front counts the layers, which a loop takes one by one.
STACKED = re.compile(r"(^|/)blocks/")


@dataclasses.dataclass(frozen=True)
class Layout:
    """Holds the rules of a config over a mesh."""

    mesh: Mesh  # with the axes of `jaxgen.parallel.mesh`
    rules: tuple[Rule, ...] = ()  # those of the user, which are final; TENSOR follows where the mesh has that axis
    min_size: int = 1024  # values of the smallest array that is split over `fsdp` without a rule

    @classmethod
    def of(cls, config: ConfigDict, mesh: Mesh) -> Layout:
        """Returns the layout that `config.sharding` asks for.

        Raises:
          UserError: for a rule that is not an expression with known axes.
        """
        return cls(mesh, tuple(_parsed(rule) for rule in config.sharding.rules), int(config.sharding.min_size))

    @property
    def all_replicated(self) -> bool:
        """Returns whether every device holds every array completely."""
        return not self.rules and self.mesh.shape["fsdp"] == 1 and self.mesh.shape["tensor"] == 1

    def params(self, params: Mapping[str, Tree]) -> Tree:
        """Returns the shardings of `{group: parameters}`; shapes are enough.

        Raises:
          UserError: where an axis does not divide the dimension that a rule splits over it.
        """
        return jax.tree_util.tree_map_with_path(lambda path, leaf: self._of(_name(path), leaf.shape), params)

    def state(self, state: State) -> State:
        """Returns the shardings of a state; shapes are enough."""
        everywhere = replicated(self.mesh)
        rest = jax.tree.map(lambda _: everywhere, state)
        if self.all_replicated:
            return rest
        params = self.params(state.params)
        return rest.replace(
            params=params,
            ema=self.params(state.ema),
            opt_state={g: self._follow(s, state.params[g], params[g]) for g, s in state.opt_state.items()},
        )

    def model(self, model: Model) -> Model:
        """Returns the shardings of what sampling sees."""
        everywhere = replicated(self.mesh)
        rest = jax.tree.map(lambda _: everywhere, model)
        return rest if self.all_replicated else rest.replace(params=self.params(model.params))

    def placed(self, abstract: State) -> State:
        """Returns the same shapes with their shardings."""
        return shapes(abstract, self.state(abstract))

    def check(self, *params: Mapping[str, Tree]) -> None:
        """Checks the rules against all parameters that a run will have, learned at any stage or loaded.

        Raises:
          UserError: for a rule that no path matches, or `tensor` devices that no rule uses.
        """
        names = [name for tree in params for name, _ in leaves(tree)]
        for expression, _ in self.rules:
            if not any(re.search(expression, name) for name in names):
                raise UserError(
                    f"config.sharding.rules: {expression!r} is found in no parameter's path; paths look like "
                    f"{names[len(names) // 2]!r}."
                )
        found = jax.tree.leaves([self.params(tree) for tree in params])
        split = {axis for sharding in found for part in sharding.spec for axis in _axes(part)}
        size = self.mesh.shape["tensor"]
        if size > 1 and "tensor" not in split:
            raise UserError(
                f"config.mesh.tensor={size}, but no rule splits any parameter over it; leave it at 1, or add a rule "
                "with 'tensor' to config.sharding.rules."
            )

    def _of(self, name: str, shape: tuple[int, ...]) -> NamedSharding:
        for expression, axes in self.rules:
            if re.search(expression, name):
                return self._sharding(name, shape, axes, "config.sharding.rules")
        split: tuple[Part, ...] = ()
        if self.mesh.shape["tensor"] > 1:
            split = next((axes for expression, axes in TENSOR if re.search(expression, name)), ())
            # a kernel with positions, or a stack of layers, in front of its two channels
            split = (None,) * (len(shape) - len(split)) + split if split else ()
        found = self._sharding(name, shape, split, "config.mesh.tensor")
        return self._over_fsdp(found, shape, first=int(STACKED.search(name) is not None))

    def _over_fsdp(self, found: NamedSharding, shape: tuple[int, ...], first: int) -> NamedSharding:
        size = self.mesh.shape["fsdp"]
        if size == 1 or math.prod(shape) < self.min_size:
            return found
        spec = list(found.spec) + [None] * (len(shape) - len(found.spec))
        free = [d for d in range(first, len(shape)) if spec[d] is None and shape[d] % size == 0]
        if not free:
            return found
        spec[max(free, key=lambda d: (shape[d], d))] = "fsdp"
        return NamedSharding(self.mesh, PartitionSpec(*spec))

    def _sharding(self, name: str, shape: tuple[int, ...], axes: tuple[Part, ...], key: str) -> NamedSharding:
        if len(axes) > len(shape):
            raise UserError(
                f"{key}: a rule gives {len(axes)} dimensions to {name}, which has {len(shape)} ({shape}); shorten it, "
                "or narrow its expression."
            )
        for dimension, (length, part) in enumerate(zip(shape, axes, strict=False)):
            size = math.prod(self.mesh.shape[axis] for axis in _axes(part))
            if length % size:
                raise UserError(
                    f"{key}: {size} devices on {part!r} do not divide dimension {dimension} of {name}, {shape}; choose "
                    "a divisor, or give that path a rule of its own in config.sharding.rules."
                )
        return NamedSharding(self.mesh, PartitionSpec(*axes))

    def _follow(self, tree: Tree, params: Tree, shardings: Tree) -> Tree:
        """Returns the shardings of one group's optimiser state: a leaf has that of the parameter that ends its path."""
        known = {
            path: (leaf.shape, sharding)
            for (path, leaf), sharding in zip(
                jax.tree_util.tree_flatten_with_path(params)[0], jax.tree.leaves(shardings), strict=True
            )
        }
        everywhere = replicated(self.mesh)

        def of(path: jax.tree_util.KeyPath, leaf: jax.ShapeDtypeStruct) -> NamedSharding:
            for start in range(len(path) + 1):
                if path[start:] in known:
                    shape, sharding = known[path[start:]]
                    return sharding if shape == leaf.shape else _reduced(sharding, shape, leaf.shape)
            return everywhere

        return jax.tree_util.tree_map_with_path(of, tree)


def shapes(tree: Tree, shardings: Tree) -> Tree:
    """Returns the shapes of a tree's arrays, with these shardings."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)


def _reduced(sharding: NamedSharding, shape: tuple[int, ...], kept: tuple[int, ...]) -> NamedSharding:
    """Returns the sharding of an array that lacks one dimension of its parameter, such as a factored second moment."""
    spec = list(sharding.spec) + [None] * (len(shape) - len(sharding.spec))
    for d in range(len(shape)):
        if shape[:d] + shape[d + 1 :] == kept:
            return NamedSharding(sharding.mesh, PartitionSpec(*spec[:d], *spec[d + 1 :]))
    return NamedSharding(sharding.mesh, PartitionSpec())


def leaves(tree: Tree) -> Iterator[tuple[str, Any]]:
    """Yields `(path, array)` of every array of a tree, with paths like `denoiser/conv_in/kernel`."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        yield _name(path), leaf


def _name(path: jax.tree_util.KeyPath) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _axes(part: Part) -> tuple[str, ...]:
    return () if part is None else (part,) if isinstance(part, str) else tuple(part)


def _parsed(rule: object) -> Rule:
    if not isinstance(rule, tuple | list) or len(rule) != 2 or not isinstance(rule[1], tuple | list):
        raise UserError(
            f"config.sharding.rules: {rule!r} is not a pair of an expression and the axes of the dimensions, such as "
            "('kernel$', (None, 'tensor'))."
        )
    expression, axes = str(rule[0]), tuple(tuple(a) if isinstance(a, list) else a for a in rule[1])
    try:
        re.compile(expression)
    except re.error as error:
        raise UserError(f"config.sharding.rules: {expression!r} is no regular expression ({error}).") from error
    used = [axis for part in axes for axis in _axes(part)]
    for axis in used:
        if axis not in AXES:
            known = nearest(str(axis), AXES)
            raise UserError(f"config.sharding.rules: {expression!r} names the axis {axis!r}; {known}")
    if len(set(used)) < len(used):
        raise UserError(f"config.sharding.rules: {expression!r} uses an axis for two dimensions: {axes!r}.")
    return expression, axes


def bytes_per_device(tree: Tree) -> int:
    """Returns the bytes of a tree of arrays, or of shapes with shardings, on one device, without padding."""
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def check_state_fits(state: Tree) -> None:
    """Raises a UserError if a state, given by its shapes and shardings, needs more memory than a device here has."""
    device = jax.local_devices()[0]
    limit = (device.memory_stats() or {}).get("bytes_limit") if device.platform != "cpu" else None
    check_fits(
        bytes_per_device(state),
        "The parameters with their averages and the optimiser's state",
        "make the networks smaller, or split them over devices by config.mesh.fsdp",
        limit or memory_bytes() // jax.local_device_count(),
    )
