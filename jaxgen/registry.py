"""Finds the class that a name in a config means, by one rule for all kinds of classes.

A *kind* is a sort of class that a config may name, such as a method, a network or a sampler. Its *contract* is the
class that all classes of the kind derive from, and its *rooms* are the packages of jaxgen that hold them. A name means
one of

    ddim                      the class DDIM in a room; neither case nor underscores matter
    autoencoder_kl:Encoder    the class Encoder in the module `autoencoder_kl` of a room, for names that several have
    my_package.losses:Mine    the class Mine in any module that Python can import

There is no table of classes: a new class is found once it is written. A class may define `config_name = "dpmpp_2m"` if
snake case gives another name, and `config_name = ""` if it is a base or a part of others. Rooms are searched by reading
their source (`jaxgen.rooms`), so that only the module that holds the class is imported, and a misspelt name is reported
before JAX starts.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable
from types import ModuleType
from typing import TypeGuard

from jaxgen.errors import UserError, first_line, nearest
from jaxgen.renamed import RENAMED, unknown_name
from jaxgen.rooms import Definition, config_name, definitions, derived, last, modules, plain

__all__ = ["KINDS", "Kind", "classes", "config_name", "find", "find_beside", "kind_of", "named", "names"]


@dataclasses.dataclass(frozen=True)
class Kind:
    """Describes a sort of class that a config may name.

    Attributes:
      word: its name in sentences and in `--list=<kind>`.
      contract: the class that all classes of the kind derive from, as "module:Class"; a check of a class imports it.
      rooms: the packages or modules of jaxgen that are searched, with their subpackages.
    """

    word: str
    contract: str
    rooms: tuple[str, ...]

    def type(self) -> type:
        """Imports and returns the contract."""
        module, _, name = self.contract.partition(":")
        return getattr(importlib.import_module(module), name)


_ALL = (
    Kind("method", "jaxgen.methods.base:Method", ("jaxgen.methods",)),
    Kind("network", "flax.linen:Module", ("jaxgen.networks",)),
    Kind("sampler", "jaxgen.diffusion.samplers.base:Sampler", ("jaxgen.diffusion.samplers",)),
    Kind("schedule", "jaxgen.diffusion.schedules.base:Schedule", ("jaxgen.diffusion",)),
    Kind("prediction_type", "jaxgen.diffusion.prediction_types:PredictionType", ("jaxgen.diffusion",)),
    Kind("weighting", "jaxgen.diffusion.weighting:Weighting", ("jaxgen.diffusion",)),
    Kind("timestep_sampler", "jaxgen.diffusion.timesteps:TimestepSampler", ("jaxgen.diffusion",)),
    Kind("guidance", "jaxgen.diffusion.guidance.base:Guidance", ("jaxgen.diffusion",)),
    Kind("gan_loss", "jaxgen.adversarial.losses:GANLoss", ("jaxgen.adversarial",)),
    Kind("gan_sampler", "jaxgen.adversarial.sampling:GANSampler", ("jaxgen.adversarial",)),
    Kind("source", "jaxgen.data.source:Source", ("jaxgen.data.sources",)),
    Kind("corruption", "jaxgen.data.corruptions:Corruption", ("jaxgen.data.corruptions",)),
    Kind("condition", "jaxgen.conditions.base:Condition", ("jaxgen.conditions",)),
    Kind("codec", "jaxgen.codecs.base:Codec", ("jaxgen.codecs",)),
    Kind("graft", "jaxgen.methods.grafts.base:Graft", ("jaxgen.methods.grafts",)),
    Kind("likelihood", "jaxgen.variational.likelihood:Likelihood", ("jaxgen.variational",)),
    Kind("augmentation", "jaxgen.adversarial.augment:Augmentation", ("jaxgen.adversarial",)),
    Kind("output", "jaxgen.sampling.kinds:Output", ("jaxgen.sampling",)),
    Kind("metric", "jaxgen.metrics.base:Metric", ("jaxgen.metrics",)),
    Kind("tracker", "jaxgen.runs.trackers.base:Tracker", ("jaxgen.runs.trackers",)),
    Kind("feature_network", "jaxgen.metrics.networks.base:FeatureNetwork", ("jaxgen.metrics.networks",)),
)
KINDS: dict[str, Kind] = {kind.word: kind for kind in _ALL}


def find(kind: str, name: str, path: str, among: tuple[type, ...] = ()) -> type:
    """Returns the class that a name means. The class is not called.

    Args:
      kind: a key of `KINDS`.
      name: a name as in the module's docstring.
      path: the path of the name in the config, for error messages, such as `config.method.name`.
      among: classes of which the result must derive from one, if that is narrower than the kind's contract.

    Raises:
      UserError: the name is unknown (the most similar one is proposed), two classes have it, it means something of
        another type, or its module cannot be imported.
    """
    of = KINDS[kind]
    if ":" in name:
        found = _by_path(name, path, of.rooms, among or of)
    else:
        found = _by_name(name, path, of, among)
    if found is of.type():
        raise UserError(f"{path}={name!r} is the type that every {kind} derives from; {nearest(name, names(kind))}")
    if inspect.isabstract(found):
        if ":" in name and not found.__module__.startswith("jaxgen."):
            missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
            raise UserError(f"{path}={name!r} is not complete: it does not define {missing}; write it in the class.")
        raise UserError(f"{path}={name!r} is a type that others derive from; {nearest(name, names(kind))}")
    return found


def find_beside(types: tuple[type, ...], name: str, path: str) -> type:
    """Returns the class that a name means if the wanted type belongs to no kind.

    The name is that of a class in the type's own module, or `package.module:Class`.

    Raises:
      UserError: as `find`.
    """
    if ":" in name:
        return _by_path(name, path, (), types)
    module = sys.modules[types[0].__module__]
    own = {k: v for k, v in vars(module).items() if not k.startswith("_") and _made_in(v, module) and _is_a(v, types)}
    for key, value in own.items():
        if plain(key) == plain(name):
            return value
    raise unknown_name(path, name, map(config_name, own.values()))


def kind_of(types: tuple[type, ...]) -> str | None:
    """Returns the kind whose contract the first of `types` is or derives from; of several kinds, the nearest."""
    bases = types[0].__mro__
    # a contract whose module is not imported has no subclass yet
    known = {word: of.type() for word, of in KINDS.items() if of.contract.partition(":")[0] in sys.modules}
    fitting = [word for word, contract in known.items() if contract in bases]
    return min(fitting, key=lambda word: bases.index(known[word]), default=None)


def classes(kind: str) -> dict[str, type]:
    """Returns `{name: class}` for what `names` lists, and imports the modules that hold the classes.

    Raises:
      UserError: the kind does not exist.
    """
    if kind not in KINDS:
        raise UserError(f"{kind!r} is no kind of class; {nearest(kind, KINDS)}")
    of = KINDS[kind]
    found = {name: getattr(importlib.import_module(d.module), d.name) for name, d in sorted(_listed(of).items())}
    return {name: cls for name, cls in found.items() if _is_a(cls, (of.type(),)) and not inspect.isabstract(cls)}


def names(kind: str) -> list[str]:
    """Returns the names of all classes of a kind in its rooms, sorted. Nothing is imported.

    A name that several classes have is written `module:Class`. Private classes, classes with abstract methods, and
    bases and parts of others (which have `config_name = ""`) are left out; `module:Class` still names them.
    """
    return sorted(_listed(KINDS[kind]))


def named(kind: str, name: str) -> bool:
    """Returns whether a class in the kind's rooms has a name. Nothing is imported."""
    return any(d.has(name) for d in _typed(KINDS[kind]))


def foreign(text: str) -> str | None:
    """Returns the module outside of jaxgen's rooms that a name would import; None for all other texts.

    Nothing is imported. A short `module:Class` of a room counts as foreign if Python finds a module of that name
    outside of jaxgen too, since the kind decides which of the two is meant.
    """
    module, _, attribute = text.partition(":")
    if not _is_path(module, attribute):
        return None
    everywhere = tuple(sorted({room for kind in _ALL for room in kind.rooms}))
    inside = any(f".{own}".endswith(f".{module}") for own in modules(everywhere))
    return None if inside and (module.startswith("jaxgen.") or not _exists(module)) else module


def _typed(of: Kind, among: tuple[type, ...] = ()) -> list[Definition]:
    """Returns the public definitions of a kind, or of narrower types, as far as the rooms' source shows."""
    module, _, contract = of.contract.partition(":")
    wanted = {cls.__name__ for cls in among}
    own = [d for d in definitions(of.rooms) if d.name in wanted]
    typed = dict.fromkeys(d for d in [*own, *derived(of.rooms, wanted or {contract})] if d.public)
    return [d for d in typed if (d.module, d.name) != (module, contract)]


def _listed(of: Kind, among: tuple[type, ...] = ()) -> dict[str, Definition]:
    """Returns the definitions of `_typed` by their names."""
    typed = _typed(of, among)
    return {_name_among(d, typed): d for d in typed}


def _name_among(one: Definition, typed: list[Definition]) -> str:
    """Returns a definition's name, or `module:Class` if the name alone would not find it."""
    same = [d for d in typed if d.has(one.spelled)]
    return one.spelled if _at_home(same, one.spelled) == [one] else one.path


def _at_home(same: list[Definition], name: str) -> list[Definition]:
    """Returns those of several definitions whose module has the same name (`encoder:Encoder`), or all if none has."""
    return [d for d in same if plain(last(d.module)) == plain(name)] or same


# ------------------------------------------------------------------ from a name to a class


def _by_name(name: str, path: str, of: Kind, among: tuple[type, ...]) -> type:
    typed = _typed(of, among)
    same = [d for d in typed if d.has(name)] or [d for d in definitions(of.rooms) if d.public and d.has(name)]
    if not same:
        raise unknown_name(path, name, _listed(of, among))
    same = _at_home(same, name)
    if len(same) > 1:
        raise _several(path, name, same)
    found = getattr(importlib.import_module(same[0].module), same[0].name)
    return _checked(found, name, path, among or of)


def _by_path(name: str, path: str, rooms: tuple[str, ...], types: Kind | tuple[type, ...]) -> type:
    """Returns what `module:Class` means; the module is one of the rooms' or any other that can be imported."""
    head, _, attribute = name.partition(":")
    if not plain(attribute):
        raise UserError(f"{path}={name!r} names no class behind the colon; write package.module:Class.")
    inside = [module for module in modules(rooms) if f".{module}".endswith(f".{head}")] if head else []
    defining = [d for d in definitions(rooms) if d.module in inside and d.has(attribute)]
    if len(defining) > 1:
        raise _several(path, name, defining)
    if defining:
        module = importlib.import_module(defining[0].module)
        attribute = defining[0].name
    elif inside and ("." in head or not _exists(head)):
        module = importlib.import_module(inside[0])
    elif _is_path(head, attribute):
        module = _foreign(head, name, path)
    elif name in RENAMED:
        raise unknown_name(path, name, ())
    else:
        raise UserError(f"{path}={name!r} is unknown; write package.module:Class.")
    values = vars(module)
    key = attribute if attribute in values else next((k for k in values if plain(k) == plain(attribute)), None)
    if not key or not attribute:
        if name in RENAMED:
            raise unknown_name(path, name, ())
        public = [k for k, v in values.items() if inspect.isclass(v) and not k.startswith("_")]
        raise UserError(f"{path}={name!r}: {module.__name__} defines no {attribute!r}; {nearest(attribute, public)}")
    return _checked(values[key], name, path, types)


def _several(path: str, name: str, same: list[Definition]) -> UserError:
    """Returns the error for a name that several classes have; it gives a name for each of them."""
    short = [d.path for d in same]
    written = short if len(set(short)) == len(same) else [f"{d.module}:{d.name}" for d in same]
    return UserError(f"{path}={name!r} is the name of several classes; write {' or '.join(written)}.")


def _foreign(module: str, name: str, path: str) -> ModuleType:
    """Imports a module that is not of jaxgen's rooms. Anything that it raises becomes an error of one sentence."""
    try:
        return importlib.import_module(module)
    except (Exception, SystemExit) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if not missing or not f"{module}.".startswith(f"{missing}."):
            raise UserError(f"{path}={name!r}: importing {module} failed with {first_line(error)}.") from error
        if name in RENAMED:
            raise unknown_name(path, name, ()) from error
        raise UserError(
            f"{path}={name!r} is unknown: there is no module {missing!r}; is its folder in PYTHONPATH?"
        ) from error


def _checked(found: object, name: str, path: str, types: Kind | tuple[type, ...]) -> type:
    """Returns `found` if it is a class of the wanted type, and raises a UserError otherwise."""
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


def _is_a(value: object, types: Iterable[type]) -> TypeGuard[type]:
    return inspect.isclass(value) and issubclass(value, tuple(types))


def _is_path(module: str, attribute: str) -> bool:
    """Returns whether these can be names of a module and of a class."""
    return attribute.isidentifier() and all(part.isidentifier() for part in module.split("."))


def _exists(module: str) -> bool:
    """Returns whether Python finds a module's top package, such as a file beside the config. Nothing is imported."""
    top = module.partition(".")[0]
    return top in sys.modules or importlib.util.find_spec(top) is not None


def _made_in(value: object, module: ModuleType) -> bool:
    return getattr(value, "__module__", None) == module.__name__
