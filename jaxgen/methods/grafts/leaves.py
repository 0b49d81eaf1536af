"""Lets a part of a network's own parameters learn, or a whole network, while the rest stays frozen."""

from __future__ import annotations

import dataclasses
import re
from typing import ClassVar

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from jaxgen.arrays import Array, Batch, Params, Tree
from jaxgen.errors import UserError
from jaxgen.methods.base import Method, difference
from jaxgen.methods.grafts.base import Graft, Order, nothing_chosen


@dataclasses.dataclass(frozen=True)
class Leaves(Graft):
    """Some parameters of a group learn, in float32, in place of the frozen ones.

    The keys and values of cross-attention are `where=r"cross_attention/(key|value)/"`, which Custom Diffusion learns
    (Kumari et al. 2023); a whole network is `where=""`, as in DreamBooth (Ruiz et al. 2023). The part is
    `{path of a parameter: array}` with "|" for the "/" of paths, and starts as the frozen parameters.

    With `fresh` it starts as in a network that has not been trained: a layer or a block is replaced by a new one, and
    what it had learned is lost. It is the comparison for parts that keep the trained network.

    Raises:
      UserError: `where` is no regular expression, or there is nothing that `fresh` could mean.
    """

    group: str = "denoiser"  # the group whose parameters learn
    where: str = ""  # those whose path contains this regular expression learn; "" takes all
    # A file of diffusers' Custom Diffusion that they start from; it has the parameters that `where` chooses.
    file: str = ""
    fresh: bool = False  # whether they start from a new initialisation, in place of the trained values
    learns: bool = True  # False: the weights stay those of the file, or of config.init_from.<name of the graft>
    order: ClassVar[Order] = "leaves"

    def __post_init__(self) -> None:
        try:
            re.compile(self.where)
        except re.error as error:
            raise UserError(f"A graft's where={self.where!r} is no regular expression ({error}).") from error
        if self.fresh and (self.file or not self.learns):
            other = f"file={self.file!r}" if self.file else "learns=False"
            raise UserError(
                f"A graft of leaves starts from a new initialisation (fresh=True) to learn, which {other} rules out: "
                "leave one of the two out."
            )

    def start(self, name: str, key: Array, trained: Method, params: Params, batch: Batch) -> Tree:
        leaves = flatten_dict(params[self.group], sep="/")
        chosen = {path: leaf for path, leaf in leaves.items() if re.search(self.where, path)}
        if not chosen:
            raise nothing_chosen(name, self.group, self.where, "parameter", leaves)
        if self.fresh:
            new = flatten_dict(self._untrained(key, trained, params, batch), sep="/")
            chosen = {path: new[path] for path in chosen}
        return {path.replace("/", "|"): leaf.astype(jnp.float32) for path, leaf in chosen.items()}

    def _untrained(self, key: Array, trained: Method, params: Params, batch: Batch) -> Tree:
        """Returns the group's parameters as the method begins, of which only those that are chosen are computed."""
        given, memory = trained.untrained(key, batch)
        others = {group: value for group, value in params.items() if group != self.group}
        learned, _ = trained.init(key, batch, trained.stages[0][1], {**given, **others}, {}, memory)
        return {**given, **learned}[self.group]

    def loaded(self, name: str, part: Tree, trained: Method, params: Params, batch: Batch) -> Tree:
        if not self.file:
            return super().loaded(name, part, trained, params, batch)
        own = self if self.where else dataclasses.replace(self, where=f"^({'|'.join(_plain(key) for key in part)})$")
        fresh = own.start(name, key=None, trained=trained, params=params, batch=batch)  # type: ignore[arg-type]
        wrong = difference(part, fresh)
        if wrong:
            raise UserError(f"{self.file} does not belong to this model, or to config.method.grafts.{name}: {wrong}.")
        return part

    def grafted(self, params: Params, part: Tree) -> Params:
        leaves = flatten_dict(params[self.group], sep="/")
        learned = {path.replace("|", "/"): leaf for path, leaf in part.items()}
        return {**params, self.group: unflatten_dict({**leaves, **learned}, sep="/")}


def _plain(key: str) -> str:
    return re.escape(key.replace("|", "/"))
