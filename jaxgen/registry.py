"""One rule for all names in a config: a class of the kind's contract, in the kind's room, or `package.module:Class`.

A *kind* is what a config may name: a method, a network, a sampler. Its *contract* is the class that all of the kind
derive from, and its *rooms* are the packages that hold those of jaxgen. A name means one of

    ddim                      the class DDIM in a room; neither case nor underscores matter
    autoencoder_kl:Encoder    the class Encoder in the module `autoencoder_kl` of a room, for names that several have
    my_package.losses:Mine    the class Mine in any module that Python can import

Adding one is adding a class; there is no table of them. Rooms are searched by reading their source, so that only the
module that holds the class is imported, and a misspelt name is answered before JAX is.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import inspect
import pathlib
import re
import sys
from collections.abc import Iterable
from typing import Any

from jaxgen.errors import UserError, first_line, nearest
from jaxgen.renamed import RENAMED, unknown_name


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a config may name.

    Attributes:
      word: its name in sentences and in `--list=<kind>`.
      contract: the class that all of the kind derive from, as "module:Class"; imported when a class is checked.
      rooms: the packages or modules of jaxgen that are searched, subpackages too.
    """

    word: str
    contract: str
    rooms: tuple[str, ...]

    def type(self) -> type:
        """The contract, imported."""
        module, _, name = self.contract.partition(":")
        return getattr(importlib.import_module(module), name)


_ALL = (
    Kind("method", "jaxgen.methods.base:Method", ("jaxgen.methods",)),
    Kind("network", "flax.linen:Module", ("jaxgen.networks",)),
    Kind("sampler", "jaxgen.diffusion.samplers:Sampler", ("jaxgen.diffusion.samplers",)),
    Kind("schedule", "jaxgen.diffusion.schedule:Schedule", ("jaxgen.diffusion",)),
    Kind("timestep_sampler", "jaxgen.diffusion.timesteps:TimestepSampler", ("jaxgen.diffusion",)),
    Kind("guidance", "jaxgen.diffusion.guidance_base:Guidance", ("jaxgen.diffusion",)),
    Kind("gan_loss", "jaxgen.adversarial.losses:GANLoss", ("jaxgen.adversarial",)),
    Kind("source", "jaxgen.data.source:Source", ("jaxgen.data.sources",)),
    Kind("likelihood", "jaxgen.variational.likelihood:Likelihood", ("jaxgen.variational",)),
    Kind("augmentation", "jaxgen.adversarial.augment:Augmentation", ("jaxgen.adversarial",)),
    Kind("metric", "jaxgen.metrics.base:Metric", ("jaxgen.metrics",)),
    Kind("feature_network", "jaxgen.metrics.networks.base:FeatureNetwork", ("jaxgen.metrics.networks",)),
)
KINDS: dict[str, Kind] = {kind.word: kind for kind in _ALL}


def find(kind: str, name: str, path: str, among: tuple[type, ...] = ()) -> type:
    """The class that a name means.

    Args:
      kind: a key of `KINDS`.
      name: as the module's docstring says.
      path: where the name stands, for error messages, such as `config.method.name`.
      among: classes one of which it must derive from, where that is narrower than the kind's contract.

    Raises:
      UserError: for a name that is unknown (the nearest is proposed), that two classes have, that means something of
        another type, or whose module cannot be imported. Nothing that is found is called.
    """
    of = KINDS[kind]
    if ":" in name:
        found = _by_path(name, path, of.rooms, among or of)
    else:
        found = _by_name(name, path, of, among)
    if found is of.type():
        raise UserError(f"{path}={name!r} is the type that every {kind} derives from; {nearest(name, _spelled(of))}")
    if inspect.isabstract(found):
        raise UserError(f"{path}={name!r} is a type that others derive from; {nearest(name, _spelled(of))}")
    return found


def find_beside(types: tuple[type, ...], name: str, path: str) -> Any:
    """The class that a name means where no kind has the type: of the type's own module, or `package.module:Class`.

    Raises:
      UserError: as `find`.
    """
    if ":" in name:
        return _by_path(name, path, (), types)
    module = sys.modules[types[0].__module__]
    own = {k: v for k, v in vars(module).items() if not k.startswith("_") and _made_in(v, module) and _is_a(v, types)}
    for key, value in own.items():
        if _plain(key) == _plain(name):
            return value
    raise unknown_name(path, name, map(config_name, own.values()))


def kind_of(types: tuple[type, ...]) -> str | None:
    """The kind whose contract the first of `types` is or derives from, the nearest one where several are."""
    bases = types[0].__mro__
    # a contract whose module is not imported has no subclass yet
    known = {word: of.type() for word, of in KINDS.items() if of.contract.partition(":")[0] in sys.modules}
    fitting = [word for word, contract in known.items() if contract in bases]
    return min(fitting, key=lambda word: bases.index(known[word]), default=None)


def classes(kind: str) -> dict[str, type]:
    """`{name: class}` of all of a kind in its rooms, sorted; imports the rooms' modules.

    A name that several classes have is written `module:Class`.
    """
    of = KINDS[kind]
    contract = of.type()
    found = []
    for definition in (d for d in _definitions(of.rooms) if d.public):
        value = getattr(importlib.import_module(definition.module), definition.name, None)
        if _is_a(value, (contract,)) and value is not contract and not inspect.isabstract(value):
            found.append((definition, value))
    return dict(sorted((_name_among(d, [d for d, _ in found]), value) for d, value in found))


def names(kind: str) -> list[str]:
    """The names of all of a kind in its rooms, by their source; nothing is imported."""
    return sorted(_spelled(KINDS[kind]))


def named(kind: str, name: str) -> bool:
    """Whether a class in the kind's rooms has a name; nothing is imported."""
    return any(_plain(name) == _plain(known) for known in names(kind))


def config_name(cls: type) -> str:
    """How a config spells a class: what its own `config_name` says; else its module's name where that is the class's in
    lower case; else the class's in snake case: `UNet` in `unet.py` is "unet", `NonSaturating` "non_saturating"."""
    return vars(cls).get("config_name") or _spell(cls.__name__, cls.__module__)


# ------------------------------------------------------------------ what the rooms hold, by their source


@dataclasses.dataclass(frozen=True)
class _Definition:
    """A class at the top level of a module. spelled: its config name. bases: the last words of its bases' names.
    abstract: whether it leaves a function of its own to those that derive from it."""

    module: str
    name: str
    spelled: str
    bases: tuple[str, ...]
    abstract: bool = False

    @property
    def public(self) -> bool:
        return not self.name.startswith("_") and not _last(self.module).startswith("_")

    @property
    def path(self) -> str:
        return f"{_last(self.module)}:{self.name}"

    def has(self, name: str) -> bool:
        return _plain(name) in (_plain(self.name), _plain(self.spelled))


@functools.cache
def _modules(rooms: tuple[str, ...]) -> dict[str, pathlib.Path]:
    """`{module: file}` of the rooms, nothing of which is imported."""
    found = {}
    for room in rooms:
        top = pathlib.Path(__file__).parent.joinpath(*room.split(".")[1:])
        for file in sorted(top.rglob("*.py")) if top.is_dir() else [top.with_suffix(".py")]:
            parts = file.relative_to(pathlib.Path(__file__).parents[1]).with_suffix("").parts
            if parts[-1] != "__main__":
                found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@functools.cache
def _definitions(rooms: tuple[str, ...]) -> tuple[_Definition, ...]:
    """All classes at the top level of the rooms' modules, private ones too."""
    found = []
    makers = {kind.contract.partition(":")[0] for kind in _ALL}
    for module, file in _modules(rooms).items():
        body = ast.parse(file.read_text(encoding="utf-8")).body
        own = {_plain(node.name) for node in body if isinstance(node, ast.ClassDef)}
        for node in body:
            # functions that make such an object, in the contract's module: until they are classes
            if isinstance(node, ast.FunctionDef) and module in makers and node.returns and _plain(node.name) not in own:
                found.append(_Definition(module, node.name, node.name, (ast.unparse(node.returns).strip("'"),)))
            if isinstance(node, ast.ClassDef):
                bases = tuple(ast.unparse(base).rpartition(".")[2] for base in node.bases)
                spelled = _said(node) or _spell(node.name, module)
                found.append(_Definition(module, node.name, spelled, bases, "abstractmethod" in ast.unparse(node)))
    return tuple(found)


def _said(node: ast.ClassDef) -> str | None:
    """The string that a class's body gives to `config_name`."""
    for line in node.body:
        target = line.target if isinstance(line, ast.AnnAssign) else getattr(line, "targets", [None])[0]
        if isinstance(target, ast.Name) and target.id == "config_name" and isinstance(line.value, ast.Constant):
            return str(line.value.value)
    return None


def _typed(of: Kind, among: tuple[type, ...]) -> list[_Definition]:
    """Public definitions that derive from the contract, as far as the rooms' source tells."""
    contract, _, base = of.contract.partition(":")
    reached = {cls.__name__ for cls in among} or {base}
    everything = _definitions(of.rooms)
    while more := {d.name for d in everything if reached & set(d.bases)} - reached:
        reached |= more
    own = {cls.__name__ for cls in among}
    return [
        d
        for d in everything
        if d.public
        and not d.abstract
        and (reached & set(d.bases) or d.name in own)
        and (d.module, d.name) != (contract, base)
    ]


def _spelled(of: Kind, among: tuple[type, ...] = ()) -> list[str]:
    """The names of a kind, for proposals."""
    typed = _typed(of, among)
    return [_name_among(definition, typed) for definition in typed]


def _name_among(one: _Definition, all_of_them: list[_Definition]) -> str:
    """A definition's name, or `module:Class` where it would not be found by the name alone."""
    same = [d for d in all_of_them if d.spelled == one.spelled]
    return one.spelled if _at_home(same, one.spelled) == [one] else one.path


def _at_home(same: list[_Definition], name: str) -> list[_Definition]:
    """Of definitions of one name, those whose module has it too (`encoder:Encoder`); all where none has."""
    return [d for d in same if _plain(_last(d.module)) == _plain(name)] or same


# ------------------------------------------------------------------ from a name to a class


def _by_name(name: str, path: str, of: Kind, among: tuple[type, ...]) -> Any:
    typed = _typed(of, among)
    same = [d for d in typed if d.has(name)] or [d for d in _definitions(of.rooms) if d.public and d.has(name)]
    if not same:
        raise unknown_name(path, name, _spelled(of, among))
    same = _at_home(same, name)
    if len(same) > 1:
        raise UserError(f"{path}={name!r} is the name of several classes; write {' or '.join(d.path for d in same)}.")
    found = getattr(importlib.import_module(same[0].module), same[0].name)
    if inspect.isfunction(found):
        return found
    return _checked(found, name, path, among or of)


def _by_path(name: str, path: str, rooms: tuple[str, ...], types: Kind | tuple[type, ...]) -> Any:
    """What `module:Class` means, the module being one of the rooms' or any that can be imported."""
    head, _, attribute = name.partition(":")
    inside = [module for module in _modules(rooms) if f".{module}".endswith(f".{head}")] if head else []
    defining = [d for d in _definitions(rooms) if d.module in inside and d.has(attribute)]
    if len(defining) > 1:
        written = " or ".join(f"{d.module}:{d.name}" for d in defining)
        raise UserError(f"{path}={name!r} is the name of several classes; write {written}.")
    if defining:
        module: Any = importlib.import_module(defining[0].module)
        attribute = defining[0].name
    elif inside:
        module = importlib.import_module(inside[0])
    else:
        module = _foreign(head, name, path)
    values = vars(module)
    key = attribute if attribute in values else next((k for k in values if _plain(k) == _plain(attribute)), None)
    if not key or not attribute:
        if name in RENAMED:
            raise unknown_name(path, name, ())
        public = [k for k, v in values.items() if inspect.isclass(v) and not k.startswith("_")]
        raise UserError(f"{path}={name!r}: {module.__name__} defines no {attribute!r}; {nearest(attribute, public)}")
    return _checked(values[key], name, path, types)


def _foreign(module: str, name: str, path: str) -> Any:
    """A module that is not of jaxgen's rooms, imported."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            if name in RENAMED:
                raise unknown_name(path, name, ()) from error
            raise UserError(
                f"{path}={name!r} is unknown: there is no module {error.name!r}; is its folder in PYTHONPATH?"
            ) from error
        raise UserError(f"{path}={name!r}: importing {module} failed with {first_line(error)}.") from error
    except (ValueError, TypeError) as error:
        if module and not module.startswith("."):
            raise UserError(f"{path}={name!r}: importing {module} failed with {first_line(error)}.") from error
        raise UserError(f"{path}={name!r} is unknown; write package.module:Class.") from error
    except (Exception, SystemExit) as error:  # a stranger's module may raise anything
        raise UserError(f"{path}={name!r}: importing {module} failed with {first_line(error)}.") from error


def _checked(found: Any, name: str, path: str, types: Kind | tuple[type, ...]) -> Any:
    """`found`, if it is a class of the wanted type; UserError otherwise."""
    wanted = (types.type(),) if isinstance(types, Kind) else types
    if _is_a(found, wanted):
        return found
    if isinstance(types, Kind):
        module, _, class_name = types.contract.partition(":")
    else:
        module, class_name = types[0].__module__, types[0].__qualname__
    article = "an" if class_name[0] in "AEIO" else "a"
    raise UserError(
        f"{path}={name!r} is not {article} {class_name} ({module}:{class_name}); name a class that derives from it."
    )


def _is_a(value: Any, types: Iterable[type]) -> bool:
    return inspect.isclass(value) and issubclass(value, tuple(types))


def _made_in(value: Any, module: Any) -> bool:
    return getattr(value, "__module__", None) == module.__name__


# ------------------------------------------------------------------ spelling


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _last(module: str) -> str:
    return module.rpartition(".")[2]


def _spell(name: str, module: str) -> str:
    if _plain(name) == _plain(_last(module)):
        return _last(module)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
