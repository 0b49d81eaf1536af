"""Checks the names in a stored config: importing a module runs its code, so that a file may not ask for one."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from ml_collections import ConfigDict

from jaxgen import registry
from jaxgen.errors import UserError


def check_names(config: ConfigDict, file: Any, trust: Collection[str] = ()) -> None:
    """Refuses a stored config that names code outside of jaxgen, since importing a module runs its code.

    Every text in the config is checked, since a section may be given by its name alone. The texts of `init_from` are
    not, since they name weights and never a class.

    Args:
      config: the config that was read.
      file: the file that it was read from, for the message.
      trust: packages or modules that may be imported.

    Raises:
      UserError: a text names a module that is not trusted; the message gives the key, the text and the package.
    """
    method = config.get("method")
    if hasattr(method, "items") and "trust" in method:  # of a chain, see `jaxgen.methods.cascade`
        raise UserError(
            f"{file}: config.method.trust is for a config of your own; a run's files may not trust a package."
        )
    for key, text in texts(config):
        module = None if key.startswith("init_from.") else foreign(text)
        package = module.partition(".")[0] if module else ""
        if package == "jaxgen":
            raise UserError(f"{file}: config.{key}={text!r} is no class that a config may name; correct the file.")
        if not module or any(f"{module}.".startswith(f"{trusted}.") for trusted in trust):
            continue
        raise UserError(
            f"{file}: config.{key}={text!r} would run code of the package {package!r}, which a run's files may not "
            f"ask for; if you trust that package, add --trust={package}."
        )


def foreign(text: str) -> str | None:
    """Returns the module outside of jaxgen's rooms that a text would import, as a name or as a data source, or None."""
    module, _, rest = text.partition(":")
    if registry.named("source", module):
        return registry.foreign(text) or (foreign(rest) if rest else None)
    return registry.foreign(":".join(text.split(":")[:2]))  # what follows is a source's argument


def texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yields `(key, text)` of every text in a config, also of those in tuples."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, tuple | list):
        for inner in value:
            yield from texts(inner, path)
    elif hasattr(value, "items"):
        for key, inner in value.items():
            yield from texts(inner, f"{path}.{key}" if path else str(key))
