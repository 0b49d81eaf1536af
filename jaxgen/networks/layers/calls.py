"""Checks that a network takes what a method calls it with, before flax or JAX fails somewhere inside the network.

A config may name any network for any role. One of another kind, such as a decoder where a denoiser is called with
images and times, has parameters of other names, or of other ranks and number types: its signature and the jaxtyping
annotations of `__call__` say which.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jaxtyping

from jaxgen.build import path_of
from jaxgen.errors import UserError

OF_FLAX = ("rngs", "method", "mutable", "capture_intermediates")  # options of `apply` itself, not of the network


def check_call(network: nn.Module, inputs: Sequence[Any], options: Mapping[str, Any]) -> None:
    """Checks a call of `network.init` or `network.apply` against the signature of the network.

    Positional inputs are compared with the annotations too: arrays with rank and number type, and no array is a bool.

    Args:
      network: the network.
      inputs: the positional arguments.
      options: the keyword arguments, those of flax among them.

    Raises:
      UserError: the network does not take these arguments, or has no such method.
    """
    if not isinstance(network, nn.Module):
        return
    name = options.get("method") or "__call__"
    classes = type(network).__mro__  # getattr would find the `__call__` that makes objects of the class
    function = next((vars(c)[name] for c in classes if name in vars(c)), None) if isinstance(name, str) else name
    if function is None:
        raise _of_another_kind(network, f"has no method {name!r}", inputs, options)
    signature = inspect.signature(function)
    given = {key: value for key, value in options.items() if key not in OF_FLAX}
    try:
        signature.bind(network, *inputs, **given)
    except TypeError as error:
        raise _of_another_kind(network, f"does not take that ({error})", inputs, options) from error
    hints = _hints(function)
    for parameter, value in zip(list(signature.parameters.values())[1:], inputs, strict=False):
        hint = hints.get(parameter.name, Any)
        if parameter.kind is parameter.VAR_POSITIONAL or not isinstance(value, jax.Array) or _takes(hint, value):
            continue
        raise _of_another_kind(network, f"takes {parameter.name!r} as {_told(hint)} there", inputs, options)


def taken_by(network: Any) -> frozenset[str] | None:
    """Returns the names of the inputs that a network's call takes; None where it takes any, or is no module."""
    if not isinstance(network, nn.Module):
        return None
    parameters = list(inspect.signature(type(network).__call__).parameters.values())[1:]
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return frozenset(p.name for p in parameters)


def check_outputs(network: nn.Module, outputs: Any, count: int = 1) -> Any:
    """Returns what a network gave; raises a UserError unless it is one array, or a tuple of `count` arrays."""
    found = outputs if isinstance(outputs, tuple) else (outputs,)
    if len(found) == count and all(hasattr(one, "shape") for one in found):
        return outputs
    kind = f"a tuple of {len(outputs)}" if isinstance(outputs, tuple) else f"a {type(outputs).__name__}"
    given = "one array" if hasattr(outputs, "shape") else kind
    wanted = "one array" if count == 1 else f"a tuple of {count} arrays"
    raise UserError(
        f"{path_of(network) or 'config.method'} names the network {type(network).__name__}, which is of another kind "
        f"than the method needs: it gives {given}, where the method takes {wanted}."
    )


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Returns a function's annotations; none where a user's own names cannot be looked up."""
    try:
        return typing.get_type_hints(function)
    except NameError:
        return {}


def _takes(hint: Any, value: jax.Array) -> bool:
    """Returns whether an array fits an annotation. Annotations that say nothing about arrays fit all."""
    options = typing.get_args(hint) or (hint,)
    arrays = [one for one in options if inspect.isclass(one) and issubclass(one, jaxtyping.AbstractArray)]
    if arrays:
        return any(isinstance(value, one) for one in arrays)
    return hint not in (bool, int, float, str) or (hint is not bool and hint is not str and value.ndim == 0)


def _told(hint: Any) -> str:
    options = [one for one in typing.get_args(hint) or (hint,) if one is not type(None)]
    return " or ".join(getattr(one, "__name__", str(one)).replace("jaxlib._jax.", "") for one in options)


def _of_another_kind(network: nn.Module, why: str, inputs: Sequence[Any], options: Mapping[str, Any]) -> UserError:
    words = [f"{x.dtype}{[*x.shape]}" if hasattr(x, "shape") else type(x).__name__ for x in inputs]
    words += [f"{key}=..." for key in options if key not in OF_FLAX]
    return UserError(
        f"{path_of(network) or 'config.method'} names the network {type(network).__name__}, which is of another kind "
        f"than the method needs: the method calls it with ({', '.join(words)}), and it {why}."
    )
