"""One factory: a config section names a callable, and the callable's signature is the section's schema.

`{"name": "unet", "channels": 64}` in the room `jaxgen.networks` means `jaxgen.networks.unet.UNet(channels=64)`.
A name is a module of the room whose class or function bears the module's name, or a class or function of the
room's own module, or `module:Attribute` for anything else (`dcgan:Generator`, `my_package.nets:Tiny`).
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import pkgutil
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from jaxgen.errors import UserError, nearest


def build(section: Mapping[str, Any], room: str, path: str, **given: Any) -> Any:
    """Calls what `section["name"]` names in `room` with the section's other keys.

    Args:
      section: `name` and keyword arguments; nested sections with a `name` are built first, in the room that
        the parameter's annotation belongs to (`nn.Module` in `jaxgen.networks`, anything else beside itself).
      room: a package or module, such as `jaxgen.networks`.
      path: where the section stands, for error messages, such as `config.method`.
      **given: arguments that the caller supplies where the section is silent, to nested sections too; those that
        a callable does not take are left out.

    Raises:
      UserError: for an unknown name or key (the nearest is proposed), a missing key, or a wrong type.
    """
    arguments = {k: v for k, v in section.items() if k != "name"}
    if not section.get("name"):
        raise UserError(f"{path} needs a 'name'.")
    target = lookup(str(section["name"]), room, f"{path}.name")
    parameters = _parameters(target)
    for key in arguments:
        if key not in parameters:
            known = parameters.keys() - given.keys()
            raise UserError(f"{path}.{key} does not exist; {nearest(key, known)}")
    hints = _hints(target)
    values = {k: _value(v, hints.get(k, Any), f"{path}.{k}", given) for k, v in arguments.items()}
    values.update({k: v for k, v in given.items() if k in parameters and k not in values})
    missing = [k for k, p in parameters.items() if p.default is p.empty and k not in values]
    if missing:
        raise UserError(f"{path} is missing the key {missing[0]!r}, which {section['name']!r} needs.")
    return target(**values)


def lookup(name: str, room: str, path: str) -> Callable[..., Any]:
    """Finds what `name` means in `room`; see the module's docstring."""
    module_name, _, attribute = name.partition(":")
    home = importlib.import_module(room)
    local = getattr(home, module_name, None)
    own = callable(local) and getattr(local, "__module__", None) == home.__name__  # not what it imports
    if not attribute and own and not module_name.startswith("_"):
        return local
    inside = _modules(home).get(module_name)
    if inside:
        module = importlib.import_module(inside)
    elif attribute and _exists(module_name):
        module = importlib.import_module(module_name)
    else:
        raise UserError(f"{path}={name!r} is unknown; {nearest(name, _names(home))}")
    wanted = (attribute or module_name).replace("_", "").lower()
    for key, value in vars(module).items():
        if key.replace("_", "").lower() == wanted and callable(value):
            return value
    raise UserError(f"{path}={name!r}: {module.__name__} defines no {attribute or module_name!r}.")


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False


def _modules(home: types.ModuleType) -> dict[str, str]:
    """`{last part: whole name}` of a package's modules, those of its subpackages too."""
    found = pkgutil.walk_packages(getattr(home, "__path__", ()), f"{home.__name__}.")
    return {m.name.rpartition(".")[2]: m.name for m in found if not m.ispkg}


def _names(home: types.ModuleType) -> list[str]:
    if hasattr(home, "__path__"):
        return [name for name in _modules(home) if not name.startswith("_")]
    return [
        k
        for k, v in vars(home).items()
        if inspect.isfunction(v) and v.__module__ == home.__name__ and not k.startswith("_")
    ]


def _parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    skip = {"parent", "name"}  # flax.linen's own fields
    return {k: p for k, p in inspect.signature(target).parameters.items() if k not in skip}


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    if not inspect.isclass(target):
        return typing.get_type_hints(target)
    hints = typing.get_type_hints(target)  # of every base, each in its own module's names
    if "__init__" in vars(target) and not dataclasses.is_dataclass(target):
        hints = {**hints, **typing.get_type_hints(target.__init__)}
    return hints


def _value(value: Any, hint: Any, path: str, given: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping) or hasattr(value, "to_dict"):
        if "name" not in value:
            if hint in (dict, Any) or typing.get_origin(hint) is dict:
                return dict(value.items())
            raise UserError(f"{path} needs a 'name'.")
        return build(value, _room(hint, path), path, **given)
    if isinstance(value, list):
        value = tuple(value)
    if not _fits(value, hint):
        if typing.get_origin(hint) is typing.Literal:
            raise UserError(f"{path}={value!r} is unknown; {nearest(value, typing.get_args(hint))}")
        wanted = hint.__name__ if inspect.isclass(hint) and not typing.get_args(hint) else hint
        raise UserError(f"{path} must be of type {wanted}, not {value!r}.")
    return float(value) if hint is float else value


def _room(hint: Any, path: str) -> str:
    options = [h for h in typing.get_args(hint) or (hint,) if inspect.isclass(h) and h not in (type(None), Any)]
    if not options:
        raise UserError(f"{path} takes a plain value, not a section.")
    if options[0].__module__.startswith("flax."):
        return "jaxgen.networks"
    return options[0].__module__


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, h) for h in typing.get_args(hint))
    if origin is typing.Literal:
        return value in typing.get_args(hint)
    if origin is tuple:
        inner = typing.get_args(hint)
        if not isinstance(value, tuple):
            return False
        if len(inner) == 2 and inner[1] is Ellipsis:
            return all(_fits(v, inner[0]) for v in value)
        return len(inner) == len(value) and all(map(_fits, value, inner))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if inspect.isclass(hint) else True
