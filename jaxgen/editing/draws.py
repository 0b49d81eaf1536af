"""Draws several images under each condition, and shows them beside what the model was told and the true image."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from etils import epath

from jaxgen.arrays import to_uint8
from jaxgen.data.images import MODES
from jaxgen.errors import UserError
from jaxgen.methods.base import Method
from jaxgen.report.images import grid, save_png, to_rgb
from jaxgen.sampling.finite import with_nan
from jaxgen.sampling.outputs import resized
from jaxgen.sampling.restore import TrainedModel
from jaxgen.sampling.samples import Samples

FILE = "panel_draws.png"


def check_draws(method: Method, draws: int, num: int, files: int, prompts: int) -> None:
    """Checks a request for several draws under each condition.

    Args:
      method: the method that is to draw.
      draws: how many images are drawn under each condition.
      num: the number of conditions.
      files, prompts: how many pictures and prompts there are; image i has number i % N of each.

    Raises:
      UserError: the method reads no condition, or outputs could not be named after what they were drawn for.
    """
    if draws < 1:
        raise UserError(f"--draws={draws}: give 1, or how many images are drawn under each condition.")
    if draws == 1:
        return
    if not method.conditions:
        raise UserError("--draws is for a model that reads a condition, which this one does not: give --num.")
    for count, what in ((files, "files"), (prompts, "prompts")):
        if count and num % count:
            raise UserError(
                f"--draws={draws} with --num={num}: give --num as a multiple of the {count} {what}, so that each "
                "is drawn as often."
            )


def draw_several(
    trained: TrainedModel, seed: int, num: int, draws: int, labels: tuple[int, ...] | None = None
) -> Samples:
    """Draws `draws` images under each of `num` conditions: image i + num k is draw k under condition i.

    The first `num` are those of plain sampling. `Samples.asked` has what all were drawn for.
    """
    generator, model = trained.generator, trained.model
    first = generator.draw(model, seed, num, labels, asked=draws > 1)
    parts = [first, *(generator.draw(model, seed, num, labels, again=k) for k in range(1, draws))]
    if draws == 1:
        return first
    return dataclasses.replace(
        first,
        main=np.concatenate([part.main for part in parts]),
        labels=None if first.labels is None else np.tile(first.labels, draws),
        finite=np.concatenate([part.finite for part in parts]),
        told=next((part.told for part in parts if part.told), ""),
        more={name: np.concatenate([part.more[name] for part in parts]) for name in first.more},
        asked={name: np.concatenate([values] * draws) for name, values in first.asked.items()},
    )


def write_draws(folder: epath.Path, samples: Samples, method: Method, draws: int, shown: int = 16) -> None:
    """Writes `panel_draws.png`, with a line for each condition: what the model read that can be seen, the draws, and
    the true image where there is one.

    Args:
      samples: what `draw_several` gave.
      method: the method that drew them.
      draws: how many draws each condition has.
      shown: the number of lines at most.
    """
    num = len(samples.main) // draws
    images = to_rgb(with_nan(samples.images, samples.finite))
    count, size = min(num, shown), images.shape[1:3]
    cells = [
        _picture(samples.asked[name][:count], size) for name in method.conditions if _is_seen(samples.asked.get(name))
    ]
    cells += [images[num * k : num * k + count] for k in range(draws)]
    truth = samples.asked.get("image")
    if truth is not None and "image" not in method.conditions and truth.shape[1:] == samples.main.shape[1:]:
        cells.append(_picture(truth[:count], size))
    lines = np.stack(cells, axis=1)
    save_png(folder / FILE, grid(lines.reshape(-1, *images.shape[1:]), columns=len(cells)))


def seen(samples: Samples, method: Method) -> dict[str, np.ndarray]:
    """Returns the pictures that a model was told and, where there are any, the true ones: `{what: [N, H, W, 3]}`.

    Args:
      samples: drawn with `asked`.
      method: the method that drew them.
    """
    size = to_rgb(samples.pictures).shape[1:3]
    found = {f"given: {name}": _picture(samples.asked[name], size) for name in method.conditions
             if _is_seen(samples.asked.get(name))}  # fmt: skip
    truth = samples.asked.get("image")
    if found and truth is not None and "image" not in method.conditions and truth.shape[1:] == samples.main.shape[1:]:
        found["true images"] = _picture(truth, size)
    return found


def _is_seen(values: np.ndarray | None) -> bool:
    """Returns whether an entry is pictures `[N, H, W, C]`, or whole numbers `[N, H, W]`, such as masks."""
    if values is None:
        return False
    return (values.ndim == 4 and values.shape[-1] in MODES) or (values.ndim == 3 and values.dtype.kind in "iu")


def _picture(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns RGB pictures of this size: of uint8 levels, of floats in [-1, 1], or of whole numbers `[N, H, W]`."""
    if values.dtype.kind == "f":
        values = np.asarray(to_uint8(jnp.asarray(values)))
    if values.ndim == 3:
        values = (values * (255 // max(1, int(values.max())))).astype(np.uint8)[..., None]
    return resized(to_rgb(values), size)
