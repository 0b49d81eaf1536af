"""Makes the texts that `--list` prints: all configs, or every class of one kind that a config may name."""

from __future__ import annotations

from jaxgen.config.files import columns, first_sentence, listing
from jaxgen.errors import UserError, nearest


def listed(what: str) -> str:
    """Returns the lines that `--list=<what>` prints.

    Args:
      what: "configs", or a kind such as "sampler".

    Raises:
      UserError: the kind does not exist, or there are no configs.
    """
    if what == "configs":
        return listing("configs")
    from jaxgen.registry import KINDS, classes

    if what == "optimizer":
        from jaxgen.runs.optim import optimizer_names

        return "\n".join(optimizer_names())
    if what not in KINDS:
        raise UserError(f"--list={what} is unknown; {nearest(what, ['configs', 'optimizer', *KINDS])}")
    return columns([(name, first_sentence(cls.__doc__)) for name, cls in classes(what).items()])
