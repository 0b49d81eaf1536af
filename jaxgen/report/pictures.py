"""Makes the sections of a report that show pictures: samples during training, and the panels that a method draws."""

from __future__ import annotations

import base64
import io
import re
from html import escape
from typing import Required, TypedDict

from etils import epath
from PIL import Image

from jaxgen.errors import UserError
from jaxgen.files import inside, read_json
from jaxgen.files.pictures import read_picture
from jaxgen.report.numbers import number, share

FRAMES = 24  # the most pictures in the strip
LARGEST_PICTURE = 300_000  # a still picture of more bytes is embedded smaller
LARGEST_ANIMATION = 6_000_000  # of an animation of more bytes only the last frame is embedded
REDUCED_SIDE = 1024  # the longer side of a reduced picture, in pixels

KNOWN_PANELS = {
    "trajectory": "The states that a sampler passes through from noise to images; the last one is held.",
    "interpolation": "From one image to another, through the model's latents.",
    "reconstruction": "Held-out images and, below each, the model's reconstruction.",
    "traversal": "Each row changes one latent from -3 to 3 and keeps the others; the most used latents come first.",
    "manifold": "Images from all over the plane of the two latents, at evenly spaced quantiles of the prior.",
    "inputs": "The pictures that the model was given and, to the right of each, what it made of them.",
    "analogies": "Each row keeps the latents of one image and shows every class.",
}


def samples_section(folder: epath.Path, total: float | None) -> str:
    """Shows the pictures `step_<images>.png` as a strip with the last one large; returns "" if there are none.

    Args:
      folder: the `samples` folder.
      total: the training images of the complete run, if known.
    """
    found = {}
    for path in folder.glob("step_*.png"):
        match = re.fullmatch(r"step_(\d+)\.png", path.name)
        if match:
            found[int(match[1])] = inside(folder, path.name)
    if not found:
        return ""
    steps = thin(sorted(found), FRAMES)
    buttons, notes = [], []
    for images in steps:
        source, reduced = still(found[images])
        part = f" ({share(images, total)} of the run)" if total else ""
        caption = f"After {images:,} training images{part}"
        alt = f"Grid of samples after {images:,} training images"
        buttons.append(
            f'<button type="button" data-caption="{escape(caption)}">'
            f'<img src="{source}" alt="{alt}">{images:,}</button>'
        )
        last = (
            f'<figure class="now card"><img src="{source}" alt="{alt}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
        if reduced:
            notes = ["Large pictures are shown reduced; the folder samples has them in full."]
    if len(found) > len(steps):
        notes.append(f"{len(steps)} of {len(found)} pictures are shown, evenly spaced.")
    slider = (
        f'<input type="range" id="through" min="0" max="{len(steps) - 1}" value="{len(steps) - 1}" hidden '
        'aria-label="Samples through training">'
    )
    several = len(steps) > 1
    text = "All pictures use the same random numbers, so that a cell shows how one image changes during training."
    text += " The number below a picture is that of the training images seen." if several else ""
    return (
        f'<section id="samples"><h2>Samples</h2><p class="help">{" ".join([text, *notes])}</p>{last}'
        + (f'{slider}<div class="strip">{"".join(buttons)}</div>' if several else "")
        + "</section>"
    )


def panels_section(folder: epath.Path) -> str:
    """Shows each `*.gif` and `panel_*.png` of the `samples` folder with its name; returns "" if there are none.

    A file `captions.json` in the folder, {file name without ending: sentence}, gives their captions.
    """
    paths = [*folder.glob("*.gif"), *folder.glob("panel_*.png")]
    paths = [path for path in paths if not path.name.startswith(".")]
    if not paths:
        return ""
    captions = read_json(folder / "captions.json") if (folder / "captions.json").exists() else {}
    figures = []
    for path in sorted(paths, key=lambda p: (p.stem != "trajectory", p.name)):
        inside(folder, path.name)
        name = path.stem.removeprefix("panel_")
        title = name.replace("_", " ").capitalize()
        text = captions.get(path.stem) or captions.get(name) or KNOWN_PANELS.get(name)
        text = str(text or "Drawn by the method from the model at the end of its training.")
        picture, note = _animation(path, title) if path.suffix == ".gif" else _still_tag(path, title)
        figures.append(
            f'<figure class="panel"><figcaption><b>{escape(title)}</b><br>'
            f"<small>{escape(' '.join([text, *note]))}</small></figcaption>{picture}</figure>"
        )
    return (
        '<section id="panels"><h2>Panels</h2><p class="help">Further pictures made with the trained model.'
        f'</p><div class="panels">{"".join(figures)}</div></section>'
    )


class Seen(TypedDict, total=False):
    """An entry of `seen.json`: a picture's title, a sentence, and a score for each sample in it."""

    title: Required[str]
    text: Required[str]
    scores: list[float | None] | None


def figures_section(folder: epath.Path) -> str:
    """Shows the pictures `<name>.png` that `seen.json` of the `samples` folder lists, with title, sentence and scores.

    Raises:
      UserError: an entry has no title or sentence, or its picture does not exist or is outside of the folder.
    """
    path = folder / "seen.json"
    if not path.exists():
        return ""
    figures = []
    for name, entry in read_json(path, dict[str, Seen]).items():
        picture = inside(folder, f"{name}.png", path)
        if not picture.is_file():
            raise UserError(f"{path} names {name!r}, but there is no {picture.name}; evaluate the run again.")
        image, note = _still_tag(picture, entry["title"])
        # the realism of a copy of a real image is infinite, which strict JSON stores as null
        scores = ", ".join("infinite" if s is None else number(s) for s in entry.get("scores") or [])
        figures.append(
            f'<figure class="panel"><figcaption><b>{escape(entry["title"])}</b><br>'
            f"<small>{escape(' '.join([entry['text'], *note]))}</small></figcaption>{image}"
            f"<figcaption><small>{escape(scores)}</small></figcaption></figure>"
        )
    if not figures:
        return ""
    return (
        '<section id="seen"><h2>What the numbers saw</h2><p class="help">The evaluated samples, beside real images '
        f'and sorted by their scores.</p><div class="panels">{"".join(figures)}</div></section>'
    )


def thin(items: list, most: int) -> list:
    """Returns at most `most` of the items, evenly spaced, with the first and the last."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def still(path: epath.Path) -> tuple[str, bool]:
    """Returns a picture as a data URI, and whether it was reduced to keep the page small."""
    data, picture = read_picture(path, ("PNG",))
    if len(data) <= LARGEST_PICTURE:
        return _uri("image/png", data), False
    return _jpeg(picture), True


def _still_tag(path: epath.Path, title: str) -> tuple[str, list[str]]:
    source, reduced = still(path)
    note = [f"Shown reduced: samples/{path.name} has it in full."] if reduced else []
    return f'<img src="{source}" alt="{escape(title)}">', note


def _animation(path: epath.Path, title: str) -> tuple[str, list[str]]:
    """Returns an animation's element and a note; its last frame stands for it on paper and where it is too large."""
    data, picture = read_picture(path, ("GIF",))
    last = io.BytesIO()
    picture.convert("RGB").save(last, "PNG", optimize=True)
    ending = _uri("image/png", last.getvalue()) if last.tell() <= LARGEST_PICTURE else _jpeg(picture)
    alt = escape(f"{title}, an animation")
    if len(data) > LARGEST_ANIMATION:
        note = f"This is its last frame; the animation, {len(data) / 1e6:.0f} MB, is samples/{path.name}."
        return f'<img src="{ending}" alt="{alt}">', [note]
    return (
        f'<picture><source media="print, (prefers-reduced-motion: reduce)" srcset="{ending}">'
        f'<img src="{_uri("image/gif", data)}" alt="{alt}"></picture>',
        [],
    )


def _jpeg(picture: Image.Image) -> str:
    small = picture.convert("RGB")
    small.thumbnail((REDUCED_SIDE, REDUCED_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return _uri("image/jpeg", buffer.getvalue())


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
