"""What `--list` prints: the configs, or every class of one kind that a config may name."""

from __future__ import annotations

from jaxgen.config.files import columns, listing, summary
from jaxgen.errors import UserError, nearest


def listed(what: str) -> str:
    """The lines of `--list=<what>`: "configs", or a kind such as "sampler".

    Raises:
      UserError: for a kind that does not exist, and where there are no configs.
    """
    if what == "configs":
        return listing("configs")
    from jaxgen.registry import KINDS, classes

    if what not in KINDS:
        raise UserError(f"--list={what} is unknown; {nearest(what, ['configs', *KINDS])}")
    return columns([(name, summary(cls.__doc__)) for name, cls in classes(what).items()])
