"""Changes what modules inside a network compute, and takes out what they computed, without touching the network.

A module is named by its path, as in the network's parameters: "down_0_block_0/conv_in". A low-rank update, temporal
layers between frames and taps of features are hooks.

    with after({"middle_attention/query": lambda y, x: y + x @ a @ b}):
        y = network.apply({"params": params}, image, time)
    features = inner(network, params, ("up_1_block_0",), image, time)["up_1_block_0"]
    with taken(("up_1_block_0",)) as found:
        network.apply({"params": params}, image, time)
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import flax.linen as nn
from flax.core.tracers import current_trace

from jaxgen.arrays import Tree
from jaxgen.errors import UserError, nearest

Hook = Callable[..., Any]  # (the module's output, *its inputs) -> the output in its place


@dataclasses.dataclass(frozen=True)
class WithModule:
    """Stands for a hook that is also told its module: `(output, module, *inputs) -> the output in its place`."""

    hook: Callable[..., Any]


@contextlib.contextmanager
def after(hooks: Mapping[str, Hook | WithModule]) -> Iterator[None]:
    """Passes the output of each named module, in every network that is called in the block, through its hook.

    The block has to hold the call of one network only: a path names the same module in each network that has it.

    Args:
      hooks: `{path of a module: hook}`. A hook is called with the module's output and with the arguments of its call; a
        `WithModule` also with the module, between them.

    Raises:
      UserError: at the end of the block, if a path has met no module; the most similar one is proposed.
    """
    met: set[str] = set()
    seen: set[str] = set()

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        output = call(*args, **kwargs)
        if context.method_name != "__call__":
            return output
        path = "/".join(context.module.path)
        seen.add(path)
        if path not in hooks:
            return output
        met.add(path)
        hook = hooks[path]
        if isinstance(hook, WithModule):
            return hook.hook(output, context.module, *args, **kwargs)
        return hook(output, *args, **kwargs)

    with nn.intercept_methods(intercept):
        yield
    missing = sorted(hooks.keys() - met)
    if missing:
        raise UserError(f"The network has no module {missing[0]!r}; {nearest(missing[0], seen - {''})}")


@contextlib.contextmanager
def taken(paths: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Gives a dict that has `{path: output}` of modules inside a network once it was called in the block.

    Raises:
      UserError: a module gives something other than one array, or lies in layers that run as one scan or are computed
        again in the backward pass; at the end of the block, a path has met no module.
    """
    found: dict[str, Any] = {}
    outside = current_trace()

    def keep(path: str) -> Hook:
        def hook(output: Any, *_: Any, **__: Any) -> Any:
            if current_trace() != outside:
                raise UserError(
                    f"The module {path!r} lies in layers that run as one scan, or are computed again in the backward "
                    "pass, so that its output cannot be taken: unset the network's scan_blocks and remat, or take "
                    "another module."
                )
            if not hasattr(output, "shape"):
                what = f"gives a {type(output).__name__} and not one array"
                raise UserError(f"The module {path!r} {what}; take another one.")
            found[path] = output
            return output

        return hook

    with after({path: keep(path) for path in paths}):
        yield found


def inner(network: nn.Module, params: Tree, paths: Iterable[str], *inputs: Any, **options: Any) -> dict[str, Any]:
    """Returns `{path: output}` of modules inside a network, from one call of it.

    Args:
      network: the network. `params` are its parameters.
      paths: the modules' paths.
      inputs: arguments of the call. `options` are its keyword arguments, and flax's own (`rngs`, `method`).

    Raises:
      UserError: as `taken`.
    """
    with taken(paths) as found:
        network.apply({"params": params}, *inputs, **options)
    return found
