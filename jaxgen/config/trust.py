"""What a config that comes out of a file may name: importing a module runs it, so that a file may not ask for one."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from ml_collections import ConfigDict

from jaxgen import registry
from jaxgen.errors import UserError


def check_names(config: ConfigDict, file: Any, trust: Collection[str] = ()) -> None:
    """Refuses a config out of a file that names code of anybody else: importing a module runs it.

    Every text is looked at, wherever it stands, since a factory takes a bare name for a section. Those of `init_from`
    are left out: they name weights, and no class is looked up by them.

    Args:
      file: where the config was read, for the message.
      trust: packages or modules that may be imported nevertheless.

    Raises:
      UserError: naming the key, the name and the package.
    """
    for key, text in texts(config):
        module = None if key.startswith("init_from.") else foreign(text)
        package = module.partition(".")[0] if module else ""
        if package == "jaxgen":
            raise UserError(f"{file}: config.{key}={text!r} is no class that a config may name; mend the file.")
        if not module or any(f"{module}.".startswith(f"{trusted}.") for trusted in trust):
            continue
        raise UserError(
            f"{file}: config.{key}={text!r} would run code of the package {package!r}, which a run's files may not "
            f"ask for; if you trust that package, add --trust={package}."
        )


def foreign(text: str) -> str | None:
    """The module outside of jaxgen's rooms that a config's text leads to, as a name or as a data source; or None."""
    module, _, rest = text.partition(":")
    if registry.named("source", module):
        return registry.foreign(text) or (foreign(rest) if rest else None)
    return registry.foreign(":".join(text.split(":")[:2]))  # what follows is a source's argument


def texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """`(key, text)` of every text in a config, those in tuples too."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, tuple | list):
        for inner in value:
            yield from texts(inner, path)
    elif hasattr(value, "items"):
        for key, inner in value.items():
            yield from texts(inner, f"{path}.{key}" if path else str(key))
