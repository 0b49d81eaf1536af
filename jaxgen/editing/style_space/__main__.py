"""`python -m jaxgen.editing.style_space USE --workdir=RUN --out=FOLDER`: edits pictures with a run of StyleGAN.

USE is one of

    embed       --image: finds the code of each picture in Z, W or W+, and writes it as codes_<space>.npz
    morph       --codes: walks from the code of each picture to the next one, as a GIF
    mix         --codes: joins the coarse layers of each picture with the fine ones of each
    directions  finds directions in W, by principal components and by the classes of --classifier
    edit        --codes: moves the codes along a --direction, or as --after differs from --before

`images/<name>.png` are the results, and `panel_<USE>.png` shows them; with the run's own `samples` folder as --out, its
report shows the panel too.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from collections.abc import Sequence
from typing import Any

from etils import epath

from jaxgen.editing.style_space import commands
from jaxgen.editing.style_space.embedding import NOISE, RECIPES, SPACES, Embedding
from jaxgen.editing.style_space.model import open_run
from jaxgen.entry_point import Parser, a_path, add_trust, count, entry_point, seed
from jaxgen.errors import UserError
from jaxgen.files import check_writable, user_path
from jaxgen.files.pictures import picture_files
from jaxgen.host import use_compilation_cache
from jaxgen.metrics.networks.perceptual_loss import NAMES, open_perceptual
from jaxgen.metrics.networks.trained import TrainedClassifier


def _layers(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,3}):([0-9]{1,3})", text)
    if not found:
        raise UserError(f"--layers={text}: give the first layer that is moved and the first that is not, such as 0:4.")
    return int(found[1]), int(found[2])


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m jaxgen.editing.style_space", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    chosen = parser.add_subparsers(dest="use", required=True, metavar="USE")
    for use in commands.CAPTIONS:
        own = chosen.add_parser(use, help=commands.CAPTIONS[use])
        own.add_argument("--workdir", required=True, type=a_path("--workdir"), help="the folder of a run of stylegan2")
        own.add_argument("--out", required=True, type=a_path("--out"), help="the folder for the results")
        own.add_argument("--label", type=count("label", 0), help="the class that z is told, of a generator of classes")
        own.add_argument("--seed", type=seed, default=0)
        add_trust(own)
        if use in ("morph", "mix", "edit"):
            own.add_argument("--codes", required=True, type=a_path("--codes"), help="a file that `embed` wrote")
        _add_own(own, use)
    return parser


def _add_own(parser: argparse.ArgumentParser, use: str) -> None:
    """Adds the flags that one use alone has."""
    if use == "embed":
        parser.add_argument(
            "--image", action="append", required=True, metavar="PATH",
            help="a picture, or a folder of them; may be given several times",
        )  # fmt: skip
        parser.add_argument(
            "--space", action="append", default=[],
            help=f"{', '.join(SPACES)}; may be given several times, to compare; by default the recipe's own",
        )  # fmt: skip
        parser.add_argument("--recipe", default="projector", help=" or ".join(RECIPES))
        parser.add_argument("--steps", type=count("steps"), help="of the search; by default the recipe's own")
        parser.add_argument("--network", default="filters", help=f"whose features are compared: {', '.join(NAMES)}")
        parser.add_argument("--weights", default="", help="the classifier's file, or a folder with LPIPS' files")
        parser.add_argument("--noise", help=f"inputs: {', '.join(NOISE)}; by default the recipe's own")
    if use == "morph":
        parser.add_argument("--frames", type=count("frames", 2), default=9)
    if use == "mix":
        parser.add_argument("--layer", type=count("layer"), help="the first fine layer; by default half of them")
    if use == "directions":
        parser.add_argument("--num", type=count("num", 4), default=2000, help="how many random styles are looked at")
        parser.add_argument("--components", type=count("components"), default=8, help="principal components")
        parser.add_argument("--classifier", default="", help="a file of python -m jaxgen.evaluation.export_classifier")
    if use == "edit":
        parser.add_argument("--directions", default="", help="a file that `directions` wrote")
        parser.add_argument("--direction", default="", help="the name of one of them")
        parser.add_argument("--before", default="", help="the name of a picture among the codes, in place of them")
        parser.add_argument("--after", default="", help="the name of a picture that shows the change")
        parser.add_argument("--most", type=float, default=None, help="how far; by default 3 deviations, 1 difference")
        parser.add_argument("--layers", type=_layers, help="first:end of the layers that are moved; by default all")
        parser.add_argument("--frames", type=count("frames", 2), default=7)


def settings_of(recipe: str, spaces: Sequence[str], steps: int | None, noise: str | None) -> list[Embedding]:
    """Returns the settings of each space. Raises a UserError for an unknown recipe, space or way of noise."""
    if recipe not in RECIPES:
        raise UserError(f"--recipe={recipe}: there are {' and '.join(RECIPES)}.")
    changes: dict[str, Any] = {name: value for name, value in (("steps", steps), ("noise", noise)) if value is not None}
    base = dataclasses.replace(RECIPES[recipe], **changes)
    twice = [space for i, space in enumerate(spaces) if space in spaces[:i]]
    if twice:
        raise UserError(f"--space={twice[0]} is given twice; give it once.")
    return [dataclasses.replace(base, space=space) for space in spaces] or [base]


@entry_point
def main(arguments: Sequence[str] | None = None) -> None:
    """Draws, writes, and prints the numbers and the folder."""
    given = _parser().parse_args(arguments)
    files = [f for text in getattr(given, "image", ()) for f in picture_files(user_path(text, "--image"), "--image")]
    if given.use == "embed":
        settings = settings_of(given.recipe, given.space, given.steps, given.noise)
    elif given.use == "edit":
        most = given.most if given.most is not None else 1.0 if given.before else 3.0
        texts = given.directions, given.direction, given.before, given.after
        change = commands.Change(*texts, most, given.layers, given.frames)
    check_writable(given.out, "--out")
    use_compilation_cache()
    place = commands.Place(open_run(given.workdir, given.label, given.trust), epath.Path(given.out), given.seed)
    if given.use == "embed":
        loss = open_perceptual(given.network, place.model.network.image_shape, given.weights)
        numbers = commands.embedded(place, commands.read_pictures(files, place.model), loss, settings)
        for space, pictures in numbers.items():
            print(f"{space}: psnr", "  ".join(f"{name}: {values['psnr']:.2f}" for name, values in pictures.items()))
    elif given.use == "morph":
        commands.morphed(place, given.codes, given.frames)
    elif given.use == "mix":
        commands.mixed(place, given.codes, given.layer)
    elif given.use == "directions":
        classifier = TrainedClassifier(given.classifier) if given.classifier else None
        accuracies = commands.directions(place, given.num, given.components, classifier)
        print("accuracy", "  ".join(f"{name}: {value:.3f}" for name, value in accuracies.items()) or "not asked for")
    else:
        commands.edited(place, given.codes, change)
    print(epath.Path(given.out))


if __name__ == "__main__":
    sys.exit(main())
