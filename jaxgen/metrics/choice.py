"""Turns names of a config or a command line into metrics and feature networks, or says why they do not fit.

Nothing here reads weights, so that a wrong word is answered before there is anything to wait for.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

from jaxgen.build import build
from jaxgen.errors import UserError
from jaxgen.files import user_path
from jaxgen.metrics.base import NEEDS, OF_NETWORK, Metric
from jaxgen.metrics.networks.base import FeatureNetwork
from jaxgen.registry import find

M_co = TypeVar("M_co", bound=Metric, covariant=True)


@dataclasses.dataclass(frozen=True)
class Chosen(Generic[M_co]):
    """Holds a metric that was asked for, with its network and its cadence.

    Attributes:
      metric: the metric that was asked for.
      network: the network that gives its features, or None where it needs none.
      every_images: how many training images are between two of its evaluations during training; 0 computes it at every
        evaluation.
    """

    metric: M_co
    network: FeatureNetwork | None
    every_images: int = 0


@dataclasses.dataclass(frozen=True)
class Words:
    """Says how a place names things in its messages: a config, or the command line of image sets.

    Attributes:
      metrics, network: the keys or flags.
      role: the class that the metrics of this place derive from; only those are proposed for an unknown name.
      offers: the `NEEDS` that this place can meet, those of networks left out.
      elsewhere: for each other need, what meets it; `{name}` stands for the metric's name.
      gives: what is measured, as `Method.gives` has it.
      who: whose that is, for messages.
    """

    metrics: str
    network: str
    role: type[Metric]
    offers: frozenset[str]
    elsewhere: Mapping[str, str]
    gives: str = "image"
    who: str = ""


def open_network(name: str | Mapping[str, Any], path: str = "network", **options: Any) -> FeatureNetwork:
    """Returns a feature network by its name, as `jaxgen.registry` finds it; the same options give the same object.

    Args:
      name: such as "inception", "clip", "digits" or "my_package.networks:Mine"; or a section, with a `name` and the
        network's own options.
      path: the place of the name in a config, for messages.
      **options: `weights` and `resize`, as `config.evaluate` has them; those that are "" are left out.

    Raises:
      UserError: for an unknown name, or an option that the network does not take.
    """
    if not isinstance(name, str) and not hasattr(name, "items"):
        raise UserError(f"{path} is {name!r}; it takes a network's name, or a section with a name.")
    section = {"name": name} if isinstance(name, str) else dict(name.items())
    found: type[FeatureNetwork] = find("feature_network", str(section.get("name", "")), path)
    for option, value in options.items():
        if not value:
            continue
        if option not in inspect.signature(found).parameters:
            raise UserError(f"The network {found.name!r} takes no {option}; leave out {option}={str(value)!r}.")
        if option == "weights":
            value = os.fspath(user_path(value, path.replace("network", "weights")))
        section.setdefault(option, value)
    return _opened(found, _Section(section), path)


class _Section(dict[str, Any]):
    """Makes a config section one that can be looked up in a cache, whatever values it has."""

    def __hash__(self) -> int:  # type: ignore[override]  # it is not changed after it is made
        return hash(repr(sorted(self.items())))


@functools.lru_cache(maxsize=8)
def _opened(found: type[FeatureNetwork], section: _Section, path: str) -> FeatureNetwork:
    try:
        return build(section, "feature_network", path)
    except UserError as error:
        raise UserError(f"{path}={found.name!r}: {error}") from error


def choose(
    entries: Iterable[str | Mapping[str, Any]], network: FeatureNetwork | None, words: Words, **given: Any
) -> tuple[Chosen[Metric], ...]:
    """Returns the metrics that are asked for, after checking each against what there is.

    Args:
      entries: names, or sections with a `name`, and where wanted a `network` and `every_images` of the metric's own,
        and its options.
      network: the network of the entries that name none of their own.
      words: how the place speaks, and what it offers.
      **given: options for metrics that take them and whose entries are silent.

    Raises:
      UserError: for an unknown name, or one that cannot be computed here; the sentence says what to do.
    """
    found = tuple(_choose(entry, network, words, given) for entry in entries)
    for i, one in enumerate(found):
        for other in found[:i]:
            same = type(one.metric) is type(other.metric) and one.network is other.network
            if same and one.metric != other.metric:
                raise UserError(
                    f"{words.metrics} names {one.metric.name!r} twice with different options; the two numbers would "
                    "have the same name, so leave one out."
                )
    return found


def _choose(
    entry: str | Mapping[str, Any], network: FeatureNetwork | None, words: Words, given: Mapping[str, Any]
) -> Chosen[Metric]:
    if not isinstance(entry, str) and not hasattr(entry, "items"):
        raise UserError(f"{words.metrics} holds {entry!r}; it takes names, and sections with a name.")
    section = {"name": entry} if isinstance(entry, str) else dict(entry.items())
    if not section.get("name"):
        raise UserError(f"{words.metrics} holds a section without a name: it has {', '.join(section) or 'no key'}.")
    name, every = str(section.get("name", "")), section.pop("every_images", 0)
    if isinstance(every, bool) or not isinstance(every, int) or every < 0:
        raise UserError(f"{words.metrics}: every_images of {name!r} is {every!r}; it must be 0 (always) or more.")
    own = section.pop("network", None)
    found = find_metric(name, words)
    if own is not None:
        network = open_network(own, f"{words.metrics}: network of {name!r}")
    if words.gives not in found.measures:
        seen, drawn = " and ".join(map(_plural, sorted(found.measures))), _plural(words.gives)
        raise UserError(f"{words.metrics}: {name!r} measures {seen}, and {words.who} gives {drawn}; leave it out.")
    _check_needs(name, found, network, words)
    metric = build(section, "metric", f"{words.metrics}[{name!r}]", network=network, **given)
    of_network = bool(found.needs & set(OF_NETWORK))
    if of_network:
        metric.check(network)
    return Chosen(metric, network if of_network else None, every)


def _plural(kind: str) -> str:
    return kind if kind.endswith("s") else f"{kind}s"


def find_metric(name: str, words: Words) -> type[Metric]:
    """Returns the class of a metric's name. Raises a UserError for a name that none has."""
    try:
        return find("metric", name, words.metrics)
    except UserError:
        if not _is_network(name):
            find("metric", name, words.metrics, among=(words.role,))  # which says what there is
            raise
    raise UserError(
        f"{words.metrics} names {name!r}, which is a feature network and no metric: write {words.network}={name!r}, "
        f"and in {words.metrics} the numbers that you want, such as 'frechet' and 'precision'."
    )


def _is_network(name: str) -> bool:
    try:
        find("feature_network", name, "")
    except UserError:
        return False
    return True


def _check_needs(name: str, found: type[Metric], network: FeatureNetwork | None, words: Words) -> None:
    for need in sorted(found.needs, key=lambda need: (need in OF_NETWORK, need)):
        if need not in OF_NETWORK:
            if need not in words.offers:
                told = words.elsewhere.get(need, "that is not to be had here; leave it out").format(name=name)
                raise UserError(f"{words.metrics}: {name!r} needs {NEEDS.get(need, need)}; {told}.")
        elif network is None:
            raise UserError(
                f"{words.metrics}: {name!r} needs {NEEDS[need]}; name one in {words.network}, such as 'inception' or, "
                "for 8x8 digits, 'digits'."
            )
        elif need not in network.gives:
            raise UserError(
                f"{words.metrics}: {name!r} needs {NEEDS[need]}, which {network.name!r} is not; name another in "
                f"{words.network}."
            )
