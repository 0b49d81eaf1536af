"""The picture sections of a report: samples through training, and the panels a method draws of itself."""

from __future__ import annotations

import base64
import io
import re
from html import escape

from etils import epath
from PIL import Image, UnidentifiedImageError

from jaxgen.errors import UserError
from jaxgen.files import read_json
from jaxgen.report.numbers import number, share

FRAMES = 24  # pictures in the strip
LARGEST_PICTURE = 300_000  # bytes above which a still is embedded smaller
LARGEST_ANIMATION = 6_000_000  # bytes above which only an animation's last frame is embedded
REDUCED_SIDE = 1024  # pixels of the longer side of a reduced still

KNOWN_PANELS = {
    "trajectory": "From noise to images: the states a sampler passes through; held at the end.",
    "interpolation": "From one image to another, through the model's latents.",
    "reconstruction": "Held-out images and, below each, what the model makes of them.",
    "traversal": "A row for each latent, which goes from -3 to 3 while the others stay; the most used ones first.",
    "manifold": "The plane of both latents, in equal shares of the prior.",
    "analogies": "The latents of one image a row, with each class in turn.",
}


def samples_section(folder: epath.Path, total: float | None) -> str:
    """The strip of `step_<images>.png` with the last one large, or "" if there is none.

    Args:
      folder: the `samples` folder.
      total: training images asked for, where known.
    """
    found = {}
    for path in folder.glob("step_*.png"):
        match = re.fullmatch(r"step_(\d+)\.png", path.name)
        if match:
            found[int(match[1])] = path
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
    text = "Drawn with the same random numbers each time, so that a cell shows one image as training goes on."
    text += " Below each picture: the training images seen." if several else ""
    return (
        f'<section id="samples"><h2>Samples</h2><p class="help">{" ".join([text, *notes])}</p>{last}'
        + (f'{slider}<div class="strip">{"".join(buttons)}</div>' if several else "")
        + "</section>"
    )


def panels_section(folder: epath.Path) -> str:
    """Each `*.gif` and `panel_*.png` of the `samples` folder with its name, or "" if there is none.

    A `captions.json` in the folder, {file name without ending: sentence}, explains them.
    """
    paths = [*folder.glob("*.gif"), *folder.glob("panel_*.png")]
    paths = [path for path in paths if not path.name.startswith(".")]
    if not paths:
        return ""
    captions = read_json(folder / "captions.json") if (folder / "captions.json").exists() else {}
    figures = []
    for path in sorted(paths, key=lambda p: (p.stem != "trajectory", p.name)):
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


def figures_section(folder: epath.Path) -> str:
    """What `seen.json` of the `samples` folder names, in its order: `<name>.png` with its title, sentence and scores.

    Raises:
      UserError: for an entry without those, or a picture that is not there.
    """
    path = folder / "seen.json"
    if not path.exists():
        return ""
    figures = []
    for name, entry in read_json(path).items():
        if not isinstance(entry, dict) or not all(isinstance(entry.get(k), str) for k in ("title", "text")):
            raise UserError(f"{path}: {name!r} must be an object with a 'title' and a 'text'.")
        picture = folder / f"{name}.png"
        if not picture.exists():
            raise UserError(f"{path} names {name!r}, but there is no {picture.name}; evaluate the run again.")
        image, note = _still_tag(picture, entry["title"])
        # a copy of a real image has a realism beyond all numbers, which JSON has no word for
        scores = ", ".join("infinite" if s is None else number(s) for s in entry.get("scores") or [])
        figures.append(
            f'<figure class="panel"><figcaption><b>{escape(entry["title"])}</b><br>'
            f"<small>{escape(' '.join([entry['text'], *note]))}</small></figcaption>{image}"
            f"<figcaption><small>{escape(scores)}</small></figcaption></figure>"
        )
    if not figures:
        return ""
    return (
        '<section id="seen"><h2>What the numbers saw</h2><p class="help">The evaluated samples themselves, beside real '
        f'images and in order.</p><div class="panels">{"".join(figures)}</div></section>'
    )


def thin(items: list, most: int) -> list:
    """At most `most` items, evenly spaced, the first and the last among them."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def still(path: epath.Path) -> tuple[str, bool]:
    """A picture as a data URI, and whether it had to be reduced to keep the page light."""
    data = path.read_bytes()
    picture = _open(path, data)
    if len(data) <= LARGEST_PICTURE:
        return _uri("image/png", data), False
    return _jpeg(picture), True


def _still_tag(path: epath.Path, title: str) -> tuple[str, list[str]]:
    source, reduced = still(path)
    note = [f"Shown reduced: samples/{path.name} has it in full."] if reduced else []
    return f'<img src="{source}" alt="{escape(title)}">', note


def _animation(path: epath.Path, title: str) -> tuple[str, list[str]]:
    """An animation; on paper, where less motion is wished, and where it is too large, its last frame."""
    data = path.read_bytes()
    picture = _open(path, data)
    picture.seek(picture.n_frames - 1)
    last = io.BytesIO()
    picture.convert("RGB").save(last, "PNG", optimize=True)
    ending = _uri("image/png", last.getvalue()) if last.tell() <= LARGEST_PICTURE else _jpeg(picture)
    alt = escape(f"{title}, an animation")
    if len(data) > LARGEST_ANIMATION:
        note = f"Its last frame; the animation, {len(data) / 1e6:.0f} MB, is samples/{path.name}."
        return f'<img src="{ending}" alt="{alt}">', [note]
    return (
        f'<picture><source media="print, (prefers-reduced-motion: reduce)" srcset="{ending}">'
        f'<img src="{_uri("image/gif", data)}" alt="{alt}"></picture>',
        [],
    )


def _open(path: epath.Path, data: bytes) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(data))
        picture.load()
    except (UnidentifiedImageError, OSError) as error:
        raise UserError(f"{path}: not a readable picture ({error}); remove it.") from error
    return picture


def _jpeg(picture: Image.Image) -> str:
    small = picture.convert("RGB")
    small.thumbnail((REDUCED_SIDE, REDUCED_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return _uri("image/jpeg", buffer.getvalue())


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
