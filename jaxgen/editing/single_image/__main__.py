"""`python -m jaxgen.editing.single_image USE --workdir=RUN --out=FOLDER`: uses a run of SinGAN, without training it.

USE is one of

    samples           new images of the picture, of any --size, or with its coarse scales kept (--start)
    super_resolution  the picture, or --image, enlarged --factor times
    paint             --image is a rough painting, which gets the looks of the picture
    style             --image is a photo, which gets the texture of the picture
    harmonise         --image is the picture with an object pasted into it, where --mask is white
    edit              --image is the picture with parts moved by hand, where --mask is white
    animation         a short clip that begins at the picture, as a GIF

`images/<name>.png` are the results, and `panel_<USE>.png` shows them beside what was given; with the run's own
`samples` folder as --out, its report shows the panel too.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence

from etils import epath

from jaxgen.editing.single_image import commands
from jaxgen.editing.single_image.uses import ALPHA, BETA
from jaxgen.entry_point import Parser, a_path, add_trust, count, entry_point, seed
from jaxgen.errors import UserError
from jaxgen.files import check_writable, user_path
from jaxgen.files.pictures import picture_files
from jaxgen.host import use_compilation_cache

INJECTED, BLENDED = ("paint", "style"), ("harmonise", "edit")


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text)
    if not found:
        raise UserError(f"--size={text} is no size: give <height>x<width> in pixels, such as --size=96x128.")
    return int(found[1]), int(found[2])


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m jaxgen.editing.single_image", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    chosen = parser.add_subparsers(dest="use", required=True, metavar="USE")
    for use in commands.CAPTIONS:
        own = chosen.add_parser(use, help=commands.CAPTIONS[use])
        own.add_argument("--workdir", required=True, type=a_path("--workdir"), help="the folder of a run of singan")
        own.add_argument("--out", required=True, type=a_path("--out"), help="the folder for the results")
        own.add_argument("--seed", type=seed, default=0)
        add_trust(own)
        if use != "super_resolution":
            own.add_argument("--num", type=count("num"), default=8 if use == "samples" else 1, help="how many draws")
        if use in (*INJECTED, *BLENDED, "super_resolution"):
            own.add_argument(
                "--image", action="append", default=[], metavar="PATH", required=use != "super_resolution",
                help="a picture of any size, or a folder of them; may be given several times",
            )  # fmt: skip
        if use in BLENDED:
            own.add_argument("--mask", required=True, metavar="PATH", help="a grey picture: white is drawn anew")
            own.add_argument(
                "--radius", type=count("radius", 0), help="pixels by which the mask is widened before it is blurred"
            )
        if use in (*INJECTED, *BLENDED):
            own.add_argument(
                "--scale", action="append", type=count("scale", 0), default=[],
                help="the scale that is given the image: the lower, the more is changed; by default each, in turn",
            )  # fmt: skip
        _add_own(own, use)
    return parser


def _add_own(parser: argparse.ArgumentParser, use: str) -> None:
    """Adds the flags that one use alone has."""
    if use == "samples":
        parser.add_argument("--size", type=_size, metavar="HxW", help="height and width of the images")
        parser.add_argument("--start", type=count("start", 0), default=0, help="coarse scales that are kept")
    if use == "super_resolution":
        parser.add_argument("--factor", type=float, default=4.0, help="of the sides, such as 4")
    if use == "animation":
        parser.add_argument("--frames", type=count("frames"), default=40)
        parser.add_argument("--start", type=count("start", 0), default=1, help="coarse scales that stand still")
        parser.add_argument("--alpha", type=float, default=ALPHA, help="how much it is drawn back to the picture")
        parser.add_argument("--beta", type=float, default=BETA, help="how steady its speed is")


@entry_point
def main(arguments: Sequence[str] | None = None) -> None:
    """Draws, writes, and prints the folder."""
    given = _parser().parse_args(arguments)
    files: list[epath.Path] = []
    for text in getattr(given, "image", ()):
        files += picture_files(user_path(text, "--image"), "--image")
    check_writable(given.out, "--out")
    use_compilation_cache()
    mask = user_path(given.mask, "--mask") if given.use in BLENDED else None
    run = commands.open_run(given.workdir, given.out, given.seed, given.trust)
    if given.use == "samples":
        commands.samples(run, given.num, given.size, given.start)
    elif given.use == "super_resolution":
        commands.super_resolution(run, files, given.factor)
    elif given.use == "animation":
        commands.animated(run, given.num, given.frames, given.start, given.alpha, given.beta)
    elif mask is None:
        commands.injected(run, given.use, files, given.scale, given.num)
    else:
        commands.blended(run, given.use, files, mask, given.scale, given.num, given.radius)
    print(epath.Path(given.out))


if __name__ == "__main__":
    sys.exit(main())
