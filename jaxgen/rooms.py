"""The classes that jaxgen's rooms hold, read from their source: nothing is imported, so that a search costs no JAX."""

from __future__ import annotations

import ast
import dataclasses
import functools
import pathlib
import re

PACKAGE = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Definition:
    """A class at the top level of a module.

    Attributes:
      module, name: where it is and what Python calls it.
      spelled: what a config calls it; "" where none should, since it is abstract, or a base or part of others.
      bases: the last words of its bases' names.
    """

    module: str
    name: str
    spelled: str
    bases: tuple[str, ...]

    @property
    def public(self) -> bool:
        """Whether a config may name it."""
        return bool(self.spelled) and not self.name.startswith("_") and not last(self.module).startswith("_")

    @property
    def path(self) -> str:
        """`module:Class`, by the last word of the module."""
        return f"{last(self.module)}:{self.name}"

    def has(self, name: str) -> bool:
        """Whether `name` means it; neither case nor underscores matter."""
        return plain(name) in (plain(self.name), plain(self.spelled))


@functools.cache
def modules(rooms: tuple[str, ...]) -> dict[str, pathlib.Path]:
    """`{module: file}` of the rooms, subpackages too, without what runs when it is imported (`__main__`)."""
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
    """All classes at the top level of the rooms' modules, private ones and bases too."""
    found = []
    for module, file in modules(rooms).items():
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                bases = tuple(last(ast.unparse(base)) for base in node.bases)
                found.append(Definition(module, node.name, _spelled(node, module), bases))
    return tuple(found)


def derived(rooms: tuple[str, ...], names: set[str]) -> list[Definition]:
    """The definitions that derive from classes of these names, as far as the rooms' source tells."""
    everything, reached = definitions(rooms), set(names)
    while more := {d.name for d in everything if reached & set(d.bases)} - reached:
        reached |= more
    return [d for d in everything if reached & set(d.bases)]


def config_name(cls: type) -> str:
    """How a config spells a class: what its own `config_name` says; else its module's name where that is the class's
    without underscores; else the class's in snake case: `UNet` in `unet.py` is "unet", `NonSaturating`
    "non_saturating"."""
    return vars(cls).get("config_name") or _snake(cls.__name__, cls.__module__)


def _spelled(node: ast.ClassDef, module: str) -> str:
    """`config_name` of a class that is not imported; "" where its own `config_name` says so, and where it has abstract
    methods of its own."""
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
    """A name without what does not matter: case and underscores."""
    return name.replace("_", "").lower()


def last(name: str) -> str:
    """The last word of a dotted name."""
    return name.rpartition(".")[2]
