"""Builds objects from config sections: a section names a class, and the class's signature is the section's schema.

`{"name": "unet", "channels": 64}` as a `network` means `jaxgen.networks.unet.UNet(channels=64)`. `jaxgen.registry`
finds the classes. A field whose annotation is such a class takes a section of its own, or only a name.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

from jaxgen import registry
from jaxgen.errors import UserError, check_entry_name, first_line, nearest
from jaxgen.number_types import is_type_key, number_type
from jaxgen.renamed import unknown_key

# Annotations from these modules are plain values, never sections.
PLAIN = ("builtins", "collections.abc", "types", "typing")
MAPPINGS = (dict, collections.abc.Mapping)
PATH = "_built_from"  # the attribute that holds the path of an object's section


def build(section: Mapping[str, Any], kind: str | type, path: str, **given: Any) -> Any:
    """Calls the class that `section["name"]` names with the section's other keys.

    Args:
      section: `name` and keyword arguments. A nested section with a `name`, or only a name, is built first. The
        field's annotation decides what it may name: the classes of the annotated class's kind or, if it has no kind,
        the classes in its own module that derive from it. `Mapping[str, T]` takes a section for each entry.
      kind: a key of `jaxgen.registry.KINDS`, or the class that the result derives from.
      path: the section's path, for error messages, such as `config.method`.
      **given: arguments for keys that the section does not have, also for nested sections; each class gets only those
        that it takes.

    Raises:
      UserError: a name or key is unknown (the most similar one is proposed), a key is missing, or a type is wrong.
    """
    if isinstance(kind, type):
        return _build(section, registry.kind_of((kind,)), (kind,), path, given)
    return _build(section, kind, (), path, given)


def _build(section: Any, kind: str | None, among: tuple[type, ...], path: str, given: Mapping[str, Any]) -> Any:
    """Builds a section. `among` are the classes that the field's annotation names, and `kind` is their kind.

    If `kind` is None, the name is looked up in the module of the first of `among`.
    """
    arguments = {k: v for k, v in section.items() if k != "name"}
    name = section.get("name")
    if not name:
        near = f" It has {', '.join(map(repr, arguments))}." if arguments else ""
        raise UserError(f"{path} needs a 'name'.{near}")
    if not isinstance(name, str):
        raise UserError(f"{path}.name must be of type str, not {name!r}.")
    if kind:
        target = registry.find(kind, name, f"{path}.name", among)
    else:
        target = registry.find_beside(among, name, f"{path}.name")
    parameters = _parameters(target)
    for key in arguments:
        if key not in parameters:
            raise unknown_key(path, key, parameters.keys() - given.keys())
    hints = _hints(target)
    values = {k: _value(v, hints.get(k, Any), f"{path}.{k}", given) for k, v in arguments.items()}
    values.update({k: v for k, v in given.items() if k in parameters and k not in values})
    missing = [k for k, p in parameters.items() if p.default is p.empty and k not in values]
    if missing:
        raise UserError(f"{path} is missing the key {missing[0]!r}, which {name!r} needs.")
    return _made(target, values, name, path)


def _made(target: type, values: dict[str, Any], name: str, path: str) -> Any:
    """Calls a class. What a class of the user's own raises is said with its name; a fault of jaxgen's is not hidden."""
    try:
        made = target(**values)
    except UserError:
        raise
    except Exception as error:
        if target.__module__.startswith("jaxgen."):
            raise
        raise UserError(f"{path}={name!r}: making {target.__name__} failed with {first_line(error)}.") from error
    if hasattr(made, "__dict__"):
        object.__setattr__(made, PATH, path)  # frozen dataclasses too; it is no field, so nothing else sees it
    return made


def build_field(target: type, name: str, section: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Returns `{name: object}` for a field of a dataclass that has a section of its own, such as `config.sampler`.

    The field's annotation says which classes the section may name. An empty section leaves the field at its default,
    so that nothing is returned, and a section without a name changes options of the default.

    Raises:
      UserError: as `build`.
    """
    field = next(f for f in dataclasses.fields(target) if f.name == name)
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    if not section and default is not dataclasses.MISSING:
        return {}
    if "name" not in section and dataclasses.is_dataclass(default):
        kind, known = type(default), [f.name for f in dataclasses.fields(default) if f.init]
        options = {option: getattr(default, option) for option in known}
        section = {"name": f"{kind.__module__}:{kind.__qualname__}", **options, **section}
    return {name: _value(section, _hints(target)[name], path, {})}


def path_of(made: object) -> str:
    """Returns the section that an object was built from, such as `config.method.network`; "" for other objects."""
    return getattr(made, PATH, "")


def _parameters(target: type) -> dict[str, inspect.Parameter]:
    skip = {"parent", "name"}  # flax.linen's own fields
    return {k: p for k, p in inspect.signature(target).parameters.items() if k not in skip}


def _hints(target: type) -> dict[str, Any]:
    hints = typing.get_type_hints(target)  # of every base, each in its own module's names
    if "__init__" in vars(target) and not dataclasses.is_dataclass(target):
        hints = {**hints, **typing.get_type_hints(vars(target)["__init__"])}
    return hints


def _value(value: Any, hint: Any, path: str, given: Mapping[str, Any]) -> Any:
    """Converts a config's value to its field's type: sections and names are built, lists become tuples, ints floats."""
    among = _contracts(hint)
    if isinstance(value, Mapping) or hasattr(value, "to_dict"):
        return _section(value, hint, among, path, given)
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(value, str) and is_type_key(path.rpartition(".")[2]) and (value or path.endswith(".dtype")):
        value = number_type(value, path)  # an empty param_dtype is that of the files
    if _fits(value, hint):
        return float(value) if hint is float else value
    if among and isinstance(value, str):
        return _build({"name": value}, registry.kind_of(among), among, path, given)
    if typing.get_origin(hint) is typing.Literal:
        raise UserError(f"{path}={value!r} is unknown; {nearest(value, typing.get_args(hint))}")
    raise UserError(f"{path} must be {_described(hint)}, not {value!r}.")


def _described(hint: Any) -> str:
    """Returns an annotation in words, for "must be ..."."""
    if hint in MAPPINGS or typing.get_origin(hint) in MAPPINGS:
        inner = typing.get_args(hint)[1:]
        return f"a section of entries, each {_described(inner[0])}" if inner and inner[0] is not Any else "a section"
    if inspect.isclass(hint) and not typing.get_args(hint):
        return f"of type {hint.__name__}"
    return f"of type {re.sub(r'(?:[A-Za-z_][A-Za-z0-9_]*[.])+(?=[A-Za-z_])', '', str(hint))}"


def _section(value: Any, hint: Any, among: tuple[type, ...], path: str, given: Mapping[str, Any]) -> Any:
    """Returns what a section within a section means: an object, a dict of objects, or a plain dict."""
    if among:
        return _build(value, registry.kind_of(among), among, path, given)
    mapping = typing.get_origin(hint) in MAPPINGS
    if mapping and _contracts(inner := typing.get_args(hint)[1]):
        for entry in value:
            check_entry_name(str(entry), path)
        return {k: _value(v, inner, f"{path}.{k}", given) for k, v in value.items()}
    if mapping or hint is dict or (hint is Any and "name" not in value):
        return dict(value.items())
    raise UserError(f"{path} takes a plain value, not a section.")


def _contracts(hint: Any) -> tuple[type, ...]:
    """Returns the classes in an annotation that a section can be built for."""
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return tuple(h for h in options if inspect.isclass(h) and h.__module__ not in PLAIN and not typing.get_args(h))


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
    if origin in MAPPINGS:
        return isinstance(value, Mapping)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if inspect.isclass(hint) else True
