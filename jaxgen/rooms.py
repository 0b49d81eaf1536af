"""Finds the classes in jaxgen's rooms by reading their source; nothing is imported, so that a search starts no JAX."""

from __future__ import annotations

import ast
import dataclasses
import functools
import pathlib
import re

PACKAGE = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Definition:
    """Holds what is known of a class at the top level of a module.

    Attributes:
      module: the module that defines it.
      name: its name in Python.
      spelled: its name in a config; "" if no config should name it, since it is abstract, or a base or part of others.
      bases: the last words of its bases' names.
    """

    module: str
    name: str
    spelled: str
    bases: tuple[str, ...]

    @property
    def public(self) -> bool:
        """Returns whether a config may name it."""
        return bool(self.spelled) and not self.name.startswith("_") and not last(self.module).startswith("_")

    @property
    def path(self) -> str:
        """Returns the name `module:Class`, with the last word of the module."""
        return f"{last(self.module)}:{self.name}"

    def has(self, name: str) -> bool:
        """Returns whether `name` means this class; case and underscores do not matter."""
        return plain(name) in (plain(self.name), plain(self.spelled))


@functools.cache
def modules(rooms: tuple[str, ...]) -> dict[str, pathlib.Path]:
    """Returns `{module: file}` of the rooms and their subpackages, without `__main__`, which runs when imported."""
    found = {}
    for room in rooms:
        top = PACKAGE.joinpath(*room.split(".")[1:])
        for file in sorted(top.rglob("*.py")) if top.is_dir() else [top.with_suffix(".py")]:
            parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
            if parts[-1] != "__main__":
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@functools.cache
def definitions(rooms: tuple[str, ...]) -> tuple[Definition, ...]:
    """Returns all classes at the top level of the rooms' modules, including private ones and bases."""
    found = []
    for module, file in modules(rooms).items():
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                bases = tuple(last(ast.unparse(base)) for base in node.bases)
                found.append(Definition(module, node.name, _spelled(node, module), bases))
    return tuple(found)


def derived(rooms: tuple[str, ...], names: set[str]) -> list[Definition]:
    """Returns the definitions that derive from classes of these names, as far as the rooms' source shows."""
    everything, reached = definitions(rooms), set(names)
    while more := {d.name for d in everything if reached & set(d.bases)} - reached:
        reached |= more
    return [d for d in everything if reached & set(d.bases)]


def config_name(cls: type) -> str:
    """Returns a class's name in a config.

    It is the class's own `config_name` if it has one; else the module's name if both are equal apart from case and
    underscores (`UNet` in `unet.py` is "unet"); else the class's name in snake case ("non_saturating").
    """
    return vars(cls).get("config_name") or _snake(cls.__name__, cls.__module__)


def _spelled(node: ast.ClassDef, module: str) -> str:
    """Returns `config_name` of a class that is not imported; "" if that is its own `config_name`, or if the class has
    abstract methods."""
    for line in node.body:
        if any(last(ast.unparse(d)) == "abstractmethod" for d in getattr(line, "decorator_list", ())):
            return ""
        if isinstance(line, ast.AnnAssign | ast.Assign) and isinstance(line.value, ast.Constant):
            target = line.target if isinstance(line, ast.AnnAssign) else line.targets[0]
            if isinstance(target, ast.Name) and target.id == "config_name":
                return str(line.value.value)
    return _snake(node.name, module)


def _snake(name: str, module: str) -> str:
    if plain(name) == plain(last(module)):
        return last(module)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def plain(name: str) -> str:
    """Returns a name in lower case and without underscores, which do not matter."""
    return name.replace("_", "").lower()


def last(name: str) -> str:
    """Returns the last word of a dotted name."""
    return name.rpartition(".")[2]
