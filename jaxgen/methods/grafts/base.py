"""Holds the contract of a graft, and what grafts share: the order in which they are put on, and hooks on a network."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal, Self

import flax.linen as nn
import jax

from jaxgen.arrays import Array, Batch, Params, Tree
from jaxgen.errors import UserError
from jaxgen.methods.base import Method, check_loaded
from jaxgen.networks.hooks import Hook, WithModule, after

Order = Literal["leaves", "hooks", "around"]
ORDER: tuple[Order, ...] = ("leaves", "hooks", "around")
KNOWN = 20  # paths that a message lists


class Graft:
    """A graft is a part that learns while the method that it is put on stays as it is.

    Derive a frozen dataclass from this class.

    The graft's name in the config is the name of its parameter group. Grafts are put on in the order of `ORDER` and
    within it by name, never in the config's order: first those that change leaves of the parameters, then hooks on
    modules, then what goes around a network.

    Attributes:
      order: where in that order the graft stands.
      group: the group of the trained method that it changes.
      learns: whether the part is trained; if not, its weights are `config.init_from.<name>`, or a file's.
    """

    order: ClassVar[Order]
    group: str
    learns: bool = True

    def start(self, name: str, key: Array, trained: Method, params: Params, batch: Batch) -> Tree:
        """Returns the part's first parameters; with them the method computes what it did before.

        Args:
          name: the graft's name, for messages.
          key: a random key.
          trained: the method, with the grafts before this one.
          params: its parameters.
          batch: one prepared batch.

        Raises:
          UserError: the graft does not fit the method.
        """
        raise NotImplementedError

    def loaded(self, name: str, part: Tree, trained: Method, params: Params, batch: Batch) -> Tree:
        """Returns a part that comes from a file or from another run, if it fits; the other arguments are `start`'s.

        Raises:
          UserError: the part does not fit.
        """
        fresh = jax.eval_shape(lambda key: self.start(name, key, trained, params, batch), jax.random.key(0))
        check_loaded(name, part, fresh)
        return part

    def words(self, trained: Method) -> Mapping[str, tuple[int, ...]]:
        """Returns `{word: its token ids}` of the words that the graft teaches; `trained` has the grafts before it."""
        return {}

    def onto(self, trained: Method) -> Method:
        """Returns the method that takes the parameters that `grafted` gives."""
        return trained

    def grafted(self, params: Params, part: Tree) -> Params:
        """Returns the method's parameters with the part on them. It is a pure function, and computed at each use."""
        raise NotImplementedError


def in_order(grafts: Mapping[str, Graft]) -> list[tuple[str, Graft]]:
    """Returns `(name, graft)` in the order in which they are put on."""
    return sorted(grafts.items(), key=lambda item: (ORDER.index(item[1].order), item[0]))


def nothing_chosen(name: str, group: str, where: str, what: str, paths: Iterable[str]) -> UserError:
    """Returns the error of a graft whose `where` chooses nothing among these paths of layers or parameters."""
    known = list(dict.fromkeys(re.sub(r"\d+", "<n>", path) for path in paths))
    listed = ", ".join(known[:KNOWN]) + (f" and {len(known) - KNOWN} more" if len(known) > KNOWN else "")
    return UserError(
        f"config.method.grafts.{name}: no {what}'s path in the group {group!r} contains {where!r}; "
        + (f"set `where` to a part of one of them, where <n> are numbers: {listed}." if known else f"it has no {what}.")
    )


def network_of(method: Method, group: str) -> Any:
    """Returns a group's network, which is a field of the method, of one of its `parts`, or of its `codec`.

    The method's field has the group's own name, and the name `network` for the group `denoiser`.

    Raises:
      UserError: the method has no such network.
    """
    found: list[Any] = []

    def seen(network: Any) -> Any:
        found.append(network)
        return network

    with_network(method, group, seen)
    return found[0]


def with_network(method: Method, group: str, change: Callable[[Any], Any]) -> Method:
    """Returns the method with another network in place of a group's, wherever the method uses it.

    Raises:
      UserError: the method has no such network.
    """
    for name in (group, "network") if group == "denoiser" else (group,):
        if _is_network(method, name):
            return _changed(method, name, change)
    parts = getattr(method, "parts", {})
    users = {k: part for k, part in parts.items() if part.group(k) == group and _is_network(part, "network")}
    if users:
        changed = {k: _changed(part, "network", change) for k, part in users.items()}
        return dataclasses.replace(method, parts={**parts, **changed})  # type: ignore[type-var]
    codec = getattr(method, "codec", None)
    if codec is not None and codec.group == group and _is_network(codec, group):
        return dataclasses.replace(method, codec=_changed(codec, group, change))  # type: ignore[type-var]
    raise UserError(f"The method {type(method).__name__} has no network of a group {group!r} to put a graft on.")


def _is_network(owner: Any, field: str) -> bool:
    names = {one.name for one in dataclasses.fields(owner)}
    return field in names and isinstance(getattr(owner, field), nn.Module | Wrapped)


def _changed(owner: Any, field: str, change: Callable[[Any], Any]) -> Any:
    return dataclasses.replace(owner, **{field: change(getattr(owner, field))})


@dataclasses.dataclass(frozen=True)
class Wrapped:
    """Stands for a network that is called together with a part: the parameters are `{"network": ..., "part": ...}`.

    It is no module, so the network's own paths stay as they are; what it does not have itself is the network's.

    Attributes:
      network: the network, or another `Wrapped`.
    """

    network: Any

    def clone(self, **fields: Any) -> Self:
        """Returns the same on a copy of the network with other fields."""
        return dataclasses.replace(self, network=self.network.clone(**fields))

    def levels_kept(self, height: int, width: int) -> Self:
        """Returns the same on the network with its levels kept (`UNet.levels_kept`), where it has levels."""
        kept = getattr(self.network, "levels_kept", None)
        return self if kept is None else dataclasses.replace(self, network=kept(height, width))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.network, name)


@dataclasses.dataclass(frozen=True)
class Hooked(Wrapped):
    """Stands for a network of which some modules' outputs pass through hooks that read parameters of their own.

    Attributes:
      hooks: `part -> {path of a module: hook}`.
    """

    hooks: Callable[[Tree], Mapping[str, Hook | WithModule]]

    def apply(self, variables: Mapping[str, Tree], *inputs: Any, **options: Any) -> Any:
        """Calls the network as `flax.linen.Module.apply` does."""
        params = variables["params"]
        with after(self.hooks(params["part"])):
            return self.network.apply({**variables, "params": params["network"]}, *inputs, **options)


def bare_network(network: Any) -> Any:
    """Returns the network inside of what grafts made of it."""
    while isinstance(network, Wrapped):
        network = network.network
    return network


def bare_params(params: Tree) -> Tree:
    """Returns the parameters of the network inside of what grafts made of it, from those of the whole."""
    while set(params) == {"network", "part"}:
        params = params["network"]
    return params
