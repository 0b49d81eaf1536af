"""Makes the pictures that a ControlNet reads, its hints, of all pictures of a folder, or checks those that are there.

    python -m jaxgen.data.hints photos                            contours by Canny's method, into photos/hint
    python -m jaxgen.data.hints photos --kind=soft                the strength of edges
    python -m jaxgen.data.hints photos --entry=depth --kind=given depth maps of your own, in photos/depth, are checked
    python -m jaxgen.data.hints drawing.jpg --out=hint.png        of one picture, for --hint at sampling

The folder is one that `folder:<path>` or `pairs:<path>` reads. For `folder:` the hints become a column of its
`metadata.jsonl`, which is made where there is none: `conditioning_image_file_name` for the entry `hint`, and
`<entry>_file_name` for others. For `pairs:` they lie in a folder of the entry's name beside `image`.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from etils import epath
from jaxtyping import Float, Shaped, UInt8
from PIL import Image
from scipy import ndimage

from jaxgen.data.corruptions import LUMINANCE
from jaxgen.data.folders.caption_files import in_threads
from jaxgen.data.folders.columns import MAPS
from jaxgen.data.folders.layout import SPLITS, layout_of
from jaxgen.data.folders.listing import Listing, walk
from jaxgen.data.folders.metadata import FILE, NAMES, TABLE, metadata_of, with_column
from jaxgen.data.images import check_mode, load, own_channels, upright_size
from jaxgen.data.sources.pairs import TAKEN, places_of
from jaxgen.entry_point import Parser, a_path, entry_point
from jaxgen.errors import UserError, check_entry_name, shown
from jaxgen.files import (
    check_writable,
    check_writable_file,
    folder,
    is_remote,
    regular_file,
    strict_json,
    user_path,
    whole_file,
    write_bytes,
)
from jaxgen.files.pictures import SUFFIXES, open_image

Kind = Literal["canny", "edges", "soft"]
GIVEN = "given"  # the kind of hints that are there already


@dataclasses.dataclass(frozen=True)
class Contours:
    """Says how the hint of a picture is made.

    Attributes:
      kind: "canny" gives thin contours (Canny 1986, by scikit-image), "edges" the outlines of the corruption `edges`,
        and "soft" the strength of edges, as that corruption with threshold=0.
      sigma: the standard deviation in pixels of the blur before "canny".
      low, high: "canny" follows contours whose gradient is at least `low` from where it is at least `high`; a step from
        black to white has about 1.
      threshold: of the gradient, for "edges".

    Raises:
      UserError: a number is out of its range.
    """

    kind: Kind = "canny"
    sigma: float = 1.0
    low: float = 0.1
    high: float = 0.2
    threshold: float = 0.1

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise UserError(f"There is no kind of hint {self.kind!r}; choose one of {', '.join(get_args(Kind))}.")
        if self.sigma < 0 or not 0 <= self.low <= self.high or self.threshold <= 0:
            raise UserError(
                "Contours have sigma of at least 0, 0 <= low <= high, and a threshold above 0, not "
                f"sigma={self.sigma:g}, low={self.low:g}, high={self.high:g}, threshold={self.threshold:g}."
            )

    def __call__(self, image: UInt8[np.ndarray, "H W C"]) -> UInt8[np.ndarray, "H W"]:
        """Returns the hint of a picture of one or three channels, white on black."""
        grey = image @ LUMINANCE / 255 if image.shape[-1] == 3 else image.mean(-1) / 255
        if self.kind == "canny":
            found = _canny(grey.astype(np.float64), self.sigma, self.low, self.high)
        else:
            length = np.hypot(*(ndimage.sobel(grey, axis, mode="nearest") for axis in (0, 1))) / 4
            found = length >= self.threshold if self.kind == "edges" else np.minimum(length, 1)
        return np.round(found * 255.0).astype(np.uint8)


def _canny(grey: Float[np.ndarray, "H W"], sigma: float, low: float, high: float) -> Shaped[np.ndarray, "H W"]:
    try:
        from skimage.feature import canny
    except ImportError as error:
        raise UserError(
            "Contours by Canny's method are made by scikit-image, which is not installed: pip install 'jaxgen[hints]', "
            "or choose the kind 'edges' or 'soft'."
        ) from error
    found: np.ndarray = canny(grey, sigma=sigma, low_threshold=low, high_threshold=high, mode="nearest")
    return found


def make_hints(path: epath.PathLike, contours: Contours | None = None, entry: str = "hint") -> int:
    """Makes the hints of a folder's pictures, and has the folder's table name them; returns how many there are.

    Nothing is written unless every picture can be read.

    Args:
      path: a folder that `folder:<path>` or `pairs:<path>` reads.
      contours: how they are made; None means that they lie in the folder `entry` already, with the pictures' names and
        sizes, which is checked.
      entry: the entry of a batch that they become.

    Raises:
      UserError: a picture is damaged, two have one name up to the ending, there are hints already, or a given one is
        missing or of another size.
    """
    place = folder(user_path(path, "the folder of pictures"), "the folder of pictures")
    check_entry_name(entry, "--entry")
    if is_remote(place):
        raise UserError(f"{place} is in a store; hints are made of a folder on this machine.")
    if entry in (*TAKEN, *MAPS, "image"):
        raise UserError(f"--entry={entry} is an entry that is no hint; give another name, such as 'hint' or 'depth'.")
    listing = walk(place)
    hints = _places(listing, entry)
    if contours is None:
        hints = _given(listing, hints)
        in_threads(lambda name: _check_size(place / name, place / hints[name]), hints)
    else:
        hints = {name: f"{hint}.png" for name, hint in hints.items()}
        _check_free(place, hints, entry)
    tables = _tables(listing, hints, entry)
    if contours is not None:
        _write(place, hints, contours, entry)
    for table, text in tables.items():
        write_bytes(place / table, text.encode())
    return len(hints)


def _places(listing: Listing, entry: str) -> dict[str, str]:
    """Returns `{picture: its hint, without the ending}`; names are below the folder."""
    found: dict[str, str] = {}
    if pairs := places_of(listing):
        for split, files in pairs.items():
            start = f"{split}/" if split else ""
            found |= {name: f"{start}{entry}/{name[len(start) + len('image/') :]}" for name in files["image"]}
    elif table := metadata_of(listing):
        for name in table.listing.images:
            above = table.rows[name].folder if name in table.rows else None
            found |= {} if above is None else {name: f"{above}{entry}/{name[len(above) :]}"}
    else:
        found = {name: f"{entry}/{name}" for name in listing.images if not name.startswith(f"{entry}/")}
    if not found:
        raise UserError(f"{str(listing.folder)!r} has no pictures ({', '.join(SUFFIXES)}) to make hints of.")
    found = {name: os.path.splitext(hint)[0] for name, hint in found.items()}
    first: dict[str, str] = {}
    for name, hint in found.items():
        if hint in first:
            raise UserError(f"{shown(first[hint])} and {shown(name)} have one name up to the ending; rename one.")
        first[hint] = name
    return found


def _given(listing: Listing, hints: Mapping[str, str]) -> dict[str, str]:
    """Returns `{picture: its hint}` of hints that are there. Raises a UserError for one that is missing."""
    there: dict[str, str] = {}
    for name in listing.images:
        stem = os.path.splitext(name)[0]
        if stem in there and stem in hints.values():
            raise UserError(f"{shown(there[stem])} and {shown(name)} are both the hint of one picture; keep one.")
        there[stem] = name
    for name, hint in hints.items():
        if hint not in there:
            raise UserError(
                f"The picture {shown(name)} of {str(listing.folder)!r} has no hint {hint}.png; add it, or have a "
                f"{TABLE} name the pictures that are meant."
            )
    return {name: there[hint] for name, hint in hints.items()}


def _check_size(picture: epath.Path, hint: epath.Path) -> None:
    """Raises a UserError unless both can be read, and the hint has the picture's size."""
    sizes = []
    for path in (picture, hint):
        with path.open("rb") as opened, open_image(opened, repr(str(path))) as image:
            check_mode(image, own_channels(image), repr(str(path)), "a hint" if path == hint else "")
            sizes.append(upright_size(image, repr(str(path))))
    if sizes[0] != sizes[1]:
        (height, width), (rows, columns) = sizes
        raise UserError(
            f"The hint {str(hint)!r} has {columns}x{rows} pixels, and its picture {shown(picture.name)} "
            f"{width}x{height}; make them equal."
        )


def _check_free(place: epath.Path, hints: Mapping[str, str], entry: str) -> None:
    check_writable(place, "the folder of pictures")
    for top in _tops(hints, entry):
        if (place / top).exists():
            raise UserError(
                f"{str(place / top)!r} exists already; remove it, give another --entry, or use what is in it by "
                f"--kind={GIVEN}."
            )


def _tops(hints: Mapping[str, str], entry: str) -> list[str]:
    """Returns the folders of hints, `<entry>` or `<split>/<entry>`."""
    parts = [name.split("/") for name in hints.values()]
    return sorted({"/".join(words[: words.index(entry) + 1]) for words in parts})


def _tables(listing: Listing, hints: Mapping[str, str], entry: str) -> dict[str, str]:
    """Returns `{table: its text}` of the tables that name the hints; none for folders of pairs, which need none."""
    if places_of(listing):
        return {}
    columns = {entry: original for original, entry in NAMES.items()}
    column = columns.get(entry, entry) + FILE
    table = metadata_of(listing)
    if table is not None:
        return {name: with_column(listing, name, column, hints) for name in table.tables}
    kept = dataclasses.replace(listing, images=tuple(hints))
    folders = tuple(name for name in listing.folders if name != entry)
    kept = dataclasses.replace(kept, folders=folders)
    split = next((word for word in SPLITS if word in folders), "all")
    layout = layout_of(f"folder:{listing.folder}", kept, split)
    depth = 0 if split == "all" else 1  # class folders lie below those of the splits
    lines: list[dict[str, Any]] = []
    for name in sorted(hints):
        label = {"label": name.split("/")[depth]} if layout.classes else {}
        lines.append({"file_name": name, **label, column: hints[name]})
    return {TABLE: "".join(f"{strict_json(line)}\n" for line in lines)}


def _write(place: epath.Path, hints: Mapping[str, str], contours: Contours, entry: str) -> None:
    """Makes the hints in a hidden folder first, which then takes its place."""
    hidden = place / f".{entry}.{os.getpid()}.tmp"

    def make(name: str) -> None:
        _make_one(place / name, hidden / hints[name], contours)

    try:
        in_threads(make, hints)
        for top in _tops(hints, entry):
            os.replace(hidden / top, place / top)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _make_one(picture: epath.Path, hint: epath.Path, contours: Contours) -> None:
    data, where = picture.read_bytes(), repr(str(picture))
    with open_image(data, where) as image:
        channels = own_channels(image)
    pixels = np.asarray(load(data, channels, where))
    made = contours(pixels.reshape(*pixels.shape[:2], channels))
    with whole_file(hint) as file:
        Image.fromarray(made).save(file, "PNG")


@entry_point
def main(arguments: Sequence[str] | None = None) -> None:
    """Makes the hints and says where they are."""
    parser = Parser(prog="python -m jaxgen.data.hints", description="Makes the hints of a folder's pictures.")
    parser.add_argument("path", type=a_path("the folder of pictures"), help="a folder of pictures, or one picture")
    parser.add_argument("--kind", choices=(*get_args(Kind), GIVEN), default="canny", help="what the hints show")
    parser.add_argument("--entry", default="hint", help="the entry of a batch that they become")
    parser.add_argument("--out", type=a_path("--out"), help="the hint of one picture, a .png")
    for name, kind, words in OPTIONS:
        parser.add_argument(f"--{name}", type=_number(name), help=f"{words} (--kind={kind})")
    given = parser.parse_args(arguments)
    chosen = {name: getattr(given, name) for name, _, _ in OPTIONS if getattr(given, name) is not None}
    for name, kind, _ in OPTIONS:
        if name in chosen and given.kind != kind:
            raise UserError(f"--{name} is for --kind={kind}, and the kind is {given.kind!r}; leave it out.")
    contours = None if given.kind == GIVEN else Contours(given.kind, **chosen)
    if given.out is not None:
        _make_single(epath.Path(given.path), epath.Path(given.out), contours)
        print(given.out)
        return
    count = make_hints(given.path, contours, given.entry)
    print(f"{given.path}: {count:,} hints, the entry {given.entry!r}")


OPTIONS = (
    ("sigma", "canny", "standard deviation in pixels of the blur before it"),
    ("low", "canny", "least gradient of a contour that is followed"),
    ("high", "canny", "least gradient where a contour begins"),
    ("threshold", "edges", "least gradient of an edge"),
)


def _number(name: str) -> Any:
    def parse(text: str) -> float:
        try:
            return float(text)
        except ValueError as error:
            raise UserError(f"--{name}={text}: give a number.") from error

    return parse


def _make_single(picture: epath.Path, out: epath.Path, contours: Contours | None) -> None:
    if contours is None:
        raise UserError(f"--out is for a hint that is made, and --kind={GIVEN} makes none; leave one of them out.")
    if out.suffix.lower() != ".png":
        raise UserError(f"--out={out}: a hint is written as a PNG; give a name that ends in .png.")
    regular_file(picture, "the picture")
    check_writable_file(out, "--out")
    _make_one(picture, out, contours)


if __name__ == "__main__":
    sys.exit(main())
