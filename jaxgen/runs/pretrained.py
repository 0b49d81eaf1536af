"""Finds the trained run that `config.init_from.pretrained` names: a method that another is built on.

`jaxgen.runs.setup` makes its method, and `jaxgen.runs.loaded_groups` reads the weights of all its groups.
"""

from __future__ import annotations

from etils import epath
from ml_collections import ConfigDict

from jaxgen.config import check, image_shape
from jaxgen.errors import UserError
from jaxgen.files import is_remote, user_path
from jaxgen.runs.workdir import stored_config

KEY = "config.init_from.pretrained"


def pretrained_run(config: ConfigDict) -> epath.Path | None:
    """Returns the workdir that `config.init_from.pretrained` names; None where it names no run, or nothing."""
    source = config.init_from.get("pretrained")
    if not source:
        return None
    path = user_path(source, KEY)
    path = path if is_remote(path) else path.absolute()
    return path if (path / "config.json").exists() else None


def pretrained_config(config: ConfigDict, run: epath.Path) -> ConfigDict:
    """Returns the config of a trained run, with the sampler and the guidance of this config where it has any.

    Raises:
      UserError: the run's config is damaged, names code of another package, or is of images of another shape.
    """
    stored = stored_config(run)
    if stored is None:
        raise UserError(f"{KEY}={run} has no config.json; name the workdir of a run.")
    check(stored)
    if image_shape(stored) != image_shape(config):
        (height, width, channels), ours = image_shape(stored), image_shape(config)
        raise UserError(
            f"{KEY}={run} was trained on images of {height}x{width}x{channels}, and this config has "
            f"{ours[0]}x{ours[1]}x{ours[2]}: set config.data.resolution and config.data.channels to the run's."
        )
    for name in ("sampler", "guidance"):
        if len(config[name]):
            stored[name] = config[name]
    return stored
