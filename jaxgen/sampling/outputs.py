"""Writes the files of sampling to a folder: the images, a grid of them, and the method's own panels."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from etils import epath

from jaxgen.files import write_bytes
from jaxgen.methods.base import Model
from jaxgen.parallel.distributed import is_first
from jaxgen.report.images import animation, grid, save_gif, save_png
from jaxgen.sampling.generator import PANEL_IMAGES, Generator, Samples


def write_samples(folder: epath.Path, samples: Samples, shown: int = 400, prompts: Sequence[str] = ()) -> None:
    """Writes `samples.png`, a grid of up to `shown` images, and `samples.npz`.

    The archive has all `images` and, where there are any, `labels` and `prompts`; image i has prompt
    `i % len(prompts)`. Where images are not finite, it also has `finite`, bool `[N]`, and the grid shows them in
    magenta.
    """
    arrays = {"images": samples.images}
    if not samples.finite.all():
        arrays["finite"] = samples.finite
    if samples.labels is not None:
        arrays["labels"] = samples.labels
    if prompts:
        arrays["prompts"] = np.asarray([prompts[i % len(prompts)] for i in range(len(samples.images))])
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # mypy fears an array called "allow_pickle"
    write_bytes(folder / "samples.npz", buffer.getvalue())
    save_png(folder / "samples.png", grid(samples.pictures[:shown]))


def write_panels(
    folder: epath.Path,
    generator: Generator,
    model: Model,
    seed: int,
    labels: Sequence[int] | None = None,
    samples: int | None = None,
) -> None:
    """Writes the method's panels: `<name>.gif` of those that move (`[F, N, H, W, C]`), `panel_<name>.png` of others.

    All processes draw them, and the first one writes.

    Args:
      samples: the number of training images seen; where given, a grid is written as `step_<samples>.png` too.

    Raises:
      NotFinite: where no image of the grid is finite.
    """
    if samples is not None and generator.method.samples_images:
        drawn = generator.images(model, seed, 64, labels).pictures
        if is_first():
            save_png(folder / f"step_{samples:010d}.png", grid(drawn))
    for name, value in generator.panels(model, seed, PANEL_IMAGES, labels).items():
        if not is_first():
            continue
        if value.ndim == 5:
            save_gif(folder / f"{name}.gif", animation(value))
        else:
            save_png(folder / f"panel_{name}.png", grid(value, generator.method.columns.get(name)))
