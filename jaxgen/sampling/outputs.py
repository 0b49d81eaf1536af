"""Writes the files of sampling to a folder: what was drawn, a picture of it, and the method's own panels."""

from __future__ import annotations

import io
import json
import logging
import math
import os
from collections.abc import Sequence

import numpy as np
from etils import epath

from jaxgen.colours import class_colours
from jaxgen.data.legend import legend_text
from jaxgen.errors import UserError
from jaxgen.files import write_bytes
from jaxgen.files.meshes import can_write_meshes, save_mesh
from jaxgen.geometry.surface import coloured_mesh
from jaxgen.methods.base import Model
from jaxgen.parallel.distributed import is_first
from jaxgen.report.images import animation, grid, save_gif, save_png, to_rgb
from jaxgen.sampling.generator import PANEL_IMAGES, Generator, Samples
from jaxgen.sampling.inputs import Inputs
from jaxgen.sampling.kinds import Output, Tokens

log = logging.getLogger("jaxgen")
CAPTIONS = "captions.jsonl"

MESHES = 8  # objects whose meshes are written
MOST_CLASSES = 256  # numbers that a grey level or an index of a palette may be


def write_samples(folder: epath.Path, samples: Samples, shown: int = 400, prompts: Sequence[str] = ()) -> str:
    """Writes `samples.npz` and what a person looks at: `samples.png`, a grid of up to `shown` images, or `samples.gif`
    of videos. Returns the name of the file to look at first.

    The archive has all `images`, or what the method gives (`video`, `embedding`, `tokens`), its further outputs, and
    where there are any `labels` and `prompts`; sample i has prompt `i % len(prompts)`. Where samples are not finite, it
    also has `finite`, bool `[N]`, and pictures show them in magenta.
    """
    output, count = samples.output, len(samples.main)
    arrays = {output.key or output.entry(): samples.main, **samples.more}
    if not samples.finite.all():
        arrays["finite"] = samples.finite
    if samples.labels is not None:
        arrays["labels"] = samples.labels
    if prompts:
        arrays["prompts"] = np.asarray([prompts[i % len(prompts)] for i in range(count)])
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # mypy fears an array called "allow_pickle"
    write_bytes(folder / "samples.npz", buffer.getvalue())
    return output.write(folder, samples.main[:shown], samples.finite[:shown])


def check_names(folder: epath.Path, inputs: Inputs, num: int, output: Output) -> None:
    """Raises a UserError if an image that `write_beside` names after its input would take the place of an input."""
    for i, name in enumerate(inputs.names(num)):
        file = inputs.files[i % len(inputs.files)]
        for path in (folder / named / f"{name}.png" for named in output.named):
            if path.exists() and os.path.realpath(path) == os.path.realpath(file):
                raise UserError(f"--out={folder}: the image would take the place of {file}; name another folder.")


def write_beside(folder: epath.Path, inputs: Inputs, samples: Samples, shown: int = 64) -> None:
    """Writes each sample under the name of its file, such as `images/<name>.png`, and `panel_inputs.png`: up to `shown`
    samples, with what the model was given to the left of each. What it was given as a set is in `panel_<entry>.png`, a
    set in each line. Layouts are shown in the colours that `legend.txt` tells, with which others can be painted.
    """
    pictures = samples.pictures
    drawn = to_rgb(pictures)
    size, count, cells = drawn.shape[1:3], len(drawn), []
    for entry, rows in inputs.rows.items():
        if rows.ndim == 5:
            write_sets(folder / f"panel_{entry}.png", rows, pictures[:shown])
            continue
        if entry in inputs.layouts:
            colours = class_colours(inputs.layouts[entry] or MOST_CLASSES)
            if inputs.layouts[entry]:
                write_bytes(folder / "legend.txt", legend_text(colours).encode())
            levels = colours[rows]
        elif rows.dtype == np.uint8:
            levels = rows
        else:
            levels = (rows * (255 // max(1, rows.max()))).astype(np.uint8)[..., None]
        cells.append(resized(to_rgb(levels), size)[np.arange(count) % len(rows)])
    given = cells[0] if cells else drawn
    samples.output.write_named(folder, inputs.names(count), samples.main, pictures, given)
    if not cells:
        return
    beside = np.stack([*cells, drawn], axis=1)[:shown]
    across = max(1, round(math.sqrt(len(beside) / beside.shape[1])))
    save_png(folder / "panel_inputs.png", grid(beside.reshape(-1, *drawn.shape[1:]), across * beside.shape[1]))


def write_sets(path: epath.Path, sets: np.ndarray, pictures: np.ndarray, most: int = 8) -> None:
    """Writes a picture with a line for each set: its pictures, a white gap, and up to `most` images drawn for it.

    Args:
      sets: uint8 `[S, K, H, W, C]`; image i is drawn for set `i % S`.
      pictures: uint8 `[N, H, W, C]`.
    """
    drawn = to_rgb(pictures)
    size, count = drawn.shape[1:3], min(most, -(-len(drawn) // len(sets)))
    white, lines = np.full((1, *drawn.shape[1:]), 255, np.uint8), []
    for i, shown in enumerate(sets[: len(drawn)]):
        own = drawn[i :: len(sets)][:count]
        rest = np.repeat(white, count - len(own), axis=0)
        lines.append(np.concatenate([resized(to_rgb(shown), size), white, own, rest]))
    save_png(path, grid(np.concatenate(lines), len(lines[0])))


def resized(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns images `[N, H, W, C]` of another height and width, by repeated or left out pixels."""
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, images.shape[1:3], strict=True))
    return images[:, rows][:, :, columns]


def write_captions(folder: epath.Path, generator: Generator, samples: Samples, inputs: Inputs | None) -> str:
    """Writes `captions.jsonl`, the texts of samples that are tokens: a line `{"file": ..., "caption": ...}` for each.

    The data source `folder:` reads it, beside the pictures. A file is named as below the folder that all of them are
    in; a held-out example is called `<split>/<its number>`. Returns the file's name, or "" where nothing was written.
    """
    if not isinstance(samples.output, Tokens):
        return ""
    tokenizer = generator.tokenizer
    if not hasattr(tokenizer, "decode"):
        log.warning("no captions.jsonl is written: the data have no tokenizer, which turns tokens into words")
        return ""
    count = len(samples.main)
    if inputs is None:
        split = generator.config.data.eval_split
        examples = len(generator.source(split))
        names = [f"{split}/{i % examples}" for i in range(count)]
    else:
        below = os.path.commonpath([os.path.dirname(os.fspath(file)) for file in inputs.files])
        names = [os.path.relpath(inputs.files[i % len(inputs.files)], below) for i in range(count)]
    texts = [tokenizer.decode(row) for row in samples.main]
    lines = [{"file": name, "caption": text} for name, text in zip(names, texts, strict=True)]
    write_bytes(folder / CAPTIONS, "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines).encode())
    return CAPTIONS


def write_meshes(
    folder: epath.Path, generator: Generator, model: Model, seed: int, num: int, labels: Sequence[int] | None = None
) -> None:
    """Writes `meshes/<i>.glb`, the coloured surface of sample i, of the first samples that are objects in space.

    All processes compute them, and the first one writes. A sample without a surface is told of.
    """
    if not generator.method.has_volumes:
        return
    if not can_write_meshes():
        log.info('no meshes are written, since trimesh is not installed: pip install "jaxgen[mesh]"')
        return
    found = generator.volumes(model, seed, min(num, MESHES), labels)
    for i, values in enumerate(found["surface"] if is_first() else ()):
        vertices, faces, colours = coloured_mesh(values, found["colour"][i])
        if len(faces):
            save_mesh(folder / "meshes" / f"{i}.glb", vertices, faces, to_rgb(colours[:, None, None])[:, 0, 0])
        else:
            log.warning("sample %d has no surface, so no mesh of it is written", i)


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
      samples: the number of training images seen; where given, a picture of samples is written too, as
        `step_<samples>.png`.

    Raises:
      NotFinite: where no image of the grid is finite.
    """
    if samples is not None and generator.method.has_sampler and generator.output.pictured:
        picture = generator.draw(model, seed, 64, labels).picture()
        if picture is not None and is_first():
            save_png(folder / f"step_{samples:010d}.png", picture)
    for name, value in generator.panels(model, seed, PANEL_IMAGES, labels).items():
        if not is_first():
            continue
        if value.ndim == 5:
            save_gif(folder / f"{name}.gif", animation(value))
        else:
            save_png(folder / f"panel_{name}.png", grid(value, generator.method.columns.get(name)))
