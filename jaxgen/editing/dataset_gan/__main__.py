"""`python -m jaxgen.editing.dataset_gan USE --out=PLACE ...`: makes labelled data of a trained GAN.

USE is one of

    draw   --workdir, a run of a GAN: draws images to be labelled, with their codes; --out is a folder
    label  --codes, with --masks or an --annotator: joins images, codes and masks; --out is an .npz file
    pairs  --workdir, a run of segmentation on the GAN's layers that learned from that file: draws images with masks,
           drops the most uncertain ones and writes the others; --out is an .npz file

The files are data that `config.data.source=npz:FILE` reads.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from jaxgen.editing.dataset_gan import commands
from jaxgen.entry_point import Parser, a_path, add_trust, count, entry_point, seed
from jaxgen.errors import UserError
from jaxgen.files import check_writable, check_writable_file
from jaxgen.host import use_compilation_cache
from jaxgen.sampling.restore import restore_run


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m jaxgen.editing.dataset_gan", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    chosen = parser.add_subparsers(dest="use", required=True, metavar="USE")
    draw, label, pairs = (chosen.add_parser(use) for use in ("draw", "label", "pairs"))
    draw.add_argument("--workdir", required=True, type=a_path("--workdir"), help="the folder of a run of a GAN")
    draw.add_argument("--num", type=count("num"), default=16, help="how many images")
    draw.add_argument("--seed", type=seed, default=0)
    label.add_argument("--codes", required=True, type=a_path("--codes"), help="the codes.npz that `draw` wrote")
    label.add_argument("--masks", default="", help="a folder with 00000.png, 00001.png, ... of classes")
    label.add_argument("--annotator", default="", help="a run of a segmenter that labels in the place of a person")
    label.add_argument("--train", type=count("train"), help="images to learn from; the others are the split test")
    pairs.add_argument("--workdir", required=True, type=a_path("--workdir"), help="the folder of a run of segmentation")
    pairs.add_argument("--gan", default="", help="a run of a GAN, of an ensemble that reads no layers of one")
    pairs.add_argument("--num", type=count("num"), default=2000, help="how many pairs are drawn")
    pairs.add_argument("--drop", type=float, default=0.1, help="the share of them that is dropped")
    pairs.add_argument("--seed", type=seed, default=1, help="another one than that of `draw`")
    pairs.add_argument("--real", default="", help="a source whose real test images and masks become the split test")
    pairs.add_argument("--real_num", type=count("real_num"), default=500, help="how many of them")
    pairs.add_argument("--picture", default="", help="a PNG file for the most certain and the most uncertain pairs")
    for own in (draw, label, pairs):
        own.add_argument("--out", required=True, type=a_path("--out"), help="where the results are written")
        add_trust(own)
    return parser


def _label(given: argparse.Namespace) -> None:
    if bool(given.masks) == bool(given.annotator):
        raise UserError("Images are labelled by --masks or by an --annotator: give one of the two.")
    arrays = commands.read_codes(given.codes)
    if given.masks:
        masks = commands.read_masks(given.masks, arrays["image"])
    else:
        found = restore_run(given.annotator, given.trust, "--annotator")
        masks = commands.annotated(found, arrays["image"])
    train = given.train or len(masks)
    commands.write_arrays(given.out, commands.labelled(arrays, masks, train))
    print(f"{train} labelled images to learn from, {len(masks) - train} held out, {len(arrays['image'])} drawn")


def _pairs(given: argparse.Namespace) -> None:
    if not 0 <= given.drop < 1:
        raise UserError(f"--drop={given.drop:g}: give a share from 0 to below 1.")
    found = restore_run(given.workdir, given.trust, "--workdir")
    labeller = commands.labeller_of(found)
    if given.gan:
        painter = commands.painter_of(restore_run(given.gan, given.trust, "--gan"))
    else:
        painter = commands.painter_behind(found)
    if tuple(painter.gan.image_shape) != tuple(labeller.image_shape):
        raise UserError(f"--gan draws {painter.gan.image_shape}, and the ensemble sees {labeller.image_shape}.")
    real = commands.held_out(given.real, given.real_num, labeller.image_shape) if given.real else {}
    pairs = commands.on_one_device(painter, labeller, found, given.seed, given.num)
    kept = pairs.certain(given.drop)
    commands.write_arrays(given.out, {**commands.pair_arrays(pairs, kept), **real})
    if given.picture:
        commands.save_picture(given.picture, pairs)
    shares = np.bincount(pairs.masks[kept].ravel(), minlength=labeller.classes) / pairs.masks[kept].size
    print(f"{given.num} pairs drawn, {int((~kept).sum())} dropped, {int(kept.sum())} written")
    print("pixels of each class", "  ".join(f"{number}: {share:.3f}" for number, share in enumerate(shares)))


@entry_point
def main(arguments: Sequence[str] | None = None) -> None:
    """Makes and writes, and prints the counts and the place."""
    given = _parser().parse_args(arguments)
    (check_writable if given.use == "draw" else check_writable_file)(given.out, "--out")
    use_compilation_cache()
    if given.use == "draw":
        commands.draw(
            commands.painter_of(restore_run(given.workdir, given.trust, "--workdir")), given.num, given.seed,
            given.out,
        )  # fmt: skip
        print(f"{given.num} images to be labelled")
    else:
        (_label if given.use == "label" else _pairs)(given)
    print(given.out)


if __name__ == "__main__":
    sys.exit(main())
